"""What lies in a folder or file: found out for everything that people have, and refused in words for the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import ConfigError, DataError, KaruiError
from pipeline.starting.arrays import called, idx_files
from pipeline.starting.look import look
from pipeline.starting.seen import Seen
from tests.declared import work as work  # noqa: PLC0414  a fixture

ROWS, CLASSES = np.zeros((9, 4)), np.arange(9) % 3


def looked(place: str, label: str | None = None) -> Seen:
    return look(Path(place), label=label, choose=lambda _, likely: likely)


# ── arrays ──────────────────────────────────────────────────────────────────────────────────────────────────────────

ARRAYS: dict[str, tuple[dict[str, Any], str]] = {
    "rows": ({"x": ROWS, "y": CLASSES}, "9 samples of shape 4, 3 classes"),
    "truths": ({"x": ROWS, "y": CLASSES == 0}, "9 samples of shape 4, 2 classes"),
    "grey pictures": ({"x": np.zeros((9, 8, 6), np.uint8), "y": CLASSES}, "9 samples of shape 1×8×6, 3 classes"),
    "numbers": ({"x": ROWS, "y": np.zeros((9, 2))}, "9 samples of shape 4, 2 numbers to predict"),
    "other names": ({"Images": np.zeros((9, 3, 8, 8)), "labels": CLASSES}, "9 samples of shape 3×8×8, 3 classes"),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_say_what_they_are(name: str, work: Path) -> None:
    arrays, summary = ARRAYS[name]
    np.savez(work / "a.npz", **arrays)
    assert looked("a.npz").summary == summary


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_bytes_of_pictures_are_divided(dtype: type, work: Path) -> None:
    np.savez(work / "a.npz", x=np.zeros((9, 8, 8), dtype), y=CLASSES)
    assert looked("a.npz").divide == (255 if dtype is np.uint8 else 1)


def test_splits_of_arrays_are_those_that_have_samples_of_their_own(work: Path) -> None:
    np.savez(work / "a.npz", x_train=ROWS, y_train=CLASSES, x_test=ROWS, y_test=CLASSES)
    assert looked("a.npz").own_splits == ("test",)


NO_ARRAYS: dict[str, tuple[dict[str, Any], str]] = {
    "one sample": ({"x": np.float32(3), "y": CLASSES}, r"x has the shape \(\), expected \(N, columns\)"),
    "numbers in a row": ({"x": np.zeros(9), "y": CLASSES}, r"x has the shape \(9,\)"),
    "no sample": ({"x": ROWS[:0], "y": CLASSES[:0]}, r"x has the shape \(0, 4\)"),
    "too many axes": ({"x": np.zeros((9, 1, 2, 3, 4)), "y": CLASSES}, r"x has the shape \(9, 1, 2, 3, 4\)"),
    "channels last": ({"x": np.zeros((9, 8, 8, 3)), "y": CLASSES}, "with the channels last"),
    "one number": ({"x": ROWS, "y": np.float32(3)}, r"the labels are float32 of shape \(\)"),
    "one class": ({"x": ROWS, "y": np.int64(3)}, r"the labels are int64 of shape \(\)"),
    "no label": ({"x": ROWS, "y": np.zeros((0, 2))}, r"the labels are float64 of shape \(0, 2\)"),
    "maps": ({"x": ROWS, "y": np.zeros((9, 2, 2))}, r"the labels are float64 of shape \(9, 2, 2\)"),
    "words": ({"x": ROWS, "y": np.array(list("abcabcabc"))}, r"the labels are <U1 of shape \(9,\)"),
    "a column of classes": ({"x": ROWS, "y": CLASSES[:, None]}, r"the labels are int64 of shape \(9, 1\)"),
    "nothing": ({}, "holds no array 'x', found nothing"),
    "half a split": ({"x_train": ROWS, "y": CLASSES}, "holds no array 'y_train', found x_train, y"),
}


@pytest.mark.parametrize("name", NO_ARRAYS)
def test_arrays_that_are_no_data_set(name: str, work: Path) -> None:
    arrays, words = NO_ARRAYS[name]
    np.savez(work / "a.npz", **arrays)
    with pytest.raises(ConfigError, match=words):
        looked("a.npz")


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04nope"])
def test_a_file_that_is_no_archive(content: bytes, work: Path) -> None:
    (work / "a.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.npz: is no readable \.npz file"):
        looked("a.npz")


def test_names_of_arrays_are_known_where_only_one_fits() -> None:
    assert called(["features", "Target"]) == {"x": "features", "y": "Target"}
    assert called(["data", "features", "y"]) == {"x": "x", "y": "y"}
    assert called(["x", "images", "y"]) == {"x": "x", "y": "y"}
    assert called(["data_train", "labels_train"]) == {"x": "data", "y": "labels"}


def test_idx_files_are_taken_in_pairs(work: Path) -> None:
    for name in ("train-images-idx3-ubyte", "t10k-images.idx3-ubyte.gz", "t10k-labels.idx1-ubyte.gz", "notes.txt"):
        (work / name).write_bytes(b"")
    assert idx_files(work) == {}
    (work / "train-labels-idx1-ubyte").write_bytes(b"")
    assert set(idx_files(work)) == {f"{split}-{what}" for split in ("train", "test") for what in ("images", "labels")}
    assert idx_files(work / "nowhere") == {}


# ── tables ──────────────────────────────────────────────────────────────────────────────────────────────────────────

TABLES: dict[str, tuple[str, str]] = {
    "classes": ("a,b,label\n" + "1,2,x\n3,4,y\n" * 5, "10 rows, 2 columns of features, 2 classes in 'label'"),
    "the last column": ("a,b,c\n1,2,3\n4,5,6\n", "2 rows, 2 columns of features, 2 classes in 'c'"),
    "one of two that fit": ("label,class\n1,2\n3,4\n", "2 rows, 1 column of features, 2 classes in 'label'"),
    "an amount": ("a,y\n1,0.5\n3,0.25\n", "2 rows, 1 column of features, the number 'y' to predict"),
    "commas in numbers": ("a;label\n1,5;x\n2,5;y\n", "2 rows, 1 column of features, 2 classes in 'label'"),
    "numbered rows": (
        "id,a,label\n7,5,x\n9,8,y\n8,7,x\n", "3 rows, 1 column of features, 2 classes in 'label'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLES)
def test_tables_say_what_they_are(name: str, work: Path) -> None:
    text, summary = TABLES[name]
    (work / "t.csv").write_text(text)
    assert looked("t.csv").summary == summary


NO_TABLES: dict[str, tuple[str, str]] = {
    "empty": ("", "holds no rows"),
    "names alone": ("a,b\n", "holds no rows"),
    "one column": ("a\n1\n2\n", "has no column to predict 'a' from"),
    "names twice": ("a,a,label\n1,2,x\n3,4,y\n", r"t\.csv:1: has two columns called 'a'"),
    "no values": ("a,label\n,x\n,y\n", "has no column to predict 'label' from"),
    "short rows": ("a,b,label\n1,2\n3,4,x\n", r"t\.csv:2: has 2 cells, expected 3"),
}


@pytest.mark.parametrize("name", NO_TABLES)
def test_tables_that_are_no_data_set(name: str, work: Path) -> None:
    text, words = NO_TABLES[name]
    (work / "t.csv").write_text(text)
    with pytest.raises(KaruiError, match=words):
        looked("t.csv")


def test_a_column_to_predict_has_to_be_there_and_is_for_tables(work: Path) -> None:
    (work / "t.csv").write_text("colour,b\n1,2\n3,4\n")
    assert looked("t.csv", "colour").columns.answer == "colour"  # type: ignore[union-attr]
    with pytest.raises(ConfigError, match="has no column 'color'; did you mean 'colour'"):
        looked("t.csv", "color")
    np.savez(work / "a.npz", x=ROWS, y=CLASSES)
    with pytest.raises(ConfigError, match=r"--label is for tables; 'a\.npz' holds 9 samples"):
        looked("a.npz", "y")


# ── pictures ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _pictures(folder: Path, *below: str, mode: str = "RGB") -> None:
    for name in below:
        for number in range(3):
            path = folder / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new(mode, (8, 8)).save(path)


@pytest.mark.parametrize(
    ("below", "counts", "splits"),
    [
        (("a", "b"), (3, 3), ()),
        (("all/a", "all/b"), (3, 3), ()),
        (("train/a", "train/b", "val/a"), (3, 3), ("val",)),
        (("TRAINING/a", "TRAINING/b", "Test/b", "dev/a"), (3, 3), ("val", "test")),
    ],
)
def test_folders_of_pictures(
    below: tuple[str, ...], counts: tuple[int, ...], splits: tuple[str, ...], work: Path
) -> None:
    _pictures(work / "pets", *below)
    found = looked("pets")
    assert (found.per_class, found.own_splits, found.shape) == (counts, splits, (3, 8, 8))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "I;16"])
def test_grey_pictures_have_one_channel(mode: str, work: Path) -> None:
    _pictures(work / "pets", "a", "b", mode=mode)
    assert looked("pets").shape == (1, 8, 8)


def test_a_folder_with_several_data_sets_is_asked_about(work: Path) -> None:
    _pictures(work / "data/pets", "a", "b")
    np.savez(work / "data/a.npz", x=ROWS, y=CLASSES)
    with pytest.raises(ConfigError, match=r"'data' holds several data sets: a\.npz, pets"):
        looked("data")
    (work / "data/a.npz").unlink()
    assert looked("data").samples == 6
