"""Figures: valid SVG, the page's colours, the same bytes, harmless names."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from xml.etree import ElementTree as ET

import matplotlib as mpl
import numpy as np
import pytest
from markupsafe import Markup
from numpy.typing import NDArray

from pipeline.artifacts.evidence import Metric
from pipeline.report import figures
from pipeline.report.rows import comparison_of
from pipeline.report.views import training_stages
from tests.judging.cases import ACCURACY, PSNR, RMSE, comparison
from tests.report.recorded import Recorded
from tests.report.test_page import COUNTED, TIMED, step
from tests.report.variations import HOSTILE

RNG_SEED = 5


def counts(classes: int) -> NDArray[np.int64]:
    rng = np.random.default_rng(RNG_SEED)
    return np.eye(classes, dtype=np.int64) * 30 + rng.integers(0, 2, (classes, classes))


def names(classes: int) -> list[str]:
    return [f"name {index}" for index in range(classes)]


def square(numbers: NDArray[np.int64], name: str = "c", *, signed: bool = False) -> Markup:
    return figures.matrix(numbers, names(len(numbers)), names(len(numbers)), name, signed=signed)


def curves(run: Recorded) -> Markup:
    return figures.learning_curves(training_stages(run.outcome), run.outcome.metric)


def steps(digits: Recorded) -> Markup:
    assert digits.outcome.pruned is not None
    return figures.pruning(digits.outcome.pruned.steps)


def head_start(digits: Recorded) -> Markup:
    assert digits.outcome.finetuned is not None
    return figures.transfer(digits.outcome.finetuned.transfer, digits.outcome.metric)


def gap(digits: Recorded) -> Markup:
    compared = comparison_of(digits.outcome, digits.outcome.targets[0])
    assert compared is not None
    return figures.difference(compared.comparison, 0.01, digits.outcome.metric, "d")


def times(_: Recorded) -> Markup:
    samples = np.random.default_rng(RNG_SEED).gamma(2, 1, (2, 5000))
    pair = zip(("ONNX float", "ONNX int8"), (False, True), samples, strict=True)
    return figures.latencies([figures.Times(title=t, int8=i, samples_ms=s) for t, i, s in pair], "l")


def matrix(_: Recorded) -> Markup:
    return square(counts(10))


def many(_: Recorded) -> Markup:
    return square(counts(100), "m")


def change(_: Recorded) -> Markup:
    return square(counts(4) - 15, "x", signed=True)


def points(_: Recorded) -> Markup:
    cloud = np.random.default_rng(RNG_SEED).normal(size=(2, 300, 2))
    return figures.lines([("float", cloud[0]), ("int8", cloud[1])], "x", "y", "p", dots=True, description="Cloud")


ALL = [curves, steps, head_start, gap, times, matrix, many, change, points]


@pytest.mark.parametrize("draw", ALL)
def test_a_figure_is_well_formed_small_and_repeatable(draw: Callable[[Recorded], Markup], digits: Recorded) -> None:
    first = draw(digits)
    with mpl.rc_context({"axes.facecolor": "red", "font.size": 30, "svg.fonttype": "path"}):  # a user's matplotlibrc
        assert draw(digits) == first
    root = ET.fromstring(first)  # noqa: S314  our own text
    assert root.tag.endswith("svg")
    assert root.get("width") is None
    assert len(first) < 110_000


@pytest.mark.parametrize("draw", ALL)
def test_a_figure_takes_colours_and_fonts_from_the_page(draw: Callable[[Recorded], Markup], digits: Recorded) -> None:
    text = draw(digits)
    tags = " ".join(re.findall(r"<(?!image)[^>]*>", text))
    assert "var(--" in tags
    assert "font-family" not in tags
    assert set(re.findall(r"#[0-9a-f]{6}\b", tags)) <= {"#ffffff"}
    assert "<style" not in text


def test_only_ids_that_are_used_remain_and_carry_the_figure_name() -> None:
    text = square(counts(30), "first")
    ids = set(re.findall(r' id="([^"]+)"', text))
    assert ids == set(re.findall(r"#([\w-]+)[\")]", text))
    assert ids
    assert all(each.startswith("first-") for each in ids)


def texts(drawn: Markup) -> list[str]:
    root = ET.fromstring(drawn)  # noqa: S314  our own text
    return ["".join(each.itertext()) for each in root.iter() if each.tag.endswith("text")]


@pytest.mark.parametrize("name", [HOSTILE, "$x^2$", "$", "日本", "a\nb", "\x00\x1b", "&lt;", "x" * 500])
def test_names_are_text_and_nothing_else(name: str) -> None:
    text = figures.matrix(counts(3), [name, "b", "c"], [name, "b", "c"], "c")
    assert "<script" not in text
    assert figures.short(name) in texts(text) or name == "\x00\x1b"
    assert "predicted" in texts(text)


def test_cells_show_their_numbers() -> None:
    shown = texts(figures.matrix(np.array([[7, 0], [2, 123_456]]), ["a", "b"], ["a", "b"], "c"))
    assert {"7", "2", "123k"} <= set(shown)
    assert "0" not in shown
    shares = texts(figures.matrix(np.array([[0.25, 0.0], [0.5, 0.125]]), ["a", "b"], ["a", "b"], "c"))
    assert {"0.25", "0.5", "0.12"} <= set(shares)


def test_one_epoch_one_class_and_one_round_can_be_drawn(digits: Recorded) -> None:
    stage = training_stages(digits.outcome)[0]
    one = figures.Curve(name="train", epochs=stage.epochs[:1])
    assert "train" in figures.learning_curves([one], ACCURACY)
    assert "predicted" in figures.matrix(np.array([[3]]), ["only"], ["only"], "c")
    assert "int8" in figures.latencies([figures.Times(title="ONNX int8", int8=True, samples_ms=np.array([0.5]))], "l")


def test_a_stage_shows_only_its_own_epochs(digits: Recorded) -> None:
    outcome = digits.outcome
    stages = {stage.name: stage.epochs for stage in training_stages(outcome)}
    assert list(stages) == ["train", "finetune", "prune", "int8 w8", "int8 w7"]
    assert {epoch.phase for epoch in stages["int8 w8"]} == {"qat"}
    assert all(epoch.phase.startswith("recovery") for epoch in stages["prune"])
    assert outcome.trained is not None
    assert stages["train"] == outcome.trained.history


def test_axes_speak_of_the_metric(digits: Recorded, plane: Recorded) -> None:
    assert "validation accuracy, %" in texts(curves(digits))
    assert "validation RMSE" in texts(curves(plane))
    assert "test accuracy, %" in texts(head_start(digits))


def ticks(drawn: Markup) -> list[float]:
    return [float(text) for text in texts(drawn) if re.fullmatch(r"\d+(\.\d+)?", text)]


@pytest.mark.parametrize(("metric", "steep", "flat"), [(ACCURACY, 0.1, 0.98), (RMSE, 1000.0, 0.3)])
def test_steep_early_epochs_do_not_press_the_others_flat(
    plane: Recorded, metric: Metric, steep: float, flat: float
) -> None:
    epochs = training_stages(plane.outcome)[0].epochs[:21]
    values = [dataclasses.replace(epoch, val_metric=flat) for epoch in epochs]
    values[0] = dataclasses.replace(values[0], val_metric=steep)
    drawn = figures.learning_curves([figures.Curve(name="train", epochs=tuple(values))], metric)
    shown = [value for value in ticks(drawn) if metric is RMSE or value > 50]
    assert max(shown) < 500  # no tick near the worst RMSE
    assert metric is RMSE or min(shown) > 90  # nor a tick that is far below all but the first epoch


@pytest.mark.parametrize(("metric", "on_the_left"), [(ACCURACY, True), (PSNR, True), (RMSE, False)])
def test_the_margin_lies_where_int8_is_worse(metric: Metric, *, on_the_left: bool) -> None:
    drawn = figures.difference(comparison(0.5, 0.0), 0.003, metric, "d")
    dashed = re.findall(r'<path d="M ([\d.]+) [^>]*stroke-dasharray[^>]*var\(--bad\)', drawn)
    zero = re.findall(r'<path d="M ([\d.]+) [^>]*stroke: var\(--muted\)', drawn)
    assert dashed
    assert zero
    assert (float(dashed[0]) < float(zero[0])) == on_the_left


def test_a_latency_is_drawn_only_where_one_was_measured() -> None:
    assert "latency" in texts(figures.pruning([step(TIMED)]))
    assert "latency" not in texts(figures.pruning([step(COUNTED)]))
    assert "latency" not in texts(figures.pruning([step(None, kept=False)]))
