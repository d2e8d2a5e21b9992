"""Scale and zero point: the one type that every part which quantizes, writes or reads integers shares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


class Grid(NamedTuple):
    """The integers that a value may become; bits are data."""

    lowest: int
    highest: int

    @property
    def steps(self) -> int:
        """Return how many steps lie between the ends."""
        return self.highest - self.lowest


UINT8, INT8, INT32 = Grid(0, 255), Grid(-128, 127), Grid(-(2**31), 2**31 - 1)


def symmetric(bits: int) -> Grid:
    """Return the grid of weights: -127 … 127 for 8 bits, -63 … 63 for 7."""
    limit = (1 << (bits - 1)) - 1
    return Grid(-limit, limit)


@dataclass(frozen=True, kw_only=True)
class QuantParams:
    """real = (q - zero_point) * scale with q on ``grid``; one scale, or one per index of ``axis``."""

    scales: tuple[float, ...]
    zero_points: tuple[int, ...]  # as many
    grid: Grid
    axis: int = 0

    @classmethod
    def of(cls, scale: float, zero_point: int = 0, grid: Grid = UINT8) -> QuantParams:
        """Return parameters of a whole tensor."""
        return cls(scales=(scale,), zero_points=(zero_point,), grid=grid)

    @property
    def per_tensor(self) -> bool:
        """Whether there is one scale for all values."""
        return len(self.scales) == 1

    @property
    def scale(self) -> float:
        """Return the only scale.  Raises ValueError where there is one per channel."""
        (scale,) = self.scales
        return scale

    @property
    def zero_point(self) -> int:
        """Return the only zero point.  Raises ValueError where there is one per channel."""
        (zero_point,) = self.zero_points
        return zero_point

    @property
    def lowest(self) -> float:
        """Return the smallest real number on the grid."""
        return self.real(self.grid.lowest)

    @property
    def highest(self) -> float:
        """Return the largest real number on the grid."""
        return self.real(self.grid.highest)

    def real(self, steps: int) -> float:
        """Return what an integer stands for."""
        return (steps - self.zero_point) * self.scale

    def quantize(self, value: float) -> int:
        """Return the nearest integer, half to even; values out of range saturate."""
        return int(np.rint(np.clip(value / self.scale + self.zero_point, *self.grid)))

    def as_int8(self) -> QuantParams:
        """Return the same real numbers on the int8 grid: uint8 minus 128."""
        shift = self.grid.lowest - INT8.lowest
        zero_points = tuple(zero - shift for zero in self.zero_points)
        return QuantParams(scales=self.scales, zero_points=zero_points, grid=INT8, axis=self.axis)
