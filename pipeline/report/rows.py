"""The computed tables of a run: one row per way of running it, one per layer.  Nothing here reads a file."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pipeline.artifacts.evidence import (
    Answered,
    Compared,
    ExecutedOp,
    Measurement,
    Observed,
    Place,
    Quantity,
    Timing,
)
from pipeline.artifacts.files import ExportSet, Variant, Way
from pipeline.artifacts.outcome import Judged, Outcome
from pipeline.artifacts.training import LayerQuality
from pipeline.declare.words import Precision
from pipeline.judging.case import in_order_of_weight

LATENCIES: tuple[Quantity, ...] = ("latency_p50_ms", "latency_p95_ms")


@dataclass(frozen=True, kw_only=True)
class RunRow:
    """One way of running the network on the whole test split."""

    way: Way
    version: str
    value: float  # the task's metric, as low and high: its 95 % interval
    low: float
    high: float
    size_bytes: int | None  # None: no file of its own (torch)
    p50: Measurement | None  # that stand for the target; another machine's only where nothing does
    p95: Measurement | None
    memory: Measurement | None
    same: float | None  # share of test inputs with the decision of the fake-quantized network

    @property
    def label(self) -> str:
        """``onnxruntime 1.32.0``."""
        return f"{self.way.program} {self.version}".rstrip()


@dataclass(frozen=True, kw_only=True)
class LayerRow:
    """One layer: what it costs, how well it stands 8 bits, what it runs as."""

    layer: str
    op: str
    output_shape: tuple[int, ...]
    output_values: int
    parameters: int
    macs: int
    macs_share: float  # of the network's, 0 … 1
    weight_sqnr_db: float | None
    activation_sqnr_db: float | None
    output_sqnr_db: float | None
    planned: Precision | None  # what quantization meant it to be; None: unknown
    runs: Precision | None  # what the runtime executes; None: no node of its own (fused into a neighbour)
    executed_op: str
    reason: str  # why float, where it is float


# ── what belongs to a target ────────────────────────────────────────────────────────────────────────────────────────


def is_of(variant: Variant, target: Judged) -> bool:
    """Tell whether a target can be given this network: float, or int8 with its width of weights."""
    return variant.precision == "fp32" or variant.weight_bits == target.weight_bits


def answers_of(outcome: Outcome, target: Judged) -> tuple[Answered, ...]:
    """Return all ways of running the target's networks, each once: before pruning first, then torch, then the files."""
    found: dict[Way, Answered] = {}
    for each in (*(each.answered for each in outcome.predicted), *_observed_answers(outcome, target)):
        if is_of(each.way.variant, target):
            found.setdefault(each.way, each)
    order = list(dict.fromkeys(each.way for one in outcome.observed for each in one.answers))
    by_file = sorted(found.values(), key=lambda each: order.index(each.way) if each.way in order else -1)
    return tuple(sorted(by_file, key=lambda each: not each.way.variant.unpruned))


def _observed_answers(outcome: Outcome, target: Judged) -> Iterator[Answered]:
    for one in observed_for(outcome, target):
        yield from one.answers


def observed_for(outcome: Outcome, target: Judged) -> tuple[Observed, ...]:
    """Return what was observed, in the order in which it counts for the target."""
    return in_order_of_weight(outcome.observed, target.target)


def emulated_of(outcome: Outcome, target: Judged) -> Observed | None:
    """Return what the target's own processor answered, emulated; None where nobody asked it."""
    found = (each for each in outcome.observed if each.place.profile == target.target)
    return next((each for each in found if each.place.how == "emulated" and each.answers), None)


def comparison_of(outcome: Outcome, target: Judged) -> Compared | None:
    """Return the target's comparison in the task's own metric."""
    for each in (compared for one in observed_for(outcome, target) for compared in one.comparisons):
        if (each.first, each.second) == target.compared and each.metric == outcome.metric.name:
            return each
    return None


def widths(outcome: Outcome) -> tuple[int, ...]:
    """Return the weight bits of the int8 networks, the widest first; 32 alone where there is no int8."""
    found = {each.weight_bits for each in outcome.exports if each.precision == "int8"}
    return tuple(sorted(found or {each.weight_bits for each in outcome.exports}, reverse=True))


