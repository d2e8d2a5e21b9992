"""Intervals and tests against published values, independent formulas, brute force and simulated coverage."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import stats

Counts = tuple[int, int, int]


@st.composite
def paired_counts(draw: st.DrawFn) -> Counts:
    samples = draw(st.integers(1, 400))
    gained = draw(st.integers(0, samples))
    return gained, draw(st.integers(0, samples - gained)), samples


def quartic_limits(gained: int, lost: int, samples: int) -> tuple[float, float]:
    """Tango's limits without iteration: Yang, Sun and Hardin, Statistics in Medicine 32, 2013."""
    g, n, d, s = 1.959963984540054**2, samples, gained - lost, gained + lost
    roots = np.roots(
        [
            n**2 * (n / g + 1) ** 2,
            -n * d * (n / g + 1) * (4 * n / g + 1),
            2 * n * d**2 * (3 * n / g + 2) / g - n**2 * (s / g + 1),
            n * d * (2 * s / g + 1) - d**3 * (4 * n / g + 1) / g,
            d**2 * (d**2 / g - s) / g,
        ]
    )
    real = roots[np.abs(roots.imag) < 1e-6].real
    return float(real.min()), float(real.max())


@pytest.mark.parametrize(
    ("successes", "samples", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_newcombe_1998_table_1(successes: int, samples: int, low: float, high: float) -> None:
    """Newcombe, Statistics in Medicine 17, 1998, 857-872, table I, method 3 (four printed decimals)."""
    got = stats.wilson_interval(successes, samples)
    assert (got.low, got.high) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_ends_are_where_the_score_test_turns(case: tuple[int, int]) -> None:
    successes, samples = case
    got = stats.wilson_interval(successes, samples)
    assert 0 <= got.low <= got.value <= got.high <= 1
    for end in (got.low, got.high):
        if 0 < end < 1:
            z = (got.value - end) / math.sqrt(end * (1 - end) / samples)
            assert abs(z) == pytest.approx(1.959964, abs=1e-5)


@pytest.mark.parametrize(("successes", "samples"), [(1, 0), (-1, 5), (6, 5)])
def test_wilson_refuses_impossible_counts(successes: int, samples: int) -> None:
    with pytest.raises(ValueError, match="successes of"):
        stats.wilson_interval(successes, samples)


def test_paired_interval_gives_the_published_value() -> None:
    """Bentur's table (1, 1 / 7, 12) in Fagerland, Lydersen and Laake, Statistics in Medicine 33, 2014."""
    got = stats.paired_difference_interval(1, 7, 21)
    assert (round(got.value, 3), round(got.low, 3), round(got.high, 3)) == (-0.286, -0.517, -0.026)


@given(paired_counts())
def test_paired_interval_is_the_root_of_the_quartic(counts: Counts) -> None:
    gained, lost, samples = counts
    got = stats.paired_difference_interval(gained, lost, samples)
    assert -1 <= got.low <= got.value <= got.high <= 1
    if gained != lost and abs(got.value) < 1:  # the quartic degenerates elsewhere
        low, high = quartic_limits(gained, lost, samples)
        # double roots of a quartic lose half the digits
        assert (got.low, got.high) == pytest.approx((low, high), abs=1e-5)


@given(paired_counts())
def test_paired_interval_mirrors(counts: Counts) -> None:
    gained, lost, samples = counts
    there = stats.paired_difference_interval(gained, lost, samples)
    back = stats.paired_difference_interval(lost, gained, samples)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low), abs=1e-9)


def test_paired_interval_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for gained, lost, _ in rng.multinomial(360, [0.01, 0.03, 0.96], size=1500):
        got = stats.paired_difference_interval(int(gained), int(lost), 360)
        hits += got.low <= -0.02 <= got.high
    assert 0.935 <= hits / 1500 <= 0.975  # 95 % and 3 standard errors (0.6 pp) of 1500 draws, rounded outwards


@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_is_the_sum_over_all_splits(gained: int, lost: int) -> None:
    total = gained + lost
    ways = [math.comb(total, k) / 2**total for k in range(total + 1)]
    expected = sum(way for way in ways if way <= ways[gained] * (1 + 1e-9))
    assert stats.mcnemar_p(gained, lost) == pytest.approx(expected, rel=1e-9)


