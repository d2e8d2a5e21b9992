"""What ``karui inspect`` shows: a table of layers with a chart of their costs, totals, what deserves a look."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter
from rich.console import Console

from pipeline.inspecting.layers import Inspected, Layer
from pipeline.inspecting.timed import OnTarget, Timed
from pipeline.report import words
from pipeline.report.paper import Paper
from pipeline.report.svg import FLOAT, INT8, drawing, figure, quiet_axes, standalone, to_svg
from pipeline.visible import shown_text

_BAR_CELLS = 12
_NAMED = 4  # so many layers are named with one reason
_BAR_PT, _HEAD_PT, _WIDTH_PT = 13.0, 60.0, 560.0
_MOST_BARS = 120  # the costly ones of a deeper network


def print_inspected(found: Inspected, console: Console, there: Sequence[OnTarget] = ()) -> None:
    """Print the layers, totals, why some stay float, times on targets, and advice."""
    paper = Paper(console=console)
    paper.line(f"{found.subject}: input {_inputs(found)}", "bold")
    _print_layers(paper, found, [timed for each in there for timed in each.timed if timed.layers_ms])
    for line in _totals(found):
        paper.line(line)
    for line in _latencies(there):
        paper.line(line)
    for line in _floats(found.layers):
        paper.line(line)
    if found.advice:
        paper.line()
    for each in found.advice:
        paper.line(f"! {each.layer}: {each.what}" if each.layer else f"! {each.what}", "yellow")
        paper.line(each.remedy, indent=2)


def _inputs(found: Inspected) -> str:
    return ", ".join(words.shape(shape) or "1" for shape in found.input_shapes)


def _print_layers(paper: Paper, found: Inspected, timed: Sequence[Timed]) -> None:
    table = paper.table(
        ("layer", "fold"),
        ("op", "fold"),
        ("output", "right"),
        ("params", "right"),
        ("MACs", "right"),
        ("cost", "left"),
        ("output\nmemory", "right"),
        ("peak", "right"),
        ("runs", "left"),
        *((_column(each, timed), "right") for each in timed),
    )
    largest = max((layer.macs for layer in found.layers), default=0) or 1
    for place, layer in enumerate(found.layers):
        paper.row(
            table,
            layer.name,
            layer.op,
            words.shape(layer.output_shape),
            words.count(layer.parameters) if layer.parameters else "",
            words.count(layer.macs) if layer.macs else "",
            "█" * round(_BAR_CELLS * layer.macs / largest),
            words.size(layer.activation_bytes),
            words.size(layer.peak_bytes),
            _runs(layer),
            *(words.milliseconds(each.layers_ms[place]) if each.layers_ms[place] else "" for each in timed),
            style="yellow" if layer.why_float else "",
        )
    paper.print(table)


def _runs(layer: Layer) -> str:
    return "int8" if layer.integer else "float"


def _column(each: Timed, timed: Sequence[Timed]) -> str:
    """Name the column of a target's times; of one target its name stands below the table."""
    ms = f"ms\n{each.precision}"
    return ms if len({other.target for other in timed}) == 1 else f"{each.target}\n{ms}"


def _latencies(there: Sequence[OnTarget]) -> list[str]:
    """Say what an inference is estimated to take on each target, in each precision."""
    lines = []
    for target in there:
        if target.why_not:
            lines.append(f"{target.target}: no estimate: {target.why_not}")
        for each in target.timed:
            millions, ms = f"about {each.instructions / 1e6:.3g} M instructions", each.latency_ms
            said = f"{millions}; {each.basis}"
            if ms is not None:
                between = f"{words.milliseconds(ms.low)}–{words.milliseconds(ms.high)}"
                said = f"{words.milliseconds(ms.value)} ms ({between}, estimated from {said})"
            lines.append(f"{each.target}, {each.precision} in {each.runtime}: {said}")
    return lines


