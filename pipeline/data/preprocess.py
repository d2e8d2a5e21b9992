"""From raw values to what the network sees: declared in the card, carried out by numpy alone.

The same few lines run in training, in validation and on the device, so that all of them see the same float32 numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import DataError
from pipeline.spec import InputSpec


def normalize(raw: NDArray[Any], spec: InputSpec) -> NDArray[np.float32]:
    """Return (raw / divide - mean) / std as float32, C-contiguous; ``raw`` stays as it is.

    ``raw`` is (n, *spec.shape) of any real dtype; ``mean`` and ``std`` hold one value or one per channel (axis 1).
    Raises DataError when the samples have another shape.
    """
    if raw.shape[1:] != spec.shape:
        raise DataError(
            f"samples have the shape {raw.shape[1:]}, expected {spec.shape}",
            remedy="reshape them, or correct [input] shape in the data-set card",
        )
    out: NDArray[np.float32] = np.array(raw, dtype=np.float32, order="C")
    # one rounding per step, as IEEE 754 says: the same bits on every machine, which a fused a*x + b would not give
    out /= np.float32(spec.divide)
    out -= _per_channel(spec.mean, raw.ndim)
    out /= _per_channel(spec.std, raw.ndim)
    return out


def _per_channel(values: tuple[float, ...], ndim: int) -> NDArray[np.float32]:
    return np.asarray(values, dtype=np.float32).reshape(1, -1, *([1] * (ndim - 2)))  # (1, 1 or C, 1, …)
