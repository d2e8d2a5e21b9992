"""Figures: valid SVG, the page's colours, the same bytes, harmless names."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as ET

import matplotlib as mpl
import numpy as np
import pytest
from markupsafe import Markup
from tests.report.builder import HOSTILE, make

from pipeline.report import figures
from pipeline.report.views import training_stages

RNG_SEED = 5


def counts(classes: int) -> np.ndarray:
    rng = np.random.default_rng(RNG_SEED)
    return np.eye(classes, dtype=np.int64) * 30 + rng.integers(0, 2, (classes, classes))


def names(classes: int) -> list[str]:
    return [f"name {index}" for index in range(classes)]


def curves(tmp_path: Path) -> Markup:
    return figures.learning_curves(training_stages(make(tmp_path).outcome))


def steps(tmp_path: Path) -> Markup:
    pruned = make(tmp_path).outcome.pruned
    assert pruned is not None
    return figures.pruning(pruned.steps)


def head_start(tmp_path: Path) -> Markup:
    finetuned = make(tmp_path).outcome.finetuned
    assert finetuned is not None
    return figures.transfer(finetuned.transfer)


def gap(tmp_path: Path) -> Markup:
    comparison = make(tmp_path).outcome.targets[0].comparison
    assert comparison is not None
    return figures.difference(comparison, 1.0, "d")


def times(_: Path) -> Markup:
    samples = np.random.default_rng(RNG_SEED).gamma(2, 1, (2, 5000))
    return figures.latencies([("ONNX float", samples[0]), ("ONNX int8", samples[1])], "l")


def matrix(_: Path) -> Markup:
    return figures.confusion(counts(10), names(10), "c")


def many(_: Path) -> Markup:
    return figures.confusion(counts(100), names(100), "m")


def change(_: Path) -> Markup:
    return figures.confusion_difference(counts(4) - 15, names(4), "x")


ALL = [curves, steps, head_start, gap, times, matrix, many, change]


@pytest.mark.parametrize("draw", ALL)
def test_a_figure_is_well_formed_small_and_repeatable(draw: Callable[[Path], Markup], tmp_path: Path) -> None:
    first = draw(tmp_path / "a")
    with mpl.rc_context({"axes.facecolor": "red", "font.size": 30, "svg.fonttype": "path"}):  # a user's matplotlibrc
        assert draw(tmp_path / "b") == first
    root = ET.fromstring(first)  # noqa: S314  our own text
    assert root.tag.endswith("svg")
    assert root.get("width") is None
    assert len(first) < 90_000


@pytest.mark.parametrize("draw", ALL)
def test_a_figure_takes_colours_and_fonts_from_the_page(draw: Callable[[Path], Markup], tmp_path: Path) -> None:
    text = draw(tmp_path)
    tags = " ".join(re.findall(r"<(?!image)[^>]*>", text))
    assert "var(--" in tags
    assert "font-family" not in tags
    assert set(re.findall(r"#[0-9a-f]{6}\b", tags)) <= {"#ffffff"}
    assert "<style" not in text


def test_only_ids_that_are_used_remain_and_carry_the_figure_name() -> None:
    text = figures.confusion(counts(30), names(30), "first")
    ids = set(re.findall(r' id="([^"]+)"', text))
    assert ids == set(re.findall(r"#([\w-]+)[\")]", text))
    assert ids
    assert all(each.startswith("first-") for each in ids)


@pytest.mark.parametrize("name", [HOSTILE, "$x^2$", "$", "日本", "a\nb", "\x00\x1b", "&lt;", "x" * 500])
def test_names_are_text_and_nothing_else(name: str) -> None:
    text = figures.confusion(counts(3), [name, "b", "c"], "c")
    assert "<script" not in text
    root = ET.fromstring(text)  # noqa: S314  our own text
    shown = ["".join(each.itertext()) for each in root.iter() if each.tag.endswith("text")]
    assert figures.short(name) in shown or name == "\x00\x1b"
    assert "predicted" in shown


def test_cells_show_their_numbers() -> None:
    numbers = np.array([[7, 0], [2, 5]])
    root = ET.fromstring(figures.confusion(numbers, ["a", "b"], "c"))  # noqa: S314  our own text
    shown = ["".join(each.itertext()) for each in root.iter() if each.tag.endswith("text")]
    assert {"7", "2", "5", "·"} <= set(shown)


def test_one_epoch_one_class_and_one_round_can_be_drawn(tmp_path: Path) -> None:
    stage = training_stages(make(tmp_path).outcome)[0]
    one = figures.Stage(name="train", epochs=stage.epochs[:1])
    assert "train" in figures.learning_curves([one])
    assert "predicted" in figures.confusion(np.array([[3]]), ["only"], "c")
    assert "int8" in figures.latencies([("ONNX int8", np.array([0.5]))], "l")


def test_a_stage_shows_only_its_own_epochs(tmp_path: Path) -> None:
    stages = {stage.name: len(stage.epochs) for stage in training_stages(make(tmp_path).outcome)}
    assert stages == {"train": 30, "finetune": 30, "prune": 12, "quantize": 6}
