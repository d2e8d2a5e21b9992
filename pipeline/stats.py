"""Statistics of the comparison: accuracies, paired differences, latencies, each with a 95 % interval.

N test samples, R rounds of a latency measurement.  Needs numpy and scipy only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special, stats

from pipeline.artifacts import Comparison

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]

CONFIDENCE = 0.95
POWER = 0.80
_RESAMPLES = 1000


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An estimate with the ends of its confidence interval, in the estimate's unit."""

    value: float
    low: float
    high: float


def wilson_interval(successes: int, samples: int, *, confidence: float = CONFIDENCE) -> Interval:
    """Share of successes with its score interval (Wilson, J. Am. Stat. Assoc. 22, 1927); all three in 0 … 1.

    Raises ValueError unless 0 ≤ successes ≤ samples and samples ≥ 1.
    """
    if samples < 1 or not 0 <= successes <= samples:
        raise ValueError(f"{successes} successes of {samples} samples")
    z = _z(confidence)
    share = successes / samples
    centre = (share + z * z / (2 * samples)) / (1 + z * z / samples)
    half = z / (1 + z * z / samples) * np.sqrt(share * (1 - share) / samples + z * z / (4 * samples**2))
    # rounding must not push an end past the estimate at 0 and 1
    return Interval(value=share, low=max(0.0, min(share, centre - half)), high=min(1.0, max(share, centre + half)))


# ── two classifiers on the same samples ─────────────────────────────────────────────────────────────────────────────


def compare_paired(float_correct: Bools, int8_correct: Bools, *, same_class: Bools) -> Comparison:
    """Compare float and int8 on the same test samples.

    All three arrays are (N,) of bool: float right, int8 right, both gave the same class.
    Raises ValueError when they are empty or differ in length.
    """
    samples = len(float_correct)
    if samples == 0 or not len(int8_correct) == len(same_class) == samples:
        raise ValueError(f"paired arrays of {samples}, {len(int8_correct)} and {len(same_class)} samples")
    gained = int(np.sum(~float_correct & int8_correct))
    lost = int(np.sum(float_correct & ~int8_correct))
    difference = paired_difference_interval(gained, lost, samples)
    return Comparison(
        samples=samples,
        accuracy_float=float(np.mean(float_correct)),
        accuracy_int8=float(np.mean(int8_correct)),
        difference_pp=100 * difference.value,
        low_pp=100 * difference.low,
        high_pp=100 * difference.high,
        mcnemar_p=mcnemar_p(gained, lost),
        detectable_pp=100 * detectable_gap(samples, discordant=gained + lost),
        agreement=float(np.mean(same_class)),
    )


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

    low = -1.0 if value <= -1 else float(optimize.brentq(low_side, -1.0, value, xtol=1e-12))
    high = 1.0 if value >= 1 else float(optimize.brentq(high_side, value, 1.0, xtol=1e-12))
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
    return float(stats.binomtest(min(gained, lost), gained + lost, 0.5).pvalue)


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
    return float(optimize.brentq(missing, 1e-9, 1.0, xtol=1e-6))


def _mcnemar_power(gap: float, samples: int, share: float, alpha: float) -> float:
    """Power of the exact test: over the number of discordant samples, binomial, and how they split."""
    low, high = stats.binom.ppf([1e-7, 1 - 1e-7], samples, share)
    discordant = np.arange(int(low), int(high) + 1)
    critical = stats.binom.ppf(alpha / 2, discordant, 0.5)  # smallest k with P(X ≤ k) ≥ alpha/2 …
    critical -= stats.binom.cdf(critical, discordant, 0.5) > alpha / 2  # … the largest with P(X ≤ k) ≤ alpha/2
    towards = min(1.0, (1 + gap / share) / 2)
    rejected = special.bdtr(critical, discordant, 1 - towards) + special.bdtr(critical, discordant, towards)
    rejected = np.where(critical < 0, 0.0, rejected)
    return float(np.sum(stats.binom.pmf(discordant, samples, share) * rejected))


# ── latencies ───────────────────────────────────────────────────────────────────────────────────────────────────────


def quantile_interval(samples: Floats, quantile: float, *, confidence: float = CONFIDENCE) -> Interval:
    """Quantile (0 … 1) of samples (R,) with the interval between two order statistics.

    Free of assumptions about the distribution (David and Nagaraja, Order Statistics, section 7.1).  With too few
    samples for the confidence the ends are the smallest and the largest.  Raises ValueError on an empty array.
    """
    count = len(samples)
    if count == 0:
        raise ValueError("no samples")
    ordered = np.sort(samples)
    tail = (1 - confidence) / 2
    low = int(stats.binom.ppf(tail, count, quantile)) - 1
    high = int(stats.binom.ppf(1 - tail, count, quantile))
    return Interval(
        value=float(np.quantile(ordered, quantile)),
        low=float(ordered[max(low, 0)]),
        high=float(ordered[min(high, count - 1)]),
    )


def median_ratio(first: Floats, second: Floats, *, confidence: float = CONFIDENCE, seed: int = 0) -> Interval:
    """Median of ``first`` over median of ``second``, both (R,) times of the same interleaved rounds.

    Block bootstrap (Künsch, Annals of Statistics 17, 1989): whole blocks of neighbouring rounds are drawn, because a
    busy moment of the machine lasts for many rounds.  Raises ValueError when the lengths differ or are zero.
    """
    if len(first) == 0 or len(first) != len(second):
        raise ValueError(f"paired arrays of {len(first)} and {len(second)} rounds")

    def ratio(rounds: NDArray[np.int64]) -> Floats:
        return np.asarray(np.median(first[rounds], axis=1) / np.median(second[rounds], axis=1), np.float64)

    resampled = _block_bootstrap(ratio, len(first), seed)
    low, high = np.quantile(resampled, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(value=float(np.median(first) / np.median(second)), low=float(low), high=float(high))


def _block_bootstrap(statistic: Callable[[NDArray[np.int64]], Floats], rounds: int, seed: int) -> Floats:
    """``statistic`` of resampled round numbers (B, rounds), in portions that fit the memory."""
    rng = np.random.default_rng(seed)
    length = max(1, round(2 * rounds ** (1 / 3)))
    blocks = -(-rounds // length)
    portion = max(1, 2_000_000 // rounds)
    results = []
    for start in range(0, _RESAMPLES, portion):
        count = min(portion, _RESAMPLES - start)
        starts = rng.integers(0, rounds - length + 1, (count, blocks))  # (B, blocks)
        chosen = (starts[..., None] + np.arange(length)).reshape(count, -1)[:, :rounds]  # (B, R)
        results.append(statistic(chosen))
    return np.concatenate(results)


def _z(confidence: float) -> float:
    return float(special.ndtri((1 + confidence) / 2))
