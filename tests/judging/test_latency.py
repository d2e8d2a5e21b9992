"""Ratios and quantiles that hold where sessions differ, the machine drifts and noise has heavy tails: modelled clocks.

S sessions of each file.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import scipy.stats
from numpy.typing import NDArray
from scipy import stats

from pipeline.artifacts.evidence import Interval
from pipeline.judging import latency
from pipeline.judging.latency import Speed, compare, quantile, ratio
from pipeline.onboard.session import Timer
from pipeline.onboard.timing import Opener

Floats = NDArray[np.float64]
Noise = Callable[[np.random.Generator, int], Floats]  # generator, inferences → factors


class Machine:
    """A modelled machine: each session keeps a speed of its own, the whole machine drifts, noise comes on top."""

    def __init__(self, noise: Noise, *, session_spread: float, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.noise = noise
        self.session_spread = session_spread
        self.drift = 1.0  # of the whole machine: clock, neighbours

    def file(self, ms: float) -> Opener:
        """Open sessions of a file that takes so long."""

        def opened() -> Timer:
            own = ms * np.exp(self.rng.normal(0, self.session_spread))

            def timer(count: int) -> list[float]:
                self.drift = float(np.clip(self.drift * np.exp(self.rng.normal(0, 0.01)), 0.5, 2.0))
                return list(own * self.drift * self.noise(self.rng, count))

            return timer

        return opened


def quiet(rng: np.random.Generator, count: int) -> Floats:
    return np.exp(rng.normal(0, 0.01, count))


def busy(rng: np.random.Generator, count: int) -> Floats:
    """Other processes: every fifth burst is two to ten times as long, and single inferences are held up."""
    held_up = rng.uniform(2, 10) if rng.random() < 0.2 else 1.0
    return held_up * np.exp(0.03 * np.abs(rng.standard_t(1.5, count)))


def decisions(noise: Noise, trials: int, *, faster_by: float, session_spread: float = 0.007) -> list[Speed]:
    """Compare a file of 1 ms with one that is faster by a share, again and again."""
    found = []
    for trial in range(trials):
        machine = Machine(noise, session_spread=session_spread, seed=trial)
        found.append(compare(machine.file(1 - faster_by), machine.file(1.0), budget_s=60, seed=trial))
    return found


@pytest.mark.parametrize("noise", [quiet, busy])
def test_a_file_is_not_faster_or_slower_than_itself(noise: Noise) -> None:
    found = decisions(noise, 100, faster_by=0.0)
    wrong = sum(each.faster or each.slower for each in found)
    assert wrong <= 5  # 2 % are allowed for: P(more than 5 of 100) = 1.5 %, and the seeds are fixed
    assert {each.sessions for each in found if not (each.faster or each.slower)} == {latency.LOOKS_SESSIONS[-1]}


@pytest.mark.parametrize(("noise", "faster_by", "sessions"), [(quiet, 0.05, 10), (busy, 0.1, 20)])
def test_a_true_difference_is_found_and_early_where_it_is_large(noise: Noise, faster_by: float, sessions: int) -> None:
    found = decisions(noise, 40, faster_by=faster_by)
    assert all(each.faster and not each.slower for each in found)
    assert np.median([each.sessions for each in found]) <= sessions
    assert np.median([each.ratio.value for each in found]) == pytest.approx(1 - faster_by, rel=0.01)
    covered = [each.ratio.low <= 1 - faster_by <= each.ratio.high for each in found]
    assert np.mean(covered) >= 0.9  # 98 % stated, 40 trials


def test_more_rounds_would_be_sure_of_a_false_difference() -> None:
    """What pairs of bursts of one single pair of sessions say: the session's own speed looks like the file's."""
    wrong = 0
    for trial in range(40):
        machine = Machine(quiet, session_spread=0.007, seed=trial)
        first, second = machine.file(1.0)(), machine.file(1.0)()
        pairs = np.array([(np.median(first(5)), np.median(second(5))) for _ in range(200)])
        interval = ratio(pairs[:, 0], pairs[:, 1])
        wrong += not interval.low <= 1 <= interval.high
    assert wrong >= 20


def test_slower_is_the_other_way_round() -> None:
    machine = Machine(quiet, session_spread=0.007, seed=0)
    speed = compare(machine.file(1.5), machine.file(1.0), budget_s=60)
    assert speed.slower
    assert not speed.faster
    assert speed.sessions == latency.LOOKS_SESSIONS[0]


def test_the_budget_ends_it_undecided_and_not_before_the_first_look() -> None:
    machine = Machine(quiet, session_spread=0.007, seed=3)
    speed = compare(machine.file(1.0), machine.file(1.0), budget_s=0)
    assert speed.sessions == latency.LOOKS_SESSIONS[0]
    assert 0 < speed.ratio.low < speed.ratio.value < speed.ratio.high < np.inf


# ── ratio ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_ratio_takes_sessions_as_pairs() -> None:
    machine_ms = np.array([1.0, 3.0, 1.0, 2.0, 5.0, 1.0, 1.1, 0.9])
    got = ratio(0.8 * machine_ms, machine_ms)
    assert (got.low, got.value, got.high) == pytest.approx((0.8, 0.8, 0.8))


@pytest.mark.parametrize("sessions", [6, 10, 17])
def test_the_interval_holds_what_wilcoxons_exact_test_does_not_reject(sessions: int) -> None:
    rng = np.random.default_rng(sessions)
    first, second = np.exp(rng.normal(0, 0.3, (2, sessions)))
    got = ratio(first, second)
    for true, rejected in (
        (got.low * 0.999999, True),
        (got.low * 1.000001, False),
        (got.high * 0.999999, False),
        (got.high * 1.000001, True),
    ):
        p = stats.wilcoxon(np.log(first) - np.log(second) - np.log(true), method="exact").pvalue
        assert bool(p <= 0.05) is rejected


def test_swapping_the_files_inverts_the_ratio() -> None:
    first, second = np.exp(np.random.default_rng(1).normal(0, 0.1, (2, 12)))
    one, other = ratio(first, second), ratio(second, first)
    assert (one.low, one.value, one.high) == pytest.approx((1 / other.high, 1 / other.value, 1 / other.low))


def test_one_odd_session_decides_nothing() -> None:
    second = np.ones(12)
    first = 0.9 * np.exp(np.random.default_rng(0).normal(0, 0.005, 12))
    odd = first.copy()
    odd[3] = 50.0
    assert ratio(odd, second).value == pytest.approx(0.9, rel=0.01)
    assert ratio(odd, second).high < 1


def test_too_few_sessions_say_nothing() -> None:
    first, second = np.array([1.0, 1.1, 1.2, 1.0, 1.1]), np.full(5, 2.0)
    got = ratio(first, second)
    assert (got.low, got.high) == (0.0, np.inf)
    assert got.value == pytest.approx(0.55, rel=0.01)
    assert not Speed(ratio=got, sessions=5).faster
    for short in (np.empty(0), np.ones(4)):
        with pytest.raises(ValueError, match="sessions"):
            ratio(first if len(short) else short, short)


# ── quantiles ───────────────────────────────────────────────────────────────────────────────────────────────────────


def drawn(rng: np.random.Generator, sessions: int, *, spread: float = 0.01) -> Floats:
    """Draw (S, 50) times: a speed per session, noise, and now and then an inference that is held up."""
    own = np.exp(rng.normal(0, spread, (sessions, 1)))
    held_up = np.where(rng.random((sessions, 50)) < 0.03, 1.5, 1.0)
    return own * held_up * np.exp(rng.normal(0, 0.03, (sessions, 50)))


def covered(share: float, interval: Callable[[Floats], Interval]) -> float:
    """Return how often the interval from 12 sessions holds the quantile of all sessions there could be."""
    rng = np.random.default_rng(0)
    true = np.quantile(drawn(rng, 4000), share)
    found = [interval(drawn(rng, 12)) for _ in range(100)]
    return float(np.mean([each.low <= true <= each.high for each in found]))


@pytest.mark.parametrize("share", [0.5, 0.95])
def test_a_quantiles_interval_holds_the_true_one_for_other_sessions_too(share: float) -> None:
    assert covered(share, lambda times: quantile(times, share)) >= 0.9  # 95 % stated, 100 trials


def test_an_interval_that_takes_all_inferences_for_independent_would_not() -> None:
    def between_order_statistics(times: Floats) -> Interval:
        value = float(np.median(times))
        ends = scipy.stats.quantile_test(times.ravel(), q=value, p=0.5).confidence_interval(0.95)
        return Interval(value=value, low=float(ends.low), high=float(ends.high))

    assert covered(0.5, between_order_statistics) <= 0.8


def test_a_quantile_lies_in_its_interval_and_is_one_of_the_times() -> None:
    rng = np.random.default_rng(2)
    for sessions, share in itertools.product((2, 3, 12), (0.0, 0.5, 0.95, 1.0)):
        times = drawn(rng, sessions)
        got = quantile(times, share)
        assert got.low <= got.value <= got.high
        assert {got.value} <= set(times.ravel())
    np.testing.assert_allclose(quantile(np.arange(1.0, 101).reshape(10, 10), 0.95).value, 95)
    assert quantile(np.ones((4, 7)), 0.5) == Interval(value=1.0, low=1.0, high=1.0)


def test_a_resampled_quantile_is_that_of_the_sessions_drawn() -> None:
    times = drawn(np.random.default_rng(4), 12)
    found = latency._resampled(times, 0.95, seed=3)
    draws = np.random.default_rng(3).multinomial(12, np.full(12, 1 / 12), len(found))
    for value, draw in zip(found[:50], draws, strict=False):
        assert value == np.quantile(np.repeat(times, draw, axis=0), 0.95, method="inverted_cdf")


def test_one_session_says_nothing_about_others() -> None:
    got = quantile(np.ones((1, 100)), 0.5)
    assert (got.low, got.value, got.high) == (0.0, 1.0, np.inf)
    with pytest.raises(ValueError, match="no times"):
        quantile(np.empty((0, 5)), 0.5)
