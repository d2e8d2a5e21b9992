"""Rows of a CSV table as a network's raw values: columns by their names, categories as codes.

Cells are separated by what the first row has most of: commas, semicolons, tabs or bars.  Where it is no comma, numbers
may have decimal commas: then all of the table have.

Shapes: n rows, F columns.
"""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from pipeline.onboard.about import Column, Raw
from pipeline.onboard.faults import InputRefused

_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_SAID = re.compile(r"sep=([,;\t|])", re.IGNORECASE)
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_COMMA = re.compile(r"[+-]?[0-9]*,[0-9]+([eE][+-]?[0-9]+)?")
MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "?"})


@dataclass(frozen=True)
class _Decimal:
    """How a table writes numbers."""

    comma: bool  # 3,14

    def plain(self, cell: str) -> str:
        """Return a number with a decimal point, empty for one that means another thing here: 1.000,5."""
        return cell if not self.comma else "" if "." in cell else cell.replace(",", ".")


def read_rows(file: TextIO, where: str, raw: Raw, *, may_miss: bool) -> tuple[list[int], NDArray[np.float32]]:
    """Return the lines of the rows and their values (n, *raw.shape); columns that are not asked for are passed over.

    ``may_miss``: a missing value becomes NaN, which a later step fills in.  Raises InputRefused with line and column.
    """
    lines: list[int] = []
    rows: list[list[str]] = []
    try:
        first = next(file, "").removeprefix("\ufeff")  # a byte-order mark: spreadsheets write it
        said = _SAID.fullmatch(first.rstrip("\r\n"))  # by spreadsheets, to other spreadsheets
        delimiter = said.group(1) if said else max(_DELIMITERS, key=re.sub(r'"[^"]*"', "", first).count)
        reader = csv.reader(file if said else itertools.chain([first], file), strict=True, delimiter=delimiter)
        header = [name.strip() for name in next(reader, [])]
        places = [_place(header, column, where) for column in raw.columns]
        for row in reader:
            if row:
                lines.append(reader.line_num + bool(said))
                rows.append(row)
                _check_count(row, header, f"{where}:{lines[-1]}", delimiter)
    except (csv.Error, UnicodeDecodeError, OSError) as error:
        raise InputRefused(f"is no readable CSV table: {error}", where=where, remedy="save it as UTF-8 CSV") from error
    if not rows:
        raise InputRefused("holds no rows", where=where, remedy="write column names into the first row, samples below")
    decimal = _Decimal(comma=delimiter != "," and any(map(_has_decimal_commas, zip(*rows))))
    values = [
        [_value(row[k].strip(), c, f"{where}:{line}", decimal, may_miss=may_miss) for k, c in zip(places, raw.columns)]
        for line, row in zip(lines, rows)
    ]
    with np.errstate(over="ignore"):  # what becomes infinite is refused where all inputs are
        wide = np.array(values, np.float64).astype(np.float32)
    return lines, wide.reshape(len(lines), *raw.shape)


def _has_decimal_commas(cells: Sequence[str]) -> bool:
    """Tell whether a column holds numbers alone, of which some have decimal commas."""
    found = [cell.strip() for cell in cells if cell.strip().lower() not in MISSING]
    return any(map(_COMMA.fullmatch, found)) and all(
        _COMMA.fullmatch(cell) or _NUMBER.fullmatch(cell) for cell in found
    )


def _place(header: Sequence[str], column: Column, where: str) -> int:
    if header.count(column.name) == 1:
        return list(header).index(column.name)
    found = "two columns" if column.name in header else "no column"
    raise InputRefused(
        f"has {found} '{column.name}'",
        where=f"{where}:1",
        remedy=f"name the columns in the first row; found {', '.join(header[:20]) or 'nothing'}",
    )


def _check_count(row: Sequence[str], header: Sequence[str], where: str, delimiter: str) -> None:
    if len(row) != len(header):  # a comma too many, as in 3,14, would move all values behind it
        raise InputRefused(
            f"has {len(row)} cells, expected {len(header)} as in the first row",
            where=where,
            remedy=f"separate cells by {_DELIMITERS[delimiter]}, as in the first row; put text that holds one into "
            "double quotes" + (", and write 3.14" if delimiter == "," else ""),
        )


def _value(cell: str, column: Column, where: str, decimal: _Decimal, *, may_miss: bool) -> float:
    if cell in column.categories:
        return float(column.categories.index(cell))
    if cell.lower() in MISSING:
        if may_miss:
            return float("nan")
        raise InputRefused(f"column '{column.name}' has no value", where=where, remedy="fill it in")
    if column.categories:
        known = ", ".join(column.categories[:20])
        raise InputRefused(f"column '{column.name}' holds '{cell[:40]}', known: {known}", where=where)
    plain = decimal.plain(cell)
    if _NUMBER.fullmatch(plain) and np.isfinite(float(plain)):  # Python would read 1_000 and other digits, too
        return float(plain)
    raise InputRefused(
        f"column '{column.name}' holds '{cell[:40]}', a finite number is wanted",
        where=where,
        remedy="write 3,14 (decimal commas, as elsewhere)" if decimal.comma else "write 3.14",
    )
