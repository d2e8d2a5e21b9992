"""observe: all that one instrument finds out about a set of files: every file passes over the test split once.

Shapes: N test samples; S sessions and R timed inferences in each.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.evidence import (
    Agreement,
    Answered,
    Answers,
    Compared,
    Executed,
    Interval,
    Measurement,
    Observed,
    Place,
    Predicted,
    Quantity,
    Saturation,
    Timing,
)
from pipeline.artifacts.files import Exported, Way
from pipeline.artifacts.networks import DataFacts, DataRef
from pipeline.data.load import load
from pipeline.data.source import Source
from pipeline.instruments import here
from pipeline.instruments.answers import agreement, held, keep, load_answers
from pipeline.instruments.here import FileWay
from pipeline.judging.latency import quantile
from pipeline.onboard.stepping import stepping
from pipeline.quant.saturation import saturation_rows
from pipeline.runs.run import Work, stage
from pipeline.runs.store import Store
from pipeline.runtimes import executed, version
from pipeline.tasks import Task, named

_QUANTILES: dict[Quantity, float] = {"latency_p50_ms": 0.50, "latency_p95_ms": 0.95}


@dataclass(frozen=True, kw_only=True, eq=False)
class _Bench:
    """What all ways have in common."""

    work: Work
    task: Task
    facts: DataFacts
    test: Source  # N
    references: tuple[Predicted, ...]
    place: Place


@stage(version=1)
def observe(
    work: Work,
    *,
    data: DataRef,
    facts: DataFacts,
    files: tuple[Exported, ...],
    references: tuple[Predicted, ...],
    threads: tuple[int, ...],
    place: Place,
    runtimes: dict[str, str],
) -> Observed:
    """Run every file in every usable runtime of its format, once over the test split; time it; read off what it runs.

    ``references``: what torch gave, the float network among them; ``threads``: the thread counts to time with;
    ``place``: this machine, under the name that its numbers shall have; ``runtimes``: name → version, or "absent".
    Raises what loading the data and the files raises (DataError, ModelError, StorageError).
    """
    del runtimes  # they are asked themselves; as an input they run this stage again when one comes or changes
    bench = _Bench(
        work=work,
        task=named(data.card.task),
        facts=facts,
        test=held(load(data).test),
        references=references,
        place=place,
    )
    ways, not_usable = here.ways_of(files, work.store)
    answered, comparisons = _over_the_test_split(bench, ways)
    costs = [_costs(bench, ways, count) for count in threads]
    return Observed(
        place=place,
        metric=bench.task.METRIC,
        answers=answered,
        comparisons=comparisons,
        agreements=tuple(_agreements(bench, answered)),
        measurements=tuple(itertools.chain(*(measurements for measurements, _ in costs))),
        timings=tuple(itertools.chain(*(timings for _, timings in costs))),
        executed=tuple(Executed(way=each.way, nodes=executed(each.path, each.runtime)) for each in ways),
        saturation=tuple(_saturation(files, work.store)),
        not_usable=not_usable,
    )


# ── answers ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _over_the_test_split(bench: _Bench, ways: Sequence[FileWay]) -> tuple[tuple[Answered, ...], tuple[Compared, ...]]:
    """Let every way answer, keep what it gave, and compare it with the float reference.

    Where there is a network before pruning, what came of it is compared with that too, in the same runtime.
    """
    floats = {
        each.answered.way.variant.unpruned: each
        for each in bench.references
        if each.answered.way.variant.precision == "fp32"
    }
    reference = floats[False]
    expected = load_answers(reference.answered, bench.work.store)
    bench.work.progress.start("test split", len(ways))
    answered, comparisons = [], []
    for each in ways:
        session = each.open(threads=1, exact=True)
        chosen = floats[each.way.variant.unpruned].chosen
        answers = bench.task.answer(
            stepping(session.run, each.file.signature), bench.test, each.prepared, chosen=chosen
        )
        kept = keep(
            answers,
            way=each.way,
            version=session.version,
            place=bench.place,
            interval=bench.task.interval(answers, bench.test),
            steps=dict(session.steps),
            store=bench.work.store,
        )
        session.close()
        answered.append(kept)
        if not each.way.variant.unpruned:
            comparisons.append(_compared(bench, reference.answered.way, expected, each.way, answers))
        bench.work.progress.advance()
    return tuple(answered), (*comparisons, *_against_unpruned(bench, answered))


def _against_unpruned(bench: _Bench, answered: Sequence[Answered]) -> Iterator[Compared]:
    """Compare with what a runtime gave before pruning what it gives after."""
    for before in (each for each in answered if each.way.variant.unpruned):
        expected = load_answers(before, bench.work.store)
        for each in answered:
            if each.way.program == before.way.program and not each.way.variant.unpruned:
                yield _compared(bench, before.way, expected, each.way, load_answers(each, bench.work.store))


def _compared(bench: _Bench, first: Way, expected: Answers, second: Way, answers: Answers) -> Compared:
    comparison = bench.task.compare(expected, answers, bench.test)
    return Compared(metric=bench.task.METRIC.name, first=first, second=second, comparison=comparison)


def _agreements(bench: _Bench, answered: Sequence[Answered]) -> Iterator[Agreement]:
    """Compare the network that was trained with each int8 file of its width, and the first of these with the others."""
    store = bench.work.store
    int8 = [each for each in answered if each.way.variant.precision == "int8"]
    trained = {each.answered.way.variant.weight_bits: each.answered for each in bench.references}
    for bits in dict.fromkeys(each.way.variant.weight_bits for each in int8):
        same_width = [each for each in int8 if each.way.variant.weight_bits == bits]
        if bits in trained:
            yield from (agreement(trained[bits], each, store) for each in same_width)
        yield from (agreement(same_width[0], each, store) for each in same_width[1:])


# ── costs ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _costs(bench: _Bench, ways: Sequence[FileWay], threads: int) -> tuple[tuple[Measurement, ...], tuple[Timing, ...]]:
    """Measure time and memory of all ways with so many threads."""
    sample = bench.test.read(np.arange(1)).inputs  # (1, …)
    bench.work.progress.start(f"latency, threads: {threads}", 1)
    times_ms = here.time_ways(ways, sample, threads=threads, seed=threads)
    bench.work.progress.advance()
    measurements = [
        _measured(bench, way, threads, quantity, quantile(taken_ms, share))
        for way, taken_ms in times_ms.items()
        for quantity, share in _QUANTILES.items()
    ]
    measurements += [
        _measured(bench, way, threads, "peak_memory_bytes", Interval(value=peak, low=peak, high=peak))
        for way, peak in here.memory_of(ways, threads=threads).items()
    ]
    return tuple(measurements), tuple(_timing(bench, each, threads, times_ms[each.way]) for each in ways)


def _measured(bench: _Bench, way: Way, threads: int, quantity: Quantity, found: Interval) -> Measurement:
    return Measurement(
        quantity=quantity,
        way=way,
        threads=threads,
        place=bench.place,
        value=found.value,
        low=found.low,
        high=found.high,
    )


def _timing(bench: _Bench, each: FileWay, threads: int, taken_ms: NDArray[np.float64]) -> Timing:
    return Timing(
        way=each.way,
        version=version(each.runtime),
        threads=threads,
        session_medians_ms=tuple(np.median(taken_ms, axis=1).tolist()),
        samples_ms=bench.work.store.put_array(taken_ms),
    )


def _saturation(files: Sequence[Exported], store: Store) -> Iterator[Saturation]:
    """Examine every int8 ONNX file, whatever this machine is: the report shows what would happen on another."""
    for file in {file.variant: file for file in files}.values():
        if file.variant.format == "onnx" and file.variant.precision == "int8":
            yield Saturation(variant=file.variant, rows=saturation_rows(store.path(file.file)))
