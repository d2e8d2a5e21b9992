"""Tables in the terminal: 80 columns, with and without Unicode, no markup in names, every number with its origin."""

from __future__ import annotations

import dataclasses
import io

import pytest
from rich.console import Console

from pipeline.artifacts.evidence import Place
from pipeline.artifacts.outcome import Check, Outcome, StageNote, Verdict
from pipeline.report import words
from pipeline.report.compared import SideBySide
from pipeline.report.rows import LATENCIES, export_set
from pipeline.report.table import print_comparison, print_outcome, print_show
from tests.judging.cases import INT8_ONNX, measured
from tests.report.recorded import FOLDER, Recorded
from tests.report.variations import (
    HOST,
    HOSTILE,
    LAPTOP,
    PI,
    float_only,
    seen_on,
    stopped_early,
    target_of,
    untimed,
    with_target,
    with_targets,
)

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


def beside(*outcomes: Outcome) -> SideBySide:
    """Put runs side by side without any test between them."""
    return SideBySide(outcomes=outcomes, differences=(), warnings=())


def printed(run: Recorded, **options: str) -> str:
    """Print everything there is."""
    paper = Paper(**options)  # type: ignore[arg-type]
    print_outcome(run.outcome, FOLDER, paper.console)
    print_show(run.outcome, paper.console)
    print_comparison(beside(*[run.outcome] * 4), paper.console)
    return paper.text()


def ended(run: Recorded, width: int = WIDTH, command: tuple[str, ...] = ()) -> str:
    """Print what ``karui run`` ends with."""
    paper = Paper(width=width)
    print_outcome(run.outcome, FOLDER, paper.console, command=command)
    return paper.text()


def line(text: str, start: str) -> str:
    return next(each for each in text.splitlines() if each.startswith(start))


def numbers_of_int8(run: Recorded) -> dict[str, float]:
    """Return what was measured of the int8 ONNX file: quantity → value."""
    here = run.outcome.observed[0].measurements
    return {each.quantity: each.value for each in here if each.way.variant == INT8_ONNX}


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize("int8", [True, False])
def test_every_line_fits_80_columns(digits: Recorded, encoding: str, *, int8: bool) -> None:
    run = digits if int8 else float_only(digits)
    text = printed(run.but(run="long-name-" * 12), encoding=encoding)
    assert max(len(line) for line in text.splitlines()) <= WIDTH
    assert text.isascii() == (encoding == "ascii")


def test_the_verdict_table_is_complete(digits: Recorded) -> None:
    run = with_targets(digits, PI, LAPTOP)
    text = " ".join(ended(run, width=120).split())
    where = run.outcome.places[0].name
    for part in (
        f"{PI}: ship ",
        f"{LAPTOP}: ship ",
        "torch float",
        "torch int8",
        "ONNX int8 (7-bit weights)",
        "TFLite int8, tflite-rt",
        f"Latency measured on {where}, not on {PI}",
        f"memory estimated on the basis of {where}",
        "McNemar test, Tango 1998, p ",
        "can show a gap of",
        "runs/digits/report.html",
        "karui report runs/digits --open",
        "karui compare runs/digits",
        "karui run digits --target host",
    ):
        assert part in text, part
    assert "\x1b" not in text


def test_numbers_stand_in_one_line_with_their_row(digits: Recorded) -> None:
    run = with_targets(digits, PI)
    text = ended(run, width=120)
    file = next(each for each in run.outcome.files if each.variant.key == "onnx-int8")
    found = numbers_of_int8(run)
    row = line(text, "ONNX int8")
    for number in (
        words.size(file.size_bytes),
        words.milliseconds(found["latency_p50_ms"]),
        words.milliseconds(found["latency_p95_ms"]),
        words.size(found["peak_memory_bytes"]),
    ):
        assert number in row
    heading = next(each for each in text.splitlines() if each.split() == ["measured", "measured", "estimated"])
    below = text.splitlines()[text.splitlines().index(heading) + 1]
    assert below.split()[-5:] == ["p50", "ms", "p95", "ms", "memory"] or "p50 ms" in below


