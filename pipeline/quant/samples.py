"""The calibration samples as a network sees them: what ranges are measured on and files are checked with."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pipeline.data.calibration import calibration_indices
from pipeline.data.source import Dataset, everything
from pipeline.graph.ends import joined_arrays
from pipeline.onboard.arrays import Arrays
from pipeline.onboard.frontend import Frontend, prepare
from pipeline.quant.raw import Values, values_of_bytes


def calibration_inputs(dataset: Dataset, frontend: Frontend, *, most: int | None = None) -> Tensor:
    """Return the calibration samples, prepared, (n, …): all, or at most so many, spread over them.

    Several inputs lie side by side, as networks take them (``graph.ends``).
    """
    inputs = prepare(calibration_raw(dataset, most=most), frontend)
    return torch.from_numpy(np.ascontiguousarray(joined_arrays(inputs), np.float32))


def calibration_raw(dataset: Dataset, *, most: int | None = None) -> Arrays:
    """Return the same samples as they are before preprocessing, (n, …) of each input."""
    indices = calibration_indices(dataset)
    if most is not None and len(indices) > most:
        indices = indices[np.linspace(0, len(indices) - 1, most).astype(np.int64)]
    return dataset.train.read(indices).inputs


def values_of(dataset: Dataset, frontend: Frontend) -> Values | None:
    """Return what the only input makes of every byte in every channel, (256, C); None where it is made of no bytes."""
    samples = dataset.train.read(everything(dataset.train)[:1]).inputs
    if len(samples) != 1:
        return None
    ((name, raw),) = samples.items()
    if raw.dtype != np.uint8 or raw.ndim < 2:
        return None
    return values_of_bytes(frontend.get(name, ()), raw.shape[1], raw.ndim - 2)
