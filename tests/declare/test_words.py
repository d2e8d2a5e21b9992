"""What a key of any declared thing takes: numbers written as numbers, within their limits; sizes with their units."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter, ValidationError

from pipeline import catalog
from pipeline.declare.card import DatasetCard
from pipeline.declare.recipe import Recipe
from pipeline.declare.target import TargetProfile
from pipeline.declare.words import Classes, SizeBytes
from pipeline.errors import ConfigError
from tests.declared import CARD, RECIPE, TARGET, write
from tests.declared import work as work  # noqa: PLC0414  a fixture

SIZE: TypeAdapter[int] = TypeAdapter(SizeBytes)
DECLARED: dict[str, tuple[type[BaseModel], str, Callable[[str], object]]] = {
    "recipe": (Recipe, RECIPE, catalog.load_recipe),
    "card": (DatasetCard, CARD, catalog.load_card),
    "target": (TargetProfile, TARGET, catalog.load_target),
}
WRONG = ["true", '"1_0"', "inf", "nan", "1979-05-27", "[[1]]", "{ a = 1 }", "-1", "99999999999999999999999"]
MAY_BE_NEGATIVE = {"min", "max", "mean"}  # a metric's limits, and what is subtracted
MAY_BE_HUGE = {"learning_rate", "weight_decay", "noise", "margin_pp", "divide", "mean", "std", "clip", "target_divide"}
MAY_BE_HUGE |= {"accuracy_drop_pp", "latency_p95_ms", "min", "max", "worse_by", "worse_by_percent", "val", "test"}


def _number_keys(model: type[BaseModel], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the path of every key that takes a number; of tables by name, under the name ``any``."""
    for name, field in model.model_fields.items():
        inner = [each for each in _types(field.annotation) if isinstance(each, type) and issubclass(each, BaseModel)]
        named = "dict" in str(field.annotation)
        for each in inner:
            yield from _number_keys(each, (*above, name, "any") if named else (*above, name))
        found = set(_types(field.annotation))
        if not inner and not named and found & {int, float} and not found & {bool, str}:
            yield (*above, name)


def _types(annotation: Any) -> Iterator[Any]:
    yield annotation
    for each in get_args(annotation):
        yield from _types(each)


def _keys(table: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _keys(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _with(text: str, key: str, value: str) -> str:
    """Return the text with one key that has this value."""
    kept = {name: json.dumps(each) for name, each in _keys(tomllib.loads(text)) if name != key}
    return "".join(f"{name} = {each}\n" for name, each in {**kept, key: value}.items())


KEYS = [(kind, key) for kind, (model, _, _) in DECLARED.items() for key in _number_keys(model)]


@pytest.mark.parametrize(("kind", "key"), KEYS, ids=lambda each: ".".join(each) if isinstance(each, tuple) else each)
def test_every_number_is_a_number_within_its_limits(kind: str, key: tuple[str, ...], work: Path) -> None:
    _, text, load = DECLARED[kind]
    for value in WRONG:
        if (value == "-1" and key[-1] in MAY_BE_NEGATIVE) or (value.startswith("999") and key[-1] in MAY_BE_HUGE):
            continue
        write(work / "wrong.toml", _with(text, ".".join(key), value))
        with pytest.raises(ConfigError) as refused:
            load("wrong.toml")
        assert key[-1] in str(refused.value), value
        assert str(refused.value).startswith("wrong.toml: ")


def test_the_keys_above_are_those_that_there_are() -> None:
    found = {(kind, ".".join(key)) for kind, key in KEYS}
    assert found >= {("recipe", "train.augment.noise"), ("card", "inputs.any.std"), ("target", "cpu.l1d_bytes")}
    assert len(found) > 60


@pytest.mark.parametrize(
    ("written", "size_bytes"),
    [("512 KiB", 1 << 19), ("1.5kib", 1536), (" 3 MB ", 3_000_000), (".5 GiB", 1 << 29), ("2. KB", 2000), (7, 7)],
)
def test_sizes(written: str | int, size_bytes: int) -> None:
    assert SIZE.validate_python(written) == size_bytes


@pytest.mark.parametrize("written", ["5", "KiB", "1.2.3 KB", ". KB", "-1 KB", "1e3 KB", "1 kilobyte", "٣ KB", ""])
def test_what_is_no_size_is_refused_in_words(written: str) -> None:
    with pytest.raises(ValidationError, match="is not a size; write bytes or for example"):
        SIZE.validate_python(written)


@pytest.mark.parametrize("written", ["1" * 400 + " GiB", 1 << 61, -1, 3.5, True, None])
def test_sizes_that_nothing_has_are_refused(written: object) -> None:
    with pytest.raises(ValidationError):
        SIZE.validate_python(written)


@given(st.lists(st.text(max_size=3), max_size=6))
def test_classes_stand_there_once(names: list[str]) -> None:
    classes: TypeAdapter[tuple[str, ...]] = TypeAdapter(Classes)
    if len(set(names)) == len(names):
        assert classes.validate_python(names) == tuple(names)
    else:
        with pytest.raises(ValidationError, match="stands there twice"):
            classes.validate_python(names)
