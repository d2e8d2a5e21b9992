"""Which of two ways of running takes less time on a target: timed there, estimated for it, or timed elsewhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.artifacts.evidence import Interval, Measurement, Observed, Place, Timing
from pipeline.artifacts.files import Way
from pipeline.declare.target import TargetProfile
from pipeline.judging.latency import ratio


@dataclass(frozen=True, kw_only=True)
class TimeRatio:
    """How long one way takes as a multiple of another, and where that is from."""

    way: Way
    than: Way
    time: Interval  # below 1: faster
    place: Place

    @property
    def surely_faster(self) -> bool:
        """True when the whole interval says so."""
        return self.time.high < 1

    @property
    def leads(self) -> bool:
        """True when this way is the one to take of two that are equal in all else.

        A measured ratio must lie beyond noise.  Of an estimate the interval is what is not known about the target, and
        the better guess is the better choice.
        """
        return self.time.value < 1 if self.place.how == "estimated" else self.surely_faster

    @property
    def text(self) -> str:
        """``0.74 times as long, 0.70 … 0.78``."""
        return f"{self.time.value:.2f} times as long, {self.time.low:.2f} … {self.time.high:.2f}"


@dataclass(frozen=True, kw_only=True)
class Times:
    """All that tells how long files take on a target; ``standing``: the numbers that stand for it."""

    target: TargetProfile
    observed: Sequence[Observed]
    standing: Sequence[Measurement]

    def ratio(self, way: Way, than: Way) -> TimeRatio | None:
        """Compare two ways; None where nobody timed or estimated both."""
        there = [one for one in self.observed if one.place.profile == self.target.name]
        elsewhere = [one for one in self.observed if one.place.profile != self.target.name]
        return self._timed(way, than, there) or self._estimated(way, than) or self._timed(way, than, elsewhere)

    def _timed(self, way: Way, than: Way, observed: Sequence[Observed]) -> TimeRatio | None:
        """Compare times that were taken in turn at one place."""
        for one in observed:
            pair = [_timing(one, each, self.target.judged_threads) for each in (way, than)]
            if pair[0] and pair[1] and pair[0].threads == pair[1].threads:
                first_ms, second_ms = (np.asarray(each.session_medians_ms) for each in pair if each)
                return TimeRatio(way=way, than=than, time=ratio(first_ms, second_ms), place=one.place)
        return None

    def _estimated(self, way: Way, than: Way) -> TimeRatio | None:
        """Compare estimates; the errors of two files on one processor go the same way rather than against each other,
        so that to take them for independent is on the safe side.
        """  # noqa: D205
        pair = [self._estimate(each) for each in (way, than)]
        first, second = pair
        if first is None or second is None:
            return None
        bar = math.exp(math.hypot(*(math.log(each.high / each.value) for each in pair if each)))
        found = first.value / second.value
        time = Interval(value=found, low=found / bar, high=found * bar)
        return TimeRatio(way=way, than=than, time=time, place=first.place)

    def _estimate(self, way: Way) -> Measurement | None:
        own = (each for each in self.standing if each.way == way and each.quantity == "latency_p50_ms")
        return next((each for each in own if each.place.how == "estimated" and each.value > 0), None)


def _timing(observed: Observed, way: Way, threads: int) -> Timing | None:
    own = [each for each in observed.timings if each.way == way]
    return min(own, key=lambda each: abs(each.threads - threads), default=None)
