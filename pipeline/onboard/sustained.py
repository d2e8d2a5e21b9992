"""One file, run without a pause for as long as asked: what a machine keeps up, and whether it gets slower.

Heat comes after minutes, and a supply that is too weak shows under load.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

from pipeline.onboard.machine import ROOT, clocks_mhz, temperature_c
from pipeline.onboard.session import Timer
from pipeline.onboard.usage import Meter

POINTS = 100  # of the series: its first and last ten are what drift is read off
_BURST_S = 0.02  # between two looks at the clock
_MOST = 10_000  # inferences in one burst


@dataclass(frozen=True)
class Point:
    """One stretch of the run; clock and temperature at its end."""

    at_s: float  # its end, since the start
    inferences: int
    seconds: float
    ms: float  # median of single inferences
    clock_mhz: float | None = None  # of the fastest core
    temperature_c: float | None = None


@dataclass(frozen=True)
class Sustained:
    """The whole run."""

    points: tuple[Point, ...]
    joules: float | None = None  # of the whole processor, whatever else it did; None: it does not tell

    @property
    def seconds(self) -> float:
        """Return how long inferences ran."""
        return sum(each.seconds for each in self.points)

    @property
    def inferences(self) -> int:
        """Count them."""
        return sum(each.inferences for each in self.points)

    @property
    def per_second(self) -> float:
        """Return how many inferences ran in a second, on the whole."""
        return self.inferences / self.seconds

    @property
    def joules_each(self) -> float | None:
        """Return the energy of one inference; None also where the counter stood still."""
        return self.joules / self.inferences if self.joules else None

    def tenth(self, last: bool) -> tuple[Point, ...]:
        """Return the first or the last tenth of the series."""
        count = max(1, len(self.points) // 10)
        return self.points[-count:] if last else self.points[:count]


def sustained(
    timer: Timer, *, seconds: float, root: Path = ROOT, tell: Callable[[], object] = lambda: None
) -> Sustained:
    """Run one inference after the other for so many seconds, in up to a hundred stretches of the same length.

    ``tell``: called after each stretch.
    """
    clock, meter = time.perf_counter, Meter(root)
    (first_ms,) = timer(1)
    burst = min(_MOST, max(1, int(_BURST_S * 1000 / max(first_ms, 1e-4))))
    start = clock()
    points: list[Point] = []
    meter.read()
    taken_j = meter.joules
    while not points or clock() - start < seconds:
        times: list[float] = []
        began, inferences = clock(), 0
        until = start + seconds * (len(points) + 1) / POINTS
        while not times or clock() < until:
            times += timer(burst)
            inferences += burst + 1  # one of each call is not timed
        ended = clock()
        points.append(
            Point(
                at_s=ended - start,
                inferences=inferences,
                seconds=ended - began,
                ms=statistics.median(times),
                clock_mhz=max(clocks_mhz(root), default=None),
                temperature_c=temperature_c(root),
            )
        )
        meter.read()
        tell()
    joules = None if taken_j is None or meter.joules is None else meter.joules - taken_j
    return Sustained(points=tuple(points), joules=joules)
