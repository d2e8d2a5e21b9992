"""What the page shows, gathered from a run and its arrays; the template only lays it out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from pipeline.artifacts import Digest, Epoch, ExecutedOp, LayerQuality, Outcome, Quantized, SaturationRow, Validated
from pipeline.report import figures, sentences, words
from pipeline.report.evidence import ArrayStore, Evidence, Indices, Prediction, Samples, compared_columns, gather
from pipeline.report.picture import is_picture, picture_uris, shown_width_px
from pipeline.report.rows import LayerRow, RunRow, layer_rows, run_rows, worst_layers
from pipeline.report.svg import INT8
from pipeline.report.table import way_title

DISAGREEMENTS_SHOWN = 48
SHARED_ERRORS_SHOWN = 16
_CONFUSIONS_SHOWN = 12
_VALUES_SHOWN = 16  # of a table's row


@dataclass(frozen=True, kw_only=True)
class InputView:
    """One test input; ``picture`` is a data URI, ``values`` a row's numbers (one of them is empty)."""

    index: int
    true: str
    by_float: str
    by_int8: str
    float_right: bool
    int8_right: bool
    picture: str
    values: str


@dataclass(frozen=True, kw_only=True)
class ConfusedPair:
    """How often a class is taken for another one."""

    true: str
    predicted: str
    by_float: int
    by_int8: int | None


@dataclass(frozen=True, kw_only=True)
class EvidenceView:
    """Confusion matrices and telling inputs of one pair of float and int8 files."""

    targets: tuple[str, ...]
    float_title: str
    int8_title: str  # empty without int8
    samples: int
    matrix_float: Markup
    matrix_int8: Markup | None
    matrix_difference: Markup | None  # None where nothing differs
    pairs: tuple[ConfusedPair, ...]
    disagreements: tuple[InputView, ...]
    disagreements_in_all: int
    shared_errors: tuple[InputView, ...]
    shared_errors_in_all: int
    picture_width_px: int
    per_class: tuple[tuple[str, int, float, float | None], ...]


@dataclass(frozen=True, kw_only=True)
class WayView:
    """One row of the table of all ways of running."""

    row: RunRow
    title: str
    ship: bool
    interval_left: float  # in percent of the widest span of all rows
    interval_width: float
    interval_dot: float


@dataclass(frozen=True, kw_only=True)
class TargetView:
    """What is shown for one target."""

    found: Validated
    weight_bits: int
    ways: tuple[WayView, ...]
    best: RunRow | None  # the way that ships
    float_way: RunRow | None  # what it is compared with: the float file of the same format
    sentences: tuple[str, ...]
    margin_pp: float | None
    difference: Markup | None
    latencies: Markup | None
    latency_note: str
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

    stages: tuple[figures.Stage, ...]
    curves: Markup | None
    transfer: Markup | None
    pruning: Markup | None


# ── targets ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def target_view(outcome: Outcome, target: Validated, store: ArrayStore, number: int) -> TargetView:
    """Gather one target; ``number`` keeps the ids of its figures apart."""
    rows = run_rows(outcome, target)
    margin = sentences.margin_pp(target)
    best = next((row for row in rows if row.artifact == target.verdict.ship), None)
    twin = best.artifact.replace("int8", "fp32") if best else ""
    times = [
        (way_title(each.artifact, each.runtime), np.asarray(store.get_array(each.samples_ms), np.float64))
        for each in target.latencies
    ]
    times = [(title, samples) for title, samples in times if samples.size]
    return TargetView(
        found=target,
        weight_bits=outcome.target_bits[target.target],
        ways=_ways(rows, target.verdict.ship),
        best=best,
        float_way=next((row for row in rows if row.artifact == twin and row is not best), None),
        sentences=sentences.comparison_sentences(target.comparison, margin) if target.comparison else (),
        margin_pp=margin,
        difference=figures.difference(target.comparison, margin, f"d{number}") if target.comparison else None,
        latencies=figures.latencies(times, f"l{number}") if times else None,
        latency_note=sentences.latency_note(target),
        not_measured=sentences.not_measured(target),
    )


def _ways(rows: Sequence[RunRow], ship: str | None) -> tuple[WayView, ...]:
    low, high = min((row.low for row in rows), default=0), max((row.high for row in rows), default=1)
    scale = 100 / (high - low or 1)
    return tuple(
        WayView(
            row=row,
            title=words.artifact_title(row.artifact),
            ship=row.artifact == ship,
            interval_left=scale * (row.low - low),
            interval_width=scale * (row.high - row.low),
            interval_dot=scale * (row.accuracy - low),
        )
        for row in rows
    )


# ── evidence ────────────────────────────────────────────────────────────────────────────────────────────────────────


def evidence_views(outcome: Outcome, store: ArrayStore, samples: Samples) -> tuple[EvidenceView, ...]:
    """Gather matrices and inputs, once for all targets that saw the very same outputs."""
    groups: dict[tuple[Digest, ...], list[Validated]] = {}
    for target in outcome.targets:
        outputs = tuple(column.outputs for column in compared_columns(target) if column)
        groups.setdefault(outputs, []).append(target)
    views = []
    for number, targets in enumerate(groups.values()):
        evidence = gather(targets[0], store, samples)
        if evidence:
            views.append(_evidence_view(evidence, targets, samples, number))
    return tuple(views)