def _totals(found: Inspected) -> list[str]:
    layers = f"{words.plural(len(found.layers), 'layer')}, {words.count(found.parameters)} parameters"
    costs = f"{words.count(found.macs)} MACs, {words.size(found.parameter_bytes)} of weights"
    memory = f"{words.size(found.peak_bytes)} of activations at most"
    integers = f"{found.integer_layers} of {words.plural(len(found.layers), 'layer')}"
    runs = f"{integers} {'would run' if found.kind == 'network' else 'run'} on 8-bit integers"
    quantized = found.kind == "network" or found.integer_layers
    return [f"{layers}; {costs}; {memory}", runs if quantized else "a float file: no layer runs on integers"]


def _floats(layers: Sequence[Layer]) -> list[str]:
    """Say what stays float, one line for each reason and operation."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for layer in layers:
        if layer.why_float:
            reasons.setdefault((layer.op, layer.why_float), []).append(layer.name)
    lines = []
    for (op, why), names in reasons.items():
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        lines.append(f"float: {op} in {', '.join(names[:_NAMED])}{more}: {why}")
    return lines


def inspected_json(found: Inspected, there: Sequence[OnTarget] = ()) -> str:
    """Return all of it as one JSON document."""
    totals = {name: getattr(found, name) for name in ("parameters", "macs", "peak_bytes", "integer_layers")}
    plain = asdict(found)
    layers, advice = plain.pop("layers"), plain.pop("advice")
    for layer in layers:
        del layer["works"]
    targets = {"targets": [asdict(each) for each in there]} if there else {}
    document = {**plain, **totals, **targets, "layers": layers, "advice": advice}
    return json.dumps(document, ensure_ascii=False, indent=2)


# ── the chart ───────────────────────────────────────────────────────────────────────────────────────────────────────


def inspected_svg(found: Inspected, there: Sequence[OnTarget] = ()) -> str:
    """Draw multiply-accumulates, memory and times of each layer, one bar each, as an SVG file."""
    layers = [layer for layer in found.layers if layer.macs or layer.activation_bytes == found.peak_bytes]
    if len(layers) > _MOST_BARS:
        costly = sorted(layers, key=lambda layer: layer.macs, reverse=True)[:_MOST_BARS]
        layers = [layer for layer in layers if layer in costly]
    with drawing():
        drawn = figure(_HEAD_PT + _BAR_PT * max(len(layers), 1), _WIDTH_PT)
        timed = [each for target in there for each in target.timed if each.layers_ms]
        costs, memory, *times = drawn.subplots(1, 2 + len(timed), sharey=True)
        _bars(costs, layers, [layer.macs for layer in layers], "MACs", words.count)
        _bars(memory, layers, [layer.peak_bytes for layer in layers], "memory of activations", words.size)
        for axes, each in zip(times, timed, strict=True):
            own = dict(zip([layer.name for layer in found.layers], each.layers_ms, strict=True))
            _bars(axes, layers, [own[layer.name] for layer in layers], f"ms, {each.precision}\n{each.target}", _short)
        costs.set_yticks(range(len(layers)), [shown_text(f"{layer.name} ({layer.op})") for layer in layers])
        costs.invert_yaxis()
        title = f"{found.subject}: what each layer costs"
        return standalone(to_svg(drawn, "inspected", title, details="; ".join((*_totals(found), *_latencies(there)))))


def _short(value: float) -> str:
    return f"{value:g}"


def _bars(axes: Axes, layers: Sequence[Layer], values: Sequence[float], title: str, text: object) -> None:
    colours = [INT8 if layer.integer else FLOAT for layer in layers]
    axes.barh(range(len(layers)), values, color=colours, height=0.7)
    axes.set_title(title, fontsize="medium", loc="left")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: text(value)))  # type: ignore[operator]
    axes.grid(axis="y", visible=False)
    axes.margins(y=0.5 / max(len(layers), 1))
    axes.locator_params(axis="x", nbins=4)
    quiet_axes(axes)
