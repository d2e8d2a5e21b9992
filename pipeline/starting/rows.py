"""Rows of a table for a network that is there already: which columns it takes, and which one says what is right.

The network says how many values a sample has; columns are tried until they are as many: all of them, all but one that
is named like a label, all but the last, each with and without those that only number the rows.

Shapes: N rows, F values of a sample.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.files import Found
from pipeline.data.folders import in_number_order
from pipeline.data.kinds import csv
from pipeline.data.source import INPUT, everything
from pipeline.data.table import Table, is_missing, read_table
from pipeline.declare.card import DatasetCard, InputSpec
from pipeline.errors import ConfigError
from pipeline.onboard.arrays import TensorSpec
from pipeline.onboard.frontend import run_steps
from pipeline.starting import pictures
from pipeline.starting.given import Given, Task, ends, places, task_of, why_not
from pipeline.starting.seen import Columns
from pipeline.starting.tables import are_numbers, cells_of, columns_of, files_of, is_class, named_like_labels

_SUFFIXES = (".csv", ".tsv")


def tables_at(place: Path) -> dict[str, Path]:
    """Return role → table: of a file, or of a folder that holds one or one for each split; {} for anything else."""
    if place.is_file():
        return {"all": place} if place.suffix.lower() in _SUFFIXES else {}
    if pictures.are_in(place) or pictures.lie_flat(place):
        return {}
    found = {each.stem.lower(): each for each in sorted(place.iterdir()) if each.suffix.lower() in _SUFFIXES}
    return files_of(found) or ({"all": next(iter(found.values()))} if len(found) == 1 else {})


def rows_by(files: Mapping[str, Path], inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> Given:
    """Return the rows of tables for a network with these inputs and outputs.

    Raises ConfigError where no columns give as many values as a sample has, DataError for damaged files.
    """
    tables = {role: read_table(file) for role, file in files.items()}
    first = next(iter(tables.values()))
    if len(inputs) > 1:
        what = f"the network takes {ends(inputs)}, and the rows of a table are one input"
        raise ConfigError(what, where="--data", remedy="save an .npz file with an array for each input, under its name")
    taken = _taken(tables, math.prod(inputs[0].shape))
    columns = taken.columns
    said = f"{len(first.rows):,} rows, {columns.summary}"
    task: Task = "agreement"
    if columns.answer:
        task = task_of(_labels(first, columns.answer, outputs), len(first.rows), outputs)
    if task != "agreement":
        return Given(
            task=task,
            kind="csv",
            place=first.path,
            samples=len(first.rows),
            divide=1,
            said=f"{said}, '{columns.answer}' says what is right",
            files=files,
            columns=columns,
            categories=taken.categories,
        )
    x = _values(first, taken)
    some = places(len(x), x[:1].nbytes)
    why = why_not(columns.answer or None, outputs)
    return Given(
        task=task, kind="npz", place=first.path, samples=len(some), divide=1, said=f"{said}, {why}",
        inputs={"x": x[some]},
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class _Taken:
    """What becomes of the columns."""

    columns: Columns  # ``answer`` "": none says what is right
    categories: Mapping[str, tuple[str, ...]]

    @property
    def values(self) -> int:
        return self.columns.features - len(self.categories) + sum(map(len, self.categories.values()))


def _taken(tables: Mapping[str, Table], values: int) -> _Taken:
    first = next(iter(tables.values()))
    tried = []
    for columns in _ways(first):
        words = {name: _words(tables, name) for name in columns.categories}
        tried.append(_Taken(columns=columns, categories=words))
        if tried[-1].values == values:
            return tried[-1]
    raise ConfigError(
        f"{first.path} has {len(first.header)} columns, and the network takes {values} values",
        where="--data",
        remedy="take columns away that are no inputs, all but one that says what is right; "
        f"columns of words are a value for each word, which makes {tried[0].values} here",
    )


def _ways(table: Table) -> Iterator[Columns]:
    """Yield what the columns can be for, the likeliest first."""
    answers = dict.fromkeys((None, *named_like_labels(table), table.header[-1]))
    for answer in answers:
        yield columns_of(table, answer, numbering=True)
        yield columns_of(table, answer)


def _words(tables: Mapping[str, Table], name: str) -> tuple[str, ...]:
    cells = {cell for table in tables.values() for cell in table.column(name, "--data") if not is_missing(cell)}
    return tuple(in_number_order(cells))


def _labels(table: Table, answer: str, outputs: Sequence[TensorSpec]) -> NDArray[Any]:
    """Return classes as whole numbers from 0, else the numbers to predict, (N,)."""
    cells = cells_of(table, answer)
    words = tuple(in_number_order(set(cells)))
    amounts = [each.shape for each in outputs] == [(1,)] and len(words) > 2 and are_numbers(cells)
    if is_class(cells) and not amounts:
        return np.array([words.index(cell) for cell in table.filled_column(answer, "--data")])
    return table.numbers([answer], "--data")[:, 0]


def _values(table: Table, taken: _Taken) -> NDArray[Any]:
    """Return what a card makes of the rows, (N, F), before anything is scaled."""
    columns = taken.columns
    left_out = (*columns.ignored, *filter(None, [columns.answer]))
    own = csv.Spec(
        ignored_columns=left_out, categories=dict(taken.categories), missing="median" if columns.gaps else "refuse"
    )
    card = DatasetCard(name="rows", title="", kind="csv", input=InputSpec(normalize="none"))
    parts = csv.load(card, own, Found(beside=table.path.parent, files={"all": table.path}), None)
    rows = parts.train.read(everything(parts.train)).inputs[INPUT]
    return run_steps(rows, parts.own_steps(parts.train) if parts.own_steps is not None else ())
