"""Pictures on the disk: decoded when they are read, by threads, since the decoders let go of Python's lock.

Shapes: N pictures, n of them read at once, C channels, H height, W width.
"""

from __future__ import annotations

import contextlib
import math
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import platformdirs
from numpy.typing import NDArray

from pipeline.data.checks import checked_masks
from pipeline.data.source import INPUT, Batch, Indices
from pipeline.errors import DataError
from pipeline.host import usable_cores
from pipeline.onboard.arrays import Arrays, PictureForm, concatenated
from pipeline.onboard.faults import FileRefused
from pipeline.onboard.pictures import check_picture, read_mask, read_picture

ON_DISK_FROM_BYTES = 64 << 20  # of pixels; fewer are held in memory
THREADS = max(4, usable_cores())  # a disk that is far away wants some in flight even where there is one core
_DECODE_AT_ONCE = 1024  # pictures between two looks at the results: keeps the queue short

Read = TypeVar("Read")


@dataclass(frozen=True, kw_only=True, eq=False)
class PictureSource:
    """Pictures on the disk, and their classes."""

    paths: tuple[Path, ...]
    labels: Indices  # (N,)
    form: PictureForm
    groups: Indices | None = None

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def names(self) -> tuple[str, ...]:
        """Return the pictures as people know them: the file and the folder that it lies in."""
        return tuple(f"{path.parent.name}/{path.name}" for path in self.paths)

    @property
    def strata(self) -> Indices:
        """Return the classes."""
        return self.labels

    def read(self, indices: Indices) -> Batch:
        """Decode the pictures at ``indices``: (n, C, H, W) uint8.  Raises DataError naming the file."""
        pixels = decoded([self.paths[int(index)] for index in indices], self.form)
        return Batch(inputs={INPUT: pixels}, wanted=self.wanted(indices))

    def wanted(self, indices: Indices) -> Arrays:
        """Return the classes at ``indices``."""
        return {"class": self.labels[indices]}

    def check(self) -> None:
        """Raise DataError for the first picture whose header is unreadable or whose size is not the card's."""
        check_headers(self.paths, self.form)


@dataclass(frozen=True, kw_only=True, eq=False)
class MaskedPictureSource:
    """Pictures on the disk, and for each another one that holds the class of every pixel."""

    paths: tuple[Path, ...]
    masks: tuple[Path, ...]
    form: PictureForm
    classes: int | None  # K, where the card names them
    strata: Indices | None = None
    groups: Indices | None = None

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def names(self) -> tuple[str, ...]:
        """Return the pictures as people know them: the file and the folder that it lies in."""
        return tuple(f"{path.parent.name}/{path.name}" for path in self.paths)

    def read(self, indices: Indices) -> Batch:
        """Decode the pictures (n, C, H, W) and masks (n, H, W) at ``indices``.  Raises DataError naming the file."""
        pixels = decoded([self.paths[int(index)] for index in indices], self.form)
        return Batch(inputs={INPUT: pixels}, wanted=self.wanted(indices))

    def wanted(self, indices: Indices) -> Arrays:
        """Decode the masks alone."""
        _, height, width = self.form.shape
        paths = [self.masks[int(index)] for index in indices]
        found = np.empty((len(paths), height, width), dtype=np.uint8)

        def decode_into(place: int) -> None:
            mask = _said_here(read_mask, paths[place], self.form)[None]
            found[place] = checked_masks(mask, 1, (height, width), self.classes, str(paths[place]))[0]

        _side_by_side(decode_into, len(paths))
        return {"mask": found}

    def check(self) -> None:
        """Raise DataError for the first picture or mask whose header is unreadable or whose size is not the card's."""
        check_headers([*self.paths, *self.masks], self.form)


def decoded(paths: Sequence[Path], form: PictureForm) -> NDArray[np.uint8]:
    """Return pictures as (n, C, H, W).  Raises DataError naming the file."""
    pixels = np.empty((len(paths), *form.shape), dtype=np.uint8)

    def decode_into(place: int) -> None:
        pixels[place] = _said_here(read_picture, paths[place], form)

    _side_by_side(decode_into, len(paths))
    return pixels


def decoded_once(source: PictureSource | MaskedPictureSource) -> tuple[Arrays, Arrays]:
    """Return inputs and labels of all pictures; many lie in a file without a name, which goes with this process.

    Raises DataError naming the file that is unreadable.
    """
    size_bytes = len(source) * math.prod(source.form.shape)
    if size_bytes >= ON_DISK_FROM_BYTES:
        with contextlib.suppress(OSError):  # no room, or no folder that can be written: memory has to do
            return _decoded_to_disk(source)
    batch = source.read(np.arange(len(source), dtype=np.int64))
    return batch.inputs, batch.wanted


def _decoded_to_disk(source: PictureSource | MaskedPictureSource) -> tuple[Arrays, Arrays]:
    folder = platformdirs.user_cache_path("karui", appauthor=False)  # the usual one may lie in memory
    folder.mkdir(parents=True, exist_ok=True)
    wanted: list[Arrays] = []
    with tempfile.TemporaryFile(dir=folder) as file:
        at_once = max(1, min(_DECODE_AT_ONCE, ON_DISK_FROM_BYTES // math.prod(source.form.shape)))
        for start in range(0, len(source), at_once):
            batch = source.read(np.arange(start, min(start + at_once, len(source)), dtype=np.int64))
            file.write(batch.inputs[INPUT].data)
            wanted.append(batch.wanted)
        file.flush()
        mapped = np.memmap(file, np.uint8, "r", shape=(len(source), *source.form.shape))
    return {INPUT: np.asarray(mapped)}, concatenated(wanted)


def check_headers(paths: Sequence[Path], form: PictureForm) -> None:
    """Raise DataError for the first picture whose header is unreadable or whose size is another one."""
    _side_by_side(lambda place: _said_here(check_picture, paths[place], form), len(paths))


def _said_here(read: Callable[[Path, PictureForm], Read], path: Path, form: PictureForm) -> Read:
    """Read a file; what the device would say becomes the workstation's own error."""
    try:
        return read(path, form)
    except FileRefused as fault:
        raise DataError(fault.what, where=fault.where, remedy=fault.remedy) from fault


def _side_by_side(work: Callable[[int], object], count: int) -> None:
    """Do ``work`` for 0 … count-1 in some threads; the first error in that order is raised."""
    with ThreadPoolExecutor(THREADS) as pool:
        for start in range(0, count, _DECODE_AT_ONCE):
            for _ in pool.map(work, range(start, min(start + _DECODE_AT_ONCE, count))):
                pass
