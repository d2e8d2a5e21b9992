"""Numbers and names as people read them, in the words of any metric."""

from __future__ import annotations

import dataclasses
import math

import pytest

from pipeline.artifacts.evidence import Comparison, Metric
from pipeline.artifacts.files import Variant, Way
from pipeline.artifacts.outcome import Bound, Check
from pipeline.report import sentences, words
from tests.judging.cases import ACCURACY, INT8_ONNX, PSNR, RMSE, SEVEN_ONNX, TORCH, comparison

TFLITE = Variant(format="tflite", precision="fp32")


@pytest.mark.parametrize(
    ("got", "wanted"),
    [
        (words.percent(0.975), "97.50 %"),
        (words.percent(None), "—"),
        (words.percent(math.nan), "—"),
        (words.points(-0.2777, signed=True), "−0.28 pp"),
        (words.points(0.5, signed=True), "+0.50 pp"),
        (words.points(-0.001, signed=True), "0.00 pp"),
        (words.change(ACCURACY, -0.0028), "−0.28 pp"),
        (words.change(RMSE, 0.0021), "+0.0021"),
        (words.change(RMSE, -0.0), "0"),
        (words.change(PSNR, -0.4), "−0.4 dB"),
        (words.change(PSNR, math.nan), "—"),
        (words.metric_value(ACCURACY, 0.975), "97.50 %"),
        (words.metric_value(PSNR, 31.25), "31.25 dB"),
        (words.metric_value(RMSE, None), "—"),
        (words.axis(ACCURACY), "accuracy, %"),
        (words.axis(PSNR), "PSNR, dB"),
        (words.axis(RMSE), "RMSE"),
        (words.size(0), "0 B"),
        (words.size(1023), "1023 B"),
        (words.size(30_120), "29.4 KiB"),
        (words.size(8 * 2**20), "8.0 MiB"),
        (words.size(3 * 2**30), "3.00 GiB"),
        (words.milliseconds(0.02137), "0.0214"),
        (words.milliseconds(1.234), "1.23"),
        (words.milliseconds(123.4), "123"),
        (words.milliseconds(0.0), "0.00"),
        (words.count(9_999), "9\u202f999"),
        (words.count(10_400), "10.4 k"),
        (words.count(999_999), "1.00 M"),
        (words.count(1_246_080), "1.25 M"),
        (words.count(4.1e9), "4.10 G"),
        (words.duration(3.21), "3.2 s"),
        (words.duration(125), "2 min 05 s"),
        (words.decibels(math.inf), "∞"),
        (words.p_value(0.0321), "= 0.032"),
        (words.p_value(1e-9), "< 0.001"),
        (words.p_value(math.nan), "—"),
        (words.quantity(0.0, ""), "0"),
        (words.quantity(97.5, "%"), "97.50 %"),
        (words.quantity(3.25, "W"), "3.25 W"),
        (words.artifact_title(SEVEN_ONNX), "ONNX int8 (7-bit weights)"),
        (words.artifact_title(INT8_ONNX), "ONNX int8"),
        (words.artifact_title(TFLITE), "TFLite float"),
        (words.artifact_title(TORCH), "torch float"),
        (words.full_way(Way(variant=TFLITE, program="litert")), "TFLite float in litert"),
        (words.full_way(Way(variant=TORCH, program="torch")), "torch float"),
        (words.way_title(Way(variant=TFLITE, program="litert")), "TFLite float"),
        (words.way_title(Way(variant=TFLITE, program="tflite-runtime")), "TFLite float, tflite-rt"),
        (words.plural(1, "class", "classes"), "1 class"),
    ],
)
def test_words(got: str, wanted: str) -> None:
    assert got == wanted


def check(bound: Bound, limit: float, unit: str, *found: float) -> Check:
    got, low, high = found or (None, None, None)
    return Check(
        quantity="accuracy drop", variant=INT8_ONNX, bound=bound, limit=limit, unit=unit, got=got, low=low, high=high
    )


