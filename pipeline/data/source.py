"""What a data set looks like to the rest: samples that are read by index, divided into three splits.

Shapes: N samples, n of them read at once; a sample's input is (C, H, W) for pictures or (F,) for tables.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.declare.card import DatasetCard
from pipeline.onboard.about import Column
from pipeline.onboard.arrays import Arrays, PictureForm, chosen, length
from pipeline.onboard.frontend import StepCall

# What may be held of one source as normalised float32 inputs; a larger source is prepared batch by batch.
MEMORY_BUDGET_BYTES = 256 << 20
# What may be kept of pictures as bytes: they are decoded once; in larger folders, whenever they are read.
DECODED_BUDGET_BYTES = 768 << 20
_FLOAT32_BYTES = 4
INPUT = "input"  # the name of the only input of most networks

Indices = NDArray[np.int64]
Wanted = Literal["class", "number", "mask", "output"]  # what a sample is labelled with, and the name of that array


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """Samples as they are stored; ``wanted`` is whatever the task learns from: classes, masks, targets."""

    inputs: Arrays  # name → (n, …)
    wanted: Arrays  # name → (n, …); {} where nothing is labelled


class Source(Protocol):
    """Samples read by index; nothing is said about where they lie."""

    @property
    def strata(self) -> Indices | None:
        """Return (N,): every stratum reaches every split (classes); None: draws are plain."""

    @property
    def groups(self) -> Indices | None:
        """Return (N,): a group stays in one split (speakers, subjects, machines); None: there are none."""

    def __len__(self) -> int:
        """Return N."""

    def read(self, indices: Indices) -> Batch:
        """Return the samples at ``indices`` in that order, in the dtypes in which they are stored.

        Raises DataError when a file turns out to be unreadable.
        """

    def wanted(self, indices: Indices) -> Arrays:
        """Return only what the samples at ``indices`` are labelled with: no input is read for it where that helps."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ArraySource:
    """Samples as stored, in memory or mapped from a file."""

    inputs: Arrays  # name → (N, …)
    labels: Arrays = field(default_factory=dict)  # name → (N, …); {} where nothing is labelled
    strata: Indices | None = None  # (N,)
    groups: Indices | None = None  # (N,)
    names: tuple[str, ...] = ()  # N: the file of each sample, for people; () where they have none
    numbers: Indices | None = None  # (N,): which samples of the source that they were taken from; None: all of them

    def __len__(self) -> int:
        return length(self.inputs)

    def read(self, indices: Indices) -> Batch:
        """Return copies of the samples at ``indices``."""
        batch = Batch(inputs=chosen(self.inputs, indices), wanted=chosen(self.labels, indices))
        for array in self.inputs.values():
            let_go(array)
        return batch

    def wanted(self, indices: Indices) -> Arrays:
        """Return copies of the labels at ``indices``."""
        return chosen(self.labels, indices)


@dataclass(frozen=True, kw_only=True, eq=False)
class Subset:
    """Some samples of another source, read from there when they are needed."""

    whole: Source
    indices: Indices  # into ``whole``

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def strata(self) -> Indices | None:
        """Return those of the chosen ones."""
        return None if self.whole.strata is None else self.whole.strata[self.indices]

    @property
    def groups(self) -> Indices | None:
        """Return those of the chosen ones."""
        return None if self.whole.groups is None else self.whole.groups[self.indices]

    def read(self, indices: Indices) -> Batch:
        """Return the samples at ``indices`` of this subset."""
        return self.whole.read(self.indices[indices])

    def wanted(self, indices: Indices) -> Arrays:
        """Return the labels at ``indices`` of this subset."""
        return self.whole.wanted(self.indices[indices])


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What a kind of data holds before it is divided: a split that it does not bring is None."""

    classes: tuple[str, ...]  # () where nothing is classified
    train: Source
    val: Source | None = None
    test: Source | None = None
    columns: tuple[Column, ...] = ()  # of the rows of a table, as they are stored
    numbers: tuple[str, ...] = ()  # names of the numbers to predict, where they have some
    # preprocessing that the kind itself asks for, before [input]'s: its numbers are found on the training split
    own_steps: Callable[[Source], tuple[StepCall, ...]] | None = None
    places: Mapping[str, str] = field(default_factory=dict)  # split that the kind brings → its file, for errors
    pictures: PictureForm | None = None  # how files become raw values, where they are pictures
    left_out: Mapping[str, int] = field(default_factory=dict)  # why files were not read → how many


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A data set ready to use: three disjoint splits."""

    card: DatasetCard  # with the input's shape, also where the file does not say it
    classes: tuple[str, ...]
    train: Source
    val: Source
    test: Source
    frontend: dict[str, tuple[StepCall, ...]]  # input name → steps of preprocessing
    columns: tuple[Column, ...] = ()  # of the rows of a table
    numbers: tuple[str, ...] = ()  # names of the numbers to predict, where they have some
    calibration: Indices | None = None  # indices into ``train`` from the card's file, if it names one
    pictures: PictureForm | None = None  # how files become raw values, where they are pictures
    left_out: Mapping[str, int] = field(default_factory=dict)  # why files were not read → how many


def let_go(array: NDArray[Any]) -> None:
    """Give the memory back that a part of a mapped file takes since it was read; what is not mapped stays."""
    base: object = array
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)


def everything(source: Source) -> Indices:
    """Return the indices of all samples."""
    return np.arange(len(source), dtype=np.int64)


def fits_in_memory(samples: int, shape: tuple[int, ...]) -> bool:
    """Tell whether so many samples of this shape may be held as float32."""
    return samples * math.prod(shape) * _FLOAT32_BYTES <= MEMORY_BUDGET_BYTES


def decoded_fits(samples: int, shape: tuple[int, ...]) -> bool:
    """Tell whether so many pictures of this shape may be kept as bytes."""
    return samples * math.prod(shape) <= DECODED_BUDGET_BYTES


def take(source: Source, indices: Indices) -> Source:
    """Return the samples at ``indices`` as a source of their own: copied where all fit in memory, else a view."""
    if not isinstance(source, ArraySource):
        return Subset(whole=source, indices=indices)
    values = sum(math.prod(array.shape[1:]) for array in source.inputs.values())
    if not fits_in_memory(len(source), (values,)):
        return Subset(whole=source, indices=indices)
    return ArraySource(
        inputs=chosen(source.inputs, indices),
        labels=chosen(source.labels, indices),
        strata=None if source.strata is None else source.strata[indices],
        groups=None if source.groups is None else source.groups[indices],
        names=tuple(source.names[int(index)] for index in indices) if source.names else (),
        numbers=indices if source.numbers is None else source.numbers[indices],
    )
