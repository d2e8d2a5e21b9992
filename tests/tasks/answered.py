"""Answers of a network that gives exactly the outputs that a test writes down: they are its inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.evidence import Answers
from pipeline.artifacts.networks import Digest
from pipeline.data.source import INPUT, ArraySource
from pipeline.declare.card import DatasetCard
from pipeline.onboard.arrays import Arrays
from pipeline.tasks import OUTPUT, Task


class Kept:
    """Keeps arrays by a number, as a store keeps them by their digest."""

    def __init__(self) -> None:
        self.arrays: list[NDArray[Any]] = []

    def put(self, array: NDArray[Any]) -> Digest:
        self.arrays.append(array)
        return str(len(self.arrays) - 1)

    def __getitem__(self, digest: Digest) -> NDArray[Any]:
        return self.arrays[int(digest)]


def answered(
    task: Task,
    outputs: NDArray[Any],
    labels: Any,
    *,
    chosen: Mapping[str, float] | None = None,
    groups: Any = None,
) -> tuple[Answers, ArraySource]:
    """Return what ``task`` makes of ``outputs`` (N, …), and the source with these labels."""
    source = labelled(task, outputs, labels, groups=groups)
    return task.answer(as_they_are, source, unprepared, chosen=chosen), source


def labelled(task: Task, inputs: NDArray[Any], labels: Any, *, groups: Any = None) -> ArraySource:
    dtype = {"class": np.int64, "number": np.float32, "mask": np.uint8, "output": np.float32}[task.WANTED]
    return ArraySource(
        inputs={INPUT: inputs},
        labels={task.WANTED: np.asarray(labels, dtype)},
        groups=None if groups is None else np.asarray(groups),
    )


def as_they_are(inputs: Arrays) -> Arrays:
    return {OUTPUT: inputs[INPUT].astype(np.float32)}


def unprepared(inputs: Arrays) -> Arrays:
    return inputs


def card(shape: tuple[int, ...]) -> DatasetCard:
    return DatasetCard.model_validate({"name": "drawn", "title": "Drawn", "kind": "npz", "input": {"shape": shape}})
