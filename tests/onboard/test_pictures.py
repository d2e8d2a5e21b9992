"""Picture files: which pixels they become, worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from pipeline.onboard.arrays import PictureForm
from pipeline.onboard.pictures import check_picture, read_picture
from tests.onboard.pictures_made import OPENING, SHOWN, STORED, Read, grey, noted, palette, refused, saved

WHITE, BLACK, BLUE = (255, 255, 255), (0, 0, 0), (0, 0, 255)


# ── upright ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def blocks(values: Any, side: int = 8) -> NDArray[np.uint8]:
    """Draw each value as a square: JPEG packs 8 × 8 pixels at once, and keeps flat ones."""
    return np.kron(np.array(values, np.uint8) * 40, np.ones((side, side), np.uint8))


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tiff"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_orientation_brings_the_same_pixels(tmp_path: Path, orientation: int, suffix: str, channels: int) -> None:
    picture = grey(blocks(STORED[orientation])).convert("L" if channels == 1 else "RGB")
    path = saved(tmp_path / f"x.{suffix}", picture, exif=noted(orientation))
    form = PictureForm((channels, 16, 24))
    check_picture(path, form)
    read = read_picture(path, form)
    assert (read.shape, read.dtype) == (form.shape, np.dtype(np.uint8))
    assert np.abs(read.astype(int) - blocks(SHOWN)).max() <= (1 if suffix == "jpg" else 0)  # JPEG rounds


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("resize", ["squash", "crop", "fit"])
def test_turned_pictures_are_resized_upright(tmp_path: Path, orientation: int, resize: str) -> None:
    # 32 of the stored pixels become one: a JPEG of them is unpacked at a smaller size before it is turned
    path = saved(tmp_path / "x.jpg", grey(blocks(STORED[orientation], 64)), exif=noted(orientation))
    read = read_picture(path, PictureForm((1, 4, 6), resize))[0]
    assert np.abs(read[::3, [0, 5]].astype(int) - [[40, 120], [160, 240]]).max() <= 12  # the filter reaches beyond


@pytest.mark.parametrize("note", [noted(0), noted(9), b"Exif\x00\x00no note at all", b""], ids=["0", "9", "text", "-"])
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_notes_without_meaning_turn_nothing(tmp_path: Path, note: Any, suffix: str) -> None:
    path = saved(tmp_path / f"x.{suffix}", grey(blocks(SHOWN)), exif=note)
    assert np.abs(read_picture(path, PictureForm((1, 16, 24)))[0].astype(int) - blocks(SHOWN)).max() <= 1


# ── colours ─────────────────────────────────────────────────────────────────────────────────────────────────────────


MODES: list[tuple[str, str, Image.Image, list[int], int]] = [
    # colour of the one pixel, RGB; as grey: 0.299 R + 0.587 G + 0.114 B
    ("1", "png", Image.new("1", (1, 1), 1), [255, 255, 255], 255),
    ("1", "tiff", Image.new("1", (1, 1), 0), [0, 0, 0], 0),
    ("L", "png", Image.new("L", (1, 1), 77), [77, 77, 77], 77),
    ("LA", "png", Image.new("LA", (1, 1), (77, 255)), [77, 77, 77], 77),
    ("P", "png", palette([[1]], [0, 0, 0, 200, 100, 50]), [200, 100, 50], 124),
    ("P", "gif", palette([[1]], [0, 0, 0, 200, 100, 50]), [200, 100, 50], 124),
    ("RGB", "bmp", Image.new("RGB", (1, 1), (200, 100, 50)), [200, 100, 50], 124),
    ("RGBA", "png", Image.new("RGBA", (1, 1), (200, 100, 50, 255)), [200, 100, 50], 124),
    ("CMYK", "tiff", Image.new("CMYK", (1, 1), (55, 155, 205, 0)), [200, 100, 50], 124),
    ("CMYK", "tiff", Image.new("CMYK", (1, 1), (0, 0, 0, 255)), [0, 0, 0], 0),
]


@pytest.mark.parametrize(("mode", "suffix", "picture", "rgb", "value"), MODES)
def test_every_mode_becomes_rgb_and_grey(
    tmp_path: Path, *, mode: str, suffix: str, picture: Image.Image, rgb: list[int], value: int
) -> None:
    path = saved(tmp_path / f"x.{suffix}", picture)
    with Image.open(path) as stored:
        assert stored.mode == mode
    assert read_picture(path, PictureForm((3, 1, 1))).ravel().tolist() == rgb
    assert read_picture(path, PictureForm((1, 1, 1))).ravel().tolist() == [value]


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "L", "RGB"])
def test_every_mode_of_jpeg(tmp_path: Path, mode: str) -> None:
    path = saved(tmp_path / "x.jpg", Image.new("RGB", (8, 8), (200, 100, 50)).convert(mode))
    rgb = [124] * 3 if mode == "L" else [200, 100, 50]
    read = read_picture(path, PictureForm((3, 8, 8))).astype(int)
    assert np.abs(read - np.array(rgb)[:, None, None]).max() <= 2  # JPEG rounds, and so does YCbCr


@pytest.mark.parametrize(
    ("mode", "suffix", "picture"),
    [
        ("I;16", "png", Image.fromarray(np.full((2, 2), 40_000, np.uint16))),
        ("I;16", "tiff", Image.fromarray(np.full((2, 2), 40_000, np.uint16))),
        ("I", "tiff", Image.new("I", (2, 2), 70_000)),
        ("F", "tiff", Image.new("F", (2, 2), 0.5)),
    ],
)
@pytest.mark.parametrize("read", OPENING)
def test_more_than_eight_bits_are_refused(
    tmp_path: Path, read: Read, mode: str, suffix: str, picture: Image.Image
) -> None:
    error = refused(read, saved(tmp_path / f"x.{suffix}", picture), PictureForm((1, 2, 2)))
    assert error.what == f"has pixels of mode {mode}, expected 8 bits per value"
    assert error.remedy == "save it with 8 bits per value"


# ── transparency ────────────────────────────────────────────────────────────────────────────────────────────────────


VEILED = np.array([[[200, 100, 50, 255], [200, 100, 50, 0], [200, 100, 50, 51]]], np.uint8)  # all, none, a fifth


@pytest.mark.parametrize(
    ("background", "rgb", "as_grey"),
    [  # a fifth of the colour and four fifths of the background
        (WHITE, [[200, 100, 50], [255, 255, 255], [244, 224, 214]], [124, 255, 229]),
        (BLACK, [[200, 100, 50], [0, 0, 0], [40, 20, 10]], [124, 0, 25]),
        (BLUE, [[200, 100, 50], [0, 0, 255], [40, 20, 214]], [124, 29, 48]),
    ],
)
@pytest.mark.parametrize("suffix", ["png", "webp", "tiff"])
def test_alpha_lies_on_the_background(
    tmp_path: Path, suffix: str, background: tuple[int, int, int], rgb: list[list[int]], as_grey: list[int]
) -> None:
    # exact: what lies below full transparency must not count
    path = saved(tmp_path / f"x.{suffix}", Image.fromarray(VEILED), **({"exact": True} if suffix == "webp" else {}))
    assert read_picture(path, PictureForm((3, 1, 3), "", background))[:, 0].T.tolist() == rgb
    assert read_picture(path, PictureForm((1, 1, 3), "", background)).ravel().tolist() == as_grey


@pytest.mark.parametrize(
    ("background", "as_rgb", "as_grey"), [(WHITE, [255] * 3, 255), (BLACK, [0] * 3, 0), (BLUE, [0, 0, 255], 29)]
)
@pytest.mark.parametrize(
    ("picture", "clear"),
    [
        (Image.fromarray(np.array([[[99, 0]]], np.uint8)), None),
        (grey([[99]]), 99),
        (Image.new("1", (1, 1), 1), 255),
        (Image.new("RGB", (1, 1), (9, 8, 7)), (9, 8, 7)),
        (palette([[1]], [0, 0, 0, 9, 8, 7]), 1),
        (palette([[1]], [0, 0, 0, 9, 8, 7]), b"\xff\x00"),
    ],
    ids=["LA", "L", "1", "RGB", "P", "P with alpha"],
)
def test_colours_that_mean_transparent(
    tmp_path: Path,
    *,
    picture: Image.Image,
    clear: Any,
    background: tuple[int, int, int],
    as_rgb: list[int],
    as_grey: int,
) -> None:
    options = {} if clear is None else {"transparency": clear}
    path = saved(tmp_path / "x.png", picture, **options)
    assert read_picture(path, PictureForm((3, 1, 1), "", background)).ravel().tolist() == as_rgb
    assert read_picture(path, PictureForm((1, 1, 1), "", background)).ravel().tolist() == [as_grey]


def test_of_moving_pictures_the_first_is_read(tmp_path: Path) -> None:
    later = [grey([[value, value]]) for value in (90, 200)]
    path = saved(tmp_path / "x.gif", grey([[10, 10]]), save_all=True, append_images=later)
    assert read_picture(path, PictureForm((1, 1, 2))).tolist() == [[[10, 10]]]


# ── size ────────────────────────────────────────────────────────────────────────────────────────────────────────────


# 4 → 2: weights 3, 3, 1 of the three pixels within reach, of 7: 200 / 7 = 28.6 and 640 / 7 = 91.4
WIDE = [[0, 40, 80, 120]] * 2


@pytest.mark.parametrize(
    ("resize", "expected"),
    [
        ("squash", [[29, 91], [29, 91]]),
        ("crop", [[40, 80], [40, 80]]),
        ("fit", [[29, 91], [18, 18]]),  # one row is left: below
    ],
)
@pytest.mark.parametrize("tall", [False, True])
def test_pictures_are_brought_to_size(tmp_path: Path, resize: str, expected: list[list[int]], tall: bool) -> None:
    path = saved(tmp_path / "x.png", grey(np.array(WIDE).T if tall else WIDE))
    read = read_picture(path, PictureForm((1, 2, 2), resize, (60, 0, 0)))[0]  # 0.299 · 60 = 17.9
    assert (read.T if tall else read).tolist() == expected


@pytest.mark.parametrize("tall", [False, True])
def test_the_border_of_a_colour_picture_is_the_background(tmp_path: Path, tall: bool) -> None:
    picture = Image.new("RGB", (2, 8) if tall else (8, 2), (1, 2, 3))
    read = read_picture(saved(tmp_path / "x.png", picture), PictureForm((3, 4, 4), "fit", (10, 20, 30)))
    rows = read.transpose(0, 2, 1) if tall else read
    for channel, (inside, border) in enumerate([(1, 10), (2, 20), (3, 30)]):
        assert rows[channel].tolist() == [[border] * 4, [border] * 4, [inside] * 4, [border] * 4]


@pytest.mark.parametrize("resize", ["squash", "crop", "fit"])
def test_small_pictures_grow(tmp_path: Path, resize: str) -> None:
    # new pixels lie at −¼, ¼, ¾, 1¼ between the two: 0, 25, 75, 100
    path = saved(tmp_path / "x.png", grey([[0, 100]]))
    assert read_picture(path, PictureForm((1, 2, 4), resize))[0].tolist() == [[0, 25, 75, 100]] * 2


@pytest.mark.parametrize("resize", ["squash", "crop", "fit", ""])
def test_the_right_size_stays_as_it_is(tmp_path: Path, resize: str) -> None:
    path = saved(tmp_path / "x.png", grey(SHOWN))
    assert read_picture(path, PictureForm((1, 2, 3), resize))[0].tolist() == SHOWN


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(31, 47), (90, 20), (7, 200), (64, 64), (33, 32)])
def test_sizes_are_those_of_pillow(tmp_path: Path, size: tuple[int, int], channels: int) -> None:
    drawn = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)
    picture = Image.fromarray(drawn).convert("RGB" if channels == 3 else "L")
    path, wanted, how = saved(tmp_path / "x.png", picture), (24, 17), Image.Resampling.BILINEAR
    for resize, same in {"crop": ImageOps.fit(picture, wanted, how), "fit": ImageOps.pad(picture, wanted, how)}.items():
        read = read_picture(path, PictureForm((channels, 17, 24), resize, (0, 0, 0)))
        assert np.array_equal(read.transpose(1, 2, 0).squeeze(), np.asarray(same)), resize


def test_very_thin_pictures_keep_a_pixel(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.png", Image.new("L", (1, 100), 50))
    assert read_picture(path, PictureForm((1, 2, 4), "fit", (0, 0, 0)))[0].tolist() == [[0, 0, 50, 0]] * 2


@pytest.mark.parametrize("read", OPENING)
@pytest.mark.parametrize("orientation", [1, 6])
def test_another_size_is_refused_with_the_remedies(tmp_path: Path, read: Read, orientation: int) -> None:
    path = saved(tmp_path / "x.png", grey(STORED[orientation]), exif=noted(orientation))
    error = refused(read, path, PictureForm((3, 5, 4)))
    assert error.what == "is 3×2 pixels (width×height), expected 4×5"
    assert 'write resize = "fit", "crop" or "squash" into [input]' in error.remedy
    assert "shape = [3, 2, 3]" in error.remedy
    assert "scale the pictures" in error.remedy


def test_jpegs_are_unpacked_at_a_smaller_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.onboard.pictures._MOST_PIXELS", 10_000)
    picture = grey(blocks(SHOWN, 64))  # 192 × 128: at a half, 96 × 64
    form = PictureForm((1, 20, 30), "squash")
    corners = read_picture(saved(tmp_path / "x.jpg", picture), form)[0, ::19, ::29].astype(int)
    assert np.abs(corners - [[40, 120], [160, 240]]).max() <= 1
    assert "has 192×128 pixels" in refused(read_picture, saved(tmp_path / "x.png", picture), form).what
    larger = PictureForm((1, 40, 60), "squash")  # a half would leave less than twice as much
    assert "has 192×128 pixels" in refused(read_picture, tmp_path / "x.jpg", larger).what
