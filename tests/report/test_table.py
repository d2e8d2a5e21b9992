"""Tables in the terminal: 80 columns, with and without Unicode, no markup in names."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import pytest
from rich.console import Console

from pipeline.artifacts import Check, Outcome, StageNote, Validated, Verdict
from pipeline.report.table import print_comparison, print_outcome, print_show
from tests.report.builder import HOSTILE, MACHINE, make

FOLDER = Path("runs/digits")
WIDTH = 80


class Paper:
    """A terminal's memory."""

    def __init__(self, *, encoding: str = "utf-8", terminal: bool = False, width: int = WIDTH) -> None:
        self._bytes = io.BytesIO()
        self._file = io.TextIOWrapper(self._bytes, encoding=encoding)
        self.console = Console(file=self._file, width=width, force_terminal=terminal, highlight=False)

    def text(self) -> str:
        self._file.flush()
        return self._bytes.getvalue().decode(self._file.encoding)


def printed(outcome: Outcome, **options: str) -> str:
    paper = Paper(**options)  # type: ignore[arg-type]
    print_outcome(outcome, FOLDER, paper.console)
    print_show(outcome, paper.console)
    print_comparison([outcome] * 4, paper.console)
    return paper.text()


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize("int8", [True, False])
def test_every_line_fits_80_columns(tmp_path: Path, encoding: str, *, int8: bool) -> None:
    targets = (("raspberry-pi-4b", 8), ("x86-laptop-avx2", 7))
    text = printed(make(tmp_path, targets=targets, int8=int8, run="long-name-" * 12).outcome, encoding=encoding)
    assert max(len(line) for line in text.splitlines()) <= WIDTH
    assert text.isascii() == (encoding == "ascii")


def test_the_verdict_table_is_complete(tmp_path: Path) -> None:
    paper = Paper()
    print_outcome(make(tmp_path).outcome, FOLDER, paper.console)
    text = paper.text()
    for part in (
        "✓ raspberry-pi-4b: ship ONNX int8",
        "torch float",
        "torch fake-quant",
        "TFLite int8, tflite-rt",
        f"latency measured on {MACHINE}",
        "On raspberry-pi-4b: not",
        "McNemar p",
        "can show a gap of",
        "≤ 5.00 ms  not measured  ?",
        "runs/digits/report.html",
        "karui report runs/digits --open",
        "karui compare runs/digits",
        "karui run digits --target host",
    ):
        assert part in text
    assert "\x1b" not in text


def test_numbers_stand_in_one_line_with_their_row(tmp_path: Path) -> None:
    paper = Paper()
    print_outcome(make(tmp_path).outcome, FOLDER, paper.console)
    row = next(line for line in paper.text().splitlines() if line.startswith("ONNX int8"))
    assert "29.4 KiB" in row
    assert "0.0291" in row
    assert "0.0381" in row


@pytest.mark.parametrize("width", [24, 40, 60])
def test_a_narrow_terminal_gets_lists_with_every_number(tmp_path: Path, width: int) -> None:
    outcome = make(tmp_path).outcome
    paper = Paper(width=width)
    print_outcome(outcome, FOLDER, paper.console)
    print_show(outcome, paper.console)
    words = paper.text().split()
    lines = [line for line in paper.text().splitlines() if "karui " not in line]  # commands stay whole, to be copied
    assert max(map(len, lines)) <= max(width, len("runs/digits/report.html"))
    assert "…" not in paper.text().replace(" … ", "")  # nothing was cut off
    for part in ("ONNX", "29.4", "0.0291", "0.0381", "accuracy"):
        assert part in words


def test_commands_to_type_next_are_those_that_were_typed(tmp_path: Path) -> None:
    paper = Paper(width=120)
    command = ("karui", "run", "my recipe.toml", "--set", "seed=1")
    print_outcome(make(tmp_path).outcome, FOLDER, paper.console, command=command)
    assert "karui run 'my recipe.toml' --set seed=1 --target host" in paper.text()


def test_a_missed_limit_is_seen(tmp_path: Path) -> None:
    outcome = make(tmp_path).outcome
    check = Check(name="accuracy (int8)", limit=97.0, got=91.2, unit="%", passed=False)
    verdict = Verdict(target="raspberry-pi-4b", checks=(check,), ship=None, why="not fit: int8 misses accuracy")
    target: Validated = dataclasses.replace(outcome.targets[0], verdict=verdict)
    paper = Paper()
    print_outcome(dataclasses.replace(outcome, targets=(target,)), FOLDER, paper.console)
    assert "✗ raspberry-pi-4b: not fit: ship nothing" in paper.text()
    assert "✗ missed" in paper.text()


def test_colours_only_on_a_terminal(tmp_path: Path) -> None:
    paper = Paper(terminal=True)
    print_outcome(make(tmp_path).outcome, FOLDER, paper.console)
    assert "\x1b[" in paper.text()


def test_nothing_is_measured_and_nothing_is_invented(tmp_path: Path) -> None:
    paper = Paper()
    print_outcome(make(tmp_path, timed=False).outcome, FOLDER, paper.console)
    row = next(line for line in paper.text().splitlines() if line.startswith("ONNX int8"))
    assert row.split()[-4:-1] == ["—", "—", "—"]
    assert "latency: not measured (neither here nor on raspberry-pi-4b)" in " ".join(paper.text().split())


@pytest.mark.parametrize("name", [HOSTILE, "[bold red]x[/]", "[/]", "\x1b[31mred\x07", "line\nbreak"])
def test_names_are_neither_markup_nor_control_characters(tmp_path: Path, name: str) -> None:
    outcome = dataclasses.replace(
        make(tmp_path, run=name).outcome,
        summary=name,
        notes=(StageNote(stage="train", recalled=False, duration_s=1.0, summary=name),),
    )
    paper = Paper()
    print_show(outcome, paper.console)
    print_comparison([outcome], paper.console)
    text = paper.text()
    assert "\x1b" not in text
    assert "\x07" not in text
    if name.isprintable():
        assert name in text


def test_a_run_that_stopped_early_shows_its_stages(tmp_path: Path) -> None:
    early = dataclasses.replace(make(tmp_path).outcome, targets=(), exports={}, quantized={}, pruned=None)
    text = printed(early)
    assert "97.6 % validation accuracy" in text
    assert "karui run digits --out runs/digits" in text
    assert "report.html" not in text


def test_show_lists_layers_with_their_share(tmp_path: Path) -> None:
    paper = Paper()
    print_show(make(tmp_path).outcome, paper.console)
    lines = paper.text().splitlines()
    heaviest = next(line for line in lines if line.startswith("stages.0.conv2"))
    lighter = next(line for line in lines if line.startswith("stages.1.conv1"))
    assert heaviest.count("█") == 12
    assert lighter.count("█") == 6
    assert heaviest.rstrip().endswith("int8")


def test_comparison_puts_runs_side_by_side(tmp_path: Path) -> None:
    first = make(tmp_path / "a", run="first").outcome
    second = make(tmp_path / "b", run="second", int8=False).outcome
    paper = Paper()
    print_comparison([first, second], paper.console)
    lines = paper.text().splitlines()
    assert next(line for line in lines if "first" in line).split() == ["first", "second"]
    sizes = next(line for line in lines if line.startswith("size ONNX int8"))
    assert sizes.split()[-3:] == ["29.4", "KiB", "—"]
