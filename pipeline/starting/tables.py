"""A table: which column is to be predicted, and what the others are for."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from pipeline.data.table import Table, is_missing, read_table
from pipeline.errors import ConfigError, nearest
from pipeline.starting.seen import Columns, Seen

# what the column to predict is called where somebody gave it a name
_ANSWERS = ("label", "labels", "class", "target", "y", "category", "species", "diagnosis", "outcome", "survived")
_MOST_CLASSES_OF_NUMBERS = 20  # more different whole numbers than that are amounts, not classes
_MOST_CATEGORIES = 50
_WHOLE = re.compile(r"[+-]?[0-9]{1,15}")
_COMMA = re.compile(r"[+-]?[0-9]*,[0-9]+([eE][+-]?[0-9]+)?")
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
    cells = cells_of(table, answer)
    classes = is_class(cells)
    counts = Counter(cells) if classes else Counter[str]()
    columns = columns_of(table, answer)
    if not columns.features:
        raise ConfigError(
            f"{table.path} has no column to predict '{answer}' from",
            where="init",
            remedy="is it a table with one row per sample and numbers in its columns?",
        )
    predicted = f"{len(counts)} classes in '{answer}'" if classes else f"the number '{answer}' to predict"
    return Seen(
        kind="csv",
        task="classification" if classes else "regression",
        place=first if len(files) == 1 else first.parent,
        samples=len(table.rows),
        summary=f"{len(table.rows):,} rows, {columns.summary}, {predicted}",
        per_class=tuple(counts.values()),
        own_splits=tuple(role for role in used if role in ("val", "test")),
        files=used,
        columns=columns,
    )


def cells_of(table: Table, name: str) -> tuple[str, ...]:
    """Return a column's cells, numbers with decimal points."""
    cells = table.column(name, "--label")
    return (
        tuple(cell.replace(",", ".") if _COMMA.fullmatch(cell) else cell for cell in cells)
        if table.decimal_comma
        else cells
    )


def _checked(label: str, table: Table) -> str:
    if label not in table.header:
        what = f"{table.path} has no column '{label}'{nearest(label, table.header)}"
        raise ConfigError(what, where="--label", remedy="name the column that is to be predicted")
    return label


def _answer(table: Table, choose: Callable[[tuple[str, ...], str], str]) -> str:
    named = named_like_labels(table)
    if len(named) == 1:
        return named[0]
    return _checked(choose(table.header, named[0] if named else table.header[-1]), table)


def named_like_labels(table: Table) -> list[str]:
    """Return the columns whose names say that they are to be predicted."""
    return [name for name in table.header if name.lower() in _ANSWERS]


def is_class(cells: Sequence[str]) -> bool:
    """Tell whether the cells of a column are classes, not amounts."""
    different = {cell for cell in cells if not is_missing(cell)}
    if all(_WHOLE.fullmatch(cell) for cell in different):
        return len(different) <= _MOST_CLASSES_OF_NUMBERS
    return not are_numbers(different)


def are_numbers(cells: Iterable[str]) -> bool:
    """Tell whether all cells are numbers."""
    return all(_is_number(cell) for cell in cells)


def columns_of(table: Table, answer: str | None, *, numbering: bool = False) -> Columns:
    """Return what the columns are for beside ``answer``; ``numbering``: those that count the rows are features, too."""
    ignored: list[str] = []
    categories: list[str] = []
    gaps = False
    others = [name for name in table.header if name != answer]
    for name in others:
        cells = cells_of(table, name)
        known = [cell for cell in cells if not is_missing(cell)]
        numbers = are_numbers(known)
        if not known or (_only_names_rows(name, known) and not (numbering and numbers)):
            ignored.append(name)
            continue
        if not numbers:
            few = len(set(known)) <= min(_MOST_CATEGORIES, max(2, len(known) // 4))
            (categories if few else ignored).append(name)
        gaps |= name not in ignored and len(known) < len(cells)
    features = len(others) - len(ignored)
    return Columns(
        answer=answer or "", ignored=tuple(ignored), categories=tuple(categories), gaps=gaps, features=features
    )


def _only_names_rows(name: str, cells: Sequence[str]) -> bool:
    """Tell whether a column numbers the rows or gives each a name of its own."""
    if len(set(cells)) < len(cells) or len(cells) < 2:
        return False
    if all(_WHOLE.fullmatch(cell) for cell in cells):
        numbers = [int(cell) for cell in cells]
        counted = all(after - before == 1 for before, after in itertools.pairwise(numbers))
        return counted or name.lower() in ("id", "index", "no", "nr", "")
    return not are_numbers(cells)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
