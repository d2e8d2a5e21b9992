"""Arrays in ``.npy`` and ``.npz`` files: mapped where they lie in the file as they are, else read, up to a bound.

Nothing is unpickled, and a header is believed only where the size agrees.  Formats: NEP 1; ZIP, APPNOTE 4.3.7.
"""

from __future__ import annotations

import math
import struct
import tokenize
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from pipeline.data.checks import check_array_bytes
from pipeline.errors import DataError

MAPPED_FROM_BYTES = 64 << 20  # smaller arrays are read: so many files need not stay open
# what numpy raises for odd headers: it parses them as Python
_ODD_HEADER = (
    *(ValueError, EOFError, SyntaxError, TypeError, OverflowError),
    *(RecursionError, MemoryError, tokenize.TokenError),
)
_PIECE_BYTES = 1 << 20
_LOCAL_HEADER = struct.Struct("<26x2H")  # of a member: lengths of its name and of what else stands before its content

# typed here: NumPy's own stubs leave them untyped
_READ_MAGIC: Callable[[IO[bytes]], tuple[int, int]] = npy_format.read_magic
_Header = tuple[tuple[int, ...], bool, np.dtype[Any]]  # shape, Fortran order, dtype
_READ_HEADER: Mapping[tuple[int, int], Callable[[IO[bytes]], _Header]] = {
    (1, 0): npy_format.read_array_header_1_0,
    (2, 0): npy_format.read_array_header_2_0,
}


def read_npz_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> NDArray[Any]:
    """Return an array of an ``.npz`` file at ``path``; a large one that is not compressed stays on the disk.

    Its checksum is compared either way.  Raises DataError as ``read_npy`` does, and what zipfile raises for damage.
    """
    where = f"{path}: {member.filename}"
    with archive.open(member) as file:
        if member.compress_type != zipfile.ZIP_STORED or member.file_size < MAPPED_FROM_BYTES:
            return read_npy(file, member.file_size, where)
        shape, fortran, dtype = _checked_header(file, member.file_size, where)
        header_bytes = file.tell()
        while file.read(_PIECE_BYTES):  # zipfile compares the checksum at the end
            pass
    offset = _content_offset(member, path) + header_bytes
    mapped = np.memmap(path, dtype, "r", offset, shape, "F" if fortran else "C")
    return np.asarray(mapped)  # a plain array: what is chosen from it shall not look like a file


def read_npy(file: IO[bytes], size_bytes: int, where: str) -> NDArray[Any]:
    """Return the array of a ``.npy`` stream of so many bytes; its header is believed only when the size agrees.

    Raises DataError for pickled objects, other formats, truncated and too large arrays.
    """
    check_array_bytes(size_bytes, where)
    shape, fortran, dtype = _checked_header(file, size_bytes, where)
    try:
        content = _read_all(file, math.prod(shape) * dtype.itemsize)
        return content.view(dtype).reshape(shape, order="F" if fortran else "C")
    except _ODD_HEADER as error:
        raise DataError(f"is no readable .npy array: {error or type(error).__name__}", where=where) from error


def _checked_header(file: IO[bytes], size_bytes: int, where: str) -> _Header:
    try:
        version = _READ_MAGIC(file)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about files of Python 2, which are read all the same
            shape, fortran, dtype = _READ_HEADER[version](file)
    except KeyError as error:
        raise DataError(f"is no readable .npy array: format version {version}", where=where) from error
    except _ODD_HEADER as error:
        raise DataError(f"is no readable .npy array: {error or type(error).__name__}", where=where) from error
    if dtype.hasobject:
        raise DataError(
            "holds Python objects, which could run code when read", where=where, remedy="store plain numbers"
        )
    content_bytes, found_bytes = math.prod(shape) * dtype.itemsize, size_bytes - file.tell()
    if content_bytes != found_bytes:
        raise DataError(
            f"its header declares {content_bytes:,} bytes {shape} of {dtype}, found {found_bytes:,}",
            where=where,
            remedy="the file is damaged: make or fetch it again",
        )
    return shape, fortran, dtype


def _read_all(file: IO[bytes], size: int) -> NDArray[np.uint8]:
    """Return so many bytes, read piece by piece: zipfile would hold several copies of a large one."""
    content = np.empty(size, np.uint8)
    for start in range(0, size, _PIECE_BYTES):
        piece = file.read(min(_PIECE_BYTES, size - start))
        if not piece:
            raise EOFError(f"ends after {start:,} of {size:,} bytes")
        content[start : start + len(piece)] = np.frombuffer(piece, np.uint8)
    if file.read(1):  # also lets a zip member check its CRC
        raise ValueError("goes on after its declared end")
    return content


def _content_offset(member: zipfile.ZipInfo, path: Path) -> int:
    """Return where the content of a member begins in the file: its own header has other lengths than the directory."""
    with path.open("rb") as file:
        file.seek(member.header_offset)
        name_bytes, extra_bytes = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
    return member.header_offset + _LOCAL_HEADER.size + int(name_bytes) + int(extra_bytes)
