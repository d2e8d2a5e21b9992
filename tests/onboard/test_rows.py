"""Rows of CSV tables: which cell becomes which number, and what is refused with its line and column."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.onboard.about import TABLE, Column, Raw
from pipeline.onboard.faults import InputRefused
from pipeline.onboard.rows import read_rows

NAN = float("nan")
SIZE, WEIGHT, COLOUR = Column("size"), Column("weight"), Column("colour", ("red", "green", "blue"))


def raw(*columns: Column) -> Raw:
    return Raw(TABLE, "float32", (len(columns),), columns=columns)


THREE = raw(SIZE, WEIGHT, COLOUR)


def read(
    folder: Path, text: str | bytes, wanted: Raw = THREE, *, may_miss: bool = False
) -> tuple[list[int], NDArray[np.float32]]:
    """Read a table as a file of these bytes holds it."""
    path = folder / "t.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with path.open(encoding="utf-8", newline="") as file:
        return read_rows(file, "t.csv", wanted, may_miss=may_miss)


def refused(folder: Path, text: str | bytes, wanted: Raw = THREE, *, may_miss: bool = False) -> InputRefused:
    with pytest.raises(InputRefused) as caught:
        read(folder, text, wanted, may_miss=may_miss)
    return caught.value


# ── what is read ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "text",
    [
        "size,weight,colour\n1.5,-2,blue\n3,4e2,red\n",
        "colour,size,weight\nblue,1.5,-2\nred,3,4e2\n",
        "weight,colour,size\n-2,blue,1.5\n4e2,red,3\n",
        "id,size,kind,weight,colour,price\nx,1.5,big,-2,blue,\ny,3,,4e2,red,?\n",
        "id,id,size,weight,colour\n1,2,1.5,-2,blue\n3,4,3,4e2,red\n",
        " size , weight,colour \n 1.5, -2 , blue\n3 ,4e2,red \n",
        "size,weight,colour\r\n1.5,-2,blue\r\n3,4e2,red\r\n",
        "size,weight,colour\n1.5,-2,blue\n3,4e2,red",
        '"size","weight","colour"\n"1.5","-2","blue"\n"3","4e2","red"\n',
        "\ufeffsize,weight,colour\n1.5,-2,blue\n3,4e2,red\n",
        '\ufeff"size","weight","colour"\n1.5,-2,blue\n3,4e2,red\n',
        "size,weight,colour,note\n1.5,-2,blue,\ufeff\n3,4e2,red,größer\n",
    ],
    ids=[
        *("as asked", "another order", "a third order", "more columns", "two that nobody asks for", "spaces", "CRLF"),
        *("no last line end", "quoted", "byte-order mark", "byte-order mark and quotes", "other letters"),
    ],
)
def test_columns_are_found_by_their_names(tmp_path: Path, text: str) -> None:
    lines, values = read(tmp_path, text)
    assert lines == [2, 3]
    assert values.dtype == np.float32
    assert values.tolist() == [[1.5, -2, 2], [3, 400, 0]]


def test_the_order_of_the_values_is_that_of_the_network(tmp_path: Path) -> None:
    text = "size,weight,colour\n1,2,green\n"
    assert read(tmp_path, text, raw(COLOUR, SIZE))[1].tolist() == [[1, 1]]
    assert read(tmp_path, text, raw(WEIGHT, SIZE, COLOUR))[1].tolist() == [[2, 1, 1]]


def test_a_byte_order_mark_is_passed_over_on_standard_input_too() -> None:
    piped = io.TextIOWrapper(io.BytesIO(b"\xef\xbb\xbfsize\n7\n"), encoding="utf-8")  # newlines as sys.stdin has them
    assert read_rows(piped, "stdin", raw(SIZE), may_miss=False)[1].tolist() == [[7]]


@pytest.mark.parametrize(
    ("cell", "value"),
    [("7", 7), ("-0.5", -0.5), ("+3", 3), (".5", 0.5), ("5.", 5), ("1E-3", 1e-3), ("007", 7), ("16777217", 16777216)],
)
def test_numbers_are_float32(tmp_path: Path, cell: str, value: float) -> None:
    assert read(tmp_path, f"size\n{cell}\n", raw(SIZE))[1].tolist() == [[np.float32(value)]]


def test_what_is_too_large_for_float32_is_left_to_the_check_of_all_inputs(tmp_path: Path) -> None:
    assert read(tmp_path, "size\n1e39\n-1e39\n", raw(SIZE))[1].tolist() == [[np.inf], [-np.inf]]


def test_lines_are_those_of_the_file(tmp_path: Path) -> None:
    text = 'size,note\n1,a\n\n\n2,"two\nlines"\n3,c\n'
    assert read(tmp_path, text, raw(SIZE))[0] == [2, 6, 7]  # of a row of several lines, its last


@pytest.mark.parametrize(
    ("categories", "cell", "code"),
    [
        (("a", "b"), "a", 0),
        (("a", "b"), " b ", 1),
        (("x", "y, z"), '"y, z"', 1),
        (("x", 'say "y"'), '"say ""y"""', 1),
        (("x", "größer"), "größer", 1),
        (("1", "0"), "0", 1),
        (("yes", "none"), "none", 1),
        (("yes", "", "?"), "", 1),
        (("yes", "", "?"), "?", 2),
    ],
)
@pytest.mark.parametrize("may_miss", [False, True])
def test_categories_become_their_place(
    tmp_path: Path, categories: tuple[str, ...], cell: str, code: int, may_miss: bool
) -> None:
    wanted = raw(SIZE, Column("kind", categories))
    assert read(tmp_path, f"size,kind\n9,{cell}\n", wanted, may_miss=may_miss)[1].tolist() == [[9, code]]


