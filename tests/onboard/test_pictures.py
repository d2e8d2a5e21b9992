"""Picture files: which pixels they become, worked out by hand, and which files are refused in which words."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from pipeline.onboard.arrays import PictureForm
from pipeline.onboard.faults import FileRefused
from pipeline.onboard.pictures import check_picture, read_mask, read_picture, write_mask

WHITE, BLACK, BLUE = (255, 255, 255), (0, 0, 0), (0, 0, 255)
Read = Callable[[Path, PictureForm], object]
LOADING: list[Read] = [read_picture, read_mask]
OPENING: list[Read] = [check_picture, *LOADING]
SUFFIXES = ["png", "jpg", "bmp", "webp", "tiff", "gif", "ppm"]
LOSSLESS: dict[str, dict[str, Any]] = {"webp": {"lossless": True}, "jpg": {"quality": 100, "subsampling": 0}}


def saved(path: Path, picture: Image.Image, **options: Any) -> Path:
    picture.save(path, **{**LOSSLESS.get(path.suffix[1:], {}), **options})
    return path


def grey(values: Any) -> Image.Image:
    return Image.fromarray(np.array(values, np.uint8))


def palette(values: Any, colours: list[int]) -> Image.Image:
    picture = Image.new("P", (len(values[0]), len(values)))
    picture.putpalette(colours)
    picture.putdata([value for row in values for value in row])
    return picture


def refused(read: Read, path: Path, form: PictureForm) -> FileRefused:
    with pytest.raises(FileRefused) as caught:
        read(path, form)
    assert caught.value.where == str(path)
    return caught.value


# ── upright ─────────────────────────────────────────────────────────────────────────────────────────────────────────

SHOWN = [[1, 2, 3], [4, 5, 6]]
STORED = {  # EXIF 2.3, tag Orientation: where the 0th row and the 0th column of what is stored belong
    1: [[1, 2, 3], [4, 5, 6]],  # top, left
    2: [[3, 2, 1], [6, 5, 4]],  # top, right
    3: [[6, 5, 4], [3, 2, 1]],  # bottom, right
    4: [[4, 5, 6], [1, 2, 3]],  # bottom, left
    5: [[1, 4], [2, 5], [3, 6]],  # left, top
    6: [[3, 6], [2, 5], [1, 4]],  # right, top
    7: [[6, 3], [5, 2], [4, 1]],  # right, bottom
    8: [[4, 1], [5, 2], [6, 3]],  # left, bottom
}


def noted(orientation: int) -> Image.Exif:
    note = Image.Exif()
    note[0x0112] = orientation
    return note


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


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("suffix", ["png", "tiff"])
@pytest.mark.parametrize("as_palette", [False, True])
def test_masks_are_turned_too(tmp_path: Path, orientation: int, suffix: str, as_palette: bool) -> None:
    stored = STORED[orientation]
    picture = palette(stored, [*range(256)] * 3) if as_palette else grey(stored)
    path = saved(tmp_path / f"m.{suffix}", picture, exif=noted(orientation))
    assert read_mask(path, PictureForm((3, 2, 3))).tolist() == SHOWN


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


# ── files that are refused ──────────────────────────────────────────────────────────────────────────────────────────


def whole(path: Path) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16), dtype=np.uint8)
    return saved(path, Image.fromarray(pixels)).read_bytes()


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("content", [b"", b"hello", b"\x00" * 1000, b"<svg/>"], ids=["empty", "text", "zeros", "svg"])
@pytest.mark.parametrize("read", OPENING)
def test_what_is_no_picture(tmp_path: Path, suffix: str, content: bytes, read: Read) -> None:
    (tmp_path / f"x.{suffix}").write_bytes(content)
    error = refused(read, tmp_path / f"x.{suffix}", PictureForm((1, 16, 16)))
    assert error.what.startswith("is no readable picture (PNG, JPEG, BMP, WEBP, TIFF, GIF …): ")
    assert error.remedy == "replace the file or remove it"


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9])
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # of cut TIFFs
def test_cut_pictures(tmp_path: Path, suffix: str, kept: float) -> None:
    path = tmp_path / f"x.{suffix}"
    content = whole(path)
    assert read_picture(path, PictureForm((1, 16, 16))).shape == (1, 16, 16)
    path.write_bytes(content[: int(len(content) * kept)])
    assert "is no readable picture" in refused(read_picture, path, PictureForm((1, 16, 16))).what


@pytest.mark.parametrize("read", LOADING)
def test_a_check_looks_at_the_header_alone(tmp_path: Path, read: Read) -> None:
    content = whole(tmp_path / "x.png")
    (tmp_path / "x.png").write_bytes(content[:100])
    check_picture(tmp_path / "x.png", PictureForm((1, 16, 16)))
    assert "is no readable picture" in refused(read, tmp_path / "x.png", PictureForm((1, 16, 16))).what


@pytest.mark.parametrize("suffix", [*SUFFIXES, "jp2", "pcx", "ico", "sgi", "dib", "avif"])
@pytest.mark.filterwarnings("ignore::UserWarning:PIL", "ignore::PIL.Image.DecompressionBombWarning")
def test_damaged_bytes_are_read_or_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x.{suffix}"
    if f".{suffix}" not in Image.registered_extensions():
        pytest.skip(f"this Pillow knows no {suffix}")
    content, random = whole(path), np.random.default_rng(1)
    form, refusals = PictureForm((1, 4, 4), "squash"), 0
    for _ in range(60):
        damaged = bytearray(content)
        for place in random.integers(0, min(len(content), 200), 3):
            damaged[place] = random.integers(256)
        path.write_bytes(damaged)
        try:
            assert read_picture(path, form).shape == form.shape
        except FileRefused:
            refusals += 1
    assert refusals


@pytest.mark.parametrize("read", OPENING)
def test_missing_files_and_folders(tmp_path: Path, read: Read) -> None:
    assert "No such file" in refused(read, tmp_path / "x.png", PictureForm((1, 2, 2))).what
    (tmp_path / "y.png").mkdir()
    assert "directory" in refused(read, tmp_path / "y.png", PictureForm((1, 2, 2))).what.lower()


def test_other_formats_are_not_tried(tmp_path: Path) -> None:
    picture = Image.new("RGB", (2, 2))
    picture.save(tmp_path / "x.png", format="EPS")  # Pillow would start a program
    assert "is no readable picture" in refused(check_picture, tmp_path / "x.png", PictureForm((3, 2, 2))).what


def claiming(path: Path, width: int, height: int) -> Path:
    """Write a grey PNG of a few bytes whose header promises more."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


@pytest.mark.parametrize("read", LOADING)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")  # as in a program: the module says so
@pytest.mark.parametrize(
    ("width", "height", "says"),
    [  # had it been unpacked, its data would have been found to be cut
        (9_500, 9_500, "has 9500×9500 pixels, expected at most 90,000,000"),
        (90_000_001, 1, "has 90000001×1 pixels, expected at most 90,000,000"),
        (50_000, 50_000, "decompression bomb"),
        (2**31 - 1, 2**31 - 1, "decompression bomb"),
    ],
)
def test_too_large_headers_are_not_unpacked(tmp_path: Path, read: Read, width: int, height: int, says: str) -> None:
    path = claiming(tmp_path / "x.png", width, height)
    assert says in refused(read, path, PictureForm((1, 4, 4), "squash")).what


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
