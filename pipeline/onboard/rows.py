"""Rows of a CSV table as a network's raw values: columns by their names, categories as codes.

Cells are separated, and numbers written, in the ways that training reads.

Shapes: n rows, F columns.
"""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Sequence
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from pipeline.onboard.about import Column, Raw
from pipeline.onboard.faults import InputRefused

_DELIMITERS = ",;\t|"
_SAID = re.compile(r"sep=([,;\t|])\s*", re.IGNORECASE)  # by spreadsheets, to other spreadsheets
_COMMA = re.compile(r"[+-]?[0-9]*,[0-9]+([eE][+-]?[0-9]+)?")
MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "?"})


def read_rows(file: TextIO, where: str, raw: Raw, *, may_miss: bool) -> tuple[list[int], NDArray[np.float32]]:
    """Return the lines of the rows and their values (n, *raw.shape); columns that are not asked for are passed over.

    ``may_miss``: a missing value becomes NaN, which a later step fills in.  Raises InputRefused with line and column.
    """
    try:
        first = next(file, "").removeprefix("\ufeff")  # a byte-order mark: spreadsheets write it
        delimiter, begun = _delimiter(first)
        reader = csv.reader(itertools.chain(begun, file), strict=True, delimiter=delimiter)
        skipped = 1 - len(begun)
        header = [name.strip() for name in next(reader, [])]
        places = [_place(header, column, where) for column in raw.columns]
        lines, rows = [], []
        for row in reader:
            if row:
                lines.append(reader.line_num + skipped)
                _check_count(row, header, f"{where}:{lines[-1]}")
                rows.append([row[place].strip() for place in places])
    except (csv.Error, UnicodeDecodeError, OSError) as error:
        raise InputRefused(f"is no readable CSV table: {error}", where=where, remedy="save it as UTF-8 CSV") from error
    if not lines:
        raise InputRefused("holds no rows", where=where, remedy="write column names into the first row, samples below")
    plain = delimiter == "," or not any(map(_COMMA.fullmatch, itertools.chain.from_iterable(rows)))
    values = [
        [
            _value(cell, column, f"{where}:{line}", may_miss=may_miss, point="." if plain else ",")
            for cell, column in zip(row, raw.columns)
        ]
        for line, row in zip(lines, rows)
    ]
    with np.errstate(over="ignore"):  # what becomes infinite is refused where all inputs are
        wide = np.array(values, np.float64).astype(np.float32)
    return lines, wide.reshape(len(lines), *raw.shape)


def _delimiter(first: str) -> tuple[str, list[str]]:
    """Return what separates the cells, and the first line if it is one of the table."""
    said = _SAID.fullmatch(first)
    if said:
        return said[1], []
    unquoted = re.sub(r'"[^"]*"', "", first)
    return max(_DELIMITERS, key=unquoted.count), [first]  # the first of them where there are equally many


def _place(header: Sequence[str], column: Column, where: str) -> int:
    if header.count(column.name) == 1:
        return list(header).index(column.name)
    found = "two columns" if column.name in header else "no column"
    raise InputRefused(
        f"has {found} '{column.name}'",
        where=f"{where}:1",
        remedy=f"name the columns in the first row, separated by commas; found {', '.join(header[:20]) or 'nothing'}",
    )


def _check_count(row: Sequence[str], header: Sequence[str], where: str) -> None:
    if len(row) != len(header):  # a comma too many, as in 3,14, would move all values behind it
        raise InputRefused(
            f"has {len(row)} cells, expected {len(header)} as in the first row",
            where=where,
            remedy="separate cells by commas, write 3.14, and put text that holds a comma into double quotes",
        )


def _value(cell: str, column: Column, where: str, *, may_miss: bool, point: str) -> float:
    if cell in column.categories:
        return float(column.categories.index(cell))
    if cell.lower() in MISSING:
        if may_miss:
            return float("nan")
        raise InputRefused(f"column '{column.name}' has no value", where=where, remedy="fill it in")
    if column.categories:
        known = ", ".join(column.categories[:20])
        raise InputRefused(f"column '{column.name}' holds '{cell[:40]}', known: {known}", where=where)
    try:
        # Python reads 1_000 and other digits as numbers, nobody else does
        number = float(cell.replace(",", ".")) if point == "," else float(cell)
        mixed = point == "," and "." in cell  # thousands, or a point after all: nobody knows
        if np.isfinite(number) and "_" not in cell and cell.isascii() and not mixed:
            return number
    except ValueError:
        pass
    raise InputRefused(
        f"column '{column.name}' holds '{cell[:40]}', a finite number is wanted",
        where=where,
        remedy=f"write 3{point}14",
    )
