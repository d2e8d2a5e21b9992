"""Statistics of a comparison on the same samples: paired tests, intervals and the bootstrap.

N samples, G groups of them, B resamples.  Needs numpy and scipy only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import scipy  # its parts are loaded when they are first used; of ``special`` alone, for ``stats`` takes a second
from numpy.typing import NDArray

from pipeline.artifacts.evidence import Comparison, Interval

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
Statistic = Callable[[Floats], Floats]  # how often each sample was drawn (B, N) → the value of each resample (B,)
PairedStatistic = Callable[[Floats], tuple[Floats, Floats]]  # the same of two ways of running

CONFIDENCE = 0.95
ONE_SIDED = 0.90  # the ends of a 90 % interval are one-sided 95 % bounds
POWER = 0.80
RESAMPLES = 2_000
_VALUES_AT_ONCE = 4_000_000  # of a portion of the counts: 32 MB of float64


def wilson_interval(successes: int, samples: int, *, confidence: float = CONFIDENCE) -> Interval:
    """Share of successes with its score interval (Wilson, J. Am. Stat. Assoc. 22, 1927); all three in 0 … 1.

    Raises ValueError unless 0 ≤ successes ≤ samples and samples ≥ 1.
    """
    if samples < 1 or not 0 <= successes <= samples:
        raise ValueError(f"{successes} successes of {samples} samples")
    share, z = successes / samples, _z(confidence)
    middle = successes + z**2 / 2
    reach = z * np.sqrt(samples * share * (1 - share) + z**2 / 4)
    low, high = (middle - reach) / (samples + z**2), (middle + reach) / (samples + z**2)
    # rounding must not push an end past the estimate at 0 and 1
    return Interval(
        value=share,
        low=min(share, float(low)) if successes else 0.0,
        high=max(share, float(high)) if successes < samples else 1.0,
    )


# ── shares: two ways are right or wrong on the same samples ─────────────────────────────────────────────────────────


def paired_difference_interval(gained: int, lost: int, samples: int, *, confidence: float = CONFIDENCE) -> Interval:
    """Difference of two paired shares, (gained - lost) / samples, with its score interval; all in -1 … 1.

    Tango, "Equivalence test and confidence interval for the difference in proportions for the paired-sample design",
    Statistics in Medicine 17, 1998: the differences that a score test does not reject.  It stays inside -1 … 1 and has
    a width even when nothing changed (gained = lost = 0), where the usual interval says ± 0.
    Raises ValueError when the counts do not fit.
    """
    if samples < 1 or gained < 0 or lost < 0 or gained + lost > samples:
        raise ValueError(f"{gained} gained and {lost} lost of {samples} samples")
    z = _z(confidence)
    value = (gained - lost) / samples

    def low_side(difference: float) -> float:
        return _tango_score(difference, gained, lost, samples) - z

    def high_side(difference: float) -> float:
        return _tango_score(difference, gained, lost, samples) + z

    low = -1.0 if value <= -1 else _crossing(low_side, -1.0, value)
    high = 1.0 if value >= 1 else _crossing(high_side, value, 1.0)
    return Interval(value=value, low=low, high=high)


def _tango_score(difference: float, gained: int, lost: int, samples: int) -> float:
    """Score statistic of H0: true difference = ``difference``; falls from +∞ at -1 to -∞ at 1."""
    a = 2 * samples
    b = -gained - lost + (2 * samples - gained + lost) * difference
    c = -lost * difference * (1 - difference)
    share_lost = (np.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)  # restricted maximum likelihood
    variance = samples * (2 * share_lost + difference * (1 - difference))
    numerator = gained - lost - samples * difference
    if variance <= 0:  # at the ends of -1 … 1 no variance is left
        return float(np.sign(numerator) * np.inf) if numerator else 0.0
    return float(np.clip(numerator / np.sqrt(variance), -1e9, 1e9))


def mcnemar_p(gained: int, lost: int) -> float:
    """Two-sided exact McNemar test: chance of a split at least as uneven if gains and losses were equally likely."""
    if gained + lost == 0:
        return 1.0
    return min(1.0, 2 * float(scipy.special.bdtr(min(gained, lost), gained + lost, 0.5)))


def detectable_gap(samples: int, *, discordant: int, power: float = POWER, confidence: float = CONFIDENCE) -> float:
    """Smallest true gap (0 … 1) that the exact McNemar test shows with ``power`` on so many samples.

    ``discordant``: samples on which exactly one of the two was right; their share is taken as the true one, or the gap
    itself where that is larger (a gap needs at least as many).  1.0 where even the largest gap would not show.
    """
    share = discordant / samples

    def missing(gap: float) -> float:
        return _mcnemar_power(gap, samples, max(share, gap), 1 - confidence) - power

    if missing(1.0) < 0:
        return 1.0
    return _crossing(missing, 1e-9, 1.0, precision=1e-6)


def _mcnemar_power(gap: float, samples: int, share: float, alpha: float) -> float:
    """Power of the exact test: over the number of discordant samples, binomial, and how they split."""
    low, high = (float(_binomial_quantile(chance, np.array(samples), share)) for chance in (1e-7, 1 - 1e-7))
    discordant = np.arange(int(low), int(high) + 1)
    critical = _binomial_quantile(alpha / 2, discordant, 0.5)  # smallest k with P(X ≤ k) ≥ alpha/2 …
    critical -= scipy.special.bdtr(critical, discordant, 0.5) > alpha / 2  # … the largest with P(X ≤ k) ≤ alpha/2
    towards = min(1.0, (1 + gap / share) / 2)
    rejected = scipy.special.bdtr(critical, discordant, 1 - towards) + scipy.special.bdtr(critical, discordant, towards)
    rejected = np.where(critical < 0, 0.0, rejected)
    return float(np.sum(_binomial_chance(discordant, samples, share) * rejected))


def _binomial_quantile(chance: float, trials: Indices, share: float) -> Floats:
    """Return the smallest k with P(X ≤ k) ≥ ``chance``, elementwise."""
    if share >= 1:
        return trials.astype(np.float64)
    k = np.clip(np.ceil(np.nan_to_num(scipy.special.bdtrik(chance, trials, share))), 0, trials)
    k -= (k > 0) & (
        scipy.special.bdtr(np.maximum(k - 1, 0), trials, share) >= chance
    )  # it is an inverse but for rounding
    k += (k < trials) & (scipy.special.bdtr(k, trials, share) < chance)
    return np.asarray(k, np.float64)


def _binomial_chance(successes: Indices, trials: int, share: float) -> Floats:
    """Return P(X = k), elementwise."""
    failures = trials - successes
    ways = (
        scipy.special.gammaln(trials + 1) - scipy.special.gammaln(successes + 1) - scipy.special.gammaln(failures + 1)
    )
    chances = ways + scipy.special.xlogy(successes, share) + scipy.special.xlog1py(failures, -share)
    return np.asarray(np.exp(chances), np.float64)


def _crossing(function: Callable[[float], float], low: float, high: float, *, precision: float = 1e-12) -> float:
    """Return where a monotone function, of different signs at the ends, crosses zero."""
    rising = function(low) < 0
    while high - low > precision:
        middle = (low + high) / 2
        if (function(middle) < 0) == rising:
            low = middle
        else:
            high = middle
    return (low + high) / 2


# ── any metric: the bootstrap ───────────────────────────────────────────────────────────────────────────────────────


def bootstrap_interval(
    statistic: Statistic, samples: int, *, groups: Indices | None = None, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Value of a statistic over N samples with its 95 % percentile interval (Efron & Tibshirani, 1993, chapter 13).

    ``groups`` (N,): samples of one group are drawn together, as a speaker or a machine would be.  Resamples for which
    the statistic is no number (a class is missing) are left out.  Raises ValueError for no samples.
    """
    value = float(statistic(_all_once(samples))[0])
    values = np.concatenate([statistic(counts) for counts in _resampled(samples, groups, resamples, seed)])
    low, high = _quantiles(values, value, CONFIDENCE)
    return Interval(value=value, low=low, high=high)


