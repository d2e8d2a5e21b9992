"""Rows and columns of a CSV file, by name; whatever is wrong is placed by file, line and column.

Cells are separated by what the first row has most of: commas, semicolons, tabs or bars.  Where it is no comma, numbers
may have decimal commas: then all of the file have.

Shapes: N rows, F columns of numbers.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import DataError, nearest

_MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "?"})
_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_SAID = re.compile(r"sep=([,;\t|])", re.IGNORECASE)
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_COMMA = re.compile(r"[+-]?[0-9]*,[0-9]+([eE][+-]?[0-9]+)?")


@dataclass(frozen=True, kw_only=True)
class Table:
    """The cells of a file, as text."""

    path: Path
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]  # (N, len(header))
    lines: tuple[int, ...]  # of each row in the file, from 1: where an editor shows it
    decimal_comma: bool = False  # numbers are written as 3,14

    def column(self, name: str, key: str) -> tuple[str, ...]:
        """Return the cells of a column (N,), without spaces around.  ``key``: who names it in the card."""
        if name not in self.header:
            raise DataError(
                f"has no column '{name}'{nearest(name, self.header[:20])}",
                where=f"{self.path}:1",
                remedy=f"correct {key} in the card, or the names in the first row",
            )
        place = self.header.index(name)
        return tuple(row[place].strip() for row in self.rows)

    def filled_column(self, name: str, key: str) -> tuple[str, ...]:
        """Return the cells of a column.  Raises DataError where one is empty."""
        cells = self.column(name, key)
        for line, cell in zip(self.lines, cells, strict=True):
            if not cell:
                raise self.no_value(line, name)
        return cells

    def codes(self, name: str, known: Sequence[str], *, may_miss: bool) -> NDArray[np.float32]:
        """Return a column of categories (N,) as their places in ``known``; NaN where there is none.

        Raises DataError for a category that is not known, and for none where that may not be.
        """
        place = {category: index for index, category in enumerate(known)}
        found = np.full(len(self.rows), np.nan, dtype=np.float32)
        for row, (line, cell) in enumerate(zip(self.lines, self.column(name, "[categories]"), strict=True)):
            if cell in place:
                found[row] = place[cell]
            elif not is_missing(cell):
                raise DataError(
                    f"column '{name}' holds '{cell[:40]}', which is no category of it{nearest(cell, known[:20])}",
                    where=f"{self.path}:{line}",
                    remedy="correct the cell, or the column's list in [categories] of the card",
                )
            elif not may_miss:
                raise self.no_value(line, name)
        return found

    def numbers(self, names: Sequence[str], key: str, *, may_miss: bool = False) -> NDArray[np.float32]:
        """Return columns as (N, F); NaN where a value is missing.

        Raises DataError with line and column of the first cell that is no finite number, or missing where it may not.
        """
        columns = [self.column(name, key) for name in names]
        rows = [list(row) for row in zip(*columns, strict=True)]
        wide = _as_written(rows) if not self.decimal_comma else None
        if wide is None:
            wide = np.array([[_number(cell, decimal_comma=self.decimal_comma) for cell in row] for row in rows])
        with np.errstate(over="ignore"):  # 1e39 becomes infinity, which is refused below
            values: NDArray[np.float32] = wide.astype(np.float32).reshape(len(self.rows), len(names))
        self._check(values, rows, names, may_miss=may_miss)
        return values

    def _check(
        self, values: NDArray[np.float32], rows: list[list[str]], names: Sequence[str], *, may_miss: bool
    ) -> None:
        for row, column in zip(*np.nonzero(~np.isfinite(values)), strict=True):
            cell = rows[row][column]
            if is_missing(cell) and may_miss:
                continue
            if is_missing(cell):
                raise self.no_value(self.lines[row], names[column])
            raise DataError(
                f"column '{names[column]}' holds '{cell[:40]}', expected a finite number",
                where=f"{self.path}:{self.lines[row]}",
                remedy=f"write numbers as {'3,14 (decimal commas, as elsewhere)' if self.decimal_comma else '3.14'}, "
                "name the column in [categories] or ignored_columns of the card, or take it away",
            )

    def no_value(self, line: int, column: str) -> DataError:
        """Return the error about an empty cell."""
        return DataError(
            f"column '{column}' has no value",
            where=f"{self.path}:{line}",
            remedy="fill in the value, or take the row away: nothing is guessed unless the card says missing = …",
        )


def is_missing(cell: str) -> bool:
    """Tell whether a cell stands for no value."""
    return cell.lower() in _MISSING


def read_table(path: Path) -> Table:
    """Return the rows of a CSV file whose first row names the columns.  Raises DataError naming file and line."""
    rows: list[tuple[str, ...]] = []
    lines: list[int] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:  # -sig: spreadsheets write a byte-order mark
            delimiter, skipped = _delimiter(file)
            reader = csv.reader(file, strict=True, delimiter=delimiter)
            header = tuple(name.strip() for name in next(reader, []))
            for row in reader:
                if not row:
                    continue
                if len(row) != len(header):
                    raise DataError(
                        f"has {len(row)} cells, expected {len(header)} as in the first row",
                        where=f"{path}:{reader.line_num + skipped}",
                        remedy=f"separate cells by {_DELIMITERS[delimiter]}, as in the first row; put text that "
                        "holds one into double quotes",
                    )
                rows.append(tuple(row))
                lines.append(reader.line_num + skipped)
    except (csv.Error, UnicodeDecodeError, OSError) as error:
        raise DataError(f"is no readable CSV file: {error}", where=str(path), remedy="save it as UTF-8 CSV") from error
    if not rows:
        raise DataError("holds no rows", where=str(path), remedy="write column names into the first row, samples below")
    double = sorted({name for name in header if header.count(name) > 1})
    if double:
        raise DataError(f"has two columns called '{double[0]}'", where=f"{path}:1", remedy="rename one of them")
    return Table(
        path=path,
        header=header,
        rows=tuple(rows),
        lines=tuple(lines),
        decimal_comma=delimiter != "," and any(_has_decimal_commas(cells) for cells in zip(*rows, strict=True)),
    )


def _delimiter(file: TextIO) -> tuple[str, int]:
    """Return what separates the cells, and how many lines come before the first row; ``file`` is then at that row."""
    first = file.readline()
    if said := _SAID.fullmatch(first.rstrip("\r\n")):  # by spreadsheets, to other spreadsheets
        return said[1], 1
    file.seek(0)
    unquoted = re.sub(r'"[^"]*"', "", first)
    return max(_DELIMITERS, key=unquoted.count), 0  # the first of them where there are equally many


def _has_decimal_commas(cells: Sequence[str]) -> bool:
    """Tell whether a column holds numbers alone, of which some have decimal commas."""
    found = {_written(cell.strip()) for cell in cells}
    return "comma" in found and "text" not in found


def _written(cell: str) -> str:
    if _COMMA.fullmatch(cell):
        return "comma"
    return "other" if is_missing(cell) or _NUMBER.fullmatch(cell) else "text"


def _as_written(rows: list[list[str]]) -> NDArray[np.float64] | None:
    """Return numbers in the usual notation (N, F); None where some cell is none."""
    if any("_" in cell or not cell.isascii() for row in rows for cell in row):  # Python's own notation, other digits
        return None
    try:
        return np.array(rows, dtype=np.float64)
    except ValueError:
        return None


def same_columns(tables: Mapping[str, Table], names: Sequence[str]) -> None:
    """Raise DataError unless all tables have the same columns (in any order); ``names``: those of the first."""
    for table in tables.values():
        other = [name for name in table.header if name not in names]
        if other:
            raise DataError(
                f"has a column '{other[0]}' that the training table lacks",
                where=f"{table.path}:1",
                remedy="give all tables the same columns",
            )


def _number(cell: str, *, decimal_comma: bool) -> float:
    """Return the number in a cell; infinity where there is none, NaN where the cell is empty."""
    if is_missing(cell):
        return math.nan
    if decimal_comma and "." in cell:  # thousands, or a point after all: nobody knows
        return math.inf
    plain = cell.replace(",", ".") if decimal_comma else cell
    return float(plain) if _NUMBER.fullmatch(plain) else math.inf
