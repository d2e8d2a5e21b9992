"""Statistics of latencies: sessions are what is drawn anew, inferences in one session repeat its own speed.

Shapes: S sessions of each file, those at one place open at the same time; R timed inferences in one session.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

from pipeline.artifacts.evidence import Interval
from pipeline.judging.stats import CONFIDENCE
from pipeline.onboard.timing import Opener, measure

Floats = NDArray[np.float64]

# Looking again and again finds a difference by chance sooner or later: the looks at a comparison are few, each after
# twice the sessions, and the chance of a false difference is shared among them (Bonferroni).  Of 200 comparisons of
# equals up to 10 may come out different; with 2 % each that holds in 997 of 1000 such series, with 5 % in every second.
LOOKS_SESSIONS = (10, 20, 40)
COMPARISON_CONFIDENCE = 0.98
ROUNDS = 20  # bursts in one session: more would only tell the session's own speed more exactly
_RESAMPLES = 2000


@dataclass(frozen=True, kw_only=True)
class Speed:
    """How long one file takes compared with another one."""

    ratio: Interval  # time of the candidate / time of the reference; below 1 is faster
    sessions: int  # of each

    @property
    def faster(self) -> bool:
        """True when the whole interval says so."""
        return self.ratio.high < 1

    @property
    def slower(self) -> bool:
        """True when the whole interval says so."""
        return self.ratio.low > 1


def compare(candidate: Opener, reference: Opener, *, budget_s: float = 10.0, seed: int = 0) -> Speed:
    """Open and time sessions of both until their ratio's interval leaves 1 out, 40 are done or the budget is spent.

    The ratio's interval holds with 98 % for all looks together.  At least 10 sessions of each are timed.
    """
    openers = {"candidate": candidate, "reference": reference}
    confidence = 1 - (1 - COMPARISON_CONFIDENCE) / len(LOOKS_SESSIONS)
    medians_ms = {name: np.empty(0) for name in openers}
    start = time.perf_counter()
    for look, sessions in enumerate(LOOKS_SESSIONS):
        more = sessions - len(medians_ms["candidate"])
        share_s = budget_s * more / LOOKS_SESSIONS[-1]
        times = measure(openers, sessions=more, rounds=ROUNDS, budget_s=share_s, seed=seed + look)
        medians_ms = {name: np.append(medians_ms[name], np.median(times[name], axis=1)) for name in openers}
        speed = Speed(
            ratio=ratio(medians_ms["candidate"], medians_ms["reference"], confidence=confidence),
            sessions=len(medians_ms["candidate"]),
        )
        if speed.faster or speed.slower or time.perf_counter() - start > budget_s:
            break
    return speed


def ratio(first_ms: Floats, second_ms: Floats, *, confidence: float = CONFIDENCE) -> Interval:
    """Time of one file over time of another: (S,) medians of sessions that were open at the same time.

    Hodges and Lehmann's estimate from the paired log ratios, and the interval that belongs to Wilcoxon's exact
    signed-rank test (Hollander, Wolfe and Chicken, Nonparametric Statistical Methods, sections 3.1-3.3).  Two sessions
    of the same file might as well have been opened the other way round, so its error holds for noise of any kind,
    however heavy the tails; Student's t misses most true differences as soon as the machine is busy now and then.
    Fewer than 6 sessions cannot say anything with 95 %: the ends are then 0 and infinity.
    Raises ValueError when the lengths differ or are zero.
    """
    if len(first_ms) == 0 or len(first_ms) != len(second_ms):
        raise ValueError(f"paired arrays of {len(first_ms)} and {len(second_ms)} sessions")
    logs = np.log(first_ms) - np.log(second_ms)  # (S,)
    means = np.sort((logs[:, None] + logs)[np.triu_indices(len(logs))] / 2)  # (S * (S + 1) / 2,): of every pair
    left_out = _ranks_left_out(len(logs), confidence)
    low, high = (-np.inf, np.inf) if left_out < 0 else (means[left_out], means[-1 - left_out])
    return Interval(value=float(np.exp(np.median(means))), low=float(np.exp(low)), high=float(np.exp(high)))


def _ranks_left_out(pairs: int, confidence: float) -> int:
    """Return the largest sum of signed ranks that is too small to be chance; -1 where even 0 is not."""
    chances = np.ones(1)  # of the sums 0, 1, 2 …
    for rank in range(1, pairs + 1):  # each rank is added or not, as a coin falls
        chances = np.convolve(chances, np.bincount([0, rank]) / 2)
    return int(np.searchsorted(np.cumsum(chances), (1 - confidence) / 2, side="right")) - 1


def quantile(times_ms: Floats, share: float, *, confidence: float = CONFIDENCE, seed: int = 0) -> Interval:
    """Quantile (0 … 1) of all inferences (S, R), with an interval for what other sessions would have given.

    Bootstrap over whole sessions, whose inferences come along as they are (Davison and Hinkley, Bootstrap Methods,
    section 3.8); its tails are widened to those of Student's t, because few sessions are drawn (Hesterberg, The
    American Statistician 69, 2015).  One session says nothing about others: the ends are then 0 and infinity.
    Raises ValueError on an empty array.
    """
    if times_ms.size == 0:
        raise ValueError("no times")
    value = float(np.quantile(times_ms, share, method="inverted_cdf"))
    sessions = len(times_ms)
    if sessions == 1:
        return Interval(value=value, low=0.0, high=float("inf"))
    tail = scipy.special.ndtr(
        np.sqrt(sessions / (sessions - 1)) * scipy.special.stdtrit(sessions - 1, (1 - confidence) / 2)
    )
    low, high = np.quantile(_resampled(times_ms, share, seed), [tail, 1 - tail])
    return Interval(value=value, low=min(value, float(low)), high=max(value, float(high)))


def _resampled(times_ms: Floats, share: float, seed: int) -> Floats:
    """Return the quantile in each of 2000 draws of S sessions with replacement."""
    sessions, inferences = times_ms.shape
    order = np.argsort(times_ms, axis=None)
    ordered, session_of = times_ms.ravel()[order], order // inferences  # (S * R,)
    draws = np.random.default_rng(seed).multinomial(sessions, np.full(sessions, 1 / sessions), _RESAMPLES)  # (B, S)
    up_to = np.cumsum(session_of[:, None] == np.arange(sessions), axis=0, dtype=np.int32)  # (S * R, S)
    rank = np.ceil(share * times_ms.size)
    low, high = np.zeros(_RESAMPLES, np.int64), np.full(_RESAMPLES, times_ms.size - 1)  # where the rank is reached
    while (low < high).any():
        middle = (low + high) // 2
        reached = (up_to[middle] * draws).sum(axis=1) >= rank
        low, high = np.where(reached, low, middle + 1), np.where(reached, middle, high)
    return np.asarray(ordered[low], np.float64)
