"""The calibration samples as a network sees them: what ranges are measured on and files are checked with."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pipeline.data.calibration import calibration_indices
from pipeline.data.source import Dataset
from pipeline.errors import UnsupportedOpError
from pipeline.onboard.frontend import Frontend, prepare


def calibration_inputs(dataset: Dataset, frontend: Frontend, *, most: int | None = None) -> Tensor:
    """Return the calibration samples, prepared, (n, …): all, or at most so many, spread over them.

    Raises UnsupportedOpError for data with several inputs: files are written for networks with one.
    """
    indices = calibration_indices(dataset)
    if most is not None and len(indices) > most:
        indices = indices[np.linspace(0, len(indices) - 1, most).astype(np.int64)]
    inputs = prepare(dataset.train.read(indices).inputs, frontend)
    if len(inputs) != 1:
        raise UnsupportedOpError(
            f"a network with {len(inputs)} inputs ({', '.join(inputs)}) cannot be written as a file",
            where="network",
            remedy="give it one input, and take it apart in forward()",
        )
    (only,) = inputs.values()
    return torch.from_numpy(np.ascontiguousarray(only, np.float32))
