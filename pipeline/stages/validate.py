"""validate: for one target, every file in its runtime on the whole test split, its cost, and the verdict.

N test samples, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.artifacts import (
    Agreement,
    Checkpoint,
    Comparison,
    DataRef,
    ExecutedOp,
    ExportSet,
    LatencySamples,
    Measurement,
    Quantized,
    SaturationRow,
    Validated,
)
from pipeline.checkpoints import restore_float, restore_quantized
from pipeline.columns import (
    TORCH_FLOAT,
    TORCH_INT8,
    Ran,
    Way,
    agreement,
    column,
    per_class,
    run_all,
    session_way,
    torch_way,
)
from pipeline.data.load import load
from pipeline.data.preprocess import normalize
from pipeline.host import is_this_machine, usable_cores
from pipeline.latency.cost import FileCost, LoadedFile, choose, load_files, measure_costs, time_ratio
from pipeline.run import Work, stage
from pipeline.saturation import saturation_rows
from pipeline.spec import RecipeLimits, TargetProfile
from pipeline.stats import Interval, compare_paired, wilson_interval
from pipeline.tasks.classification import decode
from pipeline.verdict import Candidate, Evidence, decide

_LATENCY_BUDGET_S = 4.0
_LATENCY_ROUNDS = 200


@dataclass(frozen=True, kw_only=True, eq=False)
class _Bench:
    """The target, this machine, and all that was run on it."""

    target: TargetProfile
    machine: str
    is_target: bool  # this machine is the target
    ran: Mapping[str, Ran]  # "torch-fp32", "torch-fake-quant" and the ids of the loaded files
    loaded: tuple[LoadedFile, ...]
    costs: dict[str, FileCost]
    fp32: LoadedFile | None  # the files that may go to the target
    int8: LoadedFile | None

    @property
    def int8_run(self) -> Ran | None:
        return self.ran[self.int8.id] if self.int8 else None


@stage(version=1)
def validate(
    work: Work,
    *,
    target: TargetProfile,
    data: DataRef,
    exports: ExportSet,
    float_checkpoint: Checkpoint,
    quantized: Quantized,
    limits: RecipeLimits,
    machine: str,
) -> Validated:
    """Find out all there is to know about one network on one target, with this machine as the instrument.

    ``machine`` is the name under which measurements stand.  On a machine that is not the target, accuracy, agreement,
    size and memory are measured here, and the target's latency is left open.  Raises what loading the data, the
    checkpoints and the files raises (DataError, ModelError, StorageError).
    """
    dataset = load(data)
    loaded, skipped = load_files(exports.files, work.store, threads=min(target.threads, usable_cores()))
    ran = run_all(_ways(work, loaded, float_checkpoint, quantized), dataset.test, data.card.input, work.progress)
    sample = normalize(dataset.test.read(np.arange(1)), data.card.input)  # (1, *sample)
    bench = _Bench(
        target=target,
        machine=machine,
        is_target=is_this_machine(target),
        ran=ran,
        loaded=loaded,
        costs=measure_costs(loaded, sample, rounds=_LATENCY_ROUNDS, budget_s=_LATENCY_BUDGET_S),
        fp32=choose(loaded, target.runtime, "fp32"),
        int8=choose(loaded, target.runtime, "int8"),
    )
    comparison = _compare(ran[TORCH_FLOAT], bench.int8_run)
    saturation = _saturation(work, exports)
    cannot_run = "; ".join(f"{runtime} cannot be used here ({why})" for runtime, why in skipped)
    return Validated(
        target=target.name,
        machine=machine,
        machine_is_target=bench.is_target,
        columns=tuple(column(each, work.store) for each in ran.values()),
        comparison=comparison,
        agreements=tuple(_agreements(bench)),
        per_class=per_class(dataset.classes, dataset.test.labels, ran[TORCH_FLOAT], bench.int8_run),
        measurements=tuple(_measurements(bench)),
        latencies=tuple(_latencies(work, bench)),
        executed=_executed(bench),
        saturation=saturation,
        skipped_runtimes=skipped,
        verdict=decide(_evidence(bench, limits, comparison, saturation, cannot_run)),
    )


def _ways(
    work: Work, loaded: Sequence[LoadedFile], float_checkpoint: Checkpoint, quantized: Quantized
) -> dict[str, Way]:
    ways = {TORCH_FLOAT: torch_way(TORCH_FLOAT, restore_float(float_checkpoint, work.store))}
    if quantized.method != "none":
        scale = next((each.session.output_scale for each in loaded if each.file.precision == "int8"), None)
        network = restore_quantized(quantized, work.store)
        ways[TORCH_INT8] = torch_way(TORCH_INT8, network, output_scale=scale)
    return ways | {each.id: session_way(each.file, each.session) for each in loaded}


def _compare(float_run: Ran, int8_run: Ran | None) -> Comparison | None:
    if int8_run is None:
        return None
    same = decode(float_run.outputs) == decode(int8_run.outputs)
    return compare_paired(float_run.correct, int8_run.correct, same_class=same)


def _agreements(bench: _Bench) -> Iterator[Agreement]:
    """Compare the fake-quantized network with every int8 file, and the int8 files of different formats."""
    runs = [bench.ran[each.id] for each in bench.loaded if each.file.precision == "int8"]
    if TORCH_INT8 in bench.ran:
        yield from (agreement(bench.ran[TORCH_INT8], each) for each in runs)
    yield from (agreement(runs[0], each) for each in runs[1:])


def _saturation(work: Work, exports: ExportSet) -> tuple[SaturationRow, ...]:
    """Examine the int8 ONNX file for every target: the report shows what would happen on another."""
    files = [file for file in exports.files if file.format == "onnx" and file.precision == "int8"]
    return saturation_rows(work.store.path(files[0].file)) if files else ()


def _executed(bench: _Bench) -> dict[str, tuple[ExecutedOp, ...]]:
    """Ask each file's runtime, the target's own where a file has two."""
    asked = {each.file.key: each for each in reversed(bench.loaded)}  # the first runtime of a format wins …
    asked |= {each.file.key: each for each in (bench.fp32, bench.int8) if each}  # … unless the target has another
    return {key: each.session.executed() for key, each in sorted(asked.items())}


# ── numbers ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _measurements(bench: _Bench) -> Iterator[Measurement]:
    for each in bench.loaded:
        ran = bench.ran[each.id]
        yield from _costs_measured(bench, each)
        if each.file.precision == "int8" and TORCH_INT8 in bench.ran:
            same = agreement(bench.ran[TORCH_INT8], ran).same_class
            yield _measured(bench, ran, what="same_class", value=same, unit="share")
    first = {each.file.key: each for each in reversed(bench.loaded)}  # one size for a file in two runtimes
    for each in (each for each in bench.loaded if each is first[each.file.key]):
        yield _measured(bench, bench.ran[each.id], what="file_size", value=each.file.size_bytes, unit="bytes")
    for ran in bench.ran.values():
        share = wilson_interval(int(ran.correct.sum()), len(ran.correct))
        yield _measured(bench, ran, what="accuracy", value=share.value, unit="share", interval=share)
    if not bench.is_target:
        yield from _open_latencies(bench)


def _costs_measured(bench: _Bench, each: LoadedFile) -> Iterator[Measurement]:
    cost, ran = bench.costs[each.id], bench.ran[each.id]
    for what, time in (("latency_p50", cost.p50_ms), ("latency_p95", cost.p95_ms)):
        yield _measured(bench, ran, what=what, value=time.value, unit="ms", interval=time)
    if cost.peak_memory_bytes is not None:
        yield _measured(bench, ran, what="peak_memory", value=cost.peak_memory_bytes, unit="bytes")


def _measured(
    bench: _Bench, ran: Ran, *, what: str, value: float, unit: str, interval: Interval | None = None
) -> Measurement:
    return Measurement(
        what=what,
        artifact=ran.way.artifact,
        runtime=ran.way.runtime,
        value=value,
        unit=unit,
        how="measured",
        where=bench.machine,
        low=interval.low if interval else None,
        high=interval.high if interval else None,
    )


def _open_latencies(bench: _Bench) -> Iterator[Measurement]:
    """Say of the target's own latency that nobody measured it."""
    for each in filter(None, (bench.fp32, bench.int8)):
        for what in ("latency_p50", "latency_p95"):
            yield Measurement(
                what=what,
                artifact=each.file.key,
                runtime=bench.target.runtime,
                value=None,
                unit="ms",
                how="not measured",
                where=bench.target.name,
            )


