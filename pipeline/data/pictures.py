"""Pictures on the disk: decoded when they are read, by a few threads, since the decoders let go of Python's lock.

Pictures must have the card's size: nothing is scaled behind one's back.  Only the three named formats are decoded, and
no picture is unpacked before the size in its header is known to be the card's.

Shapes: N pictures, n of them read at once, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.data.checks import checked_masks
from pipeline.data.source import INPUT, Batch, Indices
from pipeline.errors import DataError
from pipeline.onboard.arrays import Arrays
from pipeline.onboard.pictures import EIGHT_BIT_MODES, FORMATS, UNREADABLE, pixels_of

Shape = tuple[int, int, int]  # (C, H, W)

_MASK_MODES = frozenset({"1", "L", "P"})  # a number per pixel: the class, or the place in the palette
_THREADS = 4
_DECODE_AT_ONCE = 1024  # pictures between two looks at the results: keeps the queue short


@dataclass(frozen=True, kw_only=True, eq=False)
class PictureSource:
    """Pictures on the disk, and their classes."""

    paths: tuple[Path, ...]
    labels: Indices  # (N,)
    shape: Shape
    groups: Indices | None = None

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def strata(self) -> Indices:
        """Return the classes."""
        return self.labels

    def read(self, indices: Indices) -> Batch:
        """Decode the pictures at ``indices``: (n, C, H, W) uint8.  Raises DataError naming the file."""
        pixels = decoded([self.paths[int(index)] for index in indices], self.shape)
        return Batch(inputs={INPUT: pixels}, wanted=self.wanted(indices))

    def wanted(self, indices: Indices) -> Arrays:
        """Return the classes at ``indices``."""
        return {"class": self.labels[indices]}

    def check(self) -> None:
        """Raise DataError for the first picture whose header is unreadable or whose size is not the card's."""
        check_headers(self.paths, self.shape)


@dataclass(frozen=True, kw_only=True, eq=False)
class MaskedPictureSource:
    """Pictures on the disk, and for each another one that holds the class of every pixel."""

    paths: tuple[Path, ...]
    masks: tuple[Path, ...]
    shape: Shape
    classes: int | None  # K, where the card names them
    strata: Indices | None = None
    groups: Indices | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, indices: Indices) -> Batch:
        """Decode the pictures (n, C, H, W) and masks (n, H, W) at ``indices``.  Raises DataError naming the file."""
        pixels = decoded([self.paths[int(index)] for index in indices], self.shape)
        return Batch(inputs={INPUT: pixels}, wanted=self.wanted(indices))

    def wanted(self, indices: Indices) -> Arrays:
        """Decode the masks alone."""
        _, height, width = self.shape
        paths = [self.masks[int(index)] for index in indices]
        found = np.empty((len(paths), height, width), dtype=np.uint8)

        def decode_into(place: int) -> None:
            mask = _mask(paths[place], self.shape)[None]
            found[place] = checked_masks(mask, 1, (height, width), self.classes, str(paths[place]))[0]

        _side_by_side(decode_into, len(paths))
        return {"mask": found}

    def check(self) -> None:
        """Raise DataError for the first picture or mask whose header is unreadable or whose size is not the card's."""
        check_headers([*self.paths, *self.masks], self.shape)


def decoded(paths: list[Path], shape: Shape) -> NDArray[np.uint8]:
    """Return pictures as (n, C, H, W).  Raises DataError naming the file."""
    pixels = np.empty((len(paths), *shape), dtype=np.uint8)

    def decode_into(place: int) -> None:
        pixels[place] = _decode(paths[place], shape)

    _side_by_side(decode_into, len(paths))
    return pixels


def check_headers(paths: tuple[Path, ...] | list[Path], shape: Shape) -> None:
    """Raise DataError for the first picture whose header is unreadable or whose size is another one."""
    _side_by_side(lambda place: _open(paths[place], shape).close(), len(paths))


def _decode(path: Path, shape: Shape) -> NDArray[np.uint8]:
    """Return one picture as (C, H, W)."""
    try:
        with _open(path, shape) as picture:
            return pixels_of(picture, shape[0])
    except UNREADABLE as error:
        raise _damaged(path, error) from error


def _mask(path: Path, shape: Shape) -> NDArray[Any]:
    """Return one mask (H, W): the number of each pixel, of a palette where the file has one."""
    try:
        with _open(path, shape) as picture:
            if picture.mode not in _MASK_MODES:
                raise DataError(
                    f"is a picture of mode {picture.mode}, expected one number per pixel",
                    where=str(path),
                    remedy="save masks as grey or palette PNG: the value of a pixel is the number of its class",
                )
            return np.asarray(picture, dtype=np.uint8)
    except UNREADABLE as error:
        raise _damaged(path, error) from error


def _open(path: Path, shape: Shape) -> Image.Image:
    """Read the header only, and refuse what is not a picture of this size with 8 bits per value."""
    try:
        picture = Image.open(path, formats=FORMATS)
    except UNREADABLE as error:
        raise _damaged(path, error) from error
    channels, height, width = shape
    if picture.size != (width, height):
        found = f"{picture.width}×{picture.height}"
        picture.close()
        raise DataError(
            f"is {found} pixels (width×height), expected {width}×{height}",
            where=str(path),
            remedy=f"scale the pictures, or set [input] shape = [{channels}, {picture.height}, {picture.width}]",
        )
    if picture.mode not in EIGHT_BIT_MODES:
        picture.close()
        raise DataError(f"has pixels of mode {picture.mode}, expected 8 bits per value", where=str(path))
    return picture


def _damaged(path: Path, error: BaseException) -> DataError:
    return DataError(
        f"is no readable {', '.join(FORMATS)} picture: {error}",
        where=str(path),
        remedy="replace the file or remove it",
    )


def _side_by_side(work: Callable[[int], object], count: int) -> None:
    """Do ``work`` for 0 … count-1 in a few threads; the first error in that order is raised."""
    with ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, count, _DECODE_AT_ONCE):
            for _ in pool.map(work, range(start, min(start + _DECODE_AT_ONCE, count))):
                pass
