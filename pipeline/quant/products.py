"""Scales with which whole steps, a product's or a sum's, are rounded alike by every kernel.

Kernels scale an integer by one float32 factor; then some round and add the zero point, and others add it first, in
float32, and round.  What lies within some 2^-15 of half a step may come out on either side.  Where the factor is p / q
with an odd q nothing does: n * p / q lies at least 1 / (2 * q) from every half.
"""

from __future__ import annotations

import math

import numpy as np

_LARGEST = 2**12 - 1  # q; half its inverse is eight times what float32 loses of a result below 256


def untied_scale(scale: float, *, unit: float) -> float:
    """Return the scale next to ``scale`` with which no multiple of ``unit`` lies near half a step, to 1 in 2000.

    ``unit``: what one of the integers is worth before they are scaled.
    """
    most = max(1, math.floor(_LARGEST * unit / scale))
    tried = [_of_ratio(p, scale, unit) for p in (most, most + 1, most - 1) if p]
    return scale if float(np.float32(scale)) in tried else tried[0]


def _of_ratio(p: int, scale: float, unit: float) -> float:
    q = 2 * math.floor(p * scale / unit / 2) + 1  # the nearest odd number
    return float(np.float32(unit * q / p))
