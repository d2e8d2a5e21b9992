"""observe: all that one instrument finds out about a set of files: every file passes over the test split once.

Shapes: N test samples; S sessions and R timed inferences in each.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.evidence import (
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
from pipeline.instruments import here
from pipeline.instruments.answers import held
from pipeline.instruments.here import FileWay
from pipeline.instruments.passing import Bench, agreements, over_the_test_split
from pipeline.judging.latency import quantile
from pipeline.quant.saturation import saturation_rows
from pipeline.runs.run import Work, stage
from pipeline.runs.store import Store
from pipeline.runtimes import executed, version
from pipeline.tasks import named

_QUANTILES: dict[Quantity, float] = {"latency_p50_ms": 0.50, "latency_p95_ms": 0.95}


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
    del facts, runtimes  # they are asked themselves; as an input they run this stage again when one comes or changes
    bench = Bench(
        work=work,
        task=named(data.card.task),
        test=held(load(data).test),
        references=references,
        place=place,
    )
    ways, not_usable = here.ways_of(files, work.store)
    answered, comparisons = over_the_test_split(bench, ways)
    costs = [_costs(bench, ways, count) for count in threads]
    return Observed(
        place=place,
        metric=bench.task.METRIC,
        answers=answered,
        comparisons=comparisons,
        agreements=tuple(agreements(bench, answered)),
        measurements=tuple(itertools.chain(*(measurements for measurements, _ in costs))),
        timings=tuple(itertools.chain(*(timings for _, timings in costs))),
        executed=tuple(Executed(way=each.way, nodes=executed(each.path, each.runtime)) for each in ways),
        saturation=tuple(_saturation(files, work.store)),
        not_usable=not_usable,
    )


# ── costs ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _costs(bench: Bench, ways: Sequence[FileWay], threads: int) -> tuple[tuple[Measurement, ...], tuple[Timing, ...]]:
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


def _measured(bench: Bench, way: Way, threads: int, quantity: Quantity, found: Interval) -> Measurement:
    return Measurement(
        quantity=quantity,
        way=way,
        threads=threads,
        place=bench.place,
        value=found.value,
        low=found.low,
        high=found.high,
    )


def _timing(bench: Bench, each: FileWay, threads: int, taken_ms: NDArray[np.float64]) -> Timing:
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
