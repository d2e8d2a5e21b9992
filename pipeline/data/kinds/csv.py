"""Tables in CSV files: one sample per row; columns are named in the first row.

Role "all", or "train" and optionally "val" and "test".  One column holds the class (a name, or a number from 0 where
the card names the classes), or some hold numbers to predict.  All others are features, in their order, as float32:
numbers as they are, categories as codes.  What is missing is filled in, and codes become columns of 0 and 1, in the
declared preprocessing, so that the device does the same.

Shapes: N rows, F feature columns, T numbers to predict.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, JsonValue

from pipeline.data.checks import MOST_CLASSES, checked_numbers, missing_files, numbered_groups, several_inputs
from pipeline.data.files import Found
from pipeline.data.folders import in_number_order
from pipeline.data.source import INPUT, ArraySource, Indices, Parts, Source, Wanted, everything
from pipeline.data.table import Table, is_missing, read_table, same_columns
from pipeline.declare import words
from pipeline.declare.card import DatasetCard
from pipeline.errors import DataError, nearest
from pipeline.onboard.about import Column
from pipeline.onboard.arrays import Arrays
from pipeline.onboard.frontend import StepCall

_SPLITS = ("train", "val", "test")
_WHOLE_NUMBER = re.compile(r"[0-9]{1,9}")
_NO_CATEGORY = -1.0  # no code is that: all of its columns stay 0


class Spec(words.Spec):
    """What only a card of tables says."""

    label_column: str | None = None  # holds the class
    target_columns: tuple[str, ...] = ()  # hold the numbers to predict
    group_column: str | None = None  # holds the speaker, subject, machine …: stays in one split
    ignored_columns: tuple[str, ...] = ()
    # column → its categories in the order of their codes; "auto" or []: those that the training split holds
    categories: dict[str, tuple[str, ...] | Literal["auto"]] = Field(default_factory=dict)
    missing: Literal["refuse", "median"] | float = "refuse"  # the median is that of the training split


def missing(card: DatasetCard, own: Spec, wanted: Wanted | None) -> str:
    """Say what the card needs and has not; empty when it has all."""
    if wanted == "class" and own.label_column is None:
        return "kind = \"csv\" needs 'label_column': the name of the column that holds the class"
    if wanted == "number" and not own.target_columns:
        return "kind = \"csv\" needs 'target_columns': the names of the columns that hold the numbers to predict"
    if wanted in ("mask", "output"):
        return f"kind = \"csv\" holds no {wanted}s, which the task '{card.task}' learns from"
    if (own.categories or own.missing != "refuse") and len(card.input.shape) > 1:
        return "[input] shape: 'categories' and 'missing' are for rows of a table, shape = [columns]"
    return several_inputs(card) or missing_files(card)


def content(card: DatasetCard, own: Spec, found: Found) -> JsonValue:
    """Return nothing: all that the samples depend on stands in [files]."""
    del card, own, found
    return {}


@dataclass(frozen=True, kw_only=True)
class _Columns:
    """What the columns of the tables are."""

    features: tuple[str, ...]
    categories: Mapping[str, tuple[str, ...]]  # feature → its categories by code
    numbers: tuple[str, ...]  # the other features

    def at(self, name: str) -> int:
        return self.features.index(name)


def load(card: DatasetCard, own: Spec, found: Found, wanted: Wanted | None) -> Parts:
    """Return what the card's tables hold: samples (N, *shape) float32, features in the order of the columns.

    Raises DataError naming file, line and column; ConfigError when the card names no file.
    """
    names = [split for split in _SPLITS if split in found.files] if "train" in found.files else ["all"]
    tables = {name.replace("all", "train"): read_table(found.file(card, name)) for name in names}
    same_columns(tables, tables["train"].header)
    columns = _columns(tables, own)
    classes = _classes(tables, card, own) if wanted == "class" else ()
    groups = _groups(tables, own)
    sources = {}
    for split, table in tables.items():
        labels = _labels(table, classes, card, own, wanted)
        inputs = {INPUT: _features(table, columns, card, own)}
        sources[split] = ArraySource(inputs=inputs, labels=labels, strata=labels.get("class"), groups=groups.get(split))
    return Parts(
        classes=classes,
        train=sources["train"],
        val=sources.get("val"),
        test=sources.get("test"),
        columns=tuple(Column(name, columns.categories.get(name, ())) for name in columns.features),
        numbers=own.target_columns if wanted == "number" else (),
        own_steps=functools.partial(_steps, own=own, columns=columns) if _has_steps(own) else None,
        places={split: str(table.path) for split, table in tables.items()},
    )


def _has_steps(own: Spec) -> bool:
    return bool(own.categories) or own.missing != "refuse"


# ── features ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _columns(tables: Mapping[str, Table], own: Spec) -> _Columns:
    first = tables["train"]
    for key, names in _named_in_card(own).items():
        for name in names:
            first.column(name, key)  # refuses one that is not there
    taken = {name for key, names in _named_in_card(own).items() if key != "[categories]" for name in names}
    features = tuple(name for name in first.header if name not in taken)
    categories = {
        name: known if known and known != "auto" else _categories_of(tables, name)
        for name, known in own.categories.items()
    }
    return _Columns(
        features=features,
        categories=categories,
        numbers=tuple(name for name in features if name not in categories),
    )


def _named_in_card(own: Spec) -> dict[str, tuple[str, ...]]:
    return {
        "label_column": () if own.label_column is None else (own.label_column,),
        "target_columns": own.target_columns,
        "group_column": () if own.group_column is None else (own.group_column,),
        "ignored_columns": own.ignored_columns,
        "[categories]": tuple(own.categories),
    }


def _categories_of(tables: Mapping[str, Table], name: str) -> tuple[str, ...]:
    found = {cell for table in tables.values() for cell in table.column(name, "[categories]") if not is_missing(cell)}
    if len(found) > MOST_CLASSES:
        raise _too_many(tables["train"], f"the column '{name}'", len(found), "list its categories in the card")
    return tuple(in_number_order(found))


def _features(table: Table, columns: _Columns, card: DatasetCard, own: Spec) -> NDArray[np.float32]:
    """Return the samples (N, *shape); (N, F) where steps of preprocessing are to come."""
    may_miss = own.missing != "refuse"
    values = np.empty((len(table.rows), len(columns.features)), dtype=np.float32)  # (N, F)
    numbers = [columns.at(name) for name in columns.numbers]
    values[:, numbers] = table.numbers(columns.numbers, "the columns", may_miss=may_miss)
    for name, known in columns.categories.items():
        values[:, columns.at(name)] = table.codes(name, known, may_miss=may_miss)
    return values if _has_steps(own) else _shaped(values, table, columns, card)


def _shaped(values: NDArray[np.float32], table: Table, columns: _Columns, card: DatasetCard) -> NDArray[np.float32]:
    """Return the rows in the shape that the card gives to a sample: a row of pixels is a picture."""
    shape, count = card.input.shape or (len(columns.features),), len(columns.features)
    if math.prod(shape) != count:
        raise DataError(
            f"has {count} feature columns, expected {math.prod(shape)} for [input] shape = {list(shape)}",
            where=str(table.path),
            remedy=f"set shape = [{count}] in the card, or correct the columns; "
            f"found {', '.join(columns.features[:20])}",
        )
    return values.reshape(-1, *shape)


def _steps(train: Source, *, own: Spec, columns: _Columns) -> tuple[StepCall, ...]:
    """Return how missing values are filled and categories spread out; both are found on the training split."""
    rows = train.read(everything(train)).inputs[INPUT]  # (N, F)
    steps = []
    if own.missing != "refuse":
        values = [_filled_with(name, rows[:, columns.at(name)], own, columns) for name in columns.features]
        steps.append(StepCall("fill", {"values": values}))
    if columns.categories:
        places = sorted(columns.at(name) for name in columns.categories)
        codes = [_codes(columns.features[place], rows[:, place], own, columns) for place in places]
        steps.append(StepCall("one_hot", {"columns": places, "codes": codes}))
    return tuple(steps)


def _filled_with(name: str, values: NDArray[np.float32], own: Spec, columns: _Columns) -> float:
    if name in columns.categories:
        return _NO_CATEGORY
    if isinstance(own.missing, float):
        return own.missing
    known = values[~np.isnan(values)].astype(np.float64)
    if not known.size:
        raise DataError(
            f"column '{name}' has no value in the training split: there is no median",
            remedy="name it in ignored_columns of the card",
        )
    return float(np.float32(np.median(known)))


def _codes(name: str, values: NDArray[np.float32], own: Spec, columns: _Columns) -> list[int]:
    """Return the codes that get a column: all that the card lists, else those that training can learn something of."""
    declared = own.categories[name]
    if declared and declared != "auto":
        return list(range(len(columns.categories[name])))
    return [int(code) for code in np.unique(values[~np.isnan(values)])]


# ── labels ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _labels(table: Table, classes: tuple[str, ...], card: DatasetCard, own: Spec, wanted: Wanted | None) -> Arrays:
    if wanted == "class":
        return {"class": _numbered(table, classes, own.label_column or "")}
    if wanted == "number":
        numbers = table.numbers(own.target_columns, "target_columns")
        return {"number": checked_numbers(numbers, len(table.rows), card.target_divide, str(table.path))}
    return {}


def _groups(tables: Mapping[str, Table], own: Spec) -> dict[str, Indices]:
    if own.group_column is None:
        return {}
    names = {split: np.array(table.filled_column(own.group_column, "group_column")) for split, table in tables.items()}
    return numbered_groups(names, {split: len(table.rows) for split, table in tables.items()}, own.group_column)


def _classes(tables: Mapping[str, Table], card: DatasetCard, own: Spec) -> tuple[str, ...]:
    """Return the card's classes, or the labels that occur: as numbers if all are numbers, else by the alphabet."""
    found = {label for table in tables.values() for label in _labels_in(table, own.label_column or "")}
    if card.classes:
        return card.classes
    if len(found) > MOST_CLASSES:
        remedy = "is it really the column of the classes?"
        raise _too_many(tables["train"], "the label column", len(found), remedy)
    return tuple(in_number_order(found))


def _labels_in(table: Table, column: str) -> tuple[str, ...]:
    return table.filled_column(column, "label_column")


def _too_many(table: Table, subject: str, count: int, remedy: str) -> DataError:
    return DataError(
        f"{subject} holds {count:,} different values, expected at most {MOST_CLASSES:,}",
        where=str(table.path),
        remedy=remedy,
    )


def _numbered(table: Table, classes: tuple[str, ...], column: str) -> Indices:
    """Return the labels as indices into ``classes``."""
    labels = _labels_in(table, column)
    found = set(labels)
    index = {name: number for number, name in enumerate(classes)}
    if not found <= set(index) and all(_WHOLE_NUMBER.fullmatch(label) for label in found):
        index = {label: int(label) for label in found if int(label) < len(classes)}
    for line, label in zip(table.lines, labels, strict=True):
        if label not in index:
            raise DataError(
                f"the label '{label}' is no class{nearest(label, classes[:20])}",
                where=f"{table.path}:{line}",
                remedy=f"write a class name or a number 0 … {len(classes) - 1}, or correct the card's classes",
            )
    return np.array([index[label] for label in labels], dtype=np.int64)
