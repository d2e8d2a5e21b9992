"""What every kind of source is checked for: shape, finite values, labels that name a class, sizes that fit a machine.

``where`` in an error is the file and array; a sample is named by its number, counted from 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from pipeline.errors import ConfigError, DataError
from pipeline.spec import DatasetCard

# Arrays are read whole; no honest set of one file needs more, and a forged header must not take all memory.
LARGEST_ARRAY_BYTES = 2 << 30
MOST_CLASSES = 10_000

# typed here: NumPy's own stubs leave them untyped
_READ_MAGIC: Callable[[IO[bytes]], tuple[int, int]] = npy_format.read_magic
_Header = tuple[tuple[int, ...], bool, np.dtype[Any]]  # shape, Fortran order, dtype
_READ_HEADER: Mapping[tuple[int, int], Callable[[IO[bytes]], _Header]] = {
    (1, 0): npy_format.read_array_header_1_0,
    (2, 0): npy_format.read_array_header_2_0,
}


def checked_samples(samples: NDArray[Any], shape: tuple[int, ...], where: str) -> NDArray[Any]:
    """Return the samples as (N, *shape) in native byte order; pictures may come without their one channel.

    Raises DataError for another shape, for values that are no real numbers, and for the first NaN or infinity.
    """
    if samples.dtype.kind not in "biuf":
        raise DataError(f"holds values of type {samples.dtype}, expected numbers", where=where)
    without_channel = shape[1:] if len(shape) == 3 and shape[0] == 1 else None
    if samples.ndim == 0 or samples.shape[1:] not in (shape, without_channel):
        raise DataError(
            f"samples have the shape {samples.shape[1:]}, expected {shape}",
            where=where,
            remedy="store them as (N, *shape), pictures as (N, C, H, W), or correct [input] shape in the card",
        )
    native = samples.astype(samples.dtype.newbyteorder("="), copy=False).reshape(len(samples), *shape)
    if native.dtype.kind == "f":
        _check_finite(native, where)
    return native


def _check_finite(samples: NDArray[Any], where: str) -> None:
    bad = ~np.isfinite(samples)
    if bad.any():
        sample, *place = (int(axis) for axis in np.unravel_index(bad.argmax(), bad.shape))
        raise DataError(
            f"sample {sample} holds {samples[sample, *place]} at {tuple(place)}, expected finite numbers",
            where=where,
            remedy="remove this sample or fill in the value",
        )


def checked_labels(labels: NDArray[Any], samples: int, classes: int | None, where: str) -> NDArray[np.int64]:
    """Return the labels as (N,) int64.

    ``classes`` is K when the card names its classes.  Raises DataError for a wrong length or type, and for the first
    label outside 0 … K-1.
    """
    if labels.shape != (samples,):
        raise DataError(f"labels have the shape {labels.shape}, expected ({samples},): one per sample", where=where)
    if labels.dtype.kind not in "iub":
        raise DataError(
            f"labels are of type {labels.dtype}, expected whole numbers from 0",
            where=where,
            remedy='number the classes 0, 1, 2 … and name them in the card: classes = ["cat", "dog"]',
        )
    highest = (classes if classes is not None else MOST_CLASSES) - 1
    outside = np.flatnonzero((labels < 0) | (labels > highest))
    if outside.size:
        first = int(outside[0])
        raise DataError(
            f"sample {first} has the label {labels[first]}, expected 0 … {highest} "
            f"({outside.size} of {samples} labels are outside)",
            where=where,
            remedy="correct the labels, or the list of classes in the card",
        )
    return labels.astype(np.int64)


def class_names(card: DatasetCard, *labels: NDArray[np.int64]) -> tuple[str, ...]:
    """Return the card's classes, or the numbers "0" … "K-1" when it names none; K follows from the labels."""
    if card.classes:
        return card.classes
    highest = max((int(one.max()) for one in labels if one.size), default=-1)
    return tuple(map(str, range(highest + 1)))


def picture_shape(card: DatasetCard) -> tuple[int, int, int]:
    """Return the card's input shape as (C, H, W).  Raises ConfigError when it is no grey or RGB picture."""
    shape = card.input.shape
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise ConfigError(
            f"[input] shape = {list(shape)}: pictures are [1, H, W] (grey) or [3, H, W] (RGB)", where=card.name
        )
    return shape[0], shape[1], shape[2]


def check_array_bytes(size_bytes: int, where: str) -> None:
    """Raise DataError when an array that must be read whole is larger than ``LARGEST_ARRAY_BYTES``."""
    if size_bytes > LARGEST_ARRAY_BYTES:
        raise DataError(
            f"declares {size_bytes:,} bytes, expected at most {LARGEST_ARRAY_BYTES:,}",
            where=where,
            remedy='larger sets: a folder of pictures (kind = "image-folder") is read piece by piece',
        )


def read_npy(file: IO[bytes], size_bytes: int, where: str) -> NDArray[Any]:
    """Return the array of a ``.npy`` stream of so many bytes; its header is believed only when the size agrees.

    Raises DataError for pickled objects, other formats, truncated and too large arrays.  Format: NEP 1.
    """
    check_array_bytes(size_bytes, where)
    try:
        shape, fortran, dtype = _npy_header(file)
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
        flat = np.frombuffer(_read_all(file, content_bytes), dtype=dtype)
        return flat.reshape(shape, order="F" if fortran else "C")
    except (ValueError, EOFError) as error:
        raise DataError(f"is no readable .npy array: {error}", where=where) from error


def _npy_header(file: IO[bytes]) -> _Header:
    version = _READ_MAGIC(file)
    if version not in _READ_HEADER:
        raise ValueError(f"format version {version}")
    return _READ_HEADER[version](file)


def _read_all(file: IO[bytes], size: int) -> bytes:
    data = file.read(size)
    if len(data) != size:
        raise EOFError(f"ends after {len(data):,} of {size:,} bytes")
    if file.read(1):  # also lets a zip member check its CRC
        raise ValueError("goes on after its declared end")
    return data
