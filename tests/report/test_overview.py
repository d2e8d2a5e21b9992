"""Stage by stage, and all files: what is drawn, what is said for those who do not see it, no label over another."""

from __future__ import annotations

import dataclasses
from itertools import combinations
from xml.etree import ElementTree as ET

import pytest
from markupsafe import Markup

from pipeline.report import overview
from pipeline.report.overview import Point
from pipeline.report.rows import run_rows, since_training, stage_rows
from pipeline.report.sentences import since_training_line
from pipeline.report.views import target_view
from tests.judging.cases import ACCURACY, RMSE
from tests.report.recorded import Recorded
from tests.report.test_figures import texts
from tests.report.variations import PI, float_only, untimed, with_targets, with_unpruned

HOSTILE = "\u202egnp.exe \x1b[2J <b> \udcff"


def point(title: str, ms: float | None = 1.0, size: int | None = 2048, value: float = 0.9) -> Point:
    return Point(
        title=title,
        int8="int8" in title,
        value=value,
        low=value - 0.02,
        high=value + 0.02,
        size_bytes=size,
        latency_ms=ms,
        latency_low_ms=ms,
        latency_high_ms=ms,
    )


def desc(drawn: Markup) -> str:
    root = ET.fromstring(drawn)  # noqa: S314  our own text
    return next("".join(each.itertext()) for each in root.iter() if each.tag.endswith("desc"))


# ── from a run ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_pruned_run_has_three_stages_in_the_targets_runtime(digits: Recorded) -> None:
    outcome = with_unpruned(digits).outcome
    rows = stage_rows(outcome, outcome.targets[0])
    assert list(rows) == ["trained", "pruned", "int8"]
    assert {row.way.program for row in rows.values()} == {"onnxruntime"}
    assert [row.way.variant.unpruned for row in rows.values()] == [True, False, False]
    assert rows["trained"].size_bytes == 9 * 1024
    first = run_rows(outcome, outcome.targets[0])[0]
    assert first == rows["trained"]  # every table starts from it


def test_without_pruning_training_is_the_start_and_without_int8_there_are_no_stages(digits: Recorded) -> None:
    outcome = digits.outcome  # recorded before the network before pruning was kept
    assert list(stage_rows(outcome, outcome.targets[0])) == ["trained", "int8"]
    bare = float_only(digits).outcome
    assert list(stage_rows(bare, bare.targets[0])) == ["trained"]
    view = target_view(bare, bare.targets[0], digits.store, 0)
    assert view.stages is None
    assert view.files is not None


def test_what_ships_is_compared_with_the_network_before_pruning(digits: Recorded) -> None:
    outcome = with_unpruned(digits).outcome
    target = outcome.targets[0]
    found = since_training(outcome, target)
    assert found is not None
    assert found.first.variant.unpruned
    assert found.second == target.verdict.ship
    assert since_training_line(outcome, target).startswith("ONNX int8 − before pruning: ")
    assert since_training_line(digits.outcome, digits.outcome.targets[0]) == ""


def test_page_and_json_show_it(digits: Recorded, whole: str) -> None:
    run = with_unpruned(digits)
    page = with_targets(run, PI).page()
    assert "ONNX float before pruning" in page
    assert "− before pruning: " in page
    assert '"artifact": "onnx-fp32-unpruned"' in run.json()
    assert "before pruning" not in whole


def test_without_times_there_is_no_picture_of_all_files(digits: Recorded) -> None:
    outcome = untimed(digits).outcome
    view = target_view(outcome, outcome.targets[0], digits.store, 0)
    assert view.files is None
    assert view.stages is not None
    assert "latency p50, ms" not in texts(view.stages.drawing)


# ── drawings ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_stages_are_named_and_numbered_for_all_readers() -> None:
    points = [point("trained", 2.0, 4096, 0.95), point("pruned", 1.0, 2048, 0.94), point("int8", 0.5, 1024, 0.93)]
    drawn = overview.stage_by_stage(points, ACCURACY, "s")
    assert {"trained", "pruned", "int8", "95.00 %", "2.0 KiB", "0.500 ms"} <= set(texts(drawn))
    assert desc(drawn) == (
        "trained: 95.00 %, 4.0 KiB, 2.00 ms; pruned: 94.00 %, 2.0 KiB, 1.00 ms; int8: 93.00 %, 1.0 KiB, 0.500 ms"
    )
    assert "<title>Stage by stage: accuracy, %, size, KiB, latency p50, ms</title>" in drawn
    assert overview.stage_by_stage(points, ACCURACY, "s") == drawn
    assert "RMSE" in texts(overview.stage_by_stage(points, RMSE, "s"))


@pytest.mark.parametrize("points", [[point("a", None), point("b")], [point("a", size=None), point("b", None)]])
def test_only_what_all_stages_have_is_drawn(points: list[Point]) -> None:
    assert "latency p50, ms" not in texts(overview.stage_by_stage(points, ACCURACY, "s"))


@pytest.mark.parametrize("count", [1, 2, 7, 9])
def test_no_label_covers_another(count: int) -> None:
    points = [point(f"TFLite int8, runtime {n}", 0.01 * (1 + 0.02 * n), 2048 * (n + 1)) for n in range(count)]
    boxes = labels(overview.all_files(points, ACCURACY, "f"))
    assert len(boxes) == count
    for one, other in combinations(boxes, 2):
        apart = abs(one[1] - other[1]) >= 9 or one[0] + 5 * one[2] <= other[0] or other[0] + 5 * other[2] <= one[0]
        assert apart, (one, other)


def labels(drawn: Markup) -> list[tuple[float, float, int]]:
    """Return left end, baseline and characters of each label."""
    found = []
    for each in ET.fromstring(drawn).iter():  # noqa: S314  our own text
        text = "".join(each.itertext())
        if each.tag.endswith("text") and "KiB" in text:
            x, y = (each.get("x"), each.get("y"))
            if x is None or y is None:
                x, y = (each.get("transform") or "").split("translate(")[1].split(")")[0].split()
            found.append((float(x), float(y), len(text)))
    return found


def test_equal_dots_huge_spans_and_perfect_files_are_drawn_too() -> None:
    same = [point("a"), point("b"), point("c int8")]
    assert len(labels(overview.all_files(same, ACCURACY, "f"))) == 3
    far = [point("a", 0.001), point("b", 900.0, 10**9)]
    assert "1e+03" not in "".join(texts(overview.all_files(far, ACCURACY, "f")))
    perfect = dataclasses.replace(point("a"), value=1.0, low=1.0, high=1.0)
    assert not [
        each for each in texts(overview.all_files([perfect], ACCURACY, "f")) if each.startswith("10") and "." in each
    ]


def test_nothing_in_a_name_acts() -> None:
    for drawn in (
        overview.all_files([point(HOSTILE)], ACCURACY, "f"),
        overview.stage_by_stage([point(HOSTILE), point("int8")], ACCURACY, "s"),
    ):
        assert not {"\u202e", "\x1b", "<b>"} & {each for each in ("\u202e", "\x1b", "<b>") if each in drawn}
        assert "\\u202egnp.exe \\x1b[2J &lt;b&gt; \\udcff" in drawn
