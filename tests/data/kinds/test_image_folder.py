"""Folders of pictures: what is decoded, streamed, and refused."""

from __future__ import annotations

import os
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipeline.artifacts.networks import left_out_words
from pipeline.data.folders import in_number_order
from pipeline.data.load import load, reference
from pipeline.data.pictures import PictureSource
from pipeline.data.source import INPUT, ArraySource, Subset
from pipeline.errors import ConfigError, DataError
from pipeline.onboard.arrays import PICTURE_SUFFIXES as SUFFIXES
from tests.data.sets import card, classes_in, pictures, samples

GREY, RGB = (1, 5, 4), (3, 5, 4)  # (C, H, W): 4 wide, 5 high


def write_set(root: Path, per_class: int = 6, suffix: str = "png", shape: tuple[int, ...] = RGB) -> NDArray[np.uint8]:
    """Write pictures of the classes cat and dog; return the pixels, cats first."""
    pixels = pictures(2 * per_class, shape)
    for number, picture in enumerate(pixels):
        folder = root / ("cat", "dog")[number // per_class]
        folder.mkdir(parents=True, exist_ok=True)
        array = picture[0] if shape[0] == 1 else picture.transpose(1, 2, 0)
        Image.fromarray(array).save(folder / f"{number:02}.{suffix}")
    return pixels


DECLARED = card("image-folder", RGB, folder="pets")


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
    monkeypatch.setattr("pipeline.data.load._last", [])
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
    monkeypatch.setattr("pipeline.data.load._last", [])
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


def _refused(tmp_path: Path, says: str) -> DataError:
    with pytest.raises(DataError, match=says) as caught:
        load(reference(DECLARED, tmp_path))
    return caught.value


@pytest.mark.parametrize("streamed", [False, True])
def test_another_size_is_named_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, streamed: bool) -> None:
    if streamed:
        monkeypatch.setattr("pipeline.data.source.DECODED_BUDGET_BYTES", 0)
    write_set(tmp_path / "pets")
    Image.new("RGB", (7, 9)).save(tmp_path / "pets" / "dog" / "odd.png")
    error = _refused(tmp_path, r"is 7×9 pixels \(width×height\), expected 4×5")
    assert error.where == str(tmp_path / "pets" / "dog" / "odd.png")
    assert "shape = [3, 9, 7]" in error.remedy


@pytest.mark.parametrize("name", ["cut.png", "text.jpg", "empty.bmp"])
def test_corrupt_pictures_are_named(tmp_path: Path, name: str) -> None:
    write_set(tmp_path / "pets")
    whole = (tmp_path / "pets" / "cat" / "00.png").read_bytes()
    content = {"cut.png": whole[: len(whole) // 2], "text.jpg": b"hello", "empty.bmp": b""}[name]
    (tmp_path / "pets" / "cat" / name).write_bytes(content)
    assert _refused(tmp_path, r"is no readable picture \(PNG, JPEG").where.endswith(name)


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
    error = _refused(tmp_path, rf"is {side}×{side} pixels|decompression bomb")
    assert error.where.endswith("bomb.png")


def test_pixels_beyond_the_declared_size_are_ignored(tmp_path: Path) -> None:
    write_set(tmp_path / "pets")
    (tmp_path / "pets" / "cat" / "long.png").write_bytes(_png(4, 5, bytes(1 << 24)))
    assert len(load(reference(DECLARED, tmp_path)).train) == 7


def test_other_formats_under_a_picture_name_are_not_decoded(tmp_path: Path) -> None:
    write_set(tmp_path / "pets")
    Image.new("RGB", (4, 5)).save(tmp_path / "pets" / "cat" / "eps.png", format="EPS")  # Pillow would start a program
    assert _refused(tmp_path, "is no readable").where.endswith("eps.png")


def test_sixteen_bit_pictures_are_refused(tmp_path: Path) -> None:
    write_set(tmp_path / "pets")
    Image.fromarray(np.full((5, 4), 40_000, dtype=np.uint16)).save(tmp_path / "pets" / "cat" / "deep.png")
    assert _refused(tmp_path, "expected 8 bits per value").where.endswith("deep.png")


def test_huge_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.data.folders.LARGEST_FILE_BYTES", 1000)
    write_set(tmp_path / "pets")
    (tmp_path / "pets" / "dog" / "huge.png").write_bytes(bytes(1001))
    assert _refused(tmp_path, "has 1,001 bytes, expected at most 1,000").where.endswith("huge.png")


@pytest.mark.parametrize("what", ["file", "folder"])
def test_links_out_of_the_folder_are_refused(tmp_path: Path, what: str) -> None:
    write_set(tmp_path / "pets")
    write_set(tmp_path / "other")
    if what == "file":
        (tmp_path / "pets" / "cat" / "link.png").symlink_to(tmp_path / "other" / "cat" / "00.png")
    else:
        (tmp_path / "pets" / "bird").symlink_to(tmp_path / "other" / "cat")
    _refused(tmp_path, r"is a link to .*other/cat.*, which lies outside of")


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("nowhere")])
def test_what_only_looks_like_a_file_is_refused(tmp_path: Path, make: Callable[[Path], None]) -> None:
    write_set(tmp_path / "pets")
    make(tmp_path / "pets" / "cat" / "x.png")
    assert _refused(tmp_path, "is no file but|cannot be read: No such file").where.endswith("x.png")


