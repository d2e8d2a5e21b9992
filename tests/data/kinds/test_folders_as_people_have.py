"""Folders as people have them: splits by all their names, deeper folders, numbered classes, what is left out."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from pipeline.artifacts.networks import left_out_words
from pipeline.data.folders import in_number_order
from pipeline.data.load import load, reference
from pipeline.onboard.arrays import PICTURE_SUFFIXES as SUFFIXES
from tests.data.kinds.pets import DECLARED, refused, write_set
from tests.data.sets import classes_in, samples


@pytest.mark.parametrize(
    "words", [("Train", "valid", "TEST"), ("training", "validation", "testing"), ("train", "dev", "test")]
)
def test_splits_are_known_by_all_their_names(tmp_path: Path, words: tuple[str, ...]) -> None:
    for split, count in zip(words, (5, 2, 3), strict=True):
        write_set(tmp_path / "pets" / split, count)
    dataset = load(reference(DECLARED, tmp_path))
    assert [len(one) for one in (dataset.train, dataset.val, dataset.test)] == [10, 4, 6]


@pytest.mark.parametrize(
    ("folders", "says"),
    [
        (("train", "unlabeled"), "'unlabeled' holds pictures and is none of train"),
        (("train", "val", "valid"), "'val' and 'valid' both say val"),
        (("valid", "test"), "holds a folder '(valid|test)' with folders in it, but none called 'train'"),
    ],
)
def test_splits_that_cannot_be_meant(tmp_path: Path, folders: tuple[str, ...], says: str) -> None:
    for folder in folders:
        write_set(tmp_path / "pets" / folder)
    refused(tmp_path, says)


def test_a_class_may_be_called_train_or_test(tmp_path: Path) -> None:
    write_set(tmp_path / "pets")
    (tmp_path / "pets" / "cat").rename(tmp_path / "pets" / "train")
    assert load(reference(DECLARED, tmp_path)).classes == ("dog", "train")


def test_an_unpacked_archive_is_a_folder_in_a_folder(tmp_path: Path) -> None:
    write_set(tmp_path / "pets" / "pets-v2")
    (tmp_path / "pets" / "__MACOSX" / "cat").mkdir(parents=True)
    (tmp_path / "pets" / "__MACOSX" / "cat" / "._00.png").write_bytes(b"x")
    dataset = load(reference(DECLARED, tmp_path))
    assert (dataset.classes, len(dataset.train)) == (("cat", "dog"), 8)


@pytest.mark.parametrize("suffix", ["webp", "tiff", "gif", "jfif", "TIF", "ppm", "WebP"])
def test_every_usual_format_is_read(tmp_path: Path, suffix: str) -> None:
    write_set(tmp_path / "pets", suffix=suffix)
    assert len(load(reference(DECLARED, tmp_path)).train) == 8


def test_suffixes_are_those_of_pillow() -> None:
    Image.init()
    known = {suffix for suffix, name in Image.registered_extensions().items() if name in Image.OPEN}
    assert known.issuperset({*SUFFIXES} - {".mpo"})  # JPEGs of some phones


def test_deeper_folders_are_read(tmp_path: Path) -> None:
    write_set(tmp_path / "pets")
    deep = tmp_path / "pets" / "dog" / "2024" / "may"
    deep.mkdir(parents=True)
    for picture in (tmp_path / "pets" / "dog").glob("0[6-8].png"):
        picture.rename(deep / picture.name)
    dataset = load(reference(DECLARED, tmp_path))
    assert len(dataset.train) + len(dataset.val) + len(dataset.test) == 12


def test_links_to_deeper_folders_are_refused(tmp_path: Path) -> None:
    write_set(tmp_path / "pets")
    (tmp_path / "pets" / "dog" / "again").symlink_to(tmp_path / "pets")
    refused(tmp_path, "is a link to a folder")


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    write_set(tmp_path / "pets")
    for name in ("cat/1.heic", "cat/2.HEIC", "dog/Thumbs.db", "dog/.DS_Store", "notes.txt", "dog/x\x1b[31m.a\x1bb"):
        (tmp_path / "pets" / name).write_bytes(b"x")
    Image.new("RGB", (4, 5)).save(tmp_path / "pets" / "loose.png")
    left_out = load(reference(DECLARED, tmp_path)).left_out
    assert left_out == {
        "of type .heic": 2,
        "of type .txt": 1,
        "of no known type": 1,
        "hidden or of the system": 2,
        "beside the folders of the classes": 1,
    }
    assert left_out_words(left_out).startswith("2 of type .heic, 2 hidden or of the system, 1 ")


def test_numbered_classes_stand_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for number in range(12):
        (tmp_path / "pets" / str(number)).mkdir(parents=True)
        for sample in range(6):
            Image.new("RGB", (4, 5), (number, 0, 0)).save(tmp_path / "pets" / str(number) / f"{sample}.png")
    train = load(reference(DECLARED, tmp_path)).train
    assert samples(train)[:, 0, 0, 0].tolist() == classes_in(train).tolist()


@pytest.mark.parametrize(
    "ordered", [["-10", "-2", "0.5", "3", "12"], ["b", "run9", "run10", "run10b"], ["inf", "nan"], ["01", "1", "2a"]]
)
def test_numbers_in_names_count_by_their_value(ordered: list[str]) -> None:
    assert in_number_order(sorted(ordered)) == ordered