def export_set(outcome: Outcome, bits: int) -> ExportSet:
    """Return the int8 files with so many weight bits, the float ones where there are none."""
    int8 = [each for each in outcome.exports if each.precision == "int8" and each.weight_bits == bits]
    return (int8 or list(outcome.exports))[0]


def baselines_of(outcome: Outcome) -> dict[str, float]:
    """Return what the task's metric is without looking at the inputs, by name."""
    return outcome.predicted[0].baselines if outcome.predicted else {}


# ── ways of running ─────────────────────────────────────────────────────────────────────────────────────────────────


def run_rows(outcome: Outcome, target: Judged) -> tuple[RunRow, ...]:
    """Return one row per way of running the target's networks."""
    sizes = {each.variant: each.size_bytes for each in outcome.compared_files}
    numbers = {quantity: shown(outcome, target, quantity) for quantity in (*LATENCIES, "peak_memory_bytes")}
    return tuple(
        RunRow(
            way=each.way,
            version=each.version,
            value=each.value,
            low=each.low,
            high=each.high,
            size_bytes=sizes.get(each.way.variant),
            p50=numbers["latency_p50_ms"].get(each.way),
            p95=numbers["latency_p95_ms"].get(each.way),
            memory=numbers["peak_memory_bytes"].get(each.way),
            same=same_as_trained(outcome, each.way),
        )
        for each in answers_of(outcome, target)
    )


def told_apart(rows: Iterable[RunRow]) -> bool:
    """Tell whether any 95th percentile is another number than the median: an estimate knows no bad moments."""
    return any(row.p50 and row.p95 and row.p50.value != row.p95.value for row in rows)


def stage_rows(outcome: Outcome, target: Judged) -> dict[str, RunRow]:
    """Return what became of the network, stage → its file in the target's runtime: trained, pruned, int8."""
    rows = {row.way: row for row in run_rows(outcome, target)}
    candidates = [rows[way] for way in target.candidates if way in rows]
    floats = [row for row in candidates if row.way.variant.precision == "fp32"]
    before = [
        row
        for row in rows.values()
        if row.way.variant.unpruned and row.way.program in {each.way.program for each in floats}
    ]
    named = {"trained": before[:1] or floats, "pruned": floats if before else []}
    named |= {"int8": [row for row in candidates if row.way.variant.precision == "int8"]}
    return {stage: found[0] for stage, found in named.items() if found}


def since_training(outcome: Outcome, target: Judged) -> Compared | None:
    """Return the comparison of what ships, or else could ship, with the network before pruning; None without that."""
    wanted = [target.verdict.ship, *reversed(target.candidates)]
    found = {
        each.second: each
        for one in observed_for(outcome, target)
        for each in one.comparisons
        if each.first.variant.unpruned and each.metric == outcome.metric.name
    }
    return next((found[way] for way in wanted if way in found), None)


def shown(outcome: Outcome, target: Judged, quantity: Quantity) -> dict[Way, Measurement]:
    """Return the numbers that a target's table shows: its own, and another machine's only where it has none at all.

    Latencies belong together: one of the target's own keeps all of another machine's out.
    """
    together = LATENCIES if quantity in LATENCIES else (quantity,)
    if any(each.quantity in together for each in target.measurements):
        return {each.way: each for each in target.measurements if each.quantity == quantity}
    for one in outcome.observed:
        found = with_threads(one, target, quantity)
        if found:
            return {each.way: each for each in found}
    return {}


def with_threads(observed: Observed, target: Judged, quantity: Quantity) -> tuple[Measurement, ...]:
    """Return one number of each of the target's files: with its number of threads, or the nearest that there is."""
    best: dict[Way, Measurement] = {}
    own = [each for each in observed.measurements if each.quantity == quantity and is_of(each.way.variant, target)]
    for each in sorted(own, key=lambda each: abs(each.threads - target.threads)):
        best.setdefault(each.way, each)
    return tuple(each for each in own if each is best[each.way])


def timings_of(outcome: Outcome, target: Judged) -> tuple[Place, tuple[Timing, ...]] | None:
    """Return the times behind the latencies that the table shows, and where they were taken."""
    places = {
        (each.place.how, each.place.name): each.place for each in shown(outcome, target, "latency_p50_ms").values()
    }
    for one in outcome.observed:
        own = [each for each in one.timings if is_of(each.way.variant, target)]
        # the same place stands in the target's numbers with the target's name on it
        place = places.get((one.place.how, one.place.name))
        if place and own:
            nearest = min((each.threads for each in own), key=lambda threads: abs(threads - target.threads))
            return place, tuple(each for each in own if each.threads == nearest)
    return None


