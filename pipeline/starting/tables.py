"""A table: which column is to be predicted, and what the others are for."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pipeline.data.table import Table, is_missing, read_table
from pipeline.errors import ConfigError, nearest
from pipeline.starting.seen import Columns, Seen

# what the column to predict is called where somebody gave it a name
_ANSWERS = ("label", "labels", "class", "target", "y", "category", "species", "diagnosis", "outcome", "survived")
_MOST_CLASSES_OF_NUMBERS = 20  # more different whole numbers than that are amounts, not classes
_MOST_CATEGORIES = 50
_WHOLE = re.compile(r"[+-]?[0-9]{1,15}")
_SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


def files_of(tabled: Mapping[str, Path]) -> dict[str, Path]:
    """Return role → file where tables are named after the splits; {} where they are not."""
    files = {_SPLITS[name]: file for name, file in tabled.items() if name in _SPLITS}
    return files if "train" in files else {}


def look(files: Mapping[str, Path], label: str | None, choose: Callable[[tuple[str, ...], str], str]) -> Seen:
    """Return what a table holds.  Raises ConfigError for a ``label`` that is no column, DataError for bad files."""
    first = next(iter(files.values()))
    table = read_table(first)
    answer = _checked(label, table) if label is not None else _answer(table, choose)
    used = {role: file for role, file in files.items() if file == first or answer in read_table(file).header}
    cells = _cells(table, answer)
    is_class = _is_class(cells)
    counts = Counter(cells) if is_class else Counter[str]()
    columns = _columns(table, answer)
    predicted = f"{len(counts)} classes in '{answer}'" if is_class else f"the number '{answer}' to predict"
    return Seen(
        kind="csv",
        task="classification" if is_class else "regression",
        place=first if len(files) == 1 else first.parent,
        samples=len(table.rows),
        summary=f"{len(table.rows):,} rows, {columns.features} columns of features, {predicted}",
        per_class=tuple(counts.values()),
        own_splits=tuple(role for role in used if role in ("val", "test")),
        files=used,
        columns=columns,
    )


def _cells(table: Table, name: str) -> tuple[str, ...]:
    """Return the cells of a column, numbers with points."""
    cells = table.column(name, "--label")
    return tuple(cell.replace(",", ".") for cell in cells) if table.decimal_comma else cells


def _checked(label: str, table: Table) -> str:
    if label not in table.header:
        what = f"{table.path} has no column '{label}'{nearest(label, table.header)}"
        raise ConfigError(what, where="--label", remedy="name the column that is to be predicted")
    return label


def _answer(table: Table, choose: Callable[[tuple[str, ...], str], str]) -> str:
    named = [name for name in table.header if name.lower() in _ANSWERS]
    if len(named) == 1:
        return named[0]
    return _checked(choose(table.header, named[0] if named else table.header[-1]), table)


def _is_class(cells: Sequence[str]) -> bool:
    different = {cell for cell in cells if not is_missing(cell)}
    if all(_WHOLE.fullmatch(cell) for cell in different):
        return len(different) <= _MOST_CLASSES_OF_NUMBERS
    return not all(_is_number(cell) for cell in different)


def _columns(table: Table, answer: str) -> Columns:
    ignored: list[str] = []
    categories: list[str] = []
    gaps = False
    others = [name for name in table.header if name != answer]
    for name in others:
        cells = _cells(table, name)
        known = [cell for cell in cells if not is_missing(cell)]
        if not known or _only_names_rows(name, known):
            ignored.append(name)
            continue
        if not all(_is_number(cell) for cell in known):
            few = len(set(known)) <= min(_MOST_CATEGORIES, max(2, len(known) // 4))
            (categories if few else ignored).append(name)
        gaps |= name not in ignored and len(known) < len(cells)
    features = len(others) - len(ignored)
    if not features:
        raise ConfigError(
            f"{table.path} has no column to predict '{answer}' from",
            where="init",
            remedy="is it a table with one row per sample and numbers in its columns?",
        )
    return Columns(answer=answer, ignored=tuple(ignored), categories=tuple(categories), gaps=gaps, features=features)


def _only_names_rows(name: str, cells: Sequence[str]) -> bool:
    """Tell whether a column numbers the rows or gives each a name of its own."""
    if len(set(cells)) < len(cells) or len(cells) < 2:
        return False
    if all(_WHOLE.fullmatch(cell) for cell in cells):
        numbers = [int(cell) for cell in cells]
        counted = all(after - before == 1 for before, after in itertools.pairwise(numbers))
        return counted or name.lower() in ("id", "index", "no", "nr", "")
    return not all(_is_number(cell) for cell in cells)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
