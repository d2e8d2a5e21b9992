"""What the page shows, gathered from a run and its arrays; the template only lays it out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from pipeline.artifacts.evidence import Agreement, Comparison, ExecutedOp, Metric, Observed, SaturationRow, Timing
from pipeline.artifacts.files import Exported
from pipeline.artifacts.outcome import Judged, Outcome
from pipeline.artifacts.training import Epoch, LayerQuality, Quantized
from pipeline.report import figures, overview, sentences, words
from pipeline.report.advice import advice
from pipeline.report.document import MeasurementPart, measurements_of
from pipeline.report.draw import ArrayStore, Drawn, draw
from pipeline.report.looked import Looked
from pipeline.report.rows import (
    LayerRow,
    RunRow,
    baselines_of,
    comparison_of,
    emulated_of,
    executed_int8,
    export_set,
    is_of,
    layer_rows,
    observed_for,
    run_rows,
    stage_rows,
    timings_of,
    told_apart,
    worst_layers,
)


@dataclass(frozen=True, kw_only=True)
class LookedView:
    """What the task wants to show of one pair of files."""

    targets: tuple[str, ...]
    titles: tuple[str, ...]
    samples: int
    figures: tuple[Drawn, ...]


@dataclass(frozen=True, kw_only=True)
class WayView:
    """One row of the table of all ways of running."""

    row: RunRow
    title: str
    ship: bool
    int8: bool
    interval_left: float  # in percent of the widest span of all rows
    interval_width: float
    interval_dot: float


@dataclass(frozen=True, kw_only=True)
class LatenciesView:
    """The distribution of times, and where they were taken."""

    drawing: Markup
    where: str
    threads: int


@dataclass(frozen=True, kw_only=True)
class StagesView:
    """What became of the network, and where its latencies come from."""

    drawing: Markup
    line: str  # what ships against the network before pruning; "" where nothing was pruned


@dataclass(frozen=True, kw_only=True)
class TargetView:
    """What is shown for one target."""

    found: Judged
    ways: tuple[WayView, ...]
    best: RunRow | None  # the way that ships
    float_way: RunRow | None  # what it is compared with: the float file in the same runtime
    comparison: Comparison | None
    sentences: tuple[str, ...]
    difference: Markup | None
    stages: StagesView | None  # None where there is but one
    files: Markup | None  # None where no latency is known
    latencies: LatenciesView | None
    told_apart: bool  # median and 95th percentile
    time_how: str  # "measured", if that is how all latencies of the table came about; "" where they differ
    memory_how: str
    latency_note: str
    memory_note: str
    advice: tuple[str, ...]  # what to try where a limit is not met
    baselines: dict[str, float]  # the metric without looking at the inputs, by name
    latency_is_own: bool  # no latency is another machine's
    agreements: tuple[Agreement, ...]
    emulated: Observed | None  # what the target's own processor answered
    emulated_note: str
    measurements: tuple[tuple[str, MeasurementPart], ...]  # title of the file or network, the number
    not_measured: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class LayersView:
    """The layers of one set of files, as they run on one target's runtime."""

    targets: tuple[str, ...]
    weight_bits: int
    rows: tuple[LayerRow, ...]
    largest_share: float
    largest_output: int
    parameters: int
    macs: int
    worst: tuple[LayerQuality, ...]
    quantized: Quantized | None
    float_ops: tuple[str, ...]
    executed: tuple[tuple[str, tuple[ExecutedOp, ...], str], ...]  # title, nodes, how many are integer
    saturation: tuple[SaturationRow, ...]
    saturation_matters: bool  # a target of the run adds in 16 bits


@dataclass(frozen=True, kw_only=True)
class TrainingView:
    """How the network came to be."""

    stages: tuple[tuple[figures.Curve, float], ...]  # each with its best value
    curves: Markup | None
    transfer: Markup | None
    pruning: Markup | None


