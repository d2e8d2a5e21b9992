"""Numbers as people read them."""

from __future__ import annotations

import math

import pytest

from pipeline.artifacts import Check, Comparison
from pipeline.report import sentences, words


@pytest.mark.parametrize(
    ("got", "wanted"),
    [
        (words.percent(0.975), "97.50 %"),
        (words.percent(None), "—"),
        (words.percent(math.nan), "—"),
        (words.points(-0.2777, signed=True), "−0.28 pp"),
        (words.points(0.5, signed=True), "+0.50 pp"),
        (words.points(-0.001, signed=True), "0.00 pp"),
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
        (words.quantity(0.0, ""), "0"),
        (words.quantity(97.5, "%"), "97.50 %"),
        (words.quantity(3.25, "W"), "3.25 W"),
        (words.artifact_title("onnx-int8-w7"), "ONNX int8 (7-bit weights)"),
        (words.artifact_title("tflite-int8 in litert 2.3"), "TFLite int8 in litert 2.3"),
        (words.artifact_title("something"), "something"),
        (words.plural(1, "class", "classes"), "1 class"),
    ],
)
def test_words(got: str, wanted: str) -> None:
    assert got == wanted


def test_limits_say_their_direction() -> None:
    least = Check(name="accuracy (int8)", limit=97.0, got=None, unit="%", passed=None)
    most = Check(name="file size (int8)", limit=8 * 2**20, got=30_120, unit="bytes", passed=True)
    assert words.check_limit(least) == "≥ 97.00 %"
    assert words.check_got(least) == "not measured"
    assert words.check_limit(most) == "≤ 8.0 MiB"


def comparison(difference_pp: float, low_pp: float, high_pp: float, p: float) -> Comparison:
    return Comparison(
        samples=360,
        accuracy_float=0.98,
        accuracy_int8=0.98 + difference_pp / 100,
        difference_pp=difference_pp,
        low_pp=low_pp,
        high_pp=high_pp,
        mcnemar_p=p,
        detectable_pp=2.2,
        agreement=0.99,
    )


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (comparison(-0.28, -1.9, 1.3, 1.0), ("loses 0.28 pp", "chance alone", "does not rule out")),
        (comparison(-2.0, -3.9, -0.8, 0.01), ("loses 2.00 pp", "Chance does not explain", "is missed")),
        (comparison(0.0, -0.5, 0.5, 1.0), ("exactly as often", "chance alone", "whole interval")),
        (comparison(0.3, -0.2, 0.9, 0.4), ("gains 0.30 pp", "chance alone", "whole interval")),
    ],
)
def test_sentences_say_what_the_numbers_mean(found: Comparison, said: tuple[str, ...]) -> None:
    text = " ".join(sentences.comparison_sentences(found, 1.0))
    assert all(part in text for part in said)
    assert "2.20 pp or more" in text


def test_without_a_margin_nothing_is_said_about_one() -> None:
    assert "margin" not in " ".join(sentences.comparison_sentences(comparison(-2.0, -3.0, -1.0, 0.01), None))
