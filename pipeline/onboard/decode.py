"""From outputs to decisions, as a device takes them: numpy alone.

n samples, K classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def largest(outputs: NDArray[Any], axis: int = 1) -> NDArray[np.int64]:
    """Return the class with the largest output: of (n, K) one per sample (n,), of (n, K, H, W) one per pixel (n, H, W).

    The first one where several are equal.
    """
    return np.asarray(outputs.argmax(axis), np.int64)


def above(outputs: NDArray[Any], threshold: float) -> NDArray[np.int64]:
    """Return 1 where an output is the threshold or more, 0 elsewhere; the shape stays."""
    return np.asarray(outputs >= threshold, np.int64)


def softmax(outputs: NDArray[Any], axis: int = 1) -> NDArray[np.float64]:
    """Return probabilities that sum to 1 along the class axis, of outputs of any size."""
    powers = np.exp(outputs.astype(np.float64) - outputs.max(axis, keepdims=True))  # the largest is exp(0)
    return np.asarray(powers / powers.sum(axis, keepdims=True), np.float64)


def sigmoid(outputs: NDArray[Any]) -> NDArray[np.float64]:
    """Return 1 / (1 + exp(-outputs)), without overflow."""
    # exp of what is at most 0: of the two ways to write it, the one that fits the sign
    powers = np.exp(-np.abs(outputs.astype(np.float64)))
    return np.asarray(np.where(outputs >= 0, 1.0, powers) / (1.0 + powers), np.float64)
