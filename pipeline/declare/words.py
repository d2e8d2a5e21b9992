"""The words that recipes, targets and cards share.

Unknown keys are refused.  Units stand in the names; ``"512 KiB"`` is turned into bytes here and nowhere else.
``pipeline.catalog`` reads the files and turns a refusal into an error with file, table, key and the nearest valid key.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

OptionValue = bool | int | float | str
Precision = Literal["int8", "fp32"]
RuntimeName = Literal["onnxruntime", "litert", "tflite-runtime"]

_SIZE_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def _parse_size(value: object) -> object:
    if isinstance(value, bool):
        raise PydanticCustomError("int_type", "a whole number")
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"\s*([0-9]+\.?[0-9]*|\.[0-9]+)\s*([A-Za-z]+)\s*", value)
    if not match or match[2].upper() not in _SIZE_UNITS:
        raise ValueError(f"'{value}' is not a size; write bytes or for example \"512 KiB\"")
    size = float(match[1]) * _SIZE_UNITS[match[2].upper()]
    return int(min(size, 2 * LARGEST_SIZE))  # too large is refused below; infinity is no int


LARGEST_SIZE = 1 << 60
SizeBytes = Annotated[int, BeforeValidator(_parse_size), Field(ge=0, le=LARGEST_SIZE)]
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
MOST = 1_000_000  # of anything that is counted in a recipe: more is a slip of the finger
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # what every random generator in use takes


def _each_once(names: tuple[str, ...]) -> tuple[str, ...]:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"'{twice[0]}' stands there twice")
    return names


Classes = Annotated[tuple[str, ...], AfterValidator(_each_once)]


class Spec(BaseModel):
    """Root of all declared things: immutable, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _numbers_are_written_as_numbers(cls, value: object, info: ValidationInfo) -> object:
        """Refuse what pydantic would make a number of: true, and text such as "1_000"."""
        field = cls.model_fields[info.field_name or ""]
        asked = {object} if _has_own_reading(field.metadata) else _leaves(field.annotation)
        if not asked & {int, float} or asked & {bool, str, object}:
            return value
        if isinstance(value, list | tuple | dict):
            if any(map(_is_no_number, value.values() if isinstance(value, dict) else value)):
                raise ValueError("expected numbers alone, without quotes")
        elif _is_no_number(value):
            raise PydanticCustomError("float_type" if float in asked else "int_type", "a number")
        return value


def _is_no_number(value: object) -> bool:
    if not isinstance(value, str):
        return isinstance(value, bool)
    try:
        float(value)
    except ValueError:
        return False  # a word: pydantic knows whether it may stand there
    return True


def _leaves(annotation: Any) -> set[Any]:
    """Return the types that a value, or one in a list or table of it, may have; words of a Literal are none."""
    if get_origin(annotation) is Literal:
        return set()
    if get_origin(annotation) is Annotated:
        inner, *metadata = get_args(annotation)
        return {object} if _has_own_reading(metadata) else _leaves(inner)
    args = get_args(annotation)
    return set().union(*map(_leaves, args)) if args else {annotation}


def _has_own_reading(metadata: Sequence[object]) -> bool:
    return any(isinstance(one, BeforeValidator) for one in metadata)