# ── targets ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def target_view(outcome: Outcome, target: Judged, store: ArrayStore, number: int) -> TargetView:
    """Gather one target; ``number`` keeps the ids of its figures apart."""
    rows, metric = run_rows(outcome, target), outcome.metric
    best = next((row for row in rows if row.way == target.verdict.ship), None)
    compared = comparison_of(outcome, target)
    found = compared.comparison if compared else None
    margin = sentences.margin_in_unit(target, metric, found) if found else None
    times = [each for row in rows for each in (row.p50, row.p95)]
    return TargetView(
        found=target,
        ways=_ways(rows, target),
        best=best,
        float_way=_float_twin(rows, best),
        comparison=found,
        sentences=sentences.comparison_sentences(metric, found, sentences.margins(target, metric)) if found else (),
        difference=figures.difference(found, margin, metric, f"d{number}") if found else None,
        stages=_stages(outcome, target, number),
        files=_all_files(rows, metric, number),
        latencies=_latencies(outcome, target, store, number),
        time_how=sentences.common_how(times),
        told_apart=told_apart(rows),
        memory_how=sentences.common_how(row.memory for row in rows),
        latency_note=sentences.latency_note(outcome, target),
        memory_note=sentences.memory_note(outcome, target),
        advice=advice(outcome, target),
        baselines=baselines_of(outcome),
        latency_is_own=all(each.place.profile == target.target for each in times if each),
        agreements=_agreements(outcome, target),
        emulated=emulated_of(outcome, target),
        emulated_note=sentences.emulated_note(outcome, target),
        measurements=_measurements(outcome, target, rows),
        not_measured=sentences.not_measured(outcome, target),
    )


def _ways(rows: Sequence[RunRow], target: Judged) -> tuple[WayView, ...]:
    low, high = min((row.low for row in rows), default=0), max((row.high for row in rows), default=1)
    scale = 100 / (high - low or 1)
    return tuple(
        WayView(
            row=row,
            title=words.artifact_title(row.way.variant),
            ship=row.way == target.verdict.ship,
            int8=row.way.variant.precision == "int8",
            interval_left=scale * (row.low - low),
            interval_width=scale * (row.high - row.low),
            interval_dot=scale * (row.value - low),
        )
        for row in rows
    )


def _float_twin(rows: Sequence[RunRow], best: RunRow | None) -> RunRow | None:
    if best is None or best.way.variant.precision == "fp32":
        return None
    same = [row for row in rows if row.way.program == best.way.program and row.way.variant.precision == "fp32"]
    same = [row for row in same if not row.way.variant.unpruned]
    return next(iter(same), None)


def _stages(outcome: Outcome, target: Judged, number: int) -> StagesView | None:
    rows = stage_rows(outcome, target)
    if len(rows) < 2:
        return None
    points = [_point(row, stage) for stage, row in rows.items()]
    return StagesView(
        drawing=overview.stage_by_stage(points, outcome.metric, f"s{number}"),
        line=sentences.since_training_line(outcome, target),
    )


def _all_files(rows: Sequence[RunRow], metric: Metric, number: int) -> Markup | None:
    points = [_point(row, words.way_title(row.way)) for row in rows if row.p50 and row.size_bytes]
    return overview.all_files(points, metric, f"f{number}") if points else None


def _point(row: RunRow, title: str) -> overview.Point:
    return overview.Point(
        title=title,
        int8=row.way.variant.precision == "int8",
        value=row.value,
        low=row.low,
        high=row.high,
        size_bytes=row.size_bytes,
        latency_ms=row.p50.value if row.p50 else None,
        latency_low_ms=row.p50.low if row.p50 else None,
        latency_high_ms=row.p50.high if row.p50 else None,
    )


def _latencies(outcome: Outcome, target: Judged, store: ArrayStore, number: int) -> LatenciesView | None:
    found = timings_of(outcome, target)
    if found is None:
        return None
    place, timings = found
    times = [_times(each, store) for each in timings]
    times = [each for each in times if each.samples_ms.size]
    if not times:
        return None
    return LatenciesView(
        drawing=figures.latencies(times, f"l{number}"),
        where=sentences.place_text(place, target),
        threads=timings[0].threads,
    )


def _times(timing: Timing, store: ArrayStore) -> figures.Times:
    return figures.Times(
        title=words.way_title(timing.way),
        int8=timing.way.variant.precision == "int8",
        samples_ms=np.asarray(store.get_array(timing.samples_ms), np.float64).ravel(),  # (S * R,)
    )


def _agreements(outcome: Outcome, target: Judged) -> tuple[Agreement, ...]:
    found = {(each.first, each.second): each for one in observed_for(outcome, target) for each in one.agreements}
    return tuple(
        each for each in found.values() if is_of(each.first.variant, target) and is_of(each.second.variant, target)
    )


