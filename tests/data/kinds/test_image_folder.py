"""Folders of pictures: what is decoded, streamed, recalled and refused."""

from __future__ import annotations

import os
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.data.load import load, reference
from pipeline.data.pictures import PictureSource
from pipeline.data.source import INPUT, ArraySource, Subset
from pipeline.errors import ConfigError, DataError
from tests.data.kinds.pets import DECLARED, GREY, RGB, refused, write_set
from tests.data.sets import card, classes_in, samples


def test_pictures_are_read_once_when_they_fit(tmp_path: Path) -> None:
    pixels = write_set(tmp_path / "pets")
    dataset = load(reference(DECLARED, tmp_path))
    assert dataset.classes == ("cat", "dog")
    whole = {picture.tobytes(): number // 6 for number, picture in enumerate(pixels)}
    for split in (dataset.train, dataset.val, dataset.test):
        assert isinstance(split, ArraySource)
        read = samples(split, np.arange(len(split)))
        assert (read.dtype.str, read.shape[1:]) == ("|u1", RGB)
        assert [whole.pop(picture.tobytes()) for picture in read] == classes_in(split).tolist()
    assert not whole


@pytest.mark.parametrize("suffix", ["png", "bmp", "PNG"])
def test_large_folders_are_streamed_with_the_same_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    write_set(tmp_path / "pets", suffix=suffix)
    held = load(reference(DECLARED, tmp_path)).train
    monkeypatch.setattr("pipeline.data.source.DECODED_BUDGET_BYTES", 12 * 3 * 5 * 4 - 1)
    monkeypatch.setattr("pipeline.data.load._held", [])
    streamed = load(reference(DECLARED, tmp_path)).train
    assert isinstance(streamed, Subset)
    assert isinstance(streamed.whole, PictureSource)
    order = np.array([5, 0, 3, 3])
    assert np.array_equal(samples(streamed, order), samples(held, order))
    assert np.array_equal(classes_in(streamed), classes_in(held))


def test_jpeg_is_near(tmp_path: Path) -> None:
    root = tmp_path / "pets"
    for name, value in (("cat", 40), ("dog", 200)):
        (root / name).mkdir(parents=True)
        for number in range(4):
            Image.new("RGB", (4, 5), (value, value, value)).save(root / name / f"{number}.jpeg")
    train = load(reference(DECLARED, tmp_path)).train
    # flat grey survives JPEG's rounding to within one step
    assert np.abs(samples(train).mean(axis=(1, 2, 3)) - (40 + 160 * classes_in(train))).max() <= 1


def test_grey_becomes_rgb_and_rgb_becomes_grey(tmp_path: Path) -> None:
    grey = write_set(tmp_path / "pets", shape=GREY)
    train = load(reference(DECLARED, tmp_path)).train
    assert {picture[0].tobytes() for picture in samples(train, np.arange(4))} <= {picture.tobytes() for picture in grey}
    write_set(tmp_path / "pets", shape=RGB)
    declared = card("image-folder", GREY, folder="pets")
    assert samples(load(reference(declared, tmp_path)).train, np.arange(2)).shape == (2, *GREY)


def test_own_splits_are_kept(tmp_path: Path) -> None:
    for split, count in (("train", 5), ("val", 2), ("test", 3)):
        write_set(tmp_path / "pets" / split, count)
    dataset = load(reference(DECLARED, tmp_path))
    assert [len(one) for one in (dataset.train, dataset.val, dataset.test)] == [10, 4, 6]


@pytest.mark.parametrize("writable", [True, False])
def test_many_pictures_are_decoded_once_into_a_file_that_nobody_sees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writable: bool
) -> None:
    write_set(tmp_path / "pets")
    held = load(reference(DECLARED, tmp_path)).train
    cache = tmp_path / "cache"
    if not writable:
        cache.write_text("a file where the folder should be")
    monkeypatch.setattr("platformdirs.user_cache_path", lambda *_, **__: cache)
    monkeypatch.setattr("pipeline.data.pictures.ON_DISK_FROM_BYTES", 100)  # less than two pictures at once
    monkeypatch.setattr("pipeline.data.source.MEMORY_BUDGET_BYTES", 0)
    monkeypatch.setattr("pipeline.data.load._held", [])
    kept = load(reference(DECLARED, tmp_path)).train
    assert isinstance(kept, Subset)
    assert isinstance(kept.whole, ArraySource)
    assert np.array_equal(samples(kept), samples(held))
    assert np.array_equal(classes_in(kept), classes_in(held))
    assert not writable or list(cache.iterdir()) == []
    assert isinstance(kept.whole.inputs[INPUT].base, np.memmap) == writable


