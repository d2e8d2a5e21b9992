"""Interleaved timing: sleeps of known length, decisions that hold, nothing left behind."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

import numpy as np
import pytest

from pipeline.latency import measure


def busy(microseconds: float) -> Callable[[], None]:
    """Keep the processor busy for so long (sleep would measure the scheduler)."""

    def call() -> None:
        end = time.perf_counter_ns() + microseconds * 1000
        while time.perf_counter_ns() < end:
            pass

    return call


def test_times_are_those_of_single_inferences_in_ms() -> None:
    got = measure.measure_interleaved({"short": busy(100), "long": busy(2000)}, rounds=20, budget_s=5)
    rounds, burst = got["short"].shape
    assert rounds == 20
    assert 5 <= burst <= 10  # ten make a millisecond, fewer when the first ones were held up
    assert got["long"].shape == (20, 1)
    # the fastest of 20: the loop overshoots by a microsecond, but on a busy machine half of the runs are held up
    assert got["short"].min() == pytest.approx(0.1, rel=0.1)
    assert got["long"].min() == pytest.approx(2.0, rel=0.1)


def test_the_order_is_random_and_the_same_for_a_seed() -> None:
    def orders(seed: int) -> str:
        log: list[str] = []

        def call(letter: str) -> Callable[[], None]:
            def run() -> None:
                log.append(letter)
                time.sleep(0.0011)  # bursts of one

            return run

        measure.measure_interleaved({name: call(name) for name in "abc"}, rounds=12, warmup=1, seed=seed)
        return "".join(log[-12 * 3 * 2 :: 2])  # untimed and timed call of each

    first = orders(1)
    rounds = [first[start : start + 3] for start in range(0, 36, 3)]
    assert all(sorted(each) == ["a", "b", "c"] for each in rounds)
    assert len(set(rounds)) > 1
    assert first == orders(1)
    assert first != orders(2)


def test_the_budget_ends_it_but_not_before_five_rounds() -> None:
    start = time.perf_counter()
    got = measure.measure_interleaved({"a": busy(5000)}, rounds=10_000, budget_s=0.2)
    assert 5 <= len(got["a"]) <= 40
    assert time.perf_counter() - start < 2
    assert len(measure.measure_interleaved({"a": busy(1000)}, rounds=50, budget_s=0)["a"]) == 5


def test_the_collector_is_off_meanwhile_and_on_afterwards() -> None:
    seen = set()
    measure.measure_interleaved({"a": lambda: seen.add(gc.isenabled())}, rounds=5, warmup=1)
    assert False in seen
    assert gc.isenabled()
    with pytest.raises(ZeroDivisionError):
        measure.measure_interleaved({"a": lambda: 1 / 0})
    assert gc.isenabled()


def test_nothing_to_measure_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing"):
        measure.measure_interleaved({})


def test_ratio_takes_rounds_as_pairs() -> None:
    busy_moments = np.repeat([1.0, 3.0, 1.0, 2.0], 25)[:, None]
    reference = busy_moments * np.ones((100, 4))
    got = measure.ratio(0.8 * reference, reference)
    assert (got.low, got.value, got.high) == pytest.approx((0.8, 0.8, 0.8))


def test_a_clear_difference_is_decided_early() -> None:
    speed = measure.compare_speed(busy(100), busy(150), budget_s=10)
    assert speed.faster
    assert not speed.slower
    assert speed.ratio.value == pytest.approx(2 / 3, rel=0.15)
    assert speed.rounds <= 240  # of at most 960
    assert measure.compare_speed(busy(150), busy(100), budget_s=10).slower


def test_no_difference_is_not_called_one() -> None:
    """Simulated clock noise: of 30 pairs of equals, not more are told apart than the stated 5 % allow."""
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(30):
        times = {name: rng.lognormal(0, 0.05, (480, 1)) for name in ("candidate", "reference")}
        for rounds in (30, 60, 120, 240, 480):
            interval = measure.ratio(*(each[:rounds] for each in times.values()), confidence=1 - 0.05 / 5)
            if interval.high < 1 or interval.low > 1:
                wrong += 1
                break
    assert wrong <= 5  # P(more than 5 of 30 | 5 %) = 0.3 %


def test_undecided_when_the_budget_is_gone() -> None:
    same = busy(300)
    speed = measure.compare_speed(same, same, budget_s=0.05)
    assert speed.rounds <= 60
    assert speed.ratio.low <= speed.ratio.value <= speed.ratio.high
