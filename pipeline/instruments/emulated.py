"""The instrument that is an emulated target: its processor, its system and its runtimes run every file, without times.

Shapes: N test samples, n of them drawn.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from pipeline.artifacts.evidence import Answered, Beside, CannotRun, Observed, Place
from pipeline.artifacts.files import Exported
from pipeline.data.source import Source
from pipeline.declare.target import TargetProfile
from pipeline.instruments.answers import apart, load_answers
from pipeline.instruments.here import FileWay, ways_of
from pipeline.instruments.passing import Bench, Chosen, noted, part_of
from pipeline.instruments.taps import first_difference
from pipeline.onboard.arrays import Arrays, Predict, length
from pipeline.onboard.stepping import stepping
from pipeline.runs.store import Store
from pipeline.runtimes.emulation.system import System, stand_in

_TRIED = 4  # samples by which the time of all others is told
_FEWEST = 32  # that are run, however long they take


def place(target: TargetProfile) -> Place:
    """Say that numbers come from a target's processor, emulated.  Raises EmulationError where it cannot be."""
    processor, emulator = stand_in(target)
    return Place(how="emulated", name=f"{processor.name} (QEMU {emulator.version})", profile=target.name)


def ways_there(files: Sequence[Exported], system: System, store: Store) -> tuple[tuple[FileWay, ...], dict[str, str]]:
    """Return every file with every runtime that the emulated system has; and runtime → why not, for the others."""
    here, not_usable = ways_of(files, store)
    there = tuple(replace(each, home=system.homes[each.runtime]) for each in here if each.runtime in system.homes)
    return there, not_usable | {str(runtime): why for runtime, why in system.not_usable.items()}


def drawn(
    bench: Bench, ways: Sequence[FileWay], *, budget_s: float, seed: int, cannot_run: list[CannotRun]
) -> tuple[Chosen, tuple[FileWay, ...]]:
    """Return which samples can be run in about so much time, (n,) in order (None: all of them), and the ways that run.

    ``cannot_run``: takes down the others.
    """
    some = tried(bench.test)
    started, each_s = time.monotonic(), 0.0
    for way in ways:
        with noted(way, cannot_run), contextlib.closing(way.open(threads=1, exact=True)) as session:
            each_s += seconds_each(stepping(session.run, way.file.signature), way.prepared(some))
    left_s = budget_s - 2 * (time.monotonic() - started)  # the sessions are opened again
    failed = {each.way for each in cannot_run}
    runs = tuple(way for way in ways if way.way not in failed)
    return affordable(len(bench.test), each_s=each_s, left_s=left_s, seed=seed), runs


def tried(source: Source) -> Arrays:
    """Return the raw samples by which the time of all others is told."""
    return source.read(np.arange(min(_TRIED, len(source)))).inputs


def seconds_each(predict: Predict, prepared: Arrays) -> float:
    """Return how long one sample takes."""
    predict(prepared)  # the first time, code is translated
    begun = time.monotonic()
    predict(prepared)
    return (time.monotonic() - begun) / length(prepared)


def affordable(samples: int, *, each_s: float, left_s: float, seed: int) -> Chosen:
    """Draw as many samples as there is time for, but for a few in any case, (n,) in order; None: all of them."""
    count = max(_FEWEST, int(left_s / max(each_s, 1e-6)))
    return None if count >= samples else np.sort(np.random.default_rng(seed).permutation(samples)[:count])


def beside(bench: Bench, ways: Sequence[FileWay], answered: Sequence[Answered], here: Observed) -> Iterator[Beside]:
    """Compare what every way answered there with what it answered here, on the same samples."""
    store = bench.work.store
    known = {each.way: each for each in here.answers}
    by_name = {way.way: way for way in ways}
    for there in answered:
        if there.way not in known:
            continue
        own, way = known[there.way], by_name[there.way]
        found = apart(
            load_answers(there, store), part_of(load_answers(own, store), bench.chosen), {**own.steps, **there.steps}
        )
        yield Beside(
            way=there.way,
            other=here.place,
            samples=len(bench.test),
            of=own.samples,
            same=found.same,
            identical=found.identical,
            max_steps=found.max_steps,
            first_layer=_first_layer(bench, way, int(found.different[0])) if len(found.different) else "",
        )


def _first_layer(bench: Bench, way: FileWay, sample: int) -> str:
    """Return after which layer a sample's integers differ first; "" where the file has no integers to look at."""
    if way.way.variant.precision != "int8" or way.way.program != "onnxruntime" or way.file.signature.carried:
        return ""
    inputs = way.prepared(bench.test.read(np.array([sample])).inputs)
    return first_difference(way, inputs)
