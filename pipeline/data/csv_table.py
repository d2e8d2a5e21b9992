"""Tables in CSV files: one sample per row, numeric feature columns and one label column, named in the first row.

Role "all", or "train" and optionally "val" and "test".  Labels are class names, or numbers from 0 when the card names
the classes.  Features keep the order of the columns and become float32.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.data.checks import MOST_CLASSES
from pipeline.data.files import Found
from pipeline.data.source import ArraySource, Parts
from pipeline.errors import ConfigError, DataError, nearest
from pipeline.spec import DatasetCard

_SPLITS = ("train", "val", "test")
_MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "?"})
_WHOLE_NUMBER = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True, kw_only=True)
class _Table:
    path: Path
    features: tuple[str, ...]  # names of the feature columns
    lines: tuple[int, ...]  # of each row in the file, from 1: where an editor shows it
    values: NDArray[np.float32]  # (N, F)
    labels: tuple[str, ...]  # (N,)


def load(card: DatasetCard, found: Found) -> Parts:
    """Return what the card's tables hold: samples (N, *shape) float32, features in the order of the columns.

    Raises DataError naming file, line and column; ConfigError when the card names no label column or file.
    """
    if card.label_column is None:
        raise ConfigError("needs 'label_column': the column that holds the class", where=card.name)
    names = [split for split in _SPLITS if split in found.files] if "train" in found.files else ["all"]
    tables = [_read_table(found.file(card, name), card) for name in names]
    classes = card.classes or _classes_of(tables)
    sources = [_source(table, classes, card) for table in tables]
    splits = dict(zip(names, sources, strict=True))
    return Parts(classes=classes, train=sources[0], val=splits.get("val"), test=splits.get("test"))


def _source(table: _Table, classes: tuple[str, ...], card: DatasetCard) -> ArraySource:
    shape = card.input.shape
    if math.prod(shape) != len(table.features):
        raise DataError(
            f"has {len(table.features)} feature columns, expected {math.prod(shape)} for [input] shape = {list(shape)}",
            where=str(table.path),
            remedy=f"set shape = [{len(table.features)}] in the card, or correct the columns; "
            f"found {', '.join(table.features[:20])}",
        )
    return ArraySource(samples=table.values.reshape(-1, *shape), labels=_numbered(table, classes))


# ── labels ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _classes_of(tables: Sequence[_Table]) -> tuple[str, ...]:
    """Return the labels that occur: in the order of numbers if all are numbers, else of the alphabet."""
    found = {label for table in tables for label in table.labels}
    if len(found) > MOST_CLASSES:
        raise DataError(
            f"the label column holds {len(found):,} different values, expected at most {MOST_CLASSES:,}",
            where=str(tables[0].path),
            remedy="is it really the column of the classes?",
        )
    numbers = all(_WHOLE_NUMBER.fullmatch(label) for label in found)
    return tuple(sorted(found, key=int) if numbers else sorted(found))


def _numbered(table: _Table, classes: tuple[str, ...]) -> NDArray[np.int64]:
    """Return the labels as indices into ``classes``."""
    found = set(table.labels)
    index = {name: number for number, name in enumerate(classes)}
    if not found <= set(index) and all(_WHOLE_NUMBER.fullmatch(label) for label in found):
        index = {label: int(label) for label in found if int(label) < len(classes)}
    for line, label in zip(table.lines, table.labels, strict=True):
        if label not in index:
            raise DataError(
                f"the label '{label}' is no class{nearest(label, classes[:20])}",
                where=f"{table.path}:{line}",
                remedy=f"write a class name or a number 0 … {len(classes) - 1}, or correct the card's classes",
            )
    return np.array([index[label] for label in table.labels], dtype=np.int64)


# ── reading ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _read_table(path: Path, card: DatasetCard) -> _Table:
    header, rows, lines = _read_rows(path)
    label_column = _label_index(header, path, card)
    labels = tuple(row.pop(label_column).strip() for row in rows)
    for line, label in zip(lines, labels, strict=True):
        if not label:
            raise _missing(path, line, header[label_column])
    features = (*header[:label_column], *header[label_column + 1 :])
    return _Table(
        path=path, features=features, lines=tuple(lines), values=_numbers(rows, lines, features, path), labels=labels
    )


def _read_rows(path: Path) -> tuple[list[str], list[list[str]], list[int]]:
    """Return the names of the columns, the cells of every row, and each row's line in the file."""
    rows: list[list[str]] = []
    lines: list[int] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:  # -sig: spreadsheets write a byte-order mark
            reader = csv.reader(file, strict=True)
            header = [name.strip() for name in next(reader, [])]
            for row in reader:
                if not row:
                    continue
                if len(row) != len(header):
                    raise DataError(
                        f"has {len(row)} cells, expected {len(header)} as in the first row",
                        where=f"{path}:{reader.line_num}",
                        remedy="separate cells by commas; put text that holds a comma into double quotes",
                    )
                rows.append(row)
                lines.append(reader.line_num)
    except (csv.Error, UnicodeDecodeError, OSError) as error:
        raise DataError(f"is no readable CSV file: {error}", where=str(path), remedy="save it as UTF-8 CSV") from error
    if not rows:
        raise DataError("holds no rows", where=str(path), remedy="write column names into the first row, samples below")
    return header, rows, lines


def _label_index(header: list[str], path: Path, card: DatasetCard) -> int:
    double = sorted({name for name in header if header.count(name) > 1})
    if double:
        raise DataError(f"has two columns called '{double[0]}'", where=f"{path}:1", remedy="rename one of them")
    if card.label_column not in header:
        raise DataError(
            f"has no column '{card.label_column}'{nearest(card.label_column or '', header[:20])}",
            where=f"{path}:1",
            remedy="correct label_column in the card, or the names in the first row",
        )
    return header.index(card.label_column)


def _numbers(rows: list[list[str]], lines: list[int], names: tuple[str, ...], path: Path) -> NDArray[np.float32]:
    """Return all cells as float32: (N, F).  Raises DataError with the line and column of the first that is none."""
    try:
        with np.errstate(over="ignore"):  # 1e39 becomes infinity, which is refused below
            values = np.array(rows, dtype=np.float64).astype(np.float32).reshape(len(rows), len(names))
        sound = np.isfinite(values)
    except ValueError:
        sound = np.array([[_is_number(cell) for cell in row] for row in rows])
    if sound.all():
        return values
    row, column = (int(axis[0]) for axis in np.nonzero(~sound))
    cell = rows[row][column].strip()
    if cell.lower() in _MISSING:
        raise _missing(path, lines[row], names[column])
    raise DataError(
        f"column '{names[column]}' holds '{cell[:40]}', expected a finite number",
        where=f"{path}:{lines[row]}",
        remedy="write numbers as 3.14, one-hot encode categories, or take the column away",
    )


def _is_number(cell: str) -> bool:
    try:
        return math.isfinite(float(cell))
    except ValueError:
        return False


def _missing(path: Path, line: int, column: str) -> DataError:
    return DataError(
        f"column '{column}' has no value",
        where=f"{path}:{line}",
        remedy="fill in the value, or take the row away: nothing is guessed",
    )