def test_links_inside_and_a_linked_folder_are_fine(tmp_path: Path) -> None:
    write_set(tmp_path / "real")
    (tmp_path / "real" / "cat" / "again.png").symlink_to(tmp_path / "real" / "cat" / "00.png")
    (tmp_path / "pets").symlink_to(tmp_path / "real")
    assert len(load(reference(DECLARED, tmp_path)).train) == 7


def test_empty_and_unknown_classes(tmp_path: Path) -> None:
    write_set(tmp_path / "pets")
    (tmp_path / "pets" / "emu").mkdir()
    assert _refused(tmp_path, r"holds no pictures \(.*\.bmp, ").where.endswith("emu")
    (tmp_path / "pets" / "emu" / "1.heic").write_bytes(b"x")
    _refused(tmp_path, r"holds no pictures .*, found 1 of type \.heic")
    declared = DECLARED.model_copy(update={"classes": ("cat", "dogs")})
    (tmp_path / "pets" / "emu").rename(tmp_path / "emu")
    with pytest.raises(DataError, match="'dog' is no class of the data set; did you mean 'dogs'"):
        load(reference(declared, tmp_path))


def test_a_class_that_the_test_folder_lacks(tmp_path: Path) -> None:
    write_set(tmp_path / "pets" / "train")
    write_set(tmp_path / "pets" / "test")
    (tmp_path / "pets" / "test" / "dog").rename(tmp_path / "dog")
    _refused(tmp_path, r"the test split \(6 samples\) holds none of the class 'dog'")


def test_no_classes_and_one_class(tmp_path: Path) -> None:
    (tmp_path / "pets").mkdir()
    _refused(tmp_path, "holds no folders")
    write_set(tmp_path / "pets")
    (tmp_path / "pets" / "dog").rename(tmp_path / "dog")
    _refused(tmp_path, "all 6 samples are of one class, 'cat'")


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


# ── masks ───────────────────────────────────────────────────────────────────────────────────────────────────────────

MASKED = card("image-folder", RGB, folder="scenes", task="segmentation", classes=["road", "car", "sky"])


