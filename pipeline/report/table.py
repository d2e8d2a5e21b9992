"""What the terminal shows of a run: the verdict at the end, the stages and layers, runs side by side.

Everything fits 80 columns and stays readable in ASCII; nothing is parsed as markup, whatever it is called.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from pipeline.artifacts import Check, Outcome, Validated
from pipeline.report import sentences, words
from pipeline.report.rows import LayerRow, RunRow, find_measurement, layer_rows, run_rows

_ASCII = str.maketrans(
    {"−": "-", "–": "-", "—": "-", "…": "...", "×": "x", "≤": "<=", "≥": ">=", "→": "->", "·": "-", "✓": "ok", "✗": "X"}
    | {"∞": "inf", "µ": "u", "\u202f": " ", "█": "#", "°": " deg", "±": "+-"}
)
_BAR_CELLS = 12
_NARROWEST_FOLD = 8  # characters that a column which may wrap needs to be readable
_ASCII_BOX = box.Box("    \n    \n -- \n    \n    \n    \n    \n    \n", ascii=True)
_COMPARED_AT_ONCE = 3  # runs that fit beside the names of the numbers
_SHORT_RUNTIMES = {"tflite-runtime": "tflite-rt", "tflite_runtime": "tflite-rt"}


@dataclass(frozen=True, kw_only=True)
class _Paper:
    """A console and what it can show."""

    console: Console

    def text(self, text: str, style: str = "") -> Text:
        """Return text without markup, in ASCII where the terminal knows nothing else."""
        plain = "".join(each if each.isprintable() else " " for each in text.expandtabs(1))
        if self.console.options.ascii_only:
            plain = plain.translate(_ASCII).encode("ascii", "replace").decode()
        return Text(plain, style=style)

    def line(self, text: str = "", style: str = "", indent: int = 0) -> None:
        """Print one paragraph; further lines are indented like the first."""
        width = self.console.width - indent
        for part in self.text(text, style).wrap(self.console, width) or [Text()]:
            part.rstrip()
            self.console.print(Text(" " * indent) + part, highlight=False, soft_wrap=True)

    def command(self, text: str) -> None:
        """Print one line that stays one line, however narrow the terminal: it is there to be copied."""
        self.console.print(self.text(text), highlight=False, soft_wrap=True)

    def table(self, *columns: tuple[str, str], title: str = "") -> Table:
        """Return an empty table; each column: a heading and ``left``, ``right`` or ``fold`` (left, may wrap)."""
        table = Table(
            box=_ASCII_BOX if self.console.options.ascii_only else box.SIMPLE_HEAD,
            pad_edge=False,
            padding=(0, 1, 0, 0),
            show_edge=False,
            title=self.text(title, "bold") if title else None,
            title_justify="left",
            header_style="dim",
        )
        for heading, kind in columns:
            table.add_column(
                self.text(heading),
                justify="right" if kind == "right" else "left",
                overflow="fold",
                no_wrap=kind != "fold",
            )
        return table

    def row(self, table: Table, *cells: str, style: str = "") -> None:
        """Add one row of plain text."""
        table.add_row(*(self.text(cell) for cell in cells), style=style)

    def print(self, table: Table) -> None:
        """Print a table with an empty line after it; columns that do not fit move together, then become a list."""
        room = self.console.width
        if Measurement.get(self.console, self.console.options.update(width=1000), table).maximum > room:
            table.padding = (0, 0)
        fixed = [column for column in table.columns if column.no_wrap]
        widest = sum(max(len(str(cell)) for cell in [column.header, *column.cells]) + 1 for column in fixed)
        if widest + _NARROWEST_FOLD * (len(table.columns) - len(fixed)) > room:
            self._list(table)
        else:
            self.console.print(table)
        self.console.print()

    def _list(self, table: Table) -> None:
        """Print each row as a paragraph: the first cell, and below it the others with their headings."""
        if table.title:
            self.line(str(table.title), "bold")
        headings = [str(column.header) for column in table.columns]
        for row in zip(*(column.cells for column in table.columns), strict=True):
            first, *rest = (str(cell) for cell in row)
            self.line(first, "bold")
            said = [" ".join(filter(None, pair)) for pair in zip(headings[1:], rest, strict=True) if pair[1].strip()]
            self.line(" · ".join(said), indent=2)


# ── the end of `karui run` ──────────────────────────────────────────────────────────────────────────────────────────


def print_outcome(outcome: Outcome, folder: Path, console: Console, *, command: Sequence[str] = ()) -> None:
    """Print verdict, ways of running, comparison and checks of every target, then the report's path and what to type.

    A run that was asked to stop before its validation gets its stages instead.
    ``folder``: the run folder as the user would type it; ``command``: what the user typed.
    """
    paper = _Paper(console=console)
    paper.line()
    for target in outcome.targets:
        _print_target(paper, outcome, target)
    if outcome.targets:
        paper.line(f"Report  {folder / 'report.html'}")
    else:
        paper.print(_stages_table(paper, outcome))
    commands = sentences.next_commands(outcome, folder, command)
    width = max(len(typed) for typed, _ in commands)
    for number, (typed, what) in enumerate(commands):
        room = console.width >= 8 + width + 2 + len(what)
        paper.command(f"{'' if number else 'Next':<8}{typed:<{width}}" + (f"  {what}" if room else ""))


def _print_target(paper: _Paper, outcome: Outcome, target: Validated) -> None:
    passed = target.verdict.passed
    sign, style = ("✓", "bold green") if passed else ("✗", "bold red")
    paper.line(f"{sign} {target.target}: {sentences.headline(target)}", style)
    paper.line(target.verdict.why, indent=2)
    paper.line()
    paper.print(_ways_table(paper, run_rows(outcome, target), target.verdict.ship))
    paper.line(sentences.latency_note(target), "dim", indent=2)
    for runtime, why in target.skipped_runtimes:
        paper.line(f"{runtime} left out: {why}", "dim", indent=2)
    if target.comparison:
        paper.line(sentences.comparison_line(target.comparison), indent=2)
    paper.line()
    if target.verdict.checks:
        paper.print(_checks_table(paper, target.verdict.checks))


def _ways_table(paper: _Paper, rows: Sequence[RunRow], ship: str | None) -> Table:
    table = paper.table(
        ("", "fold"),
        ("accuracy % [95 %]", "right"),
        ("size", "right"),
        ("p50 ms", "right"),
        ("p95 ms", "right"),
        ("memory", "right"),
        ("same", "right"),
    )
    for row in rows:
        paper.row(
            table,
            way_title(row.artifact, row.runtime),
            f"{100 * row.accuracy:.2f} [{100 * row.low:.1f}–{100 * row.high:.1f}]",
            words.size(row.size_bytes),
            words.milliseconds(row.latency_p50_ms),
            words.milliseconds(row.latency_p95_ms),
            words.size(row.peak_memory_bytes),
            words.percent(row.same_class, 1).removesuffix(" %"),
            style="bold" if row.artifact == ship else "",
        )
    return table


def way_title(artifact: str, runtime: str) -> str:
    """Name a way of running; the runtime is named where the format leaves it open: ``TFLite int8, tflite-rt``."""
    program = runtime.partition(" ")[0]
    return words.artifact_title(artifact) + (f", {_SHORT_RUNTIMES[program]}" if program in _SHORT_RUNTIMES else "")


def _checks_table(paper: _Paper, checks: Sequence[Check]) -> Table:
    table = paper.table(("limit", "fold"), ("asked", "right"), ("got", "right"), ("", "left"))
    for check in checks:
        sign, style = {True: ("✓", "green"), False: ("✗ missed", "red"), None: ("?", "yellow")}[check.passed]
        table.add_row(
            paper.text(check.name),
            paper.text(words.check_limit(check)),
            paper.text(words.check_got(check)),
            paper.text(sign, style),
        )
    return table


# ── karui show ──────────────────────────────────────────────────────────────────────────────────────────────────────


def print_show(outcome: Outcome, console: Console) -> None:
    """Print the stages of a run and, for each set of weights, the table of layers."""
    paper = _Paper(console=console)
    paper.line(f"{outcome.run}: {outcome.recipe}", "bold")
    if outcome.summary:
        paper.line(outcome.summary)
    paper.line()
    paper.print(_stages_table(paper, outcome))
    for bits in sorted(outcome.exports, reverse=True):
        target = next((each for each in outcome.targets if outcome.target_bits[each.target] == bits), None)
        paper.print(_layers_table(paper, layer_rows(outcome, bits, target), f"Layers, {bits}-bit weights"))


def _stages_table(paper: _Paper, outcome: Outcome) -> Table:
    table = paper.table(("stage", "fold"), ("", "right"), ("", "fold"))
    for note in outcome.notes:
        did = "recalled" if note.recalled else words.duration(note.duration_s)
        paper.row(table, note.stage, did, note.summary)
    return table


def _layers_table(paper: _Paper, rows: Sequence[LayerRow], title: str) -> Table:
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


def print_comparison(outcomes: Sequence[Outcome], console: Console) -> None:
    """Print runs side by side, one column each, for the first target of every run; the best numbers are not judged."""
    paper = _Paper(console=console)
    for start in range(0, len(outcomes), _COMPARED_AT_ONCE):
        chosen = outcomes[start : start + _COMPARED_AT_ONCE]
        table = paper.table(("", "left"), *((outcome.run, "fold") for outcome in chosen))
        columns = [compared_numbers(outcome) for outcome in chosen]
        for name in dict.fromkeys(name for column in columns for name in column):
            paper.row(table, name, *(column.get(name, words.MISSING) for column in columns))
        paper.print(table)


def compared_numbers(outcome: Outcome) -> dict[str, str]:
    """Return what two runs are compared by, name → formatted number, for the first target."""
    target = outcome.targets[0] if outcome.targets else None
    pruned, finetuned = outcome.pruned, outcome.finetuned
    network = pruned.checkpoint if pruned else finetuned.checkpoint if finetuned else outcome.trained
    accuracy = network.val_accuracy if network else None
    numbers = {"recipe": outcome.recipe, "validation accuracy": words.percent(accuracy)}
    if target is None:
        return numbers
    exports = outcome.exports[outcome.target_bits[target.target]]
    sizes = {exported.key: exported.size_bytes for exported in exports.files}
    numbers |= {
        "target": target.target,
        "limits": "met" if target.verdict.passed else "missed",
        "ship": words.artifact_title(target.verdict.ship) if target.verdict.ship else "nothing",
        "parameters": words.count(sum(layer.parameters for layer in exports.layers)),
        "MACs": words.count(sum(layer.macs for layer in exports.layers)),
    }
    if target.comparison:
        numbers |= {
            "accuracy float": words.percent(target.comparison.accuracy_float),
            "accuracy int8": words.percent(target.comparison.accuracy_int8),
            "int8 − float": words.points(target.comparison.difference_pp, signed=True),
            "McNemar p": words.p_value(target.comparison.mcnemar_p).removeprefix("= "),
            "same class": words.percent(target.comparison.agreement),
        }
    for key, size_bytes in sizes.items():
        numbers[f"size {words.artifact_title(key)}"] = words.size(size_bytes)
    for column in target.columns:
        found = find_measurement(target.measurements, "latency_p50", column.artifact, column.runtime)
        if found:
            numbers[f"p50 {way_title(column.artifact, column.runtime)}"] = f"{words.milliseconds(found.value)} ms"
    return numbers | {"latency": sentences.latency_note(target)}
