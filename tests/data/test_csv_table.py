"""CSV tables: numbers or a refusal that names line and column."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import ConfigError, DataError
from tests.data.sets import all_of, card, loaded

CARD = card("csv", (2,), files=all_of("t.csv"), label_column="kind")
NAMED = CARD.model_copy(update={"classes": ("cat", "dog")})


def rows(count: int = 20, first: str = "1.5,cat,2", header: str = "a,kind,b") -> str:
    body = [f"{i}.5,{('cat', 'dog')[i % 2]},-{i}e1" for i in range(1, count)]
    return "\n".join([header, first, *body]) + "\n"


def write(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    (folder / "t.csv").write_text(text, encoding=encoding)
    return folder


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_features_keep_their_order_and_become_float32(tmp_path: Path, encoding: str) -> None:
    dataset = loaded(CARD, write(tmp_path, rows(), encoding))
    assert dataset.classes == ("cat", "dog")
    read = dataset.train.read(np.arange(len(dataset.train)))
    assert (read.dtype.str, read.shape) == ("<f4", (12, 2))
    expected = {(1.5, 2.0): 0} | {(i + 0.5, -10.0 * i): i % 2 for i in range(1, 20)}
    assert [expected[a, b] for a, b in read.tolist()] == dataset.train.labels.tolist()


def test_number_labels_are_sorted_as_numbers(tmp_path: Path) -> None:
    text = "a,kind,b\n" + "".join(f"{i},{(2, 10)[i % 2]},0\n" for i in range(20))
    assert loaded(CARD, write(tmp_path, text)).classes == ("2", "10")


def test_number_labels_point_into_the_named_classes(tmp_path: Path) -> None:
    text = "a,kind,b\n" + "".join(f"{i},{i % 2},0\n" for i in range(20))
    dataset = loaded(NAMED, write(tmp_path, text))
    assert dataset.classes == ("cat", "dog")
    assert [int(a) % 2 for a, _ in dataset.test.read(np.arange(4)).tolist()] == dataset.test.labels.tolist()


def test_columns_fill_a_picture(tmp_path: Path) -> None:
    text = "p0,p1,p2,p3,kind\n" + "".join(f"{i},1,2,3,{i % 2}\n" for i in range(20))
    declared = card("csv", (1, 2, 2), files=all_of("t.csv"), label_column="kind")
    assert loaded(declared, write(tmp_path, text)).train.read(np.arange(1)).shape == (1, 1, 2, 2)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (rows(first="1.5,cat,"), r"t\.csv:2: column 'b' has no value"),
        (rows(first="NA,cat,2"), r"t\.csv:2: column 'a' has no value"),
        (rows(first="nan,cat,2"), r"t\.csv:2: column 'a' has no value"),
        (rows(first="1.5,cat,red"), r"t\.csv:2: column 'b' holds 'red', expected a finite number"),
        (rows(first="inf,cat,2"), r"column 'a' holds 'inf'"),
        (rows(first="1e39,cat,2"), r"column 'a' holds '1e39'"),  # finite, but not as float32
        (rows(first='"1,5",cat,2'), r"column 'a' holds '1,5'"),
        (rows(first="1.5,,2"), r"t\.csv:2: column 'kind' has no value"),
        (rows(first="1.5,cat"), r"t\.csv:2: has 2 cells, expected 3"),
        (rows(first="1.5,cat,2\n\n1,cat,x"), r"t\.csv:4: column 'b' holds 'x'"),
        (rows(first='"1.5\n",cat,2\n1,cat,x'), r"t\.csv:4: column 'b' holds 'x'"),
        (rows(header="a,king,b"), r"t\.csv:1: has no column 'kind'; did you mean 'king'\?"),
        (rows(header="a,kind,a"), r"t\.csv:1: has two columns called 'a'"),
        (rows(header="a,kind,b", first='1.5,cat,"2'), r"t\.csv: is no readable CSV file"),
        ("a,kind,b\n", r"holds no rows"),
        ("", r"holds no rows"),
        ("a,kind\n1,cat\n2,dog\n", r"has 1 feature columns, expected 2"),
        (rows(first="1.5,bird,2"), r"t\.csv:2: the label 'bird' is no class"),
    ],
)
def test_what_is_wrong_is_placed(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(DataError, match=says):
        loaded(NAMED, write(tmp_path, text))


def test_a_label_number_beyond_the_classes(tmp_path: Path) -> None:
    text = "a,kind,b\n" + "".join(f"{i},{i % 2},0\n" for i in range(20)) + "1,2,0\n"
    with pytest.raises(DataError, match=r"t\.csv:22: the label '2' is no class"):
        loaded(NAMED, write(tmp_path, text))


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"a,kind,b\n1,\xff\xfe,2\n")
    with pytest.raises(DataError, match="is no readable CSV file"):
        loaded(CARD, tmp_path)


def test_a_column_of_ids_is_no_label(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.data.csv_table.MOST_CLASSES", 10)
    text = "a,kind,b\n" + "".join(f"{i},id{i},0\n" for i in range(20))
    with pytest.raises(DataError, match=r"holds 20 different values, expected at most 10"):
        loaded(CARD, write(tmp_path, text))


def test_the_card_must_name_the_label_column(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs 'label_column'"):
        loaded(card("csv", (2,), files=all_of("t.csv")), write(tmp_path, rows()))