def write_masked(root: Path, count: int = 10, palette: bool = False) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Write pictures and the class of each of their pixels; return both."""
    pixels = pictures(count, RGB)
    masks = np.random.default_rng(1).integers(0, 3, (count, 5, 4)).astype(np.uint8)
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    for number in range(count):
        Image.fromarray(pixels[number].transpose(1, 2, 0)).save(root / "images" / f"{number:02}.bmp")
        mask = Image.fromarray(masks[number])
        if palette:  # as drawing programs and PASCAL VOC store them
            mask = mask.convert("P")
            mask.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
        mask.save(root / "masks" / f"{number:02}.png")
    return pixels, masks


@pytest.mark.parametrize("palette", [False, True])
@pytest.mark.parametrize("streamed", [False, True])
def test_every_picture_gets_the_mask_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, palette: bool, streamed: bool
) -> None:
    pixels, masks = write_masked(tmp_path / "scenes", palette=palette)
    if streamed:
        monkeypatch.setattr("pipeline.data.source.DECODED_BUDGET_BYTES", 0)
    dataset = load(reference(MASKED, tmp_path))
    assert dataset.classes == ("road", "car", "sky")
    known = {picture.tobytes(): mask for picture, mask in zip(pixels, masks, strict=True)}
    for split in (dataset.train, dataset.val, dataset.test):
        batch = split.read(np.arange(len(split)))
        assert split.strata is None
        assert all(
            np.array_equal(known.pop(picture.tobytes()), mask)
            for picture, mask in zip(batch.inputs["input"], batch.wanted["mask"], strict=True)
        )
    assert not known


def test_masks_that_are_missing_or_wrong(tmp_path: Path) -> None:
    write_masked(tmp_path / "scenes")
    mask = tmp_path / "scenes" / "masks" / "03.png"
    Image.new("L", (4, 5), 3).save(mask)
    with pytest.raises(DataError, match=r"03\.png: sample 0 has the class 3 at row 0, column 0, expected 0 … 2"):
        load(reference(MASKED, tmp_path))
    Image.new("RGB", (4, 5)).save(mask)
    with pytest.raises(DataError, match=r"03\.png: is a picture of mode RGB, expected one number per pixel"):
        load(reference(MASKED, tmp_path))
    Image.new("L", (5, 5)).save(mask)
    with pytest.raises(DataError, match=r"03\.png: is 5×5 pixels"):
        load(reference(MASKED, tmp_path))
    mask.unlink()
    with pytest.raises(DataError, match=r"03\.bmp: has no mask '03\.png'"):
        load(reference(MASKED, tmp_path))
    (tmp_path / "scenes" / "masks").rename(tmp_path / "scenes" / "mask")
    with pytest.raises(DataError, match="holds no folder 'masks'"):
        load(reference(MASKED, tmp_path))


def test_folders_hold_no_numbers(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no numbers, which the task 'regression' learns from"):
        reference(card("image-folder", RGB, folder="pets", task="regression"), tmp_path)


# ── folders as people have them ─────────────────────────────────────────────────────────────────────────────────────


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
    _refused(tmp_path, says)


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
    _refused(tmp_path, "is a link to a folder")


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


# ── pictures as people have them ────────────────────────────────────────────────────────────────────────────────────


def only(root: Path, picture: Image.Image, name: str, **options: object) -> Path:
    """Fill both classes with one picture."""
    for folder in ("cat", "dog"):
        (root / "pets" / folder).mkdir(parents=True)
        for number in range(4):
            picture.save(root / "pets" / folder / f"{number}{name}", **options)  # type: ignore[arg-type]
    return root


def first_of(root: Path, shape: tuple[int, ...] = RGB, **inputs: object) -> NDArray[np.uint8]:
    declared = card("image-folder", shape, folder="pets", split={"val": 0.25, "test": 0.25})
    declared = declared.model_copy(update={"input": declared.input.model_copy(update=inputs)})
    first: NDArray[np.uint8] = samples(load(reference(declared, root)).train)[0]
    return first


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tiff", "webp", "jpg"])
def test_pictures_stand_as_viewers_show_them(tmp_path: Path, orientation: int, suffix: str) -> None:
    shown = np.zeros((16, 24, 3), dtype=np.uint8)  # bright above on the left, grey below
    shown[:8, :8], shown[8:] = 250, 120
    stored = {  # what a camera writes so that the note makes it upright again
        1: shown,
        2: shown[:, ::-1],
        3: shown[::-1, ::-1],
        4: shown[::-1],
        5: shown.transpose(1, 0, 2),
        6: np.rot90(shown),
        7: shown[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(shown, -1),
    }[orientation]
    note = Image.Exif()
    note[0x0112] = orientation
    options = {"lossless": True} if suffix == "webp" else {"quality": 100} if suffix == "jpg" else {}
    picture = Image.fromarray(np.ascontiguousarray(stored))
    read = first_of(only(tmp_path, picture, f".{suffix}", exif=note, **options), (3, 16, 24))
    assert np.abs(read.transpose(1, 2, 0).astype(int) - shown).max() <= (3 if suffix == "jpg" else 0)  # JPEG rounds


@pytest.mark.parametrize(("background", "expected"), [((255, 255, 255), 255), ((0, 0, 0), 0), ((9, 9, 9), 9)])
@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_pixels_lie_on_the_background(
    tmp_path: Path, mode: str, background: tuple[int, ...], expected: int
) -> None:
    picture = Image.new("RGBA", (4, 5), (77, 77, 77, 0)).convert(mode)
    assert set(first_of(only(tmp_path, picture, ".png"), background=background).ravel()) == {expected}


@pytest.mark.parametrize(
    ("resize", "expected"),  # of a picture 8 wide, 4 high: left half 200, right half 100; 4 × 4 wanted
    [
        ("squash", [[200, 200, 100, 100]] * 4),
        ("crop", [[200, 200, 100, 100]] * 4),
        ("fit", [[7] * 4, [200, 200, 100, 100], [200, 200, 100, 100], [7] * 4]),
    ],
)
def test_pictures_are_resized_as_the_card_says(tmp_path: Path, resize: str, expected: list[list[int]]) -> None:
    wide = np.full((4, 8), 200, dtype=np.uint8)
    wide[:, 4:] = 100
    only(tmp_path, Image.fromarray(wide), ".png")
    read = first_of(tmp_path, (1, 4, 4), resize=resize, background=(7, 7, 7))[0].astype(int)
    smooth = np.abs(read - np.array(expected))
    assert smooth[:, [0, 3]].max() <= 4  # the filter reaches two pixels far: away from the edge it changes little
    assert (smooth <= 30).all()


def test_crop_keeps_the_middle(tmp_path: Path) -> None:
    tall = np.zeros((12, 4), dtype=np.uint8)
    tall[4:8] = np.arange(16).reshape(4, 4) * 10
    only(tmp_path, Image.fromarray(tall), ".png")
    assert np.array_equal(first_of(tmp_path, (1, 4, 4), resize="crop")[0], tall[4:8])


def test_large_photographs_become_small_pictures(tmp_path: Path) -> None:
    for number in range(8):
        folder = tmp_path / "pets" / ("cat", "dog")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (400 + 50 * number, 300), (number * 30, 0, 0)).save(folder / f"{number}.jpg")
    assert first_of(tmp_path, (3, 16, 16), resize="crop").shape == (3, 16, 16)


def test_masks_are_resized_without_new_classes(tmp_path: Path) -> None:
    write_masked(tmp_path / "scenes")
    for path in (tmp_path / "scenes").glob("*/*"):
        Image.open(path).resize((8, 10), Image.Resampling.NEAREST).save(path)
    declared = MASKED.model_copy(update={"input": MASKED.input.model_copy(update={"resize": "squash"})})
    masks = load(reference(declared, tmp_path)).train.wanted(np.arange(4))["mask"]
    assert set(masks.ravel()) <= {0, 1, 2}
    border = MASKED.model_copy(update={"input": MASKED.input.model_copy(update={"resize": "fit"})})
    with pytest.raises(ConfigError, match="the border has no class"):
        reference(border, tmp_path)


# ── recall ──────────────────────────────────────────────────────────────────────────────────────────────────────────


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