def _measurements(outcome: Outcome, target: Judged, rows: Sequence[RunRow]) -> tuple[tuple[str, MeasurementPart], ...]:
    titles = {variant.key: words.artifact_title(variant) for variant in (row.way.variant for row in rows)}
    return tuple((titles.get(each.artifact, each.artifact), each) for each in measurements_of(outcome, target))


# ── the task's figures ──────────────────────────────────────────────────────────────────────────────────────────────


def looked_views(looked: Sequence[Looked], store: ArrayStore) -> tuple[LookedView, ...]:
    """Draw the figures of every pair of files."""
    return tuple(
        LookedView(
            targets=each.targets,
            titles=each.titles,
            samples=each.samples,
            figures=draw(each.figures, store, f"t{number}"),
        )
        for number, each in enumerate(looked)
    )


# ── layers and training ─────────────────────────────────────────────────────────────────────────────────────────────


def layers_views(outcome: Outcome) -> tuple[LayersView, ...]:
    """Gather the layers, once for every set of weights."""
    by_bits: dict[int, list[Judged]] = {}
    for target in outcome.targets:
        by_bits.setdefault(target.weight_bits, []).append(target)
    return tuple(_layers_view(outcome, bits, targets) for bits, targets in by_bits.items())


def _layers_view(outcome: Outcome, bits: int, targets: Sequence[Judged]) -> LayersView:
    rows = layer_rows(outcome, bits, targets[0])
    quantized = outcome.quantized.get(bits)
    return LayersView(
        targets=tuple(target.target for target in targets),
        weight_bits=bits,
        rows=rows,
        largest_share=max((row.macs_share for row in rows), default=0) or 1,
        largest_output=max((row.output_values for row in rows), default=1),
        parameters=sum(row.parameters for row in rows),
        macs=sum(row.macs for row in rows),
        worst=worst_layers(quantized.layers) if quantized else (),
        quantized=quantized,
        float_ops=tuple(dict.fromkeys(op for each in _int8_files(outcome, bits) for op in each.float_ops)),
        executed=tuple(
            (words.full_way(way), nodes, sentences.coverage(nodes))
            for way, nodes in executed_int8(outcome, targets[0]).items()
        ),
        saturation=_saturation(outcome, bits),
        saturation_matters=any(sentences.saturates(target) for target in targets),
    )


def _int8_files(outcome: Outcome, bits: int) -> tuple[Exported, ...]:
    return tuple(each for each in export_set(outcome, bits).files if each.variant.precision == "int8")


def _saturation(outcome: Outcome, bits: int) -> tuple[SaturationRow, ...]:
    found = (each for one in outcome.observed for each in one.saturation if each.variant.weight_bits == bits)
    return next((each.rows for each in found), ())


def training_view(outcome: Outcome) -> TrainingView:
    """Gather curves, transfer and pruning; what a run did not do is None."""
    metric, stages = outcome.metric, training_stages(outcome)
    points = outcome.finetuned.transfer if outcome.finetuned else ()
    best = max if metric.higher_is_better else min
    return TrainingView(
        stages=tuple((stage, best(epoch.val_metric for epoch in stage.epochs)) for stage in stages),
        curves=figures.learning_curves(stages, metric) if stages else None,
        transfer=figures.transfer(points, metric) if points else None,
        pruning=figures.pruning(outcome.pruned.steps) if outcome.pruned and outcome.pruned.steps else None,
    )


def training_stages(outcome: Outcome) -> tuple[figures.Curve, ...]:
    """Return the epochs of every stage that trained; those of its start are not its own."""
    several = len(outcome.quantized) > 1
    histories = [
        ("train", False, outcome.trained.history if outcome.trained else ()),
        ("finetune", False, outcome.finetuned.checkpoint.history if outcome.finetuned else ()),
        ("prune", False, outcome.pruned.checkpoint.history if outcome.pruned else ()),
    ]
    histories += [
        (f"int8 w{bits}" if several else "quantize", True, each.checkpoint.history)
        for bits, each in sorted(outcome.quantized.items(), reverse=True)
    ]
    stages: list[figures.Curve] = []
    known: set[Epoch] = set()
    for name, is_int8, history in histories:
        own = tuple(epoch for epoch in history if epoch not in known)
        known.update(history)
        if own:
            stages.append(figures.Curve(name=name, epochs=own, int8=is_int8))
    return tuple(stages)