def test_a_limit_says_its_direction_whatever_its_unit() -> None:
    assert words.check_limit(check("at least", 0.97, "share")) == "≥ 97.00 %"
    assert words.check_limit(check("at most", 8 * 2**20, "bytes")) == "≤ 8.0 MiB"
    assert words.check_limit(check("at least", 28, "dB")) == "≥ 28 dB"
    assert words.check_limit(check("at most", 5, "%")) == "≤ 5.00 %"


@pytest.mark.parametrize(
    ("found", "sign", "word", "got", "bounds"),
    [
        ((0.2, -0.1, 0.5), "✓", "met", "0.20 pp", "−0.10 … 0.50 pp"),
        ((0.8, 0.2, 1.4), "≈", "met, not for sure", "0.80 pp", "0.20 … 1.40 pp"),
        ((1.2, 0.6, 1.8), "✗", "missed, not for sure", "1.20 pp", "0.60 … 1.80 pp"),
        ((3.0, 2.0, 4.0), "✗", "missed", "3.00 pp", "2.00 … 4.00 pp"),
        ((0.5, 0.5, 0.5), "✓", "met", "0.50 pp", ""),
        ((), "?", "open", "not measured", ""),
    ],
)
def test_a_check_has_a_sign_and_a_word(found: tuple[float, ...], sign: str, word: str, got: str, bounds: str) -> None:
    each = check("at most", 1.0, "pp", *found)
    assert (words.check_sign(each), words.check_word(each)) == (sign, word)
    assert (words.check_got(each), words.check_range(each)) == (got, bounds)


def compared(difference: float, low: float, high: float, p: float) -> Comparison:
    found = comparison(0.98, difference)
    return dataclasses.replace(found, low=low, high=high, p=p, detectable=0.022)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (compared(-0.0028, -0.019, 0.013, 1.0), ("0.28 pp worse than float in accuracy", "chance alone")),
        (compared(-0.02, -0.039, -0.008, 0.01), ("2.00 pp worse", "Chance does not explain")),
        (compared(0.0, -0.005, 0.005, 1.0), ("exactly the accuracy of float", "chance alone")),
        (compared(0.003, -0.002, 0.009, 0.4), ("0.30 pp better", "chance alone")),
    ],
)
def test_sentences_say_what_the_numbers_mean(found: Comparison, said: tuple[str, ...]) -> None:
    text = " ".join(sentences.comparison_sentences(ACCURACY, found, ()))
    assert all(part in text for part in said)
    assert "2.20 pp or more" in text
    assert "margin" not in text


@pytest.mark.parametrize(
    ("metric", "difference", "said"),
    [(RMSE, 0.02, "0.02 worse"), (RMSE, -0.02, "0.02 better"), (PSNR, -0.5, "0.5 dB worse"), (PSNR, 0.5, "better")],
)
def test_worse_follows_the_metrics_direction(metric: Metric, difference: float, said: str) -> None:
    found = comparison(0.5, difference)
    assert said in " ".join(sentences.comparison_sentences(metric, found, ()))
    line = sentences.comparison_line(metric, found)
    assert "exact McNemar test, Tango 1998, p = 0.060" in line
    assert "1000 test inputs can show a gap of" in line


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ((0.2, -0.1, 0.5), "The margin of 1.00 pp is met, with 95 % confidence on other inputs too."),
        ((0.8, 0.2, 1.4), "The margin of 1.00 pp is met, though a larger loss on other inputs is not ruled out."),
        ((1.2, 0.6, 1.8), "The margin of 1.00 pp is missed, though a smaller loss on other inputs is not ruled out."),
        ((3.0, 2.0, 4.0), "The margin of 1.00 pp is missed."),
        ((), "The margin of 1.00 pp could not be checked."),
    ],
)
def test_a_margin_is_told_with_its_certainty(found: tuple[float, ...], said: str) -> None:
    told = sentences.comparison_sentences(ACCURACY, comparison(0.98, -0.002), [check("at most", 1.0, "pp", *found)])
    assert told[-1] == said


def test_a_power_that_is_not_known_is_not_printed() -> None:
    found = dataclasses.replace(comparison(0.5, 0.02), detectable=math.nan)
    assert "80 % power" not in " ".join(sentences.comparison_sentences(RMSE, found, ()))
    assert "can show" not in sentences.comparison_line(RMSE, found)
