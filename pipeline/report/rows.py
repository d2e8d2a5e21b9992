"""The computed tables of a run: one row per way of running it, one per layer.  Nothing here reads a file."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.artifacts import Column, ExecutedOp, How, LayerQuality, Measurement, Outcome, Validated
from pipeline.spec import Precision

_HOW_FIRST: tuple[How, ...] = ("measured", "emulated", "estimated", "not measured")


@dataclass(frozen=True, kw_only=True)
class RunRow:
    """One way of running the network on the whole test split."""

    artifact: str
    runtime: str
    accuracy: float  # 0 … 1, as low and high: its 95 % interval
    low: float
    high: float
    size_bytes: int | None  # None: no file of its own (torch)
    latency_p50_ms: float | None
    latency_p95_ms: float | None
    latency_how: How
    latency_where: str
    peak_memory_bytes: float | None
    same_class: float | None  # share of test inputs with the class of the fake-quantized (int8) or float torch network


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


# ── ways of running ─────────────────────────────────────────────────────────────────────────────────────────────────


def run_rows(outcome: Outcome, target: Validated) -> tuple[RunRow, ...]:
    """Return one row per column of ``target``, in its order."""
    files = {each.key: each.size_bytes for each in outcome.exports[outcome.target_bits[target.target]].files}
    return tuple(_run_row(target, column, files.get(column.artifact)) for column in target.columns)


def _run_row(target: Validated, column: Column, size_bytes: int | None) -> RunRow:
    p50 = find_measurement(target.measurements, "latency_p50", column.artifact, column.runtime)
    p95 = find_measurement(target.measurements, "latency_p95", column.artifact, column.runtime)
    memory = find_measurement(target.measurements, "peak_memory", column.artifact, column.runtime)
    latency = p95 or p50
    return RunRow(
        artifact=column.artifact,
        runtime=column.runtime,
        accuracy=column.accuracy,
        low=column.low,
        high=column.high,
        size_bytes=size_bytes,
        latency_p50_ms=p50.value if p50 else None,
        latency_p95_ms=p95.value if p95 else None,
        latency_how=latency.how if latency else "not measured",
        latency_where=latency.where if latency else "",
        peak_memory_bytes=memory.value if memory else None,
        same_class=_same_class(target, column),
    )


def find_measurement(found: Iterable[Measurement], what: str, artifact: str, runtime: str) -> Measurement | None:
    """Return the most trustworthy measurement (measured before emulated before estimated) that has a value.

    Runtimes match by their first word: ``onnxruntime`` is ``onnxruntime 1.32.0``.
    """
    matching = [
        each
        for each in found
        if each.what == what
        and each.artifact == artifact
        and _program(each.runtime) in ("", _program(runtime))
        and each.value is not None
    ]
    return min(matching, key=lambda each: _HOW_FIRST.index(each.how), default=None)


def _same_class(target: Validated, column: Column) -> float | None:
    measured = find_measurement(target.measurements, "same_class", column.artifact, column.runtime)
    if measured:
        return measured.value
    for pair in target.agreements:
        sides = (pair.first, pair.second)
        other = [side for side in sides if not _names(side, column)]
        if len(other) == 1 and other[0].startswith("torch"):
            return pair.same_class
    return None


def _names(side: str, column: Column) -> bool:
    """Tell whether one side of an agreement (``onnx-int8``, ``tflite-int8 (litert 2.3)``) is this column."""
    rest = side.removeprefix(column.artifact)
    return rest != side and (not rest or _program(column.runtime) in rest)


def _program(runtime: str) -> str:
    return runtime.partition(" ")[0].lower()


# ── layers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def layer_rows(outcome: Outcome, bits: int, target: Validated | None = None) -> tuple[LayerRow, ...]:
    """Return one row per layer of the files with ``bits`` weight bits, in order, as they run on ``target``."""
    quantized = outcome.quantized.get(bits)
    quality = {each.layer: each for each in quantized.layers} if quantized else {}
    dropped = set(quantized.float_layers) if quantized else set()
    costs = outcome.exports[bits].layers
    total = sum(each.macs for each in costs) or 1
    nodes_of = _nodes_by_layer([each.layer for each in costs], main_executed(target) if target else ())
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


def main_executed(target: Validated) -> tuple[ExecutedOp, ...]:
    """Return the nodes of the graph that the table of layers shows: the shipped int8 file's, else the first int8 one's.

    Without any int8 file: empty.
    """
    int8 = {key: nodes for key, nodes in target.executed.items() if "int8" in key}
    if target.verdict.ship in int8:
        return int8[target.verdict.ship]
    return next(iter(int8.values()), ())


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
        return "back to float: the accuracy margin was missed with it"
    return "; ".join(dict.fromkeys(node.reason for node in nodes if not node.integer and node.reason))


def worst_layers(quality: Iterable[LayerQuality], count: int = 3) -> tuple[LayerQuality, ...]:
    """Return the layers that disturb the network's output most when quantized alone, worst first."""
    return tuple(sorted(quality, key=lambda each: each.output_sqnr_db)[:count])
