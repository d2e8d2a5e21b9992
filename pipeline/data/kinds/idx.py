"""IDX files, plain or gzipped, as MNIST and its kin use them (Y. LeCun, http://yann.lecun.com/exdb/mnist/).

Header, big-endian: two zero bytes, a type code, the number of axes, then the length of each axis as 32 bits.
Roles: "train-images" and "train-labels", and optionally "val-…" and "test-…" of the same.  Labels are one number per
picture, or one per pixel where masks are wanted.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from pipeline.data.checks import check_array_bytes, missing_shape, several_inputs
from pipeline.data.files import Found
from pipeline.data.named_arrays import LABEL, Origin, parts_of
from pipeline.data.source import Parts, Wanted
from pipeline.declare import words
from pipeline.declare.card import DatasetCard
from pipeline.errors import DataError

_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_GZIP_MAGIC = b"\x1f\x8b"
_BEST_DEFLATE = 1032  # no deflate stream unpacks to more than this many times its size
_DAMAGED = "the file is damaged or incomplete: fetch it again"


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class Spec(words.Spec):
    """Nothing more than every card has."""


def missing(card: DatasetCard, own: Spec, wanted: Wanted | None) -> str:
    """Say what the card needs and has not; empty when it has all."""
    del own, wanted
    return several_inputs(card) or missing_shape(card)


def content(card: DatasetCard, own: Spec, found: Found) -> JsonValue:
    """Return nothing: all that the samples depend on stands in [files]."""
    del card, own, found
    return {}


def load(card: DatasetCard, own: Spec, found: Found, wanted: Wanted | None) -> Parts:
    """Return what the card's IDX files hold: samples as stored, (N, *shape).  Raises DataError naming the file."""
    del own
    splits = ["train", *(split for split in ("val", "test") if f"{split}-images" in found.files)]
    return parts_of({split: _origin(card, found, split, wanted) for split in splits}, card, wanted)


def _origin(card: DatasetCard, found: Found, split: str, wanted: Wanted | None) -> _Files:
    paths = {"x": found.file(card, f"{split}-images")}
    if wanted is not None:
        paths[LABEL] = found.file(card, f"{split}-labels")
    arrays = {name: read_idx(path) for name, path in paths.items()}
    return _Files(arrays=arrays, where=str(paths["x"]), suffix="", remedy=_DAMAGED, paths=paths)


@dataclass(frozen=True, kw_only=True)
class _Files(Origin):
    """Arrays that have a file each, which errors name."""

    paths: Mapping[str, Path]

    def place(self, name: str) -> str:
        """Return the file."""
        return str(self.paths[name])


def read_idx(path: Path) -> NDArray[Any]:
    """Return the array of an IDX file in native byte order.

    Raises DataError when it is no IDX file, ends early, goes on too long, or its header claims more than it can hold.
    """
    try:
        size_bytes = path.stat().st_size
        with path.open("rb") as raw:
            zipped = raw.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
            raw.seek(0)
            if not zipped:
                return _read(raw, size_bytes, path)
            with gzip.open(raw, "rb") as unzipped:
                return _read(unzipped, size_bytes * _BEST_DEFLATE, path)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot be read: {error}", where=str(path), remedy=_DAMAGED) from error


def _read(file: _Readable, most_bytes: int, path: Path) -> NDArray[Any]:
    shape, dtype = _header(file, path)
    content_bytes = math.prod(shape) * dtype.itemsize
    check_array_bytes(content_bytes, str(path))
    if content_bytes > most_bytes:
        raise DataError(
            f"its header claims {content_bytes:,} bytes, more than it holds", where=str(path), remedy=_DAMAGED
        )
    content = file.read(content_bytes)
    if len(content) != content_bytes or file.read(1):  # the second read also lets gzip check its CRC
        found = f"{len(content):,}" if len(content) != content_bytes else "more"
        raise DataError(
            f"its header {shape} declares {content_bytes:,} bytes, found {found}", where=str(path), remedy=_DAMAGED
        )
    return np.frombuffer(content, dtype=dtype).astype(dtype.newbyteorder("="), copy=False).reshape(shape)


def _header(file: _Readable, path: Path) -> tuple[tuple[int, ...], np.dtype[Any]]:
    magic = file.read(4)
    if len(magic) != 4 or magic[:2] != b"\0\0" or magic[2] not in _DTYPES or magic[3] == 0:
        raise DataError(
            f"is no IDX file: it begins with {magic.hex() or 'nothing'}, expected for example 00000803",
            where=str(path),
            remedy=_DAMAGED,
        )
    axes = file.read(4 * magic[3])
    if len(axes) != 4 * magic[3]:
        raise DataError(f"ends inside its header of {magic[3]} axes", where=str(path), remedy=_DAMAGED)
    return struct.unpack(f">{magic[3]}I", axes), np.dtype(_DTYPES[magic[2]])
