"""Measures files on the machine at hand: fresh sessions in turn, first answers, and a run without a pause.

Shapes: S sessions of each file; R timed inferences in each.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline import catalog
from pipeline.artifacts.evidence import Interval
from pipeline.artifacts.measured import Benched, Cold, KeptUp, Latency, Measurements
from pipeline.benching.contenders import Contender
from pipeline.errors import ConfigError, KaruiError
from pipeline.host import is_this_machine, machine_name, usable_cores
from pipeline.instruments import here
from pipeline.judging.latency import quantile, ratio
from pipeline.onboard.cold import ColdStart
from pipeline.onboard.machine import ROOT
from pipeline.onboard.sustained import Sustained, sustained
from pipeline.onboard.timing import measure
from pipeline.onboard.usage import Watch
from pipeline.progress import Progress
from pipeline.runs.journal import now
from pipeline.runtimes import cold_start, open_session, peak_memory_bytes, version
from pipeline.runtimes.child import reusing_children

Floats = NDArray[np.float64]

_SESSIONS, _ROUNDS = 20, 200  # as many as fit: enough inferences that one in a hundred is more than a few
_OF_SESSIONS, _OF_FIRST_ANSWERS = 0.4, 0.15  # shares of the time; the rest is run without a pause
_FEWEST_PROCESSES, _MOST_PROCESSES = 3, 10
_SHORTEST_S = 1.0  # without a pause
_PAIRED = 6  # stretches without which no interval of their ratio is finite


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How files are measured."""

    threads: tuple[int, ...] = (1,)
    seconds: float = 20.0  # about, in all
    profile: str | None = None  # the target that this machine is
    seed: int = 0
    root: Path = ROOT  # of the machine's /proc and /sys


def bench(files: Sequence[Contender], plan: Plan, progress: Progress) -> Measurements:
    """Measure all files together, with each number of threads.  Raises ModelError where a file cannot be run."""
    started, begun, watch = now(), time.perf_counter(), Watch(plan.root)
    found = [
        each
        for count in plan.threads
        for each in _with_threads(files, plan, count, plan.seconds / len(plan.threads), progress)
    ]
    conditions = watch.end()
    return Measurements(
        place=here.place(plan.profile),
        started=started,
        seconds=time.perf_counter() - begun,
        files=tuple(found),
        conditions=conditions,
        troubles=(*_crowded(plan), *conditions.troubles()),
    )


def _crowded(plan: Plan) -> Iterator[str]:
    cores = usable_cores()
    yield from (
        f"{count} threads shared {cores} core{'s' if cores > 1 else ''}" for count in plan.threads if count > cores
    )


def profile_here(wanted: str | None = None) -> str | None:
    """Return the name of the target that this machine is; None where it is none that is known.

    Raises ConfigError where it is not that which is wanted.
    """
    if wanted is not None:
        target = catalog.load_target(wanted)
        if not is_this_machine(target):
            what = f"this machine ({machine_name()}) is no {target.title}"
            raise ConfigError(what, where="--target", remedy="run it there, or leave --target out")
        return target.name
    for name in catalog.names("target"):
        try:
            found = name != catalog.HOST and is_this_machine(catalog.load_target(name))
        except KaruiError:  # somebody's unfinished file has nothing to do with this machine
            continue
        if found:
            return name
    return None


def _with_threads(
    files: Sequence[Contender], plan: Plan, threads: int, seconds: float, progress: Progress
) -> list[Benched]:
    end = time.perf_counter() + seconds
    words = f"{threads} thread{'s' if threads > 1 else ''}"
    progress.say(f"{words}: first answers, in fresh processes")
    cold = [_first_answers(each, threads, seconds * _OF_FIRST_ANSWERS / len(files)) for each in files]
    memory = [peak_memory_bytes(each.path, each.runtime, threads=threads) for each in files]
    progress.say(f"{words}: fresh sessions{' in turn' if len(files) > 1 else ''}, about {seconds * _OF_SESSIONS:.0f} s")
    openers = {str(number): here.opener_of(each.path, each.runtime, threads) for number, each in enumerate(files)}
    with reusing_children():
        times = measure(
            openers, sessions=_SESSIONS, rounds=_ROUNDS, budget_s=seconds * _OF_SESSIONS, seed=plan.seed + threads
        )
        medians = [np.median(times[key], axis=1) for key in openers]
        found = []
        for number, each in enumerate(files):
            left_s = max(_SHORTEST_S, (end - time.perf_counter()) / (len(files) - number))
            progress.say(f"{words}: {each.file} without a pause, about {left_s:.0f} s")
            kept_up = sustained(openers[str(number)](), seconds=left_s, root=plan.root)
            found.append(
                Benched(
                    file=each.file,
                    sha256=each.sha256,
                    size_bytes=each.path.stat().st_size,
                    runtime=each.runtime,
                    version=version(each.runtime),
                    threads=threads,
                    latency=_latency(times[str(number)]),
                    ratio=ratio(medians[number], medians[0]) if number else None,
                    cold=cold[number],
                    peak_memory_bytes=memory[number],
                    kept_up=_kept_up(kept_up),
                )
            )
    return found


def _first_answers(each: Contender, threads: int, budget_s: float) -> Cold:
    """Start fresh processes until the time is up; at least a few."""
    session = open_session(each.path, each.runtime, threads=threads)
    sample = here.drawn(session.signature)
    session.close()
    started, found = time.perf_counter(), list[ColdStart]()
    while len(found) < _MOST_PROCESSES:
        if len(found) >= _FEWEST_PROCESSES and time.perf_counter() - started > budget_s:
            break
        found.append(cold_start(each.path, each.runtime, threads=threads, sample=sample))
    start_ms = np.array([[one.load_ms + one.first_ms] for one in found])  # (processes, 1)
    return Cold(
        library_ms=float(np.median([one.library_ms for one in found])),
        start_ms=quantile(start_ms, 0.5),
        processes=len(found),
    )


def _latency(times_ms: Floats) -> Latency:
    """Describe (S, R) ms."""
    p50, p90, p95, p99 = (quantile(times_ms, share) for share in (0.5, 0.9, 0.95, 0.99))
    medians = np.median(times_ms, axis=1).tolist()
    return Latency(p50=p50, p90=p90, p95=p95, p99=p99, session_medians_ms=tuple(medians), inferences=times_ms.size)


def _kept_up(found: Sustained) -> KeptUp:
    return KeptUp(
        seconds=found.seconds,
        inferences=found.inferences,
        per_second=found.per_second,
        drift=_drift(found),
        joules_each=found.joules_each,
        points=found.points,
    )


def _drift(found: Sustained) -> Interval | None:
    first, last = (np.array([each.ms for each in found.tenth(last)]) for last in (False, True))
    return ratio(last, first) if len(first) >= _PAIRED else None
