"""Which of two ways takes less time on a target: timed there before estimated for it before timed elsewhere."""

from __future__ import annotations

import math

import pytest

from pipeline.artifacts.evidence import Measurement, Observed, Place, Timing
from pipeline.artifacts.files import Way
from pipeline.judging.speed import Times
from tests.judging.cases import ACCURACY, BOARD, FP32, HERE, INT8, measured, target


def timed(place: Place, times_ms: dict[Way, float], *, threads: int = 1) -> Observed:
    timings = tuple(
        Timing(
            way=way,
            version="1",
            threads=threads,
            session_medians_ms=tuple(ms * (1 + number / 1000) for number in range(10)),
            samples_ms="",
        )
        for way, ms in times_ms.items()
    )
    return Observed(
        place=place, metric=ACCURACY, timings=timings,
        executed=(), saturation=(), not_usable={},
    )  # fmt: skip


def estimated(way: Way, ms: float, error: float = 0.25) -> Measurement:
    return measured("latency_p50_ms", way, ms, how="estimated", error=error)


ELSEWHERE = timed(HERE, {INT8.way: 2.0, FP32.way: 1.0})
THERE = timed(BOARD, {INT8.way: 1.0, FP32.way: 4.0})
ESTIMATES = (estimated(INT8.way, 3.0), estimated(FP32.way, 6.0))


@pytest.mark.parametrize(
    ("observed", "standing", "ratio", "how"),
    [
        ((ELSEWHERE,), (), 2.0, "measured"),
        ((ELSEWHERE,), ESTIMATES, 0.5, "estimated"),
        ((ELSEWHERE, THERE), ESTIMATES, 0.25, "measured"),
        ((), ESTIMATES, 0.5, "estimated"),
    ],
)
def test_the_targets_own_times_come_first(
    observed: tuple[Observed, ...], standing: tuple[Measurement, ...], ratio: float, how: str
) -> None:
    found = Times(target=target(), observed=observed, standing=standing).ratio(INT8.way, FP32.way)
    assert found is not None
    assert found.time.value == pytest.approx(ratio)
    assert found.place.how == how
    assert found.leads == (ratio < 1)


def test_two_estimates_are_compared_with_the_errors_of_both() -> None:
    found = Times(target=target(), observed=(), standing=ESTIMATES).ratio(INT8.way, FP32.way)
    assert found is not None
    assert found.time.high / found.time.value == pytest.approx(math.exp(math.sqrt(2) * math.log(1.25)))
    assert found.time.value / found.time.low == pytest.approx(found.time.high / found.time.value)
    assert found.leads
    assert found.surely_faster
    near = (estimated(INT8.way, 5.5), estimated(FP32.way, 6.0))
    close = Times(target=target(), observed=(), standing=near).ratio(INT8.way, FP32.way)
    assert close is not None
    assert (close.leads, close.surely_faster) == (True, False)


@pytest.mark.parametrize("standing", [(), ESTIMATES[:1]])
def test_what_nobody_timed_is_not_compared(standing: tuple[Measurement, ...]) -> None:
    only_one = timed(HERE, {INT8.way: 1.0})
    assert Times(target=target(), observed=(only_one,), standing=standing).ratio(INT8.way, FP32.way) is None


def test_times_are_compared_with_the_same_number_of_threads() -> None:
    one, two = timed(HERE, {INT8.way: 1.0}), timed(HERE, {FP32.way: 1.0}, threads=2)
    mixed = Observed(
        place=HERE, metric=ACCURACY,
        timings=(*one.timings, *two.timings), executed=(), saturation=(), not_usable={},
    )  # fmt: skip
    assert Times(target=target(), observed=(mixed,), standing=()).ratio(INT8.way, FP32.way) is None
