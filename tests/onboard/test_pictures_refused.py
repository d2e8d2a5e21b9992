"""Picture files that are refused, in which words, before anything is unpacked."""

from __future__ import annotations

import contextlib
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.onboard.arrays import PictureForm
from pipeline.onboard.faults import FileRefused
from pipeline.onboard.pictures import check_picture, read_picture, size_and_mode
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


def png(path: Path, width: int, height: int, *others: tuple[bytes, bytes], colours: int = 0) -> Path:
    """Write a grey PNG of a few bytes (``colours`` as in its header), and other chunks before and after the pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, colours, 0, 0, 0)
    more = b"".join(chunk(*each) for each in others)
    body = chunk(b"IHDR", header) + more + chunk(b"IDAT", zlib.compress(bytes(100))) + more + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


@pytest.mark.parametrize(
    ("chunk", "colours"),
    [((b"tRNS", b"\0"), 3), ((b"iCCP", b"no end"), 0), ((b"zTXt", b"x\0\7"), 0), ((b"acTL", b"\0"), 0)],
    ids=["transparency without a palette", "profile", "text", "animation"],
)
@pytest.mark.filterwarnings("ignore:Invalid APNG")  # as in a program: the module says so
def test_odd_chunks_are_read_or_refused(tmp_path: Path, chunk: tuple[bytes, bytes], colours: int) -> None:
    path = png(tmp_path / "x.png", 9, 9, chunk, colours=colours)
    for read in OPENING:
        with contextlib.suppress(FileRefused):
            read(path, PictureForm((3, 9, 9)))
    with contextlib.suppress(FileRefused):
        assert size_and_mode(path)[0] == (9, 9)


def test_damaged_notes_are_passed_over_in_silence(tmp_path: Path) -> None:
    """A viewer shows such a picture without a word; Pillow would warn."""
    note = b"Exif\0\0MM\0*\0\0\0\x08\0\x09\x01\x12"
    path = saved(tmp_path / "x.jpg", Image.new("RGB", (5, 4)), exif=note)
    code = f"""
from pathlib import Path
from pipeline.onboard.arrays import PictureForm
from pipeline.onboard.pictures import read_picture
print(read_picture(Path({str(path)!r}), PictureForm((3, 4, 5))).shape)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("(3, 4, 5)\n", "")


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("suffix", ["jpg", "png", "tiff", "webp"])
def test_size_and_mode_are_those_that_are_shown(tmp_path: Path, suffix: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / f"x.{suffix}", Image.new("RGB", (5, 4)), exif=exif)
    assert size_and_mode(path) == ((5, 4) if orientation == 1 else (4, 5), "RGB")


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
    path = png(tmp_path / "x.png", width, height)
    assert says in refused(read, path, PictureForm((1, 4, 4), "squash")).what