def paired_bootstrap(
    statistic: PairedStatistic,
    samples: int,
    *,
    agreement: float,
    groups: Indices | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Comparison:
    """Compare two ways of running by a metric of N samples that are resampled for both together.

    ``statistic`` gives the metric of the first and of the second way; ``agreement`` (0 … 1) is handed on.  ``groups``
    as in ``bootstrap_interval``.  p is twice the smaller share of resamples on one side of zero; ``detectable`` is what
    a test with these standard errors shows in 80 % of all cases.  Raises ValueError for no samples.
    """
    first, second = (float(values[0]) for values in statistic(_all_once(samples)))
    drawn = [statistic(counts) for counts in _resampled(samples, groups, resamples, seed)]
    differences = np.concatenate([after - before for before, after in drawn])
    differences = differences[np.isfinite(differences)]
    difference = second - first
    low, high = _quantiles(differences, difference, CONFIDENCE)
    one_sided_low, one_sided_high = _quantiles(differences, difference, ONE_SIDED)
    return Comparison(
        samples=samples,
        value_float=first,
        value_int8=second,
        difference=difference,
        low=low,
        high=high,
        p=_two_sided_p(differences),
        detectable=detectable_by(float(differences.std()) if len(differences) else np.nan),
        agreement=agreement,
        method="paired bootstrap" if groups is None else "paired bootstrap of groups",
        one_sided_low=one_sided_low,
        one_sided_high=one_sided_high,
    )


def detectable_by(standard_error: float) -> float:
    """Return the smallest true difference that a two-sided 5 % test with this standard error shows with 80 % power."""
    return float((_z(CONFIDENCE) + scipy.special.ndtri(POWER)) * standard_error)  # 2.8 standard errors


def _resampled(samples: int, groups: Indices | None, resamples: int, seed: int) -> Iterator[Floats]:
    """Yield how often each sample is drawn, (B, N) in portions that fit the memory."""
    rng = np.random.default_rng(seed)
    members = np.arange(samples) if groups is None else np.unique(groups, return_inverse=True)[1]  # (N,) of 0 … G-1
    units = int(members.max()) + 1  # G
    portion = max(1, _VALUES_AT_ONCE // samples)
    for start in range(0, resamples, portion):
        rows = min(portion, resamples - start)
        drawn = rng.integers(0, units, (rows, units)) + units * np.arange(rows)[:, None]  # (B, G), rows kept apart
        counts = np.bincount(drawn.ravel(), minlength=rows * units).reshape(rows, units)
        yield counts[:, members].astype(np.float64)  # (B, N)


def _all_once(samples: int) -> Floats:
    if samples < 1:
        raise ValueError("no samples")
    return np.ones((1, samples))


def _quantiles(values: Floats, estimate: float, confidence: float) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    if not len(finite):
        return float("nan"), float("nan")
    low, high = np.quantile(finite, [(1 - confidence) / 2, (1 + confidence) / 2])
    return min(estimate, float(low)), max(estimate, float(high))


def _two_sided_p(differences: Floats) -> float:
    # one is added to each count: no p of exactly zero comes from finitely many resamples
    below, above = 1 + int((differences <= 0).sum()), 1 + int((differences >= 0).sum())
    return min(1.0, 2 * min(below, above) / (len(differences) + 1))


def _z(confidence: float) -> float:
    return float(scipy.special.ndtri((1 + confidence) / 2))
