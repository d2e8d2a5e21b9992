"""Arrays as bytes and archives: a header is believed only where it agrees, whatever numpy would make of it."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.data.checks import LARGEST_ARRAY_BYTES, UNREADABLE_ARCHIVE
from pipeline.data.npy import read_npy
from pipeline.errors import DataError


def npy(header: str, content: bytes = b"", version: bytes = b"\1\0") -> bytes:
    """Return an ``.npy`` file with this text as its header."""
    text = header.encode() + b"\n"
    return b"\x93NUMPY" + version + struct.pack("<H" if version == b"\1\0" else "<I", len(text)) + text + content


def read(data: bytes) -> NDArray[np.generic]:
    return read_npy(io.BytesIO(data), len(data), "set.npz: x")


HEADER = "{{'descr': {}, 'fortran_order': {}, 'shape': {}}}"
SOUND = HEADER.format("'<i2'", "False", "(2, 3)")
SIX = np.arange(6, dtype=np.int16).tobytes()


def test_an_array_comes_back_with_its_shape_and_order() -> None:
    assert read(npy(SOUND, SIX)).tolist() == [[0, 1, 2], [3, 4, 5]]
    assert read(npy(SOUND.replace("False", "True"), SIX)).tolist() == [[0, 2, 4], [1, 3, 5]]
    assert read(npy(SOUND, SIX, version=b"\2\0")).tolist() == [[0, 1, 2], [3, 4, 5]]
    assert read(npy(SOUND.replace("(2, 3)", "(2L, 3L)"), SIX)).tolist() == [[0, 1, 2], [3, 4, 5]]  # of Python 2
    assert read(npy(HEADER.format("'<i2'", "False", "()"), b"\7\0")).item() == 7
    assert read(npy(HEADER.format("'<i2'", "False", "(0, 3)"))).shape == (0, 3)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (npy(SOUND, SIX[:-1]), r"declares 12 bytes \(2, 3\) of int16, found 11"),
        (npy(SOUND, SIX + b"x"), r"declares 12 bytes \(2, 3\) of int16, found 13"),
        (npy(HEADER.format("'|O'", "False", "(1,)"), b"cos"), "holds Python objects"),
        (npy(HEADER.format("'<i2'", "False", "(2**40,)"), SIX), "no readable .npy array"),
        (npy(HEADER.format("'<i2'", "False", "(-3,)"), SIX), "declares -6 bytes"),
        (npy(HEADER.format("'<i2'", "False", "(9999999999999999,)"), SIX), "declares 19,999,999,999,999,998 bytes"),
        (npy(HEADER.format("'<q9'", "False", "(3,)"), SIX), "no readable .npy array"),
        (npy(HEADER.format("'<i2'", "None", "(6,)"), SIX), "no readable .npy array"),
        (npy("{'descr': '<i2'}", SIX), "no readable .npy array"),
        (npy("(" * 200, SIX), "no readable .npy array"),
        (npy("[" * 9000, SIX), "no readable .npy array"),
        (npy("{'descr': '<i2',\\", SIX), "no readable .npy array"),
        (npy("{'shape': (1", SIX), "no readable .npy array"),
        (npy("\0", SIX), "no readable .npy array"),
        (npy("x" * 20_000, SIX), "no readable .npy array"),
        (npy(SOUND, SIX, version=b"\3\0"), "format version"),
        (npy(SOUND, SIX)[:20], "no readable .npy array"),
        (b"PK\3\4", "no readable .npy array"),
        (b"", "no readable .npy array"),
    ],
)
def test_an_odd_header_is_refused_in_words(data: bytes, words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        read(data)
    assert caught.value.where == "set.npz: x"


def test_a_size_that_no_set_needs_is_refused_before_anything_is_read() -> None:
    with pytest.raises(DataError, match="declares 2,147,483,649 bytes, expected at most 2,147,483,648"):
        read_npy(io.BytesIO(), LARGEST_ARRAY_BYTES + 1, "x")


@pytest.mark.parametrize("how", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_whatever_bytes_of_an_archive_are_changed_it_ends_in_known_errors(tmp_path: Path, how: int) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w", how) as archive:
        archive.writestr("x.npy", npy(SOUND, SIX), how)
    whole = (tmp_path / "a.npz").read_bytes()
    refused = 0
    for place in range(len(whole)):
        for byte in (whole[place] ^ 1, 0xFF):
            (tmp_path / "a.npz").write_bytes(whole[:place] + bytes([byte]) + whole[place + 1 :])
            try:
                with zipfile.ZipFile(tmp_path / "a.npz") as archive, archive.open(archive.infolist()[0]) as file:
                    read_npy(file, archive.infolist()[0].file_size, "x")
            except (DataError, *UNREADABLE_ARCHIVE):
                refused += 1
    assert refused > len(whole)  # the checksum sees most
