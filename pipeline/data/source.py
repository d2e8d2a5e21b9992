"""What a data set looks like to the rest: labelled samples that are read by index, divided into three splits.

Shapes: N samples, n of them read at once, *sample = (C, H, W) for pictures or (F,) for tables.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.spec import DatasetCard

# What training may hold of one source as normalised float32 inputs; a larger source is streamed, batch by batch.
MEMORY_BUDGET_BYTES = 1 << 30
_FLOAT32_BYTES = 4


class Source(Protocol):
    """Labelled samples; nothing is said about where they lie."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """Return the class of every sample: (N,), 0 … K-1."""

    def __len__(self) -> int:
        """Return N."""

    def read(self, indices: NDArray[np.int64]) -> NDArray[Any]:
        """Return the raw samples at ``indices`` in that order: (n, *sample), in the dtype in which they are stored.

        Raises DataError when a file turns out to be unreadable.
        """


@dataclass(frozen=True, kw_only=True, eq=False)
class ArraySource:
    """Samples held in memory: ``samples`` (N, *sample) as stored, ``labels`` (N,) int64."""

    samples: NDArray[Any]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, indices: NDArray[np.int64]) -> NDArray[Any]:
        """Return a copy of the samples at ``indices``: (n, *sample)."""
        chosen: NDArray[Any] = self.samples[indices]
        return chosen


@dataclass(frozen=True, kw_only=True, eq=False)
class Subset:
    """Some samples of another source, read from there when they are needed."""

    whole: Source
    indices: NDArray[np.int64]  # into ``whole``
    labels: NDArray[np.int64]  # of the chosen ones

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, indices: NDArray[np.int64]) -> NDArray[Any]:
        """Return the raw samples at ``indices`` of this subset: (n, *sample)."""
        return self.whole.read(self.indices[indices])


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What a file or folder holds before it is divided: a split that it does not bring is None."""

    classes: tuple[str, ...]
    train: Source
    val: Source | None = None
    test: Source | None = None


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A data set ready to use: three disjoint splits, each holding every class."""

    card: DatasetCard
    classes: tuple[str, ...]
    train: Source
    val: Source
    test: Source
    calibration: NDArray[np.int64] | None = None  # indices into ``train`` from the card's file, if it names one


def fits_in_memory(samples: int, shape: tuple[int, ...]) -> bool:
    """Tell whether so many samples of this shape may be held as float32."""
    return samples * int(np.prod(shape, dtype=np.int64)) * _FLOAT32_BYTES <= MEMORY_BUDGET_BYTES


def take(source: Source, indices: NDArray[np.int64]) -> Source:
    """Return the samples at ``indices`` as a source of their own: held if they fit in memory, else a view."""
    labels = source.labels[indices]
    if isinstance(source, ArraySource) and fits_in_memory(len(indices), source.samples.shape[1:]):
        return ArraySource(samples=source.samples[indices], labels=labels)
    return Subset(whole=source, indices=indices, labels=labels)
