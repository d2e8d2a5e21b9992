"""Picture files that are refused, in which words, before anything is unpacked."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.onboard.arrays import PictureForm
from pipeline.onboard.faults import FileRefused
from pipeline.onboard.pictures import check_picture, read_picture
from tests.onboard.pictures_made import LOADING, OPENING, Read, refused, saved

SUFFIXES = ["png", "jpg", "bmp", "webp", "tiff", "gif", "ppm"]


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