def same_as_trained(outcome: Outcome, way: Way) -> float | None:
    """Return on which share of the test inputs an int8 file decides as the network that was trained."""
    trained = [each.answered.way for each in outcome.predicted if each.answered.way.variant.precision == "int8"]
    sides = [{each, way} for each in trained if each != way and each.variant.weight_bits == way.variant.weight_bits]
    pairs = (pair for one in outcome.observed for pair in one.agreements)
    return next((pair.same for pair in pairs if {pair.first, pair.second} in sides), None)


# ── layers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def layer_rows(outcome: Outcome, bits: int, target: Judged | None = None) -> tuple[LayerRow, ...]:
    """Return one row per layer of the files with ``bits`` weight bits, in order, as they run on ``target``."""
    quantized = outcome.quantized.get(bits)
    quality = {each.layer: each for each in quantized.layers} if quantized else {}
    dropped = set(quantized.float_layers) if quantized else set()
    costs = export_set(outcome, bits).layers
    total = sum(each.macs for each in costs) or 1
    nodes_of = _nodes_by_layer([each.layer for each in costs], main_executed(outcome, target) if target else ())
    rows = []
    for cost in costs:
        known = quality.get(cost.layer)
        nodes = nodes_of.get(cost.layer, [])
        rows.append(
            LayerRow(
                layer=cost.layer,
                op=cost.op,
                output_shape=cost.output_shape,
                output_values=math.prod(cost.output_shape),
                parameters=cost.parameters,
                macs=cost.macs,
                macs_share=cost.macs / total,
                weight_sqnr_db=known.weight_sqnr_db if known else None,
                activation_sqnr_db=known.activation_sqnr_db if known else None,
                output_sqnr_db=known.output_sqnr_db if known else None,
                planned=known.precision if known else None,
                runs=("int8" if all(node.integer for node in nodes) else "fp32") if nodes else None,
                executed_op=" + ".join(node.op for node in nodes),
                reason=_why_float(nodes, dropped=cost.layer in dropped),
            )
        )
    return tuple(rows)


def executed_int8(outcome: Outcome, target: Judged) -> dict[Way, tuple[ExecutedOp, ...]]:
    """Return what runtimes execute of the target's int8 files."""
    found: dict[Way, tuple[ExecutedOp, ...]] = {}
    for each in (executed for one in observed_for(outcome, target) for executed in one.executed):
        if each.way.variant.precision == "int8" and is_of(each.way.variant, target):
            found.setdefault(each.way, each.nodes)
    return found


def main_executed(outcome: Outcome, target: Judged) -> tuple[ExecutedOp, ...]:
    """Return the nodes of the graph that the table of layers shows: the int8 file that ships, or else could ship.

    Without any int8 file: empty.
    """
    int8 = executed_int8(outcome, target)
    wanted = [each for each in (target.verdict.ship, *target.candidates) if each in int8]
    return int8[wanted[0]] if wanted else next(iter(int8.values()), ())


def _nodes_by_layer(layers: list[str], executed: tuple[ExecutedOp, ...]) -> dict[str, list[ExecutedOp]]:
    """Runtimes keep a layer's name and put their own behind it: ``stages.0.conv`` → ``stages.0.conv_quant``.

    A node belongs to the layer with the longest name that its own name is or begins with.
    """
    found: dict[str, list[ExecutedOp]] = {}
    for node in executed:
        fitting = [each for each in layers if re.match(rf"/?{re.escape(each)}(?![A-Za-z0-9.])", node.name)]
        found.setdefault(max(fitting, key=len, default=""), []).append(node)
    return found


def _why_float(nodes: list[ExecutedOp], *, dropped: bool) -> str:
    if dropped:
        return "back to float: the margin was missed with it"
    return "; ".join(dict.fromkeys(node.reason for node in nodes if not node.integer and node.reason))


def worst_layers(quality: Iterable[LayerQuality], count: int = 3) -> tuple[LayerQuality, ...]:
    """Return the layers that disturb the network's output most when quantized alone, worst first."""
    return tuple(sorted(quality, key=lambda each: each.output_sqnr_db)[:count])
