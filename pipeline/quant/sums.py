"""Scales with which a sum of two quantized values is the same number in every kernel.

Kernels compute total = zero point + sum of (q - zero point) * ratio, where a ratio is an addend's scale by the total's:
in float32 with or without fused multiplications, or with multipliers of 21 bits.  Ratios that are whole multiples of
one power of two, with 15 bits at most, leave nothing to round before the sum is complete.  Then kernels differ in ties
alone, half to even or half up; and few pairs of integers are tied, so that ratios near by are found where none is.

Not every such ratio is the float32 quotient of two scales.  One that is an ulp beside it moves a sum by less than half
of the unit in which sums differ from ties (255 * 2^-24 beside 2^-14), and does where no sum is tied.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_BITS = 15  # 2 * 255 * 2^15 is below 2^24, where float32 ends being exact
_LARGEST_RATIO = 2.0**8  # XNNPACK's
_FEWEST = 2**8  # units of the smallest ratio, of which a scale may change by one part
_FARTHEST = 16  # units away from the nearest that are tried


@dataclass(frozen=True, kw_only=True, eq=False)
class Addend:
    """One of the values of a sum."""

    scale: float
    steps: NDArray[np.int64]  # what its integers may be, less the zero point
    free: bool = True  # to change its scale


class _Exact(NamedTuple):
    scale: float
    units: int
    away: int  # from the nearest; those that are an ulp beside their units come after all others


def exact_scales(addends: Sequence[Addend], *, total: float) -> tuple[float, ...]:
    """Return scales next to those of one or two addends with which the sum is exact and, if possible, never a tie.

    What is not free, or has no such scale near by, stays as it is.
    """
    largest = max(addend.scale for addend in addends)
    options = [_options(addend, total=total, largest=largest) for addend in addends]
    if not all(options):
        return tuple(found[0].scale if found else each.scale for found, each in zip(options, addends, strict=True))
    units_of_one = round(1 / _unit(largest / total))
    best, fewest = None, math.inf
    for choice in sorted(itertools.product(*options), key=lambda choice: sum(exact.away for exact in choice)):
        sums = [each.steps * exact.units for each, exact in zip(addends, choice, strict=True)]
        tied = _ties(sums, units_of_one)
        if tied < fewest:
            best, fewest = choice, tied
        if not tied:
            break
    assert best is not None  # noqa: S101  (every addend has options)
    return tuple(exact.scale for exact in best)


def exact_scale(scale: float, *, total: float, largest: float) -> float:
    """Return the nearest scale that is exact in a sum with others, the ``largest`` of which says how fine units are."""
    found = _options(Addend(scale=scale, steps=np.zeros(0, np.int64)), total=total, largest=largest)
    return found[0].scale if found else scale


def _options(addend: Addend, *, total: float, largest: float) -> list[_Exact]:
    """Return scales near by whose float32 quotient by ``total`` is a multiple of the unit, the nearest first."""
    ratio = addend.scale / total
    if not (math.isfinite(ratio) and math.isfinite(largest / total) and largest / total <= _LARGEST_RATIO):
        return []
    unit = _unit(largest / total)
    nearest = round(ratio / unit)
    if not addend.free:
        exact = float(np.float32(addend.scale) / np.float32(total)) == nearest * unit
        return [_Exact(addend.scale, nearest, 0)] if exact else []
    if nearest < _FEWEST:
        return []
    reach = min(nearest // _FEWEST, _FARTHEST)
    tried = [_nearest_scale(nearest + away, unit, total, abs(away)) for away in range(-reach, reach + 1)]
    return sorted(tried, key=lambda found: found.away)


def _nearest_scale(units: int, unit: float, total: float, away: int) -> _Exact:
    whole, ratio = np.float32(total), np.float32(units * unit)
    product = ratio * whole
    for scale in (product, np.nextafter(product, np.float32(np.inf)), np.nextafter(product, np.float32(0))):
        if scale / whole == ratio:
            return _Exact(float(scale), units, away)
    return _Exact(float(product), units, away + _FARTHEST + 1)


def _ties(addends: Sequence[NDArray[np.int64]], units_of_one: int) -> int:
    """Count the sums that lie half way between two steps."""
    missing = np.zeros(units_of_one, np.int64)  # by what an addend would have to be
    first, *rest = (each % units_of_one for each in addends)
    for each in rest or [np.zeros(1, np.int64)]:
        np.add.at(missing, (units_of_one // 2 - each) % units_of_one, 1)
    return int(missing[first].sum())


def _unit(largest_ratio: float) -> float:
    return 2.0 ** (max(0, math.ceil(math.log2(largest_ratio))) - _BITS)