def test_names_may_hold_commas_and_quotes(tmp_path: Path) -> None:
    wanted = raw(Column("length, mm"), Column('the "size"'))
    assert read(tmp_path, '"the ""size""","length, mm"\n1,2\n', wanted)[1].tolist() == [[2, 1]]


def test_values_take_the_shape_of_a_sample(tmp_path: Path) -> None:
    wanted = Raw(TABLE, "float32", (1, 2), columns=(SIZE, WEIGHT))
    assert read(tmp_path, "weight,size\n2,1\n4,3\n6,5\n", wanted)[1].tolist() == [[[1, 2]], [[3, 4]], [[5, 6]]]


# ── missing values ──────────────────────────────────────────────────────────────────────────────────────────────────

NOTHING = ["", "  ", '""', "na", "NA", "N/A", "nan", "NaN", "null", "NULL", "None", "?"]


@pytest.mark.parametrize("cell", NOTHING)
@pytest.mark.parametrize("column", ["weight", "colour"])
def test_missing_values_become_nan_where_they_may(tmp_path: Path, cell: str, column: str) -> None:
    given = {"weight": "2", "colour": "blue", column: cell}
    text = f"size,weight,colour\n1,{given['weight']},{given['colour']}\n"
    _, values = read(tmp_path, text, may_miss=True)
    np.testing.assert_array_equal(values, [[1, NAN, 2] if column == "weight" else [1, 2, NAN]])


@pytest.mark.parametrize("cell", NOTHING)
@pytest.mark.parametrize("column", ["weight", "colour"])
def test_missing_values_are_refused_where_they_may_not(tmp_path: Path, cell: str, column: str) -> None:
    given = {"weight": "2", "colour": "blue", column: cell}
    text = f"size,weight,colour\n1,2,red\n1,{given['weight']},{given['colour']}\n"
    error = refused(tmp_path, text)
    assert (error.what, error.where, error.remedy) == (f"column '{column}' has no value", "t.csv:3", "fill it in")


# ── what is refused ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("header", "what", "found"),
    [
        ("size,colour", "has no column 'weight'", "size, colour"),
        ("size,Weight,colour", "has no column 'weight'", "size, Weight, colour"),
        ("size,weight,colour,weight", "has two columns 'weight'", "size, weight, colour, weight"),
        ("1,2,red", "has no column 'size'", "1, 2, red"),  # a table without names
        ("size weight,colour,x", "has no column 'size'", "size weight, colour, x"),
        ("", "has no column 'size'", "nothing"),
    ],
)
def test_columns_that_are_not_there_once(tmp_path: Path, header: str, what: str, found: str) -> None:
    error = refused(tmp_path, f"{header}\n1,2,red\n")
    assert (error.what, error.where) == (what, "t.csv:1")
    assert error.remedy == f"name the columns in the first row; found {found}"


def test_of_many_columns_twenty_are_named(tmp_path: Path) -> None:
    error = refused(tmp_path, ",".join(f"c{number}" for number in range(30)) + "\n")
    assert error.remedy.endswith("c18, c19")


@pytest.mark.parametrize(
    "cell", ["five", "1_000", "0x10", "inf", "-Infinity", "1e309", '"2,5"', "1 000", "١", "-", "5%"]
)
@pytest.mark.parametrize("may_miss", [False, True])
def test_what_is_no_number(tmp_path: Path, cell: str, may_miss: bool) -> None:
    error = refused(tmp_path, f"size,weight,colour\n1,2,red\n1,{cell},red\n", may_miss=may_miss)
    shown = cell.strip('"')
    assert error.what == f"column 'weight' holds '{shown}', a finite number is wanted"
    assert (error.where, error.remedy) == ("t.csv:3", "write 3.14")


@pytest.mark.parametrize("cell", ["pink", "Red", "redgreen", "0", "nothing"])
@pytest.mark.parametrize("may_miss", [False, True])
def test_unknown_categories(tmp_path: Path, cell: str, may_miss: bool) -> None:
    error = refused(tmp_path, f"size,weight,colour\n1,2,{cell}\n", may_miss=may_miss)
    assert (error.what, error.where) == (f"column 'colour' holds '{cell}', known: red, green, blue", "t.csv:2")


