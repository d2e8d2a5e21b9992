"""What there is to measure a network with that is there already, whatever it came as.

Shapes: N samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.onboard.arrays import TensorSpec
from pipeline.starting.seen import Columns

MOST = 512  # samples without labels that are used
FEWEST = 8
LEAST_PER_CLASS = 3  # one for each split
BYTE = 255
_MOST_BYTES = 256 << 20
Task = Literal["classification", "regression", "agreement"]


@dataclass(frozen=True, kw_only=True)
class Given:
    """Samples, with labels that fit the network or without any."""

    task: Task
    kind: Literal["image-folder", "npz", "csv", "idx"]
    place: Path
    samples: int
    divide: int  # of raw values
    said: str
    arrays: tuple[tuple[str, str], ...] = ()  # x and y → what they are called in the file
    inputs: Mapping[str, NDArray[Any]] = field(default_factory=dict)  # (N, …) raw, where nothing fits as a label
    steps: int = 0  # of each sample, where it is a sequence
    files: Mapping[str, Path] = field(default_factory=dict)  # role → file, where it is not ``place`` alone
    columns: Columns | None = None  # of a table with labels
    categories: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # column of words → its words


def places(samples: int, bytes_each: int) -> NDArray[np.int64]:
    """Return where so many samples lie, all over the others, that they fit into memory."""
    most = max(1, min(MOST, _MOST_BYTES // max(1, bytes_each)))
    return np.unique(np.linspace(0, samples - 1, min(most, samples)).astype(np.int64))


def task_of(y: NDArray[Any] | None, samples: int, outputs: Sequence[TensorSpec]) -> Task:
    """Return what labels ask of a network with these outputs: agreement where they do not fit."""
    if y is None or y.ndim == 0 or len(y) != samples or len(outputs) != 1 or len(outputs[0].shape) != 1:
        return "agreement"
    (values,) = outputs[0].shape
    if y.dtype.kind in "iub" and y.ndim == 1:
        found, counts = np.unique(y, return_counts=True)
        whole = found.tolist() == list(range(values)) and int(counts.min()) >= LEAST_PER_CLASS
        return "classification" if whole and values > 1 else "agreement"
    return "regression" if y.dtype.kind == "f" and y.reshape(samples, -1).shape[1] == values else "agreement"


def why_not(y: object, outputs: Sequence[TensorSpec]) -> str:
    """Say why the float network is what int8 is compared with; ``y``: the labels, None where there are none."""
    several = "; say which one they are for: --output NAME" if len(outputs) > 1 else ""
    return "without labels" if y is None else f"whose labels do not fit the network's {ends(outputs)}{several}"


def ends(specs: Sequence[TensorSpec]) -> str:
    """Say what goes in or comes out: the shape, and the names where there are several."""
    if len(specs) == 1:
        return _shown(specs[0].shape)
    return ", ".join(f"{spec.name} {_shown(spec.shape)}" for spec in specs)


def _shown(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape)) or "one number"