def test_classes_keep_the_order_of_the_card(tmp_path: Path) -> None:
    write_set(tmp_path / "pets")
    declared = DECLARED.model_copy(update={"classes": ("dog", "cat")})
    dataset = load(reference(declared, tmp_path))
    assert dataset.classes == ("dog", "cat")
    assert isinstance(dataset.train, ArraySource)


def test_what_is_no_picture_is_passed_over(tmp_path: Path) -> None:
    write_set(tmp_path / "pets")
    (tmp_path / "pets" / "cat" / "notes.txt").write_text("mine")
    (tmp_path / "pets" / "cat" / ".hidden.png").write_text("no picture")
    (tmp_path / "pets" / "README").write_text("hello")
    assert len(load(reference(DECLARED, tmp_path)).train) == 8


@pytest.mark.parametrize("streamed", [False, True])
def test_another_size_is_named_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, streamed: bool) -> None:
    if streamed:
        monkeypatch.setattr("pipeline.data.source.DECODED_BUDGET_BYTES", 0)
    write_set(tmp_path / "pets")
    Image.new("RGB", (7, 9)).save(tmp_path / "pets" / "dog" / "odd.png")
    error = refused(tmp_path, r"is 7×9 pixels \(width×height\), expected 4×5")
    assert error.where == str(tmp_path / "pets" / "dog" / "odd.png")
    assert "shape = [3, 9, 7]" in error.remedy


@pytest.mark.parametrize("name", ["cut.png", "text.jpg", "empty.bmp"])
def test_corrupt_pictures_are_named(tmp_path: Path, name: str) -> None:
    write_set(tmp_path / "pets")
    whole = (tmp_path / "pets" / "cat" / "00.png").read_bytes()
    content = {"cut.png": whole[: len(whole) // 2], "text.jpg": b"hello", "empty.bmp": b""}[name]
    (tmp_path / "pets" / "cat" / name).write_bytes(content)
    assert refused(tmp_path, r"is no readable picture \(PNG, JPEG").where.endswith(name)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(width: int, height: int, pixels: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(pixels)) + _chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [8_000, 12_000, 50_000])  # below, above and far above what Pillow warns of
def test_png_bombs_are_not_unpacked(tmp_path: Path, side: int) -> None:
    write_set(tmp_path / "pets")
    (tmp_path / "pets" / "cat" / "bomb.png").write_bytes(_png(side, side, bytes(1 << 16)))
    error = refused(tmp_path, rf"is {side}×{side} pixels|decompression bomb")
    assert error.where.endswith("bomb.png")


def test_pixels_beyond_the_declared_size_are_ignored(tmp_path: Path) -> None:
    write_set(tmp_path / "pets")
    (tmp_path / "pets" / "cat" / "long.png").write_bytes(_png(4, 5, bytes(1 << 24)))
    assert len(load(reference(DECLARED, tmp_path)).train) == 7


def test_other_formats_under_a_picture_name_are_not_decoded(tmp_path: Path) -> None:
    write_set(tmp_path / "pets")
    Image.new("RGB", (4, 5)).save(tmp_path / "pets" / "cat" / "eps.png", format="EPS")  # Pillow would start a program
    assert refused(tmp_path, "is no readable").where.endswith("eps.png")


def test_sixteen_bit_pictures_are_refused(tmp_path: Path) -> None:
    write_set(tmp_path / "pets")
    Image.fromarray(np.full((5, 4), 40_000, dtype=np.uint16)).save(tmp_path / "pets" / "cat" / "deep.png")
    assert refused(tmp_path, "expected 8 bits per value").where.endswith("deep.png")


def test_huge_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.data.folders.LARGEST_FILE_BYTES", 1000)
    write_set(tmp_path / "pets")
    (tmp_path / "pets" / "dog" / "huge.png").write_bytes(bytes(1001))
    assert refused(tmp_path, "has 1,001 bytes, expected at most 1,000").where.endswith("huge.png")


@pytest.mark.parametrize("what", ["file", "folder"])
def test_links_out_of_the_folder_are_refused(tmp_path: Path, what: str) -> None:
    write_set(tmp_path / "pets")
    write_set(tmp_path / "other")
    if what == "file":
        (tmp_path / "pets" / "cat" / "link.png").symlink_to(tmp_path / "other" / "cat" / "00.png")
    else:
        (tmp_path / "pets" / "bird").symlink_to(tmp_path / "other" / "cat")
    refused(tmp_path, r"is a link to .*other/cat.*, which lies outside of")


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("nowhere")])
def test_what_only_looks_like_a_file_is_refused(tmp_path: Path, make: Callable[[Path], None]) -> None:
    write_set(tmp_path / "pets")
    make(tmp_path / "pets" / "cat" / "x.png")
    assert refused(tmp_path, "is no file but|cannot be read: No such file").where.endswith("x.png")


