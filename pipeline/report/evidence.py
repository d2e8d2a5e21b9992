"""What the outputs on the test split show: confusion matrices and the inputs on which float and int8 disagree.

Shapes: N test samples, K classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts import Column, Digest, Validated

Indices = NDArray[np.int64]


class ArrayStore(Protocol):
    """Where outputs and latency samples lie: ``pipeline.store.Store``."""

    def get_array(self, digest: Digest) -> NDArray[Any]:
        """Return the array of ``digest``; raise StorageError when it is missing or altered."""


@dataclass(frozen=True, kw_only=True)
class Samples:
    """The test split as the report needs it.

    ``labels`` (N,) of 0 … K-1; ``read(indices (M,))`` returns raw, unnormalised values (M, C, H, W) or (M, F).
    """

    labels: Indices
    class_names: tuple[str, ...]
    read: Callable[[Indices], NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """One test input and what was made of it; classes are indices."""

    index: int  # into the test split
    true: int
    by_float: int
    by_int8: int


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Float and int8 side by side on every test input, from the same pair of files as the comparison."""

    float_artifact: str
    int8_artifact: str | None
    labels: Indices  # (N,)
    by_float: Indices  # (N,)
    by_int8: Indices | None  # (N,)
    classes: int

    def confusion(self, predicted: Indices) -> Indices:
        """Return counts (K, K): true class down, predicted class across."""
        flat = np.bincount(self.labels * self.classes + predicted, minlength=self.classes**2)
        return flat.reshape(self.classes, self.classes)

    def disagreements(self) -> tuple[Prediction, ...]:
        """Return inputs with different classes: first those that int8 lost, then those it gained, then the rest."""
        if self.by_int8 is None:
            return ()
        differing = np.flatnonzero(self.by_float != self.by_int8)
        lost, gained = self.by_float == self.labels, self.by_int8 == self.labels
        rank = np.where(lost, 0, np.where(gained, 1, 2))
        return self._predictions(differing[np.argsort(rank[differing], kind="stable")])

    def shared_errors(self) -> tuple[Prediction, ...]:
        """Return inputs to which both give the same wrong class (without int8: which float gets wrong)."""
        by_int8 = self.by_float if self.by_int8 is None else self.by_int8
        return self._predictions(np.flatnonzero((self.by_float == by_int8) & (self.by_float != self.labels)))

    def _predictions(self, indices: Indices) -> tuple[Prediction, ...]:
        by_int8 = self.by_float if self.by_int8 is None else self.by_int8
        return tuple(
            Prediction(index=int(i), true=int(self.labels[i]), by_float=int(self.by_float[i]), by_int8=int(by_int8[i]))
            for i in indices
        )


def compared_columns(target: Validated) -> tuple[Column | None, Column | None]:
    """Return the float and the int8 column to look into: torch float, as in the comparison, and the int8 file.

    The int8 file is the one that ships, or else the first one; without any, the fake-quantized network.
    """
    by_artifact = {column.artifact: column for column in reversed(target.columns)}  # the first of equals wins
    floats = [each for key, each in by_artifact.items() if key.endswith("fp32")]
    int8 = [each for column in target.columns if (each := by_artifact[column.artifact]).artifact.endswith("int8")]
    shipped = [each for each in int8 if each.artifact == target.verdict.ship]
    chosen = next(iter(shipped or int8), by_artifact.get("torch-fake-quant"))
    return by_artifact.get("torch-fp32", next(iter(floats), None)), chosen


def gather(target: Validated, store: ArrayStore, samples: Samples) -> Evidence | None:
    """Read the outputs of the compared columns from the store; None where nothing was run.

    Raises StorageError when an array is gone, ValueError when labels and outputs do not belong together.
    """
    by_float, by_int8 = compared_columns(target)
    if by_float is None:
        return None
    classes = len(samples.class_names)
    return Evidence(
        float_artifact=by_float.artifact,
        int8_artifact=by_int8.artifact if by_int8 else None,
        labels=samples.labels.astype(np.int64),
        by_float=_decisions(by_float, store, len(samples.labels), classes),
        by_int8=_decisions(by_int8, store, len(samples.labels), classes) if by_int8 else None,
        classes=classes,
    )


def _decisions(column: Column, store: ArrayStore, samples: int, classes: int) -> Indices:
    outputs = store.get_array(column.outputs)  # (N, K)
    if outputs.shape != (samples, classes):
        raise ValueError(f"outputs of {column.artifact}: {outputs.shape}, labels ask for {(samples, classes)}")
    return np.asarray(outputs.argmax(1), np.int64)
