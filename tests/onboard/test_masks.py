"""Masks in files: the number of each pixel, whatever the size, the palette and the note of the camera."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipeline.onboard.arrays import PictureForm
from pipeline.onboard.pictures import read_mask, write_mask
from tests.onboard.pictures_made import SHOWN, STORED, grey, noted, palette, refused, saved

# ── upright ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("suffix", ["png", "tiff"])
@pytest.mark.parametrize("as_palette", [False, True])
def test_masks_are_turned_too(tmp_path: Path, orientation: int, suffix: str, as_palette: bool) -> None:
    stored = STORED[orientation]
    picture = palette(stored, [*range(256)] * 3) if as_palette else grey(stored)
    path = saved(tmp_path / f"m.{suffix}", picture, exif=noted(orientation))
    assert read_mask(path, PictureForm((3, 2, 3))).tolist() == SHOWN


# ── masks ───────────────────────────────────────────────────────────────────────────────────────────────────────────


CLASSES = [[0, 1, 2, 255], [7, 7, 0, 3]]


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff"])
def test_masks_hold_the_number_of_each_pixel(tmp_path: Path, suffix: str) -> None:
    mask = read_mask(saved(tmp_path / f"m.{suffix}", grey(CLASSES)), PictureForm((3, 2, 4)))
    assert (mask.tolist(), mask.dtype) == (CLASSES, np.dtype(np.uint8))


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff"])
def test_of_a_palette_the_place_counts(tmp_path: Path, suffix: str) -> None:
    colours = [200, 0, 0, 0, 200, 0, 9, 9, 9, 9, 9, 9]  # two classes of one colour
    mask = read_mask(saved(tmp_path / f"m.{suffix}", palette([[3, 2, 1, 0]], colours)), PictureForm((3, 1, 4)))
    assert mask.tolist() == [[3, 2, 1, 0]]


def test_masks_of_one_bit_hold_zero_and_one(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.png", grey([[0, 255, 255]]).convert("1"))
    assert read_mask(path, PictureForm((3, 1, 3))).tolist() == [[0, 1, 1]]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_masks_of_colours_are_refused(tmp_path: Path, mode: str) -> None:
    path = saved(tmp_path / "m.png", grey(CLASSES).convert(mode))
    error = refused(read_mask, path, PictureForm((3, 2, 4)))
    assert error.what == f"is a picture of mode {mode}, expected one number per pixel"
    assert "save masks as grey or palette PNG" in error.remedy


@pytest.mark.parametrize("as_palette", [False, True])
@pytest.mark.parametrize(
    ("resize", "shape", "expected"),
    [  # the nearest pixel: of two equally near ones, the later
        ("squash", (2, 2), [[1, 255], [7, 3]]),
        ("squash", (4, 8), [[v for v in row for _ in "12"] for row in CLASSES for _ in "12"]),
        ("crop", (2, 2), [[1, 2], [7, 0]]),
        ("", (2, 4), CLASSES),
    ],
)
def test_resized_masks_keep_the_numbers(
    tmp_path: Path, as_palette: bool, resize: str, shape: tuple[int, int], expected: list[list[int]]
) -> None:
    picture = palette(CLASSES, [*range(256)] * 3) if as_palette else grey(CLASSES)
    path = saved(tmp_path / "m.png", picture)
    assert read_mask(path, PictureForm((3, *shape), resize)).tolist() == expected


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
def test_masks_survive_a_file(tmp_path: Path, dtype: type) -> None:
    mask: NDArray[Any] = np.arange(256, dtype=dtype).reshape(8, 32)
    write_mask(tmp_path / "m.png", mask)
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png", PictureForm((3, 8, 32))), mask)
    with Image.open(tmp_path / "m.png") as picture:
        assert (picture.format, picture.mode, picture.size) == ("PNG", "P", (32, 8))
        colours = picture.convert("RGB")  # of PASCAL VOC: classes 0, 1, 2, 3, 8, 255
        shown = [colours.getpixel((number % 32, number // 32)) for number in (0, 1, 2, 3, 8, 255)]
        assert shown == [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (64, 0, 0), (224, 224, 192)]


def test_more_classes_than_a_palette_has_are_16_bits(tmp_path: Path) -> None:
    mask = np.array([[0, 255, 256, 1000]])
    write_mask(tmp_path / "m.png", mask)
    with Image.open(tmp_path / "m.png") as picture:
        assert np.array_equal(np.asarray(picture), mask)
