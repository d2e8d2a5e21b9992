"""Scales with which whole steps, a product's or a sum's, are rounded alike by every kernel.

Kernels scale an integer by one float32 factor; then some round and add the zero point, and others add it first, in
float32, and round.  What lies within some 2^-15 of half a step may come out on either side.  Where the factor is p / q
with an odd q nothing does: n * p / q lies at least 1 / (2 * q) from every half.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

_LARGEST = 2**12 - 1  # q; half its inverse is eight times what float32 loses of a result below 256


def untied_scale(scale: float, *, unit: float) -> float:
    """Return the scale next to ``scale`` with which no multiple of ``unit`` lies near half a step, to 1 in 2000.

    ``unit``: what one of the integers is worth before they are scaled.
    """
    return _nearest(scale, [unit * q / p for p, q in _ratios(unit / scale)])


def untied_unit(unit: float, *, scale: float) -> float:
    """Return the unit next to ``unit`` no multiple of which lies near half a step of ``scale``, to 1 in 2000."""
    return _nearest(unit, [scale * p / q for p, q in _ratios(unit / scale)])


def _ratios(factor: float) -> list[tuple[int, int]]:
    """Return some p, q with p / q near a factor, the one to take first."""
    most = max(1, math.floor(_LARGEST * factor))
    return [(p, 2 * math.floor(p / factor / 2) + 1) for p in (most, most + 1, most - 1) if p]


def _nearest(present: float, found: Sequence[float]) -> float:
    """Return the first, unless the present one is among them: what is settled stays."""
    scales = [float(np.float32(each)) for each in found]
    return present if float(np.float32(present)) in scales else scales[0]