@pytest.mark.parametrize(("how", "tail"), [("emulated", 1.0), ("estimated", 0.0)])
def test_every_number_is_printed_with_how_it_came_about(digits: Recorded, how: str, tail: float) -> None:
    """In two columns where the 95th percentile is a number of its own, else in one."""
    place = Place(how=how, name="qemu cortex-a72", profile=PI)  # type: ignore[arg-type]
    ways = target_of(digits.outcome, PI).candidates
    numbers = [
        dataclasses.replace(measured(quantity, way, 3.0 + number + more, profile=PI), place=place)
        for number, way in enumerate(ways)
        for quantity, more in zip(LATENCIES, (0.0, tail), strict=True)
    ]
    text = ended(seen_on(digits, place, *numbers), width=120)
    columns = 2 if tail else 1
    heading = next(each for each in text.splitlines() if each.split()[:1] == [how])
    assert heading.split() == [how] * columns + ["estimated"]
    assert f"Latency {how} on qemu cortex-a72" in text
    assert line(text, "ONNX int8").split().count("4.00") == 1
    assert line(text, "ONNX int8").split().count("5.00") == columns - 1
    assert line(text, "TFLite int8").split().count("—") == columns  # what was not emulated is not filled from elsewhere


def test_where_the_ways_differ_every_number_has_its_own_word(digits: Recorded) -> None:
    ways = target_of(digits.outcome, PI).candidates
    own = Place(how="measured", name="pi@garden", profile=PI)
    counted = Place(how="estimated", name="MACs", profile=PI)
    numbers = [
        dataclasses.replace(measured("latency_p50_ms", ways[0], 3.0, profile=PI), place=own),
        dataclasses.replace(measured("latency_p50_ms", ways[1], 2.0, profile=PI), place=counted),
    ]
    text = ended(seen_on(digits, own, *numbers), width=120)
    assert "3.00 measured" in line(text, "ONNX float")
    assert "2.00 estimated" in line(text, "ONNX int8")
    assert "Latency measured on pi@garden; estimated on MACs" in text


def test_this_machine_as_the_target_shows_its_own_numbers(digits: Recorded) -> None:
    text = " ".join(ended(with_targets(digits, HOST), width=120).split())
    assert f"Latency measured on {digits.outcome.places[0].name} " in text
    assert "not on host" not in text
    assert "estimated" not in text


def test_another_tasks_metric_is_printed_in_its_words(plane: Recorded) -> None:
    text = ended(plane, width=120)
    assert "RMSE [95 %]" in text
    assert "RMSE (int8)" in text
    assert "RMSE rise (int8)" in text
    assert "≤ 0.4 " in text
    assert "accuracy" not in text
    paper = Paper(width=120)
    print_comparison(beside(plane.outcome), paper.console)
    assert (
        line(paper.text(), "RMSE float").split()[-1]
        == f"{plane.outcome.observed[0].comparisons[0].comparison.value_float:.4g}"
    )


@pytest.mark.parametrize("width", [24, 40, 60])
def test_a_narrow_terminal_gets_lists_with_every_number(digits: Recorded, width: int) -> None:
    run = with_targets(digits, PI)
    paper = Paper(width=width)
    print_outcome(run.outcome, FOLDER, paper.console)
    print_show(run.outcome, paper.console)
    lines = [line for line in paper.text().splitlines() if "karui " not in line]  # commands stay whole, to be copied
    assert max(map(len, lines)) <= max(width, len("runs/digits/report.html"))
    assert "…" not in paper.text().replace(" …", "").replace("… ", "")  # nothing was cut off
    found = numbers_of_int8(run)
    for part in ("ONNX", words.milliseconds(found["latency_p50_ms"]), words.milliseconds(found["latency_p95_ms"])):
        assert part in paper.text().split()
    assert "accuracy" in paper.text()


