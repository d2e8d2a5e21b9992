"""The words that recipes, targets and cards share.

Unknown keys are refused.  Units stand in the names; ``"512 KiB"`` is turned into bytes here and nowhere else.
``pipeline.catalog`` reads the files and turns a refusal into an error with file, table, key and the nearest valid key.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

OptionValue = bool | int | float | str
Precision = Literal["int8", "fp32"]
RuntimeName = Literal["onnxruntime", "litert", "tflite-runtime"]

_SIZE_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def _parse_size(value: object) -> object:
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"\s*([0-9.]+)\s*([A-Za-z]+)\s*", value)
    if not match or match[2].upper() not in _SIZE_UNITS:
        raise ValueError(f"'{value}' is not a size; write bytes or for example \"512 KiB\"")
    size = float(match[1]) * _SIZE_UNITS[match[2].upper()]
    return int(min(size, 2 * _LARGEST_SIZE))  # too large is refused below; infinity is no int


_LARGEST_SIZE = 1 << 60
SizeBytes = Annotated[int, BeforeValidator(_parse_size), Field(ge=0, le=_LARGEST_SIZE)]
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
