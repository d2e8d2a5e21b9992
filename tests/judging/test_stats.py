"""Intervals and tests against published values, independent formulas, brute force and simulated coverage."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from pipeline.judging import stats
from pipeline.judging.stats import Floats

Counts = tuple[int, int, int]


@st.composite
def paired_counts(draw: st.DrawFn) -> Counts:
    samples = draw(st.integers(1, 400))
    gained = draw(st.integers(0, samples))
    return gained, draw(st.integers(0, samples - gained)), samples


def quartic_limits(gained: int, lost: int, samples: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """Tango's limits without iteration: Yang, Sun and Hardin, Statistics in Medicine 32, 2013."""
    g, n, d, s = z**2, samples, gained - lost, gained + lost
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


def test_the_ends_of_a_90_percent_interval_are_where_the_one_sided_test_turns() -> None:
    got = stats.paired_difference_interval(1, 7, 21, confidence=stats.ONE_SIDED)
    wide = stats.paired_difference_interval(1, 7, 21)
    assert wide.low < got.low < got.value < got.high < wide.high
    assert (got.low, got.high) == pytest.approx(quartic_limits(1, 7, 21, z=1.6448536), abs=1e-5)


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


@given(st.integers(0, 3000), st.floats(1e-3, 1.0), st.floats(1e-7, 1 - 1e-7))
def test_binomial_quantiles_and_chances(trials: int, share: float, chance: float) -> None:
    found = float(stats._binomial_quantile(chance, np.array(trials), share))
    assert scipy_stats.binom.cdf(found, trials, share) >= chance * (1 - 1e-9)
    assert found == 0 or scipy_stats.binom.cdf(found - 1, trials, share) < chance * (1 + 1e-9)
    chances = stats._binomial_chance(np.arange(trials + 1), trials, share)
    np.testing.assert_allclose(
        chances, scipy_stats.binom.pmf(np.arange(trials + 1), trials, share), rtol=1e-8, atol=1e-12
    )


def test_nothing_slow_is_loaded_for_it() -> None:
    asked = (
        "import sys; from pipeline.judging import latency, stats; import numpy as np; stats.wilson_interval(3, 5);"
        "stats.paired_difference_interval(1, 2, 30); stats.mcnemar_p(1, 2); stats.detectable_gap(100, discordant=9);"
        "latency.quantile(np.ones((4, 3)), 0.5); print({'scipy.stats', 'scipy.optimize'} & set(sys.modules))"
    )
    assert subprocess.check_output([sys.executable, "-c", asked], text=True).strip() == "set()"


def test_detectable_gap_is_close_to_connors_formula_for_many_samples() -> None:
    """Connor, Biometrics 43, 1987, has no correction for discreteness: the exact gap is a little larger."""
    samples, share = 50_000, 0.04
    gap = stats.detectable_gap(samples, discordant=2000)
    needed = (1.959964 * math.sqrt(share) + 0.841621 * math.sqrt(share - gap**2)) ** 2 / gap**2
    assert 1.0 <= samples / needed <= 1.03


def test_nothing_is_detectable_with_five_samples() -> None:
    assert stats.detectable_gap(5, discordant=0) == 1.0  # 2 * 0.5**5 > 0.05


# ── the bootstrap ───────────────────────────────────────────────────────────────────────────────────────────────────


def mean_of(values: Floats) -> stats.Statistic:
    return lambda counts: counts @ values / counts.sum(1)


def means_of(first: Floats, second: Floats) -> stats.PairedStatistic:
    return lambda counts: (mean_of(first)(counts), mean_of(second)(counts))


def test_bootstrap_interval_of_a_mean_is_the_normal_one() -> None:
    values = np.random.default_rng(0).normal(3, 2, 400)
    got = stats.bootstrap_interval(mean_of(values), 400)
    reach = 1.96 * values.std() / 20
    assert got.value == pytest.approx(values.mean())
    assert (got.low, got.high) == pytest.approx((got.value - reach, got.value + reach), abs=0.02)  # 2,000 resamples


def test_bootstrap_interval_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    hits = 0
    for seed in range(400):
        got = stats.bootstrap_interval(mean_of(rng.normal(1, 1, 100)), 100, resamples=400, seed=seed)
        hits += got.low <= 1 <= got.high
    assert 0.91 <= hits / 400 <= 0.975  # 95 % less what percentiles of 100 samples lose, 2.5 standard errors (1.1 pp)