def test_commands_to_type_next_are_those_that_were_typed(digits: Recorded) -> None:
    command = ("karui", "run", "my recipe.toml", "--set", "seed=1")
    text = ended(with_targets(digits, PI), width=120, command=command)
    assert "karui run 'my recipe.toml' --set seed=1 --target host" in text


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ((0.912, 0.90, 0.92), "✗ missed"),
        ((0.965, 0.96, 0.975), "✗ missed, not for sure"),
        ((0.975, 0.96, 0.98), "≈ met, not for sure"),
        ((None, None, None), "? open"),
    ],
)
def test_a_limit_is_seen_with_its_certainty(
    digits: Recorded, found: tuple[float | None, float | None, float | None], said: str
) -> None:
    got, low, high = found
    check = Check(
        quantity="accuracy", variant=INT8_ONNX, bound="at least", limit=0.97, unit="share", got=got, low=low, high=high
    )
    verdict = Verdict(target=PI, checks=(check,), ship=None, why="not fit: int8 misses accuracy")
    text = ended(with_target(digits, dataclasses.replace(target_of(digits.outcome, PI), verdict=verdict)), width=120)
    assert f"✗ {PI}: not fit: ship nothing" in text
    assert line(text, "accuracy (int8)").rstrip().endswith(said)


def test_colours_only_on_a_terminal(digits: Recorded) -> None:
    paper = Paper(terminal=True)
    print_outcome(digits.outcome, FOLDER, paper.console)
    assert "\x1b[" in paper.text()


def test_nothing_is_measured_and_nothing_is_invented(digits: Recorded) -> None:
    text = ended(untimed(digits), width=120)
    assert line(text, "ONNX int8").split()[-3:-1] == ["—", "—"]
    assert f"Latency: not measured (neither here nor on {PI})" in " ".join(text.split())


@pytest.mark.parametrize("name", [HOSTILE, "[bold red]x[/]", "[/]", "\x1b[31mred\x07", "line\nbreak"])
def test_names_are_neither_markup_nor_control_characters(digits: Recorded, name: str) -> None:
    run = digits.but(
        run=name, summary=name, notes=(StageNote(stage="train", recalled=False, duration_s=1.0, summary=name),)
    )
    paper = Paper()
    print_show(run.outcome, paper.console)
    print_comparison(beside(run.outcome), paper.console)
    text = paper.text()
    assert "\x1b" not in text
    assert "\x07" not in text
    if name.isprintable():
        assert name in text


def test_a_run_that_stopped_early_shows_its_stages(digits: Recorded) -> None:
    early = stopped_early(digits)
    text = printed(early)
    assert early.outcome.notes[0].summary in " ".join(text.split())
    assert "karui run digits --out runs/digits" in text
    assert "report.html" not in text


def test_hints_are_printed_after_the_verdict_and_by_show(digits: Recorded) -> None:
    hinted = digits.but(hints=("features are \x1b[2J far apart " * 6,))
    paper = Paper()
    print_show(hinted.outcome, paper.console)
    for text in (ended(hinted), paper.text()):
        assert "eatures are \\x1b[2J far apart" in text
        assert max(map(len, text.splitlines())) <= WIDTH


def test_show_lists_layers_with_their_share(digits: Recorded) -> None:
    paper = Paper()
    print_show(digits.outcome, paper.console)
    text = paper.text()
    assert "Layers, 8-bit weights" in text
    assert "Layers, 7-bit weights" in text
    costs = sorted(export_set(digits.outcome, 8).layers, key=lambda each: each.macs)
    heaviest, lightest = line(text, costs[-1].layer), line(text, costs[0].layer)
    assert heaviest.count("█") == 12
    assert lightest.count("█") < 12
    assert heaviest.rstrip().endswith("int8")


def compared(*outcomes: Outcome) -> list[str]:
    paper = Paper()
    print_comparison(beside(*outcomes), paper.console)
    return paper.text().splitlines()


def test_comparison_puts_runs_side_by_side(digits: Recorded) -> None:
    first = digits.but(run="first").outcome
    second = float_only(digits).but(run="second").outcome
    lines = compared(first, second)
    assert next(line for line in lines if "first" in line).split() == ["first", "second"]
    size = next(each.size_bytes for each in first.files if each.variant == INT8_ONNX)
    sizes = next(line for line in lines if line.startswith("size ONNX int8"))
    assert sizes.split()[-3:] == [*words.size(size).split(), "—"]
    p50 = next(line for line in lines if line.startswith("p50 ONNX float"))
    assert p50.split().count("measured") == 2
