"""What ``karui validate`` found out, as lines for people."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.artifacts.evidence import Metric
from pipeline.artifacts.validation import ByModel, FileFacts, OnTarget, There
from pipeline.report import words


def lines_of(found: FileFacts) -> Iterator[str]:
    """Say what was found out about a file, and how it stands to the target's limits."""
    metric, low, high = found.metric, found.metric.text(found.value.low), found.metric.text(found.value.high)
    yield f"{found.file} in {found.runtime}, on {found.machine}"
    sure = f"95 % interval {low} … {high}, {found.samples} samples"
    yield f"{metric.name:<16}{metric.text(found.value.value)}  ({sure})"
    if found.comparison:
        lost = metric.worse_by_points(found.comparison.value_int8, found.comparison.value_float)
        unit = "pp" if metric.unit == "share" else "%"
        same = f"same decision on {100 * found.comparison.agreement:.1f} %"
        yield f"{'against float':<16}{lost:+.2f} {unit} worse, {same}"
    yield f"{'integer nodes':<16}{found.integer_nodes} of {found.nodes}"
    kinds = sorted(set(found.float_nodes.values()))
    if found.integer_nodes and kinds:
        yield f"{'float nodes':<16}{', '.join(kinds)}"
    longer = f", {found.times_as_long:.2f} times as long as the float file" if found.times_as_long else ""
    yield f"{'latency':<16}p50 {found.latency_p50_ms:.3g} ms, p95 {found.latency_p95_ms.value:.3g} ms{longer}"
    yield f"{'size':<16}{words.size(found.size_bytes)}"
    if found.peak_memory_bytes is not None:
        yield f"{'peak memory':<16}{words.size(found.peak_memory_bytes)} more than the runtime alone"
    if found.there:
        yield from _there(metric, found.there)
    if found.by_model:
        yield _by_model(found.by_model)
    if found.on_target:
        yield from _on_target(found.on_target, found.there)
    for check in found.checks:
        asked, got = words.check_limit(check), words.check_got(check)
        yield f"{words.check_sign(check)} {check.name}: {got}, asked {asked}: {words.check_word(check)}"
    for hint in found.hints:
        yield f"Hint: {hint}"


def _by_model(found: ByModel) -> str:
    """Say how long it is estimated to take on the target, without an emulator."""
    ms = found.latency_ms
    between = f"{words.milliseconds(ms.low)}–{words.milliseconds(ms.high)}, {found.place.text}; {found.basis}"
    return f"{'latency there':<16}{words.milliseconds(ms.value)} ms ({between})"


def _there(metric: Metric, there: There) -> Iterator[str]:
    """Say what the target's own processor answered, beside this machine, and how long that takes."""
    samples = f"all {there.samples}" if there.samples == there.of else f"{there.samples} of {there.of}, drawn"
    far = "" if there.identical == 1 else f", at most {there.max_steps:.3g} steps apart"
    same = (
        f"same decision on {words.percent(there.same)}, {words.percent(there.identical)} of the numbers identical{far}"
    )
    yield f"{'emulated':<16}{metric.text(there.value.value)} on {there.place.name}, {samples} samples: {same}"
    if there.latency_ms and there.instructions:
        ms, millions = there.latency_ms, there.instructions / 1e6
        between = f"{words.milliseconds(ms.low)}–{words.milliseconds(ms.high)}"
        rests = f"estimated from {millions:.3g} M instructions; {there.basis}"
        yield f"{'latency there':<16}{words.milliseconds(ms.value)} ms ({between}, {rests})"
    elif there.basis:
        yield f"{'latency there':<16}not estimated: {there.basis}"
    if there.does_not_fit:
        yield f"{'memory there':<16}{there.does_not_fit}"
    elif there.peak_memory_bytes is not None:
        size = words.size(there.peak_memory_bytes)
        yield f"{'memory there':<16}{size} more than the runtime alone, on {there.machine}"
    elif there.machine:
        yield f"{'memory there':<16}not known: {there.machine}"


def _on_target(found: OnTarget, there: There | None) -> Iterator[str]:
    """Say what was measured on the target itself, and how that stands to what was estimated."""
    p50, p95 = (f"{words.milliseconds(each.value)} ms" for each in (found.latency_p50_ms, found.latency_p95_ms))
    where = f"{found.place.name}, {words.plural(found.threads, 'thread')}"
    beside = ""
    if there and there.latency_ms:
        beside = f", {found.latency_p50_ms.value / there.latency_ms.value:.2f} times the estimate"
    yield f"{'measured there':<16}p50 {p50}, p95 {p95}{beside} ({where}; {found.basis})"
    if found.peak_memory_bytes is not None:
        yield f"{'memory there':<16}{words.size(found.peak_memory_bytes)} more than the runtime alone"
