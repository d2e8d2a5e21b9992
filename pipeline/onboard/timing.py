"""Single-inference times of several files: fresh sessions of each in turn, and in them interleaved bursts.

A session keeps its speed for its whole life: where its weights and buffers happen to lie in memory makes two sessions
of one and the same file differ by up to 1 %.  More rounds only repeat that difference; sessions are what is drawn anew,
so sessions are the unit of replication.  In every round each file runs a burst of single inferences, in random order,
so that a busy moment of the machine hits all of them alike.

Shapes: S sessions of each file; R timed inferences in one session.
"""

from __future__ import annotations

import contextlib
import gc
import math
import time
from collections.abc import Iterator, Mapping
from typing import Callable

import numpy as np
from numpy.typing import NDArray

from pipeline.onboard.session import Timer

Opener = Callable[[], Timer]  # opens a fresh session, which lives as long as its timer

LEAST_SESSIONS = 10  # fewer cannot tell a difference from noise with the confidence that is asked for
_LEAST_ROUNDS = 3
_BURST_MS = 1.0  # of the fastest file: shorter bursts would mostly measure the change from one file to the next
_LONGEST_BURST_MS = 4.0  # of the slowest file, but for a single inference
_LONGEST_BURST = 50
_PROBES = 5  # inferences that tell how long a burst must be


def measure(
    openers: Mapping[str, Opener], *, sessions: int, rounds: int, budget_s: float, seed: int
) -> dict[str, NDArray[np.float64]]:
    """Time every file in ``sessions`` fresh sessions, with ``rounds`` bursts of about a millisecond in each.

    What does not fit into ``budget_s`` is left out: first rounds, down to 3, then sessions, down to 10.  Sessions at
    one place of the first axis were open at the same time.  The garbage collector is off meanwhile.

    Returns (S, R) ms for each file, the same shape for all; R is the rounds times the length of the bursts.
    Raises ValueError when there is nothing to measure.
    """
    if not openers or sessions < 1 or rounds < 1:
        raise ValueError("nothing to measure")
    rng = np.random.default_rng(seed)
    start = time.perf_counter()
    taken: list[dict[str, list[float]]] = []
    with _no_collection():
        timers = _opened(openers, rng)
        burst = _burst_length(timers)
        # the first session tells how many rounds fit: the same number for all, so that none weighs more
        taken.append(_timed(timers, burst, rounds=rounds, until=start + budget_s / sessions, rng=rng))
        rounds = len(next(iter(taken[0].values()))) // burst
        while len(taken) < sessions:
            if len(taken) >= LEAST_SESSIONS and time.perf_counter() - start > budget_s:
                break
            timers.clear()  # closes the sessions before the next ones open
            timers = _opened(openers, rng)
            taken.append(_timed(timers, burst, rounds=rounds, until=math.inf, rng=rng))
    return {name: np.array([each[name] for each in taken], np.float64) for name in openers}


def _opened(openers: Mapping[str, Opener], rng: np.random.Generator) -> dict[str, Timer]:
    names = list(openers)
    return {names[which]: openers[names[which]]() for which in rng.permutation(len(names))}


def _timed(
    timers: Mapping[str, Timer], burst: int, *, rounds: int, until: float, rng: np.random.Generator
) -> dict[str, list[float]]:
    """Time all files in turn until ``rounds`` are done or the clock says ``until``."""
    names = sorted(timers)
    times: dict[str, list[float]] = {name: [] for name in names}
    for done in range(rounds):
        if done >= _LEAST_ROUNDS and time.perf_counter() > until:
            break
        for which in rng.permutation(len(names)):
            times[names[which]] += timers[names[which]](burst)
    return times


def _burst_length(timers: Mapping[str, Timer]) -> int:
    """Return how many inferences a burst has, 1 … 50: the same for all files.

    Inferences get a little faster within a burst: of two sessions of one file, the one with the longer bursts would
    come out faster, and a busy moment while they are tried is enough to make one longer.
    """
    typical_ms = [max(float(np.median(timer(_PROBES))), 1e-6) for timer in timers.values()]
    longest = max(1, int(_LONGEST_BURST_MS / max(typical_ms)))
    return min(math.ceil(_BURST_MS / min(typical_ms)), longest, _LONGEST_BURST)


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