def _latencies(work: Work, bench: _Bench) -> Iterator[LatencySamples]:
    for each in bench.loaded:
        yield LatencySamples(
            artifact=each.file.key,
            runtime=each.session.label,
            threads=each.threads,
            samples_ms=work.store.put_array(bench.costs[each.id].times_ms.ravel()),
        )


# ── verdict ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _evidence(
    bench: _Bench,
    limits: RecipeLimits,
    comparison: Comparison | None,
    saturation: Sequence[SaturationRow],
    cannot_run: str,
) -> Evidence:
    int8_run, trained = bench.int8_run, bench.ran.get(TORCH_INT8)
    return Evidence(
        target=bench.target,
        limits=limits,
        machine=bench.machine,
        machine_is_target=bench.is_target,
        fp32=_candidate(bench, bench.fp32),
        int8=_candidate(bench, bench.int8),
        comparison=comparison,
        same_class=agreement(trained, int8_run).same_class if trained and int8_run else None,
        saturating_layers=sum(row.can_saturate for row in saturation),
        int8_time=time_ratio(bench.int8, bench.fp32, bench.costs),
        cannot_run=cannot_run,
    )


def _candidate(bench: _Bench, each: LoadedFile | None) -> Candidate | None:
    if each is None:
        return None
    cost = bench.costs[each.id]
    return Candidate(
        key=each.file.key,
        precision=each.file.precision,
        runtime=each.session.label,
        accuracy=float(bench.ran[each.id].correct.mean()),
        size_bytes=each.file.size_bytes,
        peak_memory_bytes=cost.peak_memory_bytes,
        latency_p95_ms=cost.p95_ms.value if bench.is_target else None,
    )
