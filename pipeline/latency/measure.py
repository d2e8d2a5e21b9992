"""Single-inference times of several files, interleaved, so that a busy moment of the machine hits all of them alike.

R rounds; in each round every file runs in a burst of I timed single inferences, in random order.
"""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.stats import CONFIDENCE, Interval, median_ratio

Invoker = Callable[[], object]
Times = NDArray[np.float64]  # (R, I) milliseconds, each of one inference

_BURST_MS = 1.0  # shorter bursts would mostly measure the change from one file to the next
_LONGEST_BURST = 50
_MIN_ROUNDS = 5
_FIRST_LOOK_ROUNDS = 30
_LOOKS = 6  # at 30, 60, … 960 rounds


@dataclass(frozen=True, kw_only=True)
class Speed:
    """How long one file takes compared with another one."""

    ratio: Interval  # time of the candidate / time of the reference; below 1 is faster
    rounds: int

    @property
    def faster(self) -> bool:
        """True when the whole interval says so."""
        return self.ratio.high < 1

    @property
    def slower(self) -> bool:
        """True when the whole interval says so."""
        return self.ratio.low > 1


def measure_interleaved(
    invokers: Mapping[str, Invoker],
    *,
    rounds: int = 200,
    budget_s: float = 10.0,
    warmup: int = 10,
    seed: int = 0,
) -> dict[str, Times]:
    """Time each invoker in ``rounds`` rounds, or as many (at least 5) as fit into ``budget_s``.

    Returns (R, I) milliseconds for each, R the same for all; ``.ravel()`` gives the single inferences for percentiles.
    The garbage collector is off meanwhile.  Raises ValueError when there is nothing to measure.
    """
    if not invokers:
        raise ValueError("nothing to measure")
    bursts = {name: _burst_length(call, warmup) for name, call in invokers.items()}
    return _rounds(
        invokers, bursts, rounds=rounds, until=time.perf_counter() + budget_s, rng=np.random.default_rng(seed)
    )


def ratio(candidate: Times, reference: Times, *, confidence: float = CONFIDENCE) -> Interval:
    """Time of one file over time of the other, (R, I) each of the same rounds: medians, with an interval."""
    return median_ratio(np.median(candidate, axis=1), np.median(reference, axis=1), confidence=confidence)


def compare_speed(candidate: Invoker, reference: Invoker, *, budget_s: float = 10.0, seed: int = 0) -> Speed:
    """Measure until the interval of candidate / reference leaves 1 out, or the budget or 960 rounds are spent.

    Looking again and again finds a difference by chance sooner or later.  The looks are therefore few (six, each after
    twice the rounds), and the 5 % are shared among them (Bonferroni): the ratio's interval holds for all together.
    """
    pair = {"candidate": candidate, "reference": reference}
    bursts = {name: _burst_length(call, 10) for name, call in pair.items()}
    confidence = 1 - (1 - CONFIDENCE) / _LOOKS
    rng = np.random.default_rng(seed)
    until = time.perf_counter() + budget_s
    so_far: dict[str, Times] = {}
    for look in range(_LOOKS):
        wanted = _FIRST_LOOK_ROUNDS * 2**look
        done = len(so_far["candidate"]) if so_far else 0
        new = _rounds(pair, bursts, rounds=wanted - done, until=until, rng=rng)
        so_far = {name: np.concatenate([so_far[name], new[name]]) if so_far else new[name] for name in pair}
        speed = Speed(
            ratio=ratio(so_far["candidate"], so_far["reference"], confidence=confidence),
            rounds=len(so_far["candidate"]),
        )
        if speed.faster or speed.slower or time.perf_counter() > until:
            break
    return speed


def _burst_length(call: Invoker, warmup: int) -> int:
    """Warm up; then as many inferences as take a millisecond, 1 … 50."""
    for _ in range(max(1, warmup)):
        call()
    typical_ms = float(np.median([_burst(call, 1)[0] for _ in range(5)]))
    return int(np.clip(np.ceil(_BURST_MS / max(typical_ms, 1e-6)), 1, _LONGEST_BURST))


def _rounds(
    invokers: Mapping[str, Invoker],
    bursts: Mapping[str, int],
    *,
    rounds: int,
    until: float,
    rng: np.random.Generator,
) -> dict[str, Times]:
    names = list(invokers)
    times: dict[str, list[list[float]]] = {name: [] for name in names}
    with _no_collection():
        for index in range(rounds):
            if index >= _MIN_ROUNDS and time.perf_counter() > until:
                break
            for which in rng.permutation(len(names)):
                name = names[which]
                times[name].append(_burst(invokers[name], bursts[name]))
    return {name: np.array(values, np.float64) for name, values in times.items()}


def _burst(call: Invoker, length: int) -> list[float]:
    clock = time.perf_counter_ns
    call()  # not timed: brings code and weights back into the caches, as in a loop on the device
    times = []
    for _ in range(length):
        start = clock()
        call()
        times.append((clock() - start) / 1e6)
    return times


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
