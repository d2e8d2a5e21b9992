"""Scales with which a sum of two quantized values is the same number in every kernel.

Kernels compute total = zero point + sum of (q - zero point) * ratio, where a ratio is an addend's scale by the total's:
in float32 with or without fused multiplications, or with multipliers of 21 bits.  Ratios that are whole multiples of
one power of two, with 15 bits at most, leave nothing to round before the sum is complete.
"""

from __future__ import annotations

import math

import numpy as np

_BITS = 15  # 2 * 255 * 2^15 is below 2^24, where float32 ends being exact
_FEWEST = 2**8  # units of the smallest ratio: its scale changes by 2^-9 at most
_TRIED = (0, 1, -1, 2, -2, 3, -3, 4, -4, 5, -5, 6, -6)  # units away from the nearest


def exact_scale(scale: float, *, total: float, largest: float) -> float | None:
    """Return the scale next to this one whose float32 quotient by ``total`` is a multiple of the sum's unit.

    ``largest``: of the addends' scales, which says how large the unit is.  None where there is none near by.
    """
    if not (math.isfinite(scale / total) and math.isfinite(largest / total)):
        return None
    unit = _unit(largest / total)
    nearest = round(scale / total / unit)
    if nearest < _FEWEST:
        return None
    whole = np.float32(total)
    for away in _TRIED:
        ratio = np.float32((nearest + away) * unit)
        product = ratio * whole
        for candidate in (product, np.nextafter(product, np.float32(np.inf)), np.nextafter(product, np.float32(0))):
            if candidate / whole == ratio:
                return float(candidate)
    return None


def _unit(largest_ratio: float) -> float:
    return 2.0 ** (max(0, math.ceil(math.log2(largest_ratio))) - _BITS)