def _evidence_view(evidence: Evidence, targets: Sequence[Validated], samples: Samples, number: int) -> EvidenceView:
    names = samples.class_names
    by_float = evidence.confusion(evidence.by_float)  # (K, K)
    by_int8 = None if evidence.by_int8 is None else evidence.confusion(evidence.by_int8)
    differing, shared = evidence.disagreements(), evidence.shared_errors()
    changed = by_int8 is not None and bool((by_int8 != by_float).any())
    shown = _inputs((*differing[:DISAGREEMENTS_SHOWN], *shared[:SHARED_ERRORS_SHOWN]), samples)
    split = min(len(differing), DISAGREEMENTS_SHOWN)
    return EvidenceView(
        targets=tuple(target.target for target in targets),
        float_title=words.artifact_title(evidence.float_artifact),
        int8_title=words.artifact_title(evidence.int8_artifact) if evidence.int8_artifact else "",
        samples=len(evidence.labels),
        matrix_float=figures.confusion(by_float, names, f"cf{number}"),
        matrix_int8=None if by_int8 is None else figures.confusion(by_int8, names, f"ci{number}", INT8),
        matrix_difference=figures.confusion_difference(by_int8 - by_float, names, f"cd{number}")
        if by_int8 is not None and changed
        else None,
        pairs=_confused_pairs(by_float, by_int8, names),
        disagreements=shown[:split],
        disagreements_in_all=len(differing),
        shared_errors=shown[split:],
        shared_errors_in_all=len(shared),
        picture_width_px=_picture_width_px(samples),
        per_class=targets[0].per_class,
    )


def _picture_width_px(samples: Samples) -> int:
    first = samples.read(np.arange(1))
    return shown_width_px(first.shape[-1]) if is_picture(first.shape[1:]) else 0


def _confused_pairs(by_float: Indices, by_int8: Indices | None, names: Sequence[str]) -> tuple[ConfusedPair, ...]:
    """List the pairs of classes that are confused most, float and int8 together."""
    together = by_float + (0 if by_int8 is None else by_int8)
    np.fill_diagonal(together, 0)
    order = np.argsort(-together, axis=None, kind="stable")[:_CONFUSIONS_SHOWN]
    places = [divmod(int(flat), len(names)) for flat in order if together.flat[flat] > 0]
    return tuple(
        ConfusedPair(
            true=names[true],
            predicted=names[predicted],
            by_float=int(by_float[true, predicted]),
            by_int8=None if by_int8 is None else int(by_int8[true, predicted]),
        )
        for true, predicted in places
    )


def _inputs(chosen: Sequence[Prediction], samples: Samples) -> tuple[InputView, ...]:
    if not chosen:
        return ()
    raw = samples.read(np.asarray([each.index for each in chosen], np.int64))  # (M, …)
    pictures = picture_uris(raw) if is_picture(raw.shape[1:]) else ("",) * len(raw)
    names = samples.class_names
    return tuple(
        InputView(
            index=each.index,
            true=names[each.true],
            by_float=names[each.by_float],
            by_int8=names[each.by_int8],
            float_right=each.by_float == each.true,
            int8_right=each.by_int8 == each.true,
            picture=picture,
            values="" if picture else _values(sample),
        )
        for each, picture, sample in zip(chosen, pictures, raw, strict=True)
    )


def _values(sample: Indices) -> str:
    flat = sample.reshape(-1)
    more = f", … ({flat.size} values)" if flat.size > _VALUES_SHOWN else ""
    return ", ".join(f"{value:.4g}" for value in flat[:_VALUES_SHOWN]) + more


# ── layers and training ─────────────────────────────────────────────────────────────────────────────────────────────


def layers_views(outcome: Outcome) -> tuple[LayersView, ...]:
    """Gather the layers, once for every set of weights."""
    by_bits: dict[int, list[Validated]] = {}
    for target in outcome.targets:
        by_bits.setdefault(outcome.target_bits[target.target], []).append(target)
    return tuple(_layers_view(outcome, bits, targets) for bits, targets in by_bits.items())


def _layers_view(outcome: Outcome, bits: int, targets: Sequence[Validated]) -> LayersView:
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
        float_ops=tuple(
            dict.fromkeys(
                op for each in outcome.exports[bits].files if each.precision == "int8" for op in each.float_ops
            )
        ),
        executed=tuple(
            (words.artifact_title(artifact), nodes, sentences.coverage(nodes))
            for artifact, nodes in targets[0].executed.items()
            if "int8" in artifact
        ),
        saturation=next((target.saturation for target in targets if target.saturation), ()),
        saturation_matters=any(sentences.saturates(target) for target in targets),
    )


def training_view(outcome: Outcome) -> TrainingView:
    """Gather curves, transfer and pruning; what a run did not do is None."""
    stages = training_stages(outcome)
    points = outcome.finetuned.transfer if outcome.finetuned else ()
    return TrainingView(
        stages=stages,
        curves=figures.learning_curves(stages) if stages else None,
        transfer=figures.transfer(points) if points else None,
        pruning=figures.pruning(outcome.pruned.steps) if outcome.pruned and outcome.pruned.steps else None,
    )


def training_stages(outcome: Outcome) -> tuple[figures.Stage, ...]:
    """Return the epochs of every stage that trained; those of its start are not its own."""
    several = len(outcome.quantized) > 1
    histories = [
        ("train", outcome.trained.history if outcome.trained else ()),
        ("finetune", outcome.finetuned.checkpoint.history if outcome.finetuned else ()),
        ("prune", outcome.pruned.checkpoint.history if outcome.pruned else ()),
    ]
    histories += [
        (f"int8 w{bits}" if several else "quantize", each.checkpoint.history)
        for bits, each in sorted(outcome.quantized.items(), reverse=True)
    ]
    stages: list[figures.Stage] = []
    known: set[Epoch] = set()
    for name, history in histories:
        own = tuple(epoch for epoch in history if epoch not in known)
        known.update(history)
        if own:
            stages.append(figures.Stage(name=name, epochs=own))
    return tuple(stages)
