"""spread: over how many threads the file that ships is run, found by a clock once and kept."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pipeline.artifacts.evidence import Interval, Place, Spread, Tried
from pipeline.artifacts.files import Exported, Program
from pipeline.artifacts.networks import DataRef
from pipeline.data.load import load
from pipeline.instruments import here
from pipeline.runs.run import Work, stage

_BUDGET_S = 4.0  # for each number of threads


@stage(version=1)
def spread(
    work: Work, *, data: DataRef, file: Exported, program: Program, version: str, cores: int, place: Place
) -> Spread:
    """Time single inferences with 1, 2, 4 … threads, up to ``cores``, and take more only where they surely win.

    Each number is timed in turn with half as many, in fresh sessions of both, and the first that does not win is the
    last that is tried.  ``version``: of the runtime; ``place``: this machine; both stand in the key.
    Raises what loading the data and the file raises (DataError, ModelError, StorageError).
    """
    del version
    ways, _ = here.ways_of([file], work.store)
    way = next((each for each in ways if each.runtime == program), None)

    def ratio_of(more: int, fewer: int) -> Interval:
        assert way is not None  # noqa: S101  nothing is tried without one
        sample = load(data).test.read(np.arange(1)).inputs  # (1, …)
        work.progress.start(f"latency, threads: {more}", 1)
        found = here.compare_threads(way, sample, more=more, fewer=fewer, budget_s=_BUDGET_S)
        work.progress.advance()
        return found

    tried = doubled(ratio_of, most=cores if way else 1)
    return Spread(
        threads=max((each.threads for each in tried if each.ratio.high < 1), default=1), tried=tried, place=place
    )


def doubled(ratio_of: Callable[[int, int], Interval], *, most: int) -> tuple[Tried, ...]:
    """Try 2, 4, 8 … threads up to ``most``, each against half as many, until more do not surely win."""
    tried: list[Tried] = []
    threads = 2
    while threads <= most and all(each.ratio.high < 1 for each in tried):
        tried.append(Tried(threads=threads, than=threads // 2, ratio=ratio_of(threads, threads // 2)))
        threads *= 2
    return tuple(tried)
