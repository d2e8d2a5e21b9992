"""CSV tables: numbers or a refusal that names line and column."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.data.load import reference
from pipeline.data.source import INPUT, Dataset
from pipeline.declare.card import DatasetCard
from pipeline.errors import ConfigError, DataError
from pipeline.onboard.frontend import prepare
from tests.data.sets import all_of, card, classes_in, loaded, samples

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
    read = samples(dataset.train, np.arange(len(dataset.train)))
    assert (read.dtype.str, read.shape) == ("<f4", (12, 2))
    expected = {(1.5, 2.0): 0} | {(i + 0.5, -10.0 * i): i % 2 for i in range(1, 20)}
    assert [expected[a, b] for a, b in read.tolist()] == classes_in(dataset.train).tolist()


def test_number_labels_are_sorted_as_numbers(tmp_path: Path) -> None:
    text = "a,kind,b\n" + "".join(f"{i},{(2, 10)[i % 2]},0\n" for i in range(20))
    assert loaded(CARD, write(tmp_path, text)).classes == ("2", "10")


def test_number_labels_point_into_the_named_classes(tmp_path: Path) -> None:
    text = "a,kind,b\n" + "".join(f"{i},{i % 2},0\n" for i in range(20))
    dataset = loaded(NAMED, write(tmp_path, text))
    assert dataset.classes == ("cat", "dog")
    assert [int(a) % 2 for a, _ in samples(dataset.test, np.arange(4)).tolist()] == classes_in(dataset.test).tolist()


def test_columns_fill_a_picture(tmp_path: Path) -> None:
    text = "p0,p1,p2,p3,kind\n" + "".join(f"{i},1,2,3,{i % 2}\n" for i in range(20))
    declared = card("csv", (1, 2, 2), files=all_of("t.csv"), label_column="kind")
    assert samples(loaded(declared, write(tmp_path, text)).train, np.arange(1)).shape == (1, 1, 2, 2)


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
        (rows(first="1_000,cat,2"), r"column 'a' holds '1_000'"),
        (rows(first="\u0663,cat,2"), r"column 'a' holds '\u0663'"),  # a digit, but not of ours
        (rows(first="true,cat,2"), r"column 'a' holds 'true'"),
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


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
@pytest.mark.parametrize("comma", [False, True])
@pytest.mark.parametrize("said", [False, True])
def test_tables_as_spreadsheets_write_them(tmp_path: Path, delimiter: str, comma: bool, said: bool) -> None:
    cells = [["1.5", "-0.25"], ["2", "1e3"], [".5", "7.0"]]
    text = f"sep={delimiter}\n" if said else ""
    text += delimiter.join(["a", "kind", "b, in m"]) + "\n"
    for number in range(30):
        a, b = (cell.replace(".", ",") if comma else cell for cell in cells[number % 3])
        text += delimiter.join([a, ("cat", "dog")[number % 2], b]) + "\n"
    dataset = loaded(CARD, write(tmp_path, text))
    read = samples(dataset.train)
    assert {tuple(row) for row in read.tolist()} == {(1.5, -0.25), (2.0, 1000.0), (0.5, 7.0)}


def test_a_point_among_decimal_commas_is_refused_with_its_line(tmp_path: Path) -> None:
    text = "a;kind;b\n" + "".join(f"1,{i};{('cat', 'dog')[i % 2]};2\n" for i in range(20)) + "1.234;cat;3\n"
    with pytest.raises(DataError, match=r"t\.csv:22: column 'a' holds '1\.234', expected a finite number") as caught:
        loaded(CARD, write(tmp_path, text))
    assert "decimal commas" in caught.value.remedy


def test_a_comma_in_a_text_is_no_decimal_comma(tmp_path: Path) -> None:
    text = "a;kind;b\n" + "".join(f"1.{i};{('1,2', 'dog')[i % 2]};2\n" for i in range(20))
    assert loaded(CARD, write(tmp_path, text)).classes == ("1,2", "dog")


def test_a_label_number_beyond_the_classes(tmp_path: Path) -> None:
    text = "a,kind,b\n" + "".join(f"{i},{i % 2},0\n" for i in range(20)) + "1,2,0\n"
    with pytest.raises(DataError, match=r"t\.csv:22: the label '2' is no class"):
        loaded(NAMED, write(tmp_path, text))


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"a,kind,b\n1,\xff\xfe,2\n")
    with pytest.raises(DataError, match="is no readable CSV file"):
        loaded(CARD, tmp_path)


def test_a_column_of_ids_is_no_label(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.data.kinds.csv.MOST_CLASSES", 10)
    text = "a,kind,b\n" + "".join(f"{i},id{i},0\n" for i in range(20))
    with pytest.raises(DataError, match=r"holds 20 different values, expected at most 10"):
        loaded(CARD, write(tmp_path, text))


def test_the_card_must_name_the_label_column(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs 'label_column'"):
        loaded(card("csv", (2,), files=all_of("t.csv")), write(tmp_path, rows()))


# ── numbers to predict, groups, ignored columns ─────────────────────────────────────────────────────────────────────


def houses(count: int = 40) -> str:
    """Return rooms, id, place, street, price: price is 1000 times rooms, every fifth row has no number of rooms."""
    rows_ = [
        f"{'' if i % 5 == 4 else i},{i + 1000},{('sea', 'hill', 'town')[i % 3]},street {i // 4},{1000 * i}"
        for i in range(count)
    ]
    return "\n".join(["rooms,id,place,street,price", *rows_]) + "\n"


HOUSE_KEYS = {
    "task": "regression",
    "target_columns": ["price"],
    "target_divide": 1000,
    "ignored_columns": ["id", "street"],
    "missing": "median",
    "categories": {"place": ["hill", "sea", "town"]},
}


def house_card(**more: Any) -> DatasetCard:
    keys = {"files": all_of("t.csv"), "input": {"normalize": "none"}, **HOUSE_KEYS, **more}
    declared = {"name": "set", "title": "", "kind": "csv", "split": {"val": 0.2, "test": 0.2}, **keys}
    return DatasetCard.model_validate({key: value for key, value in declared.items() if value is not None})


def seen(dataset: Dataset, split: str) -> NDArray[np.float32]:
    """Return a split as the network sees it."""
    return prepare({INPUT: samples(getattr(dataset, split))}, dataset.frontend)[INPUT]


def test_columns_become_what_the_network_sees(tmp_path: Path) -> None:
    dataset = loaded(house_card(), write(tmp_path, houses()))
    assert dataset.card.input.shape == (4,)  # rooms and three places; the card does not say it
    assert dataset.classes == ()
    raw = samples(dataset.train)
    assert raw.shape == (24, 2)
    known = raw[~np.isnan(raw[:, 0]), 0]
    assert len(known) < 24
    rows_ = seen(dataset, "train")
    assert np.array_equal(rows_[:, 0], np.where(np.isnan(raw[:, 0]), np.median(known), raw[:, 0]))
    assert np.array_equal(rows_[:, 1:], np.eye(3, dtype=np.float32)[raw[:, 1].astype(int)])
    price = dataset.train.wanted(np.arange(24))["number"]
    assert price.dtype == np.float32
    filled = ~np.isnan(raw[:, 0])
    assert np.array_equal(price[filled, 0], raw[filled, 0])
    assert [dataset.frontend[INPUT][number].step for number in range(3)] == ["fill", "one_hot", "normalize"]


def test_the_median_is_that_of_the_training_split(tmp_path: Path) -> None:
    # all large values are in a test file of their own
    write(tmp_path, houses(20))
    far = houses(40).splitlines()
    (tmp_path / "far.csv").write_text("\n".join([far[0], *far[30:]]) + "\n")
    files = {"train": {"path": "t.csv"}, "test": {"path": "far.csv"}}
    dataset = loaded(house_card(files=files), tmp_path)
    values = dict(dataset.frontend[INPUT][0].settings)["values"]
    known = samples(dataset.train)[:, 0]
    assert values == [float(np.median(known[~np.isnan(known)])), -1.0]
    assert values[0] < 20


def test_missing_may_be_a_number_or_refused(tmp_path: Path) -> None:
    write(tmp_path, houses())
    dataset = loaded(house_card(missing=-7), tmp_path)
    assert (seen(dataset, "train")[np.isnan(samples(dataset.train)[:, 0]), 0] == -7).all()
    with pytest.raises(DataError, match=r"t\.csv:6: column 'rooms' has no value"):
        loaded(house_card(missing="refuse"), tmp_path)
    with pytest.raises(ConfigError, match="missing"):
        loaded(house_card(missing="mean"), tmp_path)


def test_a_missing_category_is_no_category(tmp_path: Path) -> None:
    text = houses().replace("0,1000,sea", "0,1000,", 1)
    dataset = loaded(house_card(), write(tmp_path, text))
    rows_ = np.concatenate([seen(dataset, split) for split in ("train", "val", "test")])
    assert sorted(rows_[:, 1:].sum(1).tolist()) == [0.0] + [1.0] * 39
    with pytest.raises(DataError, match=r"t\.csv:2: column 'place' has no value"):
        loaded(house_card(missing="refuse", ignored_columns=["id", "street", "rooms"]), tmp_path)


@pytest.mark.parametrize("asked", ["auto", []])
def test_categories_may_be_those_of_the_training_split(tmp_path: Path, asked: object) -> None:
    # "moon" is in the test file alone: nothing could be learned about it, so it gets no column
    write(tmp_path, houses(20))
    (tmp_path / "moon.csv").write_text("place,rooms,price,id,street\nmoon,1,1000,1,a\nsea,2,2000,2,b\n")
    files = {"train": {"path": "t.csv"}, "test": {"path": "moon.csv"}}
    dataset = loaded(house_card(files=files, categories={"place": asked}), tmp_path)
    assert dataset.card.input.shape == (4,)
    # columns go by their names: those of the test file stand in another order
    assert seen(dataset, "test").tolist() == [[1, 0, 0, 0], [2, 0, 1, 0]]


def test_normalisation_is_measured_on_the_training_split(tmp_path: Path) -> None:
    # golden values: rooms are 0, 1, 2, 3 (and the median in place of gaps); categories stay 0 and 1
    text = "rooms,place,price\n" + "".join(f"{i % 4},{'ab'[i % 2]},{i}\n" for i in range(40))
    (tmp_path / "test.csv").write_text("rooms,place,price\n1000,a,1\n")
    (tmp_path / "val.csv").write_text("rooms,place,price\n-50,b,1\n")
    files = {"train": {"path": "t.csv"}, "val": {"path": "val.csv"}, "test": {"path": "test.csv"}}
    declared = house_card(
        files=files, categories={"place": ["a", "b"]}, ignored_columns=None, input={"normalize": "train", "clip": 30}
    )
    dataset = loaded(declared, write(tmp_path, text))
    settings = dict(dataset.frontend[INPUT][2].settings)
    assert settings == {"divide": 1.0, "mean": [1.5, 0.0, 0.0], "std": [float(np.float32(np.sqrt(1.25))), 1.0, 1.0]}
    assert seen(dataset, "train")[:2].tolist() == pytest.approx(np.array([[-1.3416408, 1, 0], [-0.4472136, 0, 1]]))
    assert seen(dataset, "test").tolist() == [[30, 1, 0]]  # 893 standard deviations away, cut off
    assert seen(dataset, "val").tolist() == [[-30, 0, 1]]


def test_a_column_that_never_changes_keeps_its_scale(tmp_path: Path) -> None:
    text = "a,b,kind\n" + "".join(f"7,{i},{i % 2}\n" for i in range(20))
    declared = card("csv", (2,), files=all_of("t.csv"), label_column="kind", input={"normalize": "train"})
    rows_ = seen(loaded(declared, write(tmp_path, text)), "train")
    assert (rows_[:, 0] == 0).all()
    assert rows_[:, 1].std() == pytest.approx(1, abs=1e-6)


def test_groups_stay_together(tmp_path: Path) -> None:
    declared = house_card(group_column="street", ignored_columns=["id"], missing=0)
    dataset = loaded(declared, write(tmp_path, houses()))
    places = [
        set((split.groups // 1).tolist())
        for split in (dataset.train, dataset.val, dataset.test)
        if split.groups is not None
    ]
    assert [len(each) for each in places] == [6, 2, 2]  # of ten streets
    assert sum(len(each) for each in places) == len(set.union(*places))
    price = dataset.test.wanted(np.arange(8))["number"][:, 0].astype(int)
    assert len({number // 4 for number in price.tolist()}) == 2


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"target_columns": None}, "needs 'target_columns'"),
        ({"task": "segmentation"}, "holds no masks, which the task 'segmentation' learns from"),
        ({"target_column": "price"}, "the top level has no 'target_column'; did you mean 'target_columns'"),
        ({"categories": {"place": 3}}, r"\[categories\] place = 3|categories"),
        ({"input": {"shape": [1, 2, 2]}}, r"\[input\] shape: 'categories' and 'missing' are for rows of a table"),
        ({"folder": "x"}, "the top level has no 'folder'"),
    ],
)
def test_cards_that_cannot_be_meant(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        reference(house_card(**change), write(tmp_path, houses()))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"target_columns": ["cost"]}, r"t\.csv:1: has no column 'cost'"),
        ({"ignored_columns": ["id", "stret"]}, r"has no column 'stret'; did you mean 'street'"),
        ({"group_column": "stret", "ignored_columns": ["id"]}, r"has no column 'stret'"),
        ({"ignored_columns": ["id"]}, r"t\.csv:2: column 'street' holds 'street 0', expected a finite number"),
        (
            {"categories": {"place": ["hill", "see", "town"]}},
            r"t\.csv:2: column 'place' holds 'sea', .*; did you mean 'see'",
        ),
        ({"input": {"shape": [5]}}, r"the network's input has the shape \[4\], expected \[5\]"),
        ({"target_columns": ["rooms"]}, r"t\.csv:6: column 'rooms' has no value"),  # nothing is guessed there
    ],
)
def test_tables_that_are_not_what_the_card_says(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError, match=says):
        loaded(house_card(**change), write(tmp_path, houses()))


def test_a_mean_for_another_number_of_columns(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\[input\] mean has 3 values, expected one or one per channel \(4\)"):
        loaded(house_card(input={"mean": [1, 2, 3]}), write(tmp_path, houses()))


def test_a_column_without_any_value_has_no_median(tmp_path: Path) -> None:
    text = "rooms,price\n" + "".join(f",{i}\n" for i in range(20))
    with pytest.raises(DataError, match="column 'rooms' has no value in the training split"):
        loaded(house_card(categories=None, ignored_columns=None), write(tmp_path, text))


def test_a_second_table_with_another_column(tmp_path: Path) -> None:
    write(tmp_path, rows())
    (tmp_path / "u.csv").write_text(rows(header="a,kind,c"))
    declared = card("csv", (2,), files={"train": {"path": "t.csv"}, "test": {"path": "u.csv"}}, label_column="kind")
    with pytest.raises(DataError, match=r"u\.csv:1: has a column 'c' that the training table lacks"):
        loaded(declared, tmp_path)