def brute_power(gap: float, samples: int, share: float) -> float:
    """Power of the exact test by going through every possible (gained, lost)."""
    p = ((share + gap) / 2, (share - gap) / 2)
    power = 0.0
    for gained, lost in itertools.product(range(samples + 1), repeat=2):
        if gained + lost <= samples and stats.mcnemar_p(gained, lost) <= 0.05:
            ways = math.comb(samples, gained) * math.comb(samples - gained, lost)
            power += ways * p[0] ** gained * p[1] ** lost * (1 - share) ** (samples - gained - lost)
    return power


@pytest.mark.parametrize(("samples", "discordant"), [(20, 0), (20, 6), (35, 10)])
def test_detectable_gap_has_80_percent_power(samples: int, discordant: int) -> None:
    gap = stats.detectable_gap(samples, discordant=discordant)
    assert brute_power(gap, samples, max(discordant / samples, gap)) == pytest.approx(0.80, abs=1e-3)


def test_detectable_gap_is_close_to_connors_formula_for_many_samples() -> None:
    """Connor, Biometrics 43, 1987, has no correction for discreteness: the exact gap is a little larger."""
    samples, share = 50_000, 0.04
    gap = stats.detectable_gap(samples, discordant=2000)
    needed = (1.959964 * math.sqrt(share) + 0.841621 * math.sqrt(share - gap**2)) ** 2 / gap**2
    assert 1.0 <= samples / needed <= 1.03


def test_nothing_is_detectable_with_five_samples() -> None:
    assert stats.detectable_gap(5, discordant=0) == 1.0  # 2 * 0.5**5 > 0.05


def test_compare_paired_on_a_table_by_hand() -> None:
    float_right = np.array([True] * 90 + [False] * 10)
    int8_right = np.array([True] * 87 + [False] * 3 + [True] * 1 + [False] * 9)
    got = stats.compare_paired(float_right, int8_right, same_class=float_right == int8_right)
    assert (got.samples, got.accuracy_float, got.accuracy_int8) == (100, 0.9, 0.88)
    assert got.difference_pp == pytest.approx(-2)
    assert got.mcnemar_p == pytest.approx(10 / 16)  # 1 against 3: (1 + 4) * 2 / 2**4
    assert got.agreement == 0.96
    assert got.low_pp < -2 < got.high_pp
    assert got.detectable_pp > 2


def test_compare_paired_refuses_unequal_lengths() -> None:
    with pytest.raises(ValueError, match="paired arrays"):
        stats.compare_paired(np.ones(3, bool), np.ones(2, bool), same_class=np.ones(3, bool))


@pytest.mark.parametrize("quantile", [0.5, 0.95])
def test_quantile_interval_covers(quantile: float) -> None:
    rng = np.random.default_rng(1)
    truth = -math.log(1 - quantile)  # of the exponential distribution
    intervals = [stats.quantile_interval(rng.exponential(size=200), quantile) for _ in range(1500)]
    cover = np.mean([each.low <= truth <= each.high for each in intervals])
    assert 0.94 <= cover <= 0.99  # at least 95 % by construction, less the noise of 1500 draws; discrete, so not tight


@given(st.lists(st.floats(0.001, 1000), min_size=1, max_size=60), st.sampled_from([0.5, 0.95]))
def test_quantile_interval_holds_the_quantile(values: list[float], quantile: float) -> None:
    got = stats.quantile_interval(np.array(values), quantile)
    assert min(values) <= got.low <= got.value <= got.high <= max(values)


def test_median_ratio_covers_under_slow_drift_that_hits_both() -> None:
    rng = np.random.default_rng(2)
    hits = 0
    for seed in range(200):
        drift = np.repeat(rng.lognormal(0, 0.2, 20), 15)  # a busy machine: 15 rounds at a time
        first, second = (drift * rng.lognormal(mean, 0.02, 300) for mean in (math.log(0.9), 0.0))
        got = stats.median_ratio(first, second, seed=seed)
        hits += got.low <= 0.9 <= got.high
    assert hits >= 174  # 95 % of 200 is 190; a bootstrap with 20 independent stretches runs a little short


@settings(max_examples=20)
@given(st.floats(0.1, 10))
def test_median_ratio_of_a_multiple_is_exact(factor: float) -> None:
    second = np.random.default_rng(3).lognormal(0, 1, 101)
    got = stats.median_ratio(factor * second, second)
    assert (got.low, got.value, got.high) == pytest.approx((factor, factor, factor))


def test_median_ratio_refuses_unequal_rounds() -> None:
    with pytest.raises(ValueError, match="rounds"):
        stats.median_ratio(np.ones(3), np.ones(4))
