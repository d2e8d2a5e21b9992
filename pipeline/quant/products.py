"""The scale with which a product of two quantized values is rounded alike by every kernel.

Kernels multiply whole steps and scale the result by one float32 factor; then some round and add the zero point, and
others add it first, in float32, and round.  What lies within 2^-15 of half a step may come out on either side.  Of the
thousands of products of two grids a few do; with a scale near by, none.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_STEPS = 255.0  # a result that is further off is clamped
_NEAR = 2.0**-15  # a float32 between 128 and 256 is as exact as that
_FINEST = 2.0**-12  # by which scales are tried
_FARTHEST = 16


def untied_scale(first: NDArray[np.int64], second: NDArray[np.int64], *, unit: float, scale: float) -> float:
    """Return the scale next to ``scale`` in which no product of two steps lies so near half a step as to be unsure.

    ``unit``: the product of the two scales.  Where there is none near by, the one with the fewest.
    """
    products = np.unique(np.abs(np.multiply.outer(np.unique(first), np.unique(second)))).astype(np.float64)
    best, fewest = scale, len(products) + 1
    for away in sorted(range(-_FARTHEST, _FARTHEST + 1), key=abs):
        tried = np.float32(scale) if not away else np.float32(scale * (1 + away * _FINEST))
        unsure = _unsure(products, float(np.float32(unit) / tried))
        if unsure < fewest:
            best, fewest = float(tried), unsure
        if not unsure:
            break
    return best


def _unsure(products: NDArray[np.float64], factor: float) -> int:
    results = products[: np.searchsorted(products, _STEPS / factor)] * factor
    return int(np.count_nonzero(np.abs(results - np.floor(results) - 0.5) < _NEAR))