def test_links_inside_and_a_linked_folder_are_fine(tmp_path: Path) -> None:
    write_set(tmp_path / "real")
    (tmp_path / "real" / "cat" / "again.png").symlink_to(tmp_path / "real" / "cat" / "00.png")
    (tmp_path / "pets").symlink_to(tmp_path / "real")
    assert len(load(reference(DECLARED, tmp_path)).train) == 7


def test_empty_and_unknown_classes(tmp_path: Path) -> None:
    write_set(tmp_path / "pets")
    (tmp_path / "pets" / "emu").mkdir()
    assert refused(tmp_path, r"holds no pictures \(.*\.bmp, ").where.endswith("emu")
    (tmp_path / "pets" / "emu" / "1.heic").write_bytes(b"x")
    refused(tmp_path, r"holds no pictures .*, found 1 of type \.heic")
    declared = DECLARED.model_copy(update={"classes": ("cat", "dogs")})
    (tmp_path / "pets" / "emu").rename(tmp_path / "emu")
    with pytest.raises(DataError, match="'dog' is no class of the data set; did you mean 'dogs'"):
        load(reference(declared, tmp_path))


def test_a_class_that_the_test_folder_lacks(tmp_path: Path) -> None:
    write_set(tmp_path / "pets" / "train")
    write_set(tmp_path / "pets" / "test")
    (tmp_path / "pets" / "test" / "dog").rename(tmp_path / "dog")
    refused(tmp_path, r"the test split \(6 samples\) holds none of the class 'dog'")


def test_no_classes_and_one_class(tmp_path: Path) -> None:
    (tmp_path / "pets").mkdir()
    refused(tmp_path, "holds no folders")
    write_set(tmp_path / "pets")
    (tmp_path / "pets" / "dog").rename(tmp_path / "dog")
    refused(tmp_path, "all 6 samples are of one class, 'cat'")


def test_a_picture_that_changes_gives_another_digest(tmp_path: Path) -> None:
    write_set(tmp_path / "pets")
    before = reference(DECLARED, tmp_path)
    assert reference(DECLARED, tmp_path).digest == before.digest
    Image.new("RGB", (4, 5)).save(tmp_path / "pets" / "cat" / "00.png")
    assert reference(DECLARED, tmp_path).digest != before.digest
    with pytest.raises(DataError, match="the files changed while this run was using them"):
        load(before)


def test_a_file_that_vanishes_while_streaming_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.data.source.DECODED_BUDGET_BYTES", 0)
    write_set(tmp_path / "pets")
    train = load(reference(DECLARED, tmp_path)).train
    (tmp_path / "pets" / "cat" / "00.png").unlink()
    (tmp_path / "pets" / "cat" / "01.png").unlink()
    with pytest.raises(DataError, match=r"0[01]\.png: is no readable"):
        samples(train, np.arange(len(train)))


def test_the_card_must_name_folder_and_picture_shape(tmp_path: Path) -> None:
    write_set(tmp_path / "pets")
    with pytest.raises(ConfigError, match="needs 'folder'"):
        reference(card("image-folder", RGB), tmp_path)
    for shape in ((4,), (2, 5, 4)):
        with pytest.raises(ConfigError, match=r"pictures are \[1, H, W\] \(grey\) or \[3, H, W\]"):
            load(reference(card("image-folder", shape, folder="pets"), tmp_path))


def test_a_folder_of_8000_pictures_is_recalled_without_decoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = _png(4, 5, bytes(1 << 10))
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for number in range(4000):
            (tmp_path / "pets" / name / f"{number}.png").write_bytes(one)

    def never(*_: object, **__: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(Image, "open", never)
    timings_s = []
    for number in range(3):
        (tmp_path / "pets").rename(tmp_path / f"pets{number}")  # nothing is known of files under another name
        declared = card("image-folder", RGB, folder=f"pets{number}")
        start = time.process_time()  # of this process: other work on the machine does not count
        reference(declared, tmp_path)
        timings_s.append(time.process_time() - start)
        (tmp_path / f"pets{number}").rename(tmp_path / "pets")
    # 0.4 s on a machine with two cores; the start of a run that recalls everything may take 3 s in all
    assert min(timings_s) < 1.5