def test_long_cells_are_cut_in_messages(tmp_path: Path) -> None:
    for column in (SIZE, Column("size", ("a",))):
        assert f"holds '{'x' * 40}', " in refused(tmp_path, f"size\n{'x' * 4000}\n", raw(column)).what


@pytest.mark.parametrize(
    ("row", "cells"),
    [("1,2", 2), ("1", 1), (" ", 1), ("1,5,2,red", 4), ("1,2,red,", 4), ("1;2;red", 1)],
    ids=["a cell less", "one cell", "a space", "a decimal comma", "a comma at the end", "semicolons"],
)
def test_rows_of_another_length(tmp_path: Path, row: str, cells: int) -> None:
    error = refused(tmp_path, f"size,weight,colour\n1,2,red\n{row}\n")
    assert (error.what, error.where) == (f"has {cells} cells, expected 3 as in the first row", "t.csv:3")
    assert "separate cells by commas" in error.remedy


def test_a_cell_too_many_is_refused_behind_the_columns_asked_for(tmp_path: Path) -> None:
    # the number may have been cut by its own comma
    assert refused(tmp_path, "size\n3,14\n", raw(SIZE)).what == "has 2 cells, expected 1 as in the first row"


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("size;weight;colour\n1,5;-2,25;green\n3;4;red\n", [2, 3]),
        ("size\tweight\tcolour\n1,5\t-2,25\tgreen\n3\t4\tred\n", [2, 3]),
        ("size|weight|colour\r\n1.5|-2.25|green\r\n3|4|red\r\n", [2, 3]),
        ("sep=;\nsize;weight;colour\n1,5;-2,25;green\n3;4;red\n", [3, 4]),
        ('\ufeffSEP=,\n"size",weight,colour\n1.5,-2.25,green\n3,4,red\n', [3, 4]),
        ('"size";weight;colour;"a,b,c,d"\n1,5;-2,25;green;x\n3;4;red;y\n', [2, 3]),
        ("size;weight;colour\n15e-1;-2.25;green\n3;4;red\n", [2, 3]),
    ],
)
def test_tables_of_other_countries(tmp_path: Path, text: str, lines: list[int]) -> None:
    found, values = read(tmp_path, text)
    assert (found, values.tolist()) == (lines, [[1.5, -2.25, 1.0], [3.0, 4.0, 0.0]])


def test_decimal_commas_in_a_column_that_nobody_asks_for_say_how_numbers_are_written(tmp_path: Path) -> None:
    text = "size;weight;colour;price\n1.000;2;red;3,50\n"
    error = refused(tmp_path, text)
    assert error.what == "column 'size' holds '1.000', a finite number is wanted"  # one, or a thousand?
    assert error.remedy == "write 3,14 (decimal commas, as elsewhere)"


def test_a_list_of_words_with_commas_is_no_decimal_comma(tmp_path: Path) -> None:
    assert read(tmp_path, "size;weight;colour;note\n1.5;2;red;3,4\n1;2;red;none of both\n")[1][0, 0] == 1.5


@pytest.mark.parametrize("text", ["size,weight,colour\n", "size,weight,colour", "size,weight,colour\n\n\r\n"])
def test_no_rows(tmp_path: Path, text: str) -> None:
    error = refused(tmp_path, text)
    assert (error.what, error.where) == ("holds no rows", "t.csv")
    assert "samples below" in error.remedy


def test_an_empty_file_has_no_columns(tmp_path: Path) -> None:
    for text in ("", "\ufeff", "\n\n"):
        error = refused(tmp_path, text)
        assert error.what == "has no column 'size'"
        assert error.remedy.endswith("found nothing")


@pytest.mark.parametrize(
    "content",
    [
        b'size,weight,colour\n1,2,"red\n',
        b'size,weight,colour\n1,"2"3,red\n',
        b"size,weight,colour\n1,2,r\xe9d\n",
        b"\xff\xfes\x00i\x00z\x00e\x00\n\x00",
        b"size,weight,colour\n1,2," + b"r" * 200_000 + b"\n",
    ],
    ids=["open quote", "text behind a quote", "Latin-1", "UTF-16", "a cell of 200 kB"],
)
def test_what_is_no_csv_table(tmp_path: Path, content: bytes) -> None:
    error = refused(tmp_path, content)
    assert error.what.startswith("is no readable CSV table: ")
    assert (error.where, error.remedy) == ("t.csv", "save it as UTF-8 CSV")


@pytest.mark.parametrize(
    "text",
    ["a;b\n1,5;-2\n3;4e-1\n", "a\tb\n1.5\t-2\n3\t0.4\n", "sep=;\na;b\n1,5;-2\n3;0,4\n", "a|b\n1,5|-2\n3|,4\n"],
    ids=["semicolons", "tabs", "said", "bars"],
)
def test_cells_are_separated_as_in_training(text: str) -> None:
    lines, values = read_rows(io.StringIO(text), "t.csv", raw(Column("a"), Column("b")), may_miss=False)
    assert lines == ([3, 4] if text.startswith("sep") else [2, 3])
    np.testing.assert_array_equal(values, np.array([[1.5, -2], [3, 0.4]], np.float32))
