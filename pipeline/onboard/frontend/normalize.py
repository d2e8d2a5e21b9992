"""(raw / divide - mean) / std, per channel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def apply(
    raw: NDArray[Any], *, divide: float = 1.0, mean: Sequence[float] = (0.0,), std: Sequence[float] = (1.0,)
) -> NDArray[np.float32]:
    """Return (raw / divide - mean) / std as float32, C-contiguous; ``raw`` (n, C, …) stays as it is.

    ``mean`` and ``std`` hold one value or one per channel (axis 1).
    """
    out: NDArray[np.float32] = np.array(raw, dtype=np.float32, order="C")
    # one rounding per step, as IEEE 754 says: the same bits on every machine, which a fused a*x + b would not give
    out /= np.float32(divide)
    out -= _per_channel(mean, raw.ndim)
    out /= _per_channel(std, raw.ndim)
    return out


def _per_channel(values: Sequence[float], ndim: int) -> NDArray[np.float32]:
    return np.asarray(values, dtype=np.float32).reshape(1, -1, *([1] * (ndim - 2)))  # (1, 1 or C, 1, …)
