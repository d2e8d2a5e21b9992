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
_BURST_MS = 1.0  # shorter bursts would mostly measure the change from one file to the next
_LONGEST_BURST = 50
_PROBES = 5  # inferences that tell how long a burst must be


def measure(
    openers: Mapping[str, Opener], *, sessions: int, rounds: int, budget_s: float, seed: int
) -> dict[str, NDArray[np.float64]]:
    """Time every file in ``sessions`` fresh sessions, with ``rounds`` bursts of about a millisecond in each.

    What does not fit into ``budget_s`` is left out: first rounds, down to 3, then sessions, down to 10.  Sessions at
    one place of the first axis were open at the same time.  The garbage collector is off meanwhile.

    Returns (S, R) ms for each file; S is the same for all, R the rounds times the length of the file's bursts.
    Raises ValueError when there is nothing to measure.
    """
    if not openers or sessions < 1 or rounds < 1:
        raise ValueError("nothing to measure")
    rng = np.random.default_rng(seed)
    start = time.perf_counter()
    bursts: dict[str, int] = {}
    taken: list[dict[str, list[list[float]]]] = []
    with _no_collection():
        while len(taken) < sessions:
            used_s = time.perf_counter() - start
            if len(taken) >= LEAST_SESSIONS and used_s > budget_s:
                break
            # the first session tells how many rounds fit: the same number for all, so that none weighs more
            until = math.inf if taken else start + budget_s / sessions
            taken.append(_session(openers, bursts, rounds=rounds, until=until, rng=rng))
            rounds = len(taken[0][next(iter(openers))])
    return {name: np.array([each[name] for each in taken], np.float64).reshape(len(taken), -1) for name in openers}


def _session(
    openers: Mapping[str, Opener], bursts: dict[str, int], *, rounds: int, until: float, rng: np.random.Generator
) -> dict[str, list[list[float]]]:
    """Open a session of every file, time them until ``rounds`` are done or the clock says ``until``, close them.

    ``bursts`` (name → inferences in a burst) is filled in by the first session.
    """
    names = list(openers)
    timers = {names[which]: openers[names[which]]() for which in rng.permutation(len(names))}
    for name, timer in timers.items():
        bursts.setdefault(name, _burst_length(timer))
    times: dict[str, list[list[float]]] = {name: [] for name in names}
    for done in range(rounds):
        if done >= _LEAST_ROUNDS and time.perf_counter() > until:
            break
        for which in rng.permutation(len(names)):
            name = names[which]
            times[name].append(timers[name](bursts[name]))
    return times


def _burst_length(timer: Timer) -> int:
    """Return how many inferences take a millisecond, 1 … 50."""
    typical_ms = float(np.median(timer(_PROBES)))
    return int(np.clip(np.ceil(_BURST_MS / max(typical_ms, 1e-6)), 1, _LONGEST_BURST))


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