def test_the_same_seed_gives_the_same_interval_and_another_one_does_not() -> None:
    values = np.random.default_rng(0).normal(size=50)
    first, again, other = (stats.bootstrap_interval(mean_of(values), 50, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_groups_are_drawn_whole() -> None:
    """Four equal samples in each group say no more than one of them."""
    values = np.random.default_rng(2).normal(size=30)
    groups = np.repeat(np.arange(30) * 7 + 3, 4)  # their numbers need not run from 0
    single = stats.bootstrap_interval(mean_of(values), 30)
    fourfold = stats.bootstrap_interval(mean_of(np.repeat(values, 4)), 120, groups=groups)
    taken_apart = stats.bootstrap_interval(mean_of(np.repeat(values, 4)), 120)
    assert (fourfold.low, fourfold.high) == pytest.approx((single.low, single.high))
    assert taken_apart.high - taken_apart.low < 0.6 * (single.high - single.low)


def test_large_sets_are_resampled_in_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(3).normal(size=40)
    rows: list[int] = []

    def counted(counts: Floats) -> Floats:
        rows.append(len(counts))
        assert (counts.sum(1) == len(counts[0])).all()
        return mean_of(values)(counts)

    monkeypatch.setattr(stats, "_VALUES_AT_ONCE", 40 * 300)
    stats.bootstrap_interval(counted, 40, resamples=700)
    assert rows == [1, 300, 300, 100]  # first the samples as they are


def test_paired_bootstrap_agrees_with_the_paired_t_test() -> None:
    rng = np.random.default_rng(4)
    first = rng.normal(0, 5, 300)  # samples differ far more than the two ways do
    noise = rng.normal(size=300)
    second = first + noise - noise.mean() + 0.1  # p of about 0.08
    got = stats.paired_bootstrap(means_of(first, second), 300, agreement=0.25)
    error = (second - first).std() / math.sqrt(300)
    t_test = scipy_stats.ttest_rel(second, first)
    low, high = t_test.confidence_interval(0.95)
    assert (got.samples, got.agreement, got.method) == (300, 0.25, "paired bootstrap")
    assert (got.value_float, got.value_int8) == pytest.approx((first.mean(), second.mean()))
    assert got.difference == pytest.approx(second.mean() - first.mean())
    assert (got.low, got.high) == pytest.approx((low, high), abs=0.1 * error)
    assert (got.one_sided_low, got.one_sided_high) == pytest.approx(t_test.confidence_interval(0.90), abs=0.1 * error)
    assert got.p == pytest.approx(t_test.pvalue, abs=0.02)
    assert got.detectable == pytest.approx(2.8016 * error, rel=0.05)


def test_ways_that_never_differ_have_no_difference() -> None:
    values = np.random.default_rng(5).normal(size=60)
    got = stats.paired_bootstrap(means_of(values, values), 60, agreement=1.0)
    assert (got.difference, got.low, got.high, got.p, got.detectable) == (0, 0, 0, 1, 0)


def test_a_difference_of_all_samples_is_certain() -> None:
    values = np.random.default_rng(6).normal(size=60)
    got = stats.paired_bootstrap(means_of(values, values - 0.5), 60, agreement=0.0)
    assert (got.difference, got.low, got.high) == pytest.approx((-0.5, -0.5, -0.5))
    assert got.p == pytest.approx(2 / 2001)  # 2,000 resamples cannot say less


def test_paired_bootstrap_of_groups_says_so_and_is_less_sure() -> None:
    rng = np.random.default_rng(7)
    first = rng.normal(size=200)
    second = first + np.repeat(rng.normal(0, 1, 10), 20)  # ten machines, each off by its own amount
    alone = stats.paired_bootstrap(means_of(first, second), 200, agreement=0)
    grouped = stats.paired_bootstrap(means_of(first, second), 200, agreement=0, groups=np.repeat(np.arange(10), 20))
    assert grouped.method == "paired bootstrap of groups"
    assert grouped.detectable > 3 * alone.detectable  # sqrt(20) = 4.5 times, from ten groups


def test_resamples_without_a_value_are_left_out() -> None:
    def share_of_first(counts: Floats) -> Floats:  # no number unless the first of three samples was drawn
        return np.where(counts[:, 0] > 0, 0.25, np.nan)

    got = stats.bootstrap_interval(share_of_first, 3)
    assert (got.low, got.value, got.high) == (0.25, 0.25, 0.25)


def test_the_bootstrap_refuses_nothing() -> None:
    with pytest.raises(ValueError, match="no samples"):
        stats.bootstrap_interval(mean_of(np.array([])), 0)


def test_detectable_by_has_80_percent_power() -> None:
    gap = stats.detectable_by(0.3)
    power = scipy_stats.norm.sf(1.959964 - gap / 0.3) + scipy_stats.norm.cdf(-1.959964 - gap / 0.3)
    assert power == pytest.approx(0.80, abs=1e-4)
