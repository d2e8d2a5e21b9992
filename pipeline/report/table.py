"""What the terminal shows of a run: the verdict at the end, the stages and layers, runs side by side.

Everything fits 80 columns and stays readable in ASCII; nothing is parsed as markup, whatever it is called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from pipeline.artifacts.evidence import Measurement, Metric, Observed
from pipeline.artifacts.outcome import Check, Judged, Outcome
from pipeline.report import sentences, words
from pipeline.report.advice import advice
from pipeline.report.compared import SideBySide
from pipeline.report.paper import Paper
from pipeline.report.rows import (
    LATENCIES,
    LayerRow,
    RunRow,
    baselines_of,
    comparison_of,
    emulated_of,
    export_set,
    is_of,
    layer_rows,
    run_rows,
    shown,
    told_apart,
    widths,
)

_BAR_CELLS = 12
_DIGEST_SHOWN = 12
_COMPARED_AT_ONCE = 3  # runs that fit beside the names of the numbers


# ── the end of `karui run` ──────────────────────────────────────────────────────────────────────────────────────────


def print_outcome(outcome: Outcome, folder: Path, console: Console, *, command: Sequence[str] = ()) -> None:
    """Print verdict, ways of running, comparison and checks of every target, then the report's path and what to type.

    A run that was asked to stop before its validation gets its stages instead.
    ``folder``: the run folder as the user would type it; ``command``: what the user typed.
    """
    paper = Paper(console=console)
    paper.line()
    for target in outcome.targets:
        _print_target(paper, outcome, target)
    for hint in outcome.hints:
        paper.line(f"Hint    {_first_upper(hint)}", "yellow")
    if outcome.targets:
        paper.line(f"Report  {folder / 'report.html'}")
    else:
        paper.print(_stages_table(paper, outcome))
    commands = sentences.next_commands(outcome, folder, command)
    width = max(len(typed) for typed, _ in commands)
    for number, (typed, what) in enumerate(commands):
        room = console.width >= 8 + width + 2 + len(what)
        paper.command(f"{'' if number else 'Next':<8}{typed:<{width}}" + (f"  {what}" if room else ""))


def _print_target(paper: Paper, outcome: Outcome, target: Judged) -> None:
    state = target.verdict.state
    style = {"met": "bold green", "missed": "bold red"}.get(state, "bold yellow")
    paper.line(f"{words.state_sign(state)} {target.target}: {sentences.headline(target)}", style)
    paper.line(target.verdict.why, indent=2)
    for number, line in enumerate(advice(outcome, target)):
        paper.line(f"{'to try: ' if not number else '        '}{line}", indent=2)
    paper.line()
    paper.line(_first_upper(sentences.latency_note(outcome, target)), "dim")
    paper.print(_ways_table(paper, outcome, target))
    for note in (sentences.emulated_note(outcome, target), sentences.memory_note(outcome, target)):
        if note:
            paper.line(note, "dim", indent=2)
    for runtime, why in sentences.left_out(outcome, target):
        paper.line(f"{runtime} left out: {why}", "dim", indent=2)
    compared = comparison_of(outcome, target)
    if compared:
        paper.line(sentences.comparison_line(outcome.metric, compared.comparison), indent=2)
    paper.line()
    emulated = emulated_of(outcome, target)
    if emulated and emulated.beside:
        paper.print(_beside_table(paper, emulated))
    if target.verdict.checks:
        paper.print(_checks_table(paper, target.verdict.checks))


def _first_upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def _ways_table(paper: Paper, outcome: Outcome, target: Judged) -> Table:
    rows, metric = run_rows(outcome, target), outcome.metric
    time_how = sentences.common_how(each for row in rows for each in (row.p50, row.p95))
    memory_how = sentences.common_how(row.memory for row in rows)
    unit = " %" if metric.unit == "share" else f" {metric.unit}" if metric.unit else ""
    latencies = ("p50 ms", "p95 ms") if told_apart(rows) else ("latency ms",)
    table = paper.table(
        ("", "fold"),
        (f"{metric.name}{unit} [95 %]", "right"),
        ("size", "right"),
        *((f"{time_how}\n{each}".strip(), "right") for each in latencies),
        (f"{memory_how}\nmemory".strip(), "right"),
        ("same", "right"),
    )
    for name, value in baselines_of(outcome).items():
        reached = f"{100 * value:.2f}" if metric.unit == "share" else f"{value:.4g}"
        paper.row(table, name, reached, *[""] * (3 + len(latencies)))
    for row in rows:
        paper.row(
            table,
            words.way_title(row.way),
            _value_with_ends(row, metric),
            words.size(row.size_bytes),
            *(_number(each, words.milliseconds, time_how) for each in (row.p50, row.p95)[: len(latencies)]),
            _number(row.memory, words.size, memory_how),
            words.percent(row.same, 1).removesuffix(" %"),
            style="bold" if row.way == target.verdict.ship else "",
        )
    return table


def _value_with_ends(row: RunRow, metric: Metric) -> str:
    if metric.unit == "share":
        return f"{100 * row.value:.2f} [{100 * row.low:.1f}–{100 * row.high:.1f}]"
    return f"{row.value:.4g} [{row.low:.3g}–{row.high:.3g}]"


def _number(found: Measurement | None, write: Callable[[float], str], common_how: str) -> str:
    """Write a number; how it came about as well, where the heading does not say so for all of them."""
    if found is None:
        return words.MISSING
    value = words.estimated(found, write) if found.quantity in LATENCIES else write(found.value)
    return value if common_how else f"{value} {found.place.how}"


def _beside_table(paper: Paper, emulated: Observed) -> Table:
    """Set what the emulated target answered beside what this machine did."""
    table = paper.table(
        (f"{emulated.place.name}\nbeside this machine", "fold"),
        ("same\ndecision", "right"),
        ("identical\nnumbers", "right"),
        ("largest\ndifference", "right"),
        ("from layer", "fold"),
    )
    for each in emulated.beside:
        paper.row(
            table,
            words.way_title(each.way),
            words.percent(each.same),
            words.percent(each.identical),
            words.steps_apart(each),
            each.first_layer,
        )
    return table


def _checks_table(paper: Paper, checks: Sequence[Check]) -> Table:
    table = paper.table(("limit", "fold"), ("asked", "right"), ("got", "right"), ("95 % bounds", "right"), ("", "left"))
    for check in checks:
        sign = words.check_sign(check)
        said = sign if check.state == "met" else f"{sign} {words.check_word(check)}"
        style = "yellow" if check.state in ("uncertain", "open") else "green" if check.holds else "red"
        table.add_row(
            paper.text(check.name),
            paper.text(words.check_limit(check)),
            paper.text(words.check_got(check)),
            paper.text(words.check_range(check)),
            paper.text(said, style),
        )
    return table


# ── karui show ──────────────────────────────────────────────────────────────────────────────────────────────────────


def print_show(outcome: Outcome, console: Console) -> None:
    """Print verdicts, sizes of the files, stages and, for each set of weights, the table of layers."""
    paper = Paper(console=console)
    paper.line(f"{outcome.run}: {outcome.recipe}", "bold")
    if outcome.summary:
        paper.line(outcome.summary)
    paper.line()
    for judged in outcome.targets:
        state = judged.verdict.state
        paper.line(f"{words.state_sign(state)} {judged.target}: {sentences.headline(judged)}", "bold")
        paper.line(judged.verdict.why, indent=2)
    for hint in outcome.hints:
        paper.line(f"Hint: {hint}", "yellow")
    if outcome.files:
        files = paper.table(("file", "fold"), ("size", "right"))
        for file in outcome.compared_files:
            paper.row(files, words.artifact_title(file.variant), words.size(file.size_bytes))
        paper.line()
        paper.print(files)
    paper.print(_stages_table(paper, outcome))
    for bits in widths(outcome):
        target = next((each for each in outcome.targets if bits in (each.weight_bits, 32)), None)
        title = "Layers, float" if bits == 32 else f"Layers, {bits}-bit weights"
        paper.print(_layers_table(paper, layer_rows(outcome, bits, target), title))


def _stages_table(paper: Paper, outcome: Outcome) -> Table:
    table = paper.table(("stage", "fold"), ("", "right"), ("", "fold"))
    for note in outcome.notes:
        did = "recalled" if note.recalled else words.duration(note.duration_s)
        paper.row(table, note.stage, did, note.summary)
    return table


def _layers_table(paper: Paper, rows: Sequence[LayerRow], title: str) -> Table:
    table = paper.table(
        ("layer", "fold"),
        ("op", "fold"),
        ("output", "right"),
        ("params", "right"),
        ("MACs", "right"),
        ("share of MACs", "left"),
        ("SQNR dB", "right"),
        ("runs", "left"),
        title=title,
    )
    largest = max((row.macs_share for row in rows), default=0) or 1
    for row in rows:
        paper.row(
            table,
            row.layer,
            row.op,
            words.shape(row.output_shape),
            words.count(row.parameters),
            words.count(row.macs),
            "█" * round(_BAR_CELLS * row.macs_share / largest),
            words.decibels(row.output_sqnr_db),
            row.runs or "",
            style="yellow" if row.runs == "fp32" else "",
        )
    return table


# ── karui compare ───────────────────────────────────────────────────────────────────────────────────────────────────


def print_comparison(compared: SideBySide, console: Console) -> None:
    """Print runs side by side, one column each, with all their targets; then how each differs from the first one."""
    paper = Paper(console=console)
    for warning in compared.warnings:
        paper.line(f"! {warning}", "bold yellow")
    for start in range(0, len(compared.outcomes), _COMPARED_AT_ONCE):
        chosen = compared.outcomes[start : start + _COMPARED_AT_ONCE]
        _print_columns(paper, "", chosen, [_numbers_of_run(outcome) for outcome in chosen])
        for name in dict.fromkeys(target.target for outcome in chosen for target in outcome.targets):
            _print_columns(paper, name, chosen, [_numbers_for(outcome, name) for outcome in chosen])
    metric = compared.outcomes[0].metric
    for each in compared.differences:
        paper.line(f"{each.target}: {each.second} − {each.first}")
        paper.line(sentences.difference_line(metric, each.comparison), indent=2)


def _print_columns(paper: Paper, title: str, outcomes: Sequence[Outcome], columns: Sequence[Mapping[str, str]]) -> None:
    table = paper.table(("", "left"), *((outcome.run, "fold") for outcome in outcomes), title=title)
    for name in dict.fromkeys(name for column in columns for name in column):
        paper.row(table, name, *(column.get(name, words.MISSING) for column in columns))
    paper.print(table)


def _numbers_of_run(outcome: Outcome) -> dict[str, str]:
    pruned, finetuned, metric = outcome.pruned, outcome.finetuned, outcome.metric
    network = pruned.checkpoint if pruned else finetuned.checkpoint if finetuned else outcome.trained
    reached = words.metric_value(metric, network.val_metric if network else None)
    return {
        "recipe": outcome.recipe,
        "data": outcome.data.digest[:_DIGEST_SHOWN],
        f"validation {metric.name}": reached,
    }


def _numbers_for(outcome: Outcome, name: str) -> dict[str, str]:
    """Return what runs are compared by for one target, name → formatted number; {} where the run has no such target."""
    target = next((each for each in outcome.targets if each.target == name), None)
    return _numbers_of(outcome, target) if target else {}


def _numbers_of(outcome: Outcome, target: Judged) -> dict[str, str]:
    metric, ship = outcome.metric, target.verdict.ship
    exports = export_set(outcome, target.weight_bits)
    numbers = {
        "limits": words.state_word(target.verdict.state),
        "ship": words.artifact_title(ship.variant) if ship else "nothing",
        "parameters": words.count(sum(layer.parameters for layer in exports.layers)),
        "MACs": words.count(sum(layer.macs for layer in exports.layers)),
    }
    compared = comparison_of(outcome, target)
    if compared:
        found = compared.comparison
        numbers |= {
            f"{metric.name} float": words.metric_value(metric, found.value_float),
            f"{metric.name} int8": words.metric_value(metric, found.value_int8),
            "int8 − float": words.change(metric, found.difference),
            "p": words.p_value(found.p).removeprefix("= "),
            "same decision": words.percent(found.agreement),
        }
    for row in run_rows(outcome, target):
        if row.way in target.candidates or row.way.variant.unpruned:
            numbers[f"95 % {words.way_title(row.way)}"] = (
                f"{words.metric_value(metric, row.low)} … {words.metric_value(metric, row.high)}"
            )
    for file in outcome.compared_files:
        if is_of(file.variant, target):
            numbers[f"size {words.artifact_title(file.variant)}"] = words.size(file.size_bytes)
    for way, time in shown(outcome, target, "latency_p50_ms").items():
        numbers[f"p50 {words.way_title(way)}"] = f"{words.milliseconds(time.value)} ms {time.place.how}"
    return numbers | {"latency": sentences.latency_note(outcome, target)}
