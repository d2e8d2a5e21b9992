"""Every way a verdict can go, and the words that go with it."""

from __future__ import annotations

import dataclasses

import pytest

from pipeline.artifacts.evidence import Interval, Metric
from pipeline.artifacts.files import Variant, Way
from pipeline.artifacts.outcome import Verdict
from pipeline.declare.recipe import MetricLimits, RecipeLimits
from pipeline.declare.words import RuntimeName
from pipeline.judging.case import Candidate
from pipeline.judging.speed import TimeRatio
from pipeline.judging.verdict import decide
from tests.judging.cases import (
    ACCURACY,
    BOARD,
    CASE,
    FASTER,
    FLOAT_ONNX,
    FP32,
    HERE,
    INT8,
    INT8_ONNX,
    PSNR,
    RMSE,
    SAME,
    SLOWER,
    answered,
    beside_float,
    candidate,
    compared,
    comparison,
    measured,
    target,
)

replace = dataclasses.replace
THERE = replace(CASE, int8_time=beside_float(FASTER, BOARD))
OF_CLASSES = {"chance": 0.1, "most frequent class": 0.49}


def shipped(verdict: Verdict) -> str | None:
    return verdict.ship.variant.key if verdict.ship else None


def with_value(each: Candidate, value: float) -> Candidate:
    return replace(each, answered=answered(each.way.variant, each.way.program, value))


def with_latency(each: Candidate, value_ms: float, error: float = 0.0) -> Candidate:
    return replace(each, latency_p95_ms=measured("latency_p95_ms", each.way, value_ms, error=error))


def test_int8_ships_when_it_meets_the_limits() -> None:
    verdict = decide(CASE)
    assert (shipped(verdict), verdict.passed, verdict.target) == ("onnx-int8", True, "board")
    assert [(check.name, check.state) for check in verdict.checks] == [
        ("accuracy (fp32)", "met"),
        ("accuracy (int8)", "met"),
        ("accuracy drop (int8)", "met"),
        ("same decision as trained (int8)", "met"),
        ("same decision as float (int8)", "met"),
    ]
    assert verdict.why == (
        "int8 in onnxruntime 1.32.0 meets every limit: 97.50 % accuracy, -0.50 pp against float "
        "(95 % interval -0.90 … -0.10), 25 % of its bytes; its latency on Board 4 was not measured "
        "(a hint: on Other, 2 cores, x86_64 int8 takes 0.60 times as long as float, 0.55 … 0.65)"
    )


@pytest.mark.parametrize(("time", "ship"), [(FASTER, "onnx-int8"), (SAME, "onnx-int8"), (SLOWER, "onnx-fp32")])
def test_slower_int8_does_not_ship_where_it_was_measured_on_the_target(time: Interval, ship: str) -> None:
    verdict = decide(replace(THERE, int8_time=beside_float(time, BOARD)))
    assert (shipped(verdict), verdict.passed) == (ship, True)
    if ship == "onnx-fp32":
        assert verdict.why.startswith("not int8, which is slower there (int8 takes 1.20 times as long as float, ")


def test_another_machines_latency_decides_nothing() -> None:
    verdict = decide(replace(CASE, int8_time=beside_float(SLOWER)))
    assert shipped(verdict) == "onnx-int8"
    assert "a hint" in verdict.why


def test_slower_int8_still_ships_when_fp32_is_too_large() -> None:
    small = target({"size_bytes": 200_000})
    assert shipped(decide(replace(THERE, target=small, int8_time=beside_float(SLOWER, BOARD)))) == "onnx-int8"


@pytest.mark.parametrize(("time", "ship"), [(FASTER, "onnx-int8"), (SAME, "onnx-int8"), (SLOWER, "onnx-fp32")])
def test_an_estimate_for_the_target_decides_as_a_measurement_does(time: Interval, ship: str) -> None:
    place = replace(BOARD, how="estimated", name="the basis of its instructions")
    ms = measured("latency_p95_ms", INT8.way, 12.3, how="estimated", error=0.2)
    int8 = replace(INT8, latency_p95_ms=ms)
    verdict = decide(replace(CASE, int8=int8, int8_time=beside_float(time, place)))
    assert shipped(verdict) == ship
    if ship == "onnx-int8":
        assert verdict.why.endswith(
            f"; latency p95 12.3 ms (9.84 … 14.8), estimated on board; int8 takes {time.value:.2f} times as long as "
            f"float, {time.low:.2f} … {time.high:.2f}"
        )
    else:
        assert "which is slower there (int8 takes 1.20 times as long as float, 1.15 … 1.25, estimated on" in verdict.why


def test_an_emulated_latency_is_said_with_its_word() -> None:
    emulated = measured("latency_p95_ms", INT8.way, 12.3, how="emulated")
    verdict = decide(replace(CASE, int8=replace(INT8, latency_p95_ms=emulated)))
    assert verdict.why.endswith("; latency p95 12.3 ms, emulated on board")


def test_the_stricter_drop_counts() -> None:
    strict = replace(CASE, target=target({"accuracy_drop_pp": 0.1}))
    verdict = decide(strict)
    assert (shipped(verdict), verdict.passed) == ("onnx-fp32", False)  # a limit was missed, though there is a way out
    assert verdict.why == (
        "not int8, which misses accuracy drop (0.50 pp, at most 0.10 pp allowed); "
        "fp32 in onnxruntime 1.32.0 meets every limit: 98.00 % accuracy"
    )
    assert [(check.name, check.state) for check in verdict.checks] == [
        ("accuracy (fp32)", "met"),
        ("accuracy (int8)", "met"),
        ("accuracy drop (int8)", "missed"),
        ("same decision as trained (int8)", "met"),
        ("same decision as float (int8)", "met"),
    ]
    assert decide(replace(CASE, target=target({"accuracy_drop_pp": 5}))).checks[2].limit == 1.0


def test_what_was_found_decides_and_a_limit_inside_its_interval_is_told() -> None:
    within = decide(replace(CASE, compared=(compared(ACCURACY, comparison(0.98, -0.008)),)))
    assert (within.checks[2].state, shipped(within), within.state) == ("uncertain", "onnx-int8", "uncertain")
    assert not within.passed
    assert "meets every limit, accuracy drop not for sure: 97.50 %" in within.why
    beyond = decide(replace(CASE, compared=(compared(ACCURACY, comparison(0.98, -0.012)),)))
    assert (beyond.checks[2].state, shipped(beyond), beyond.passed) == ("uncertain", "onnx-fp32", False)
    assert "not int8, which misses accuracy drop (1.20 pp, at most 1.00 pp allowed, not for sure); fp32" in beyond.why


def test_without_an_int8_file_fp32_ships() -> None:
    verdict = decide(replace(CASE, int8=None, compared=(), same=None, int8_time=None))
    assert (shipped(verdict), verdict.passed) == ("onnx-fp32", True)
    assert verdict.why.startswith("there is no int8 file; fp32 in onnxruntime 1.32.0 meets every limit")


def test_nothing_fits() -> None:
    verdict = decide(replace(CASE, target=target({"size_bytes": 1000})))
    assert (shipped(verdict), verdict.passed) == (None, False)
    assert verdict.why == ("not fit: file size is 390.6 KiB (float) and 97.7 KiB (int8), at most 1.0 KiB allowed")
    names = [check.name for check in verdict.checks]
    assert len(set(names)) == len(names)
    assert {"file size (int8)", "file size (fp32)"} <= set(names)


def test_a_poor_network_fits_nowhere() -> None:
    verdict = decide(replace(CASE, fp32=with_value(FP32, 0.5), int8=with_value(INT8, 0.5)))
    assert verdict.ship is None
    assert "accuracy is 50.00 % (float) and 50.00 % (int8), at least 97.00 % wanted" in verdict.why


def test_a_latency_that_was_not_measured_is_open_and_one_that_was_counts() -> None:
    limited = target({"latency_p95_ms": 2.0})
    unknown = decide(replace(CASE, target=limited))
    assert (unknown.checks[-1].state, unknown.checks[-1].got) == ("open", None)
    assert (unknown.state, unknown.passed) == ("open", False)
    assert "meets every limit that could be measured" in unknown.why
    known = replace(THERE, target=limited, int8=with_latency(INT8, 1.5), fp32=with_latency(FP32, 3))
    assert decide(known).passed
    late = replace(known, int8=with_latency(INT8, 2.5))
    assert decide(late).why == ("not fit: latency p95 is 3 ms (float) and 2.5 ms (int8), at most 2 ms allowed")
    close = decide(replace(known, int8=with_latency(INT8, 1.9, error=0.2)))
    assert (close.checks[-1].state, shipped(close)) == ("uncertain", "onnx-int8")
    assert "latency p95 not for sure" in close.why


@pytest.mark.parametrize(("runtime", "ship"), [("onnxruntime", "onnx-fp32"), ("litert", "onnx-int8")])
def test_saturation_counts_where_pairs_are_added_in_16_bits(runtime: RuntimeName, ship: str) -> None:
    avx2 = target(isa=("avx2",), runtime=runtime)
    int8 = INT8 if runtime == "onnxruntime" else replace(INT8, way=replace(INT8.way, program="litert"))
    assert shipped(decide(replace(CASE, target=avx2, int8=int8, saturating_layers=3))) == ship
    assert shipped(decide(replace(CASE, target=avx2, int8=int8, saturating_layers=0))) == "onnx-int8"
    assert shipped(decide(replace(CASE, saturating_layers=3))) == "onnx-int8"  # VNNI


def test_a_file_that_computes_something_else_does_not_ship() -> None:
    assert shipped(decide(replace(CASE, same=0.99))) == "onnx-fp32"


def test_limits_are_met_exactly_in_spite_of_binary_fractions() -> None:
    exact = comparison(0.97, 0.96 - 0.97, reach=0.0)
    case = replace(CASE, compared=(compared(ACCURACY, exact),), int8=with_value(INT8, 0.975))
    assert [check.state for check in decide(case).checks] == ["met"] * 5


def test_a_target_may_want_float() -> None:
    assert shipped(decide(replace(CASE, target=target(precision="fp32")))) == "onnx-fp32"
    small = target({"size_bytes": 200_000}, precision="fp32")
    verdict = decide(replace(CASE, target=small))
    assert (shipped(verdict), verdict.passed) == ("onnx-int8", False)
    assert verdict.why.startswith("not fp32, which misses file size")


def test_no_runtime_for_the_targets_files() -> None:
    verdict = decide(replace(CASE, fp32=None, int8=None, cannot_run="litert is not installed"))
    assert (verdict.ship, verdict.why) == (None, "not fit: litert is not installed")
    assert decide(replace(CASE, fp32=None, int8=None)).why == "not fit: there is no file for this target"


def test_a_metric_that_should_be_low_is_told_in_its_words() -> None:
    case = replace(
        CASE,
        metric=RMSE,
        limits=RecipeLimits(metrics={"RMSE": MetricLimits(max=0.6, worse_by_percent=1)}),
        fp32=candidate(FLOAT_ONNX, 0.5, 400_000),
        int8=candidate(INT8_ONNX, 0.52, 100_000),
        compared=(compared(RMSE, comparison(0.5, 0.02)),),
        int8_time=None,
    )
    verdict = decide(case)
    assert [(check.name, check.bound, check.state) for check in verdict.checks[:3]] == [
        ("RMSE (fp32)", "at most", "met"),
        ("RMSE (int8)", "at most", "met"),
        ("RMSE rise (int8)", "at most", "missed"),
    ]
    assert verdict.why == (
        "not int8, which misses RMSE rise (4.00 %, at most 1.00 % allowed); "
        "fp32 in onnxruntime 1.32.0 meets every limit: RMSE 0.5"
    )
    generous = replace(case, limits=RecipeLimits(metrics={"RMSE": MetricLimits(worse_by=0.1)}))
    assert decide(generous).why == (
        "int8 in onnxruntime 1.32.0 meets every limit: RMSE 0.52, +0.02 against float "
        "(95 % interval +0.016 … +0.024), 25 % of its bytes; its latency on Board 4 was not measured"
    )


def test_a_metric_in_decibels_has_a_least_and_not_a_most() -> None:
    case = replace(
        CASE,
        metric=PSNR,
        limits=RecipeLimits(metrics={"PSNR": MetricLimits(min=28, worse_by=0.5)}),
        fp32=with_value(FP32, 31.2),
        int8=with_value(INT8, 31.0),
        compared=(compared(PSNR, comparison(31.2, -0.2, reach=0.1)),),
    )
    verdict = decide(case)
    assert [(check.bound, check.unit, check.state) for check in verdict.checks[:3]] == [
        ("at least", "dB", "met"),
        ("at least", "dB", "met"),
        ("at most", "dB", "met"),
    ]
    assert "PSNR 31 dB, -0.2 dB against float" in verdict.why


# ── beside those that do not look, and beside other files ───────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("metric", "value", "baselines", "state", "quantity"),
    [
        (ACCURACY, 0.975, OF_CLASSES, "met", "accuracy above most frequent class"),
        (ACCURACY, 0.493, OF_CLASSES, "uncertain", "accuracy above most frequent class"),
        (ACCURACY, 0.48, OF_CLASSES, "missed", "accuracy above most frequent class"),
        (RMSE, 0.4, {"mean of all": 1.2}, "met", "RMSE below mean of all"),
        (RMSE, 1.199, {"mean of all": 1.2}, "uncertain", "RMSE below mean of all"),
    ],
)
def test_what_is_not_surely_better_than_not_looking_never_ships(
    metric: Metric, value: float, baselines: dict[str, float], state: str, quantity: str
) -> None:
    case = replace(
        CASE,
        metric=metric,
        limits=RecipeLimits(),
        baselines=baselines,
        fp32=with_value(FP32, value),
        int8=with_value(INT8, value),
        compared=(compared(metric, comparison(value, 0.0)),),
    )
    verdict = decide(case)
    [check] = [each for each in verdict.checks if each.variant == INT8_ONNX and each.quantity == quantity]
    assert check.state == state
    assert (verdict.ship is not None) == (state == "met")
    assert verdict.state == ("met" if state == "met" else "missed")


@pytest.mark.parametrize(("asked", "ship"), [(None, "onnx-fp32"), (0.5, "onnx-int8")])
def test_int8_that_decides_otherwise_is_another_network(asked: float | None, ship: str) -> None:
    found = replace(comparison(0.98, -0.005), agreement=0.6)
    limits = RecipeLimits(agreement_min=asked)
    verdict = decide(replace(CASE, limits=limits, compared=(compared(ACCURACY, found),)))
    assert shipped(verdict) == ship


def test_int8_that_is_only_smaller_says_so_first() -> None:
    assert decide(replace(CASE, int8_time=beside_float(SLOWER))).why.startswith(
        "smaller, but not faster and no better in accuracy: int8 in onnxruntime 1.32.0 meets every limit"
    )
    better = compared(ACCURACY, comparison(0.96, 0.02))
    assert decide(replace(CASE, int8_time=beside_float(SLOWER), compared=(better,))).why.startswith(
        "int8 in onnxruntime"
    )


def test_a_faster_file_beside_it_is_named_with_the_reason() -> None:
    litert = Way(variant=Variant(format="tflite", precision="int8", weight_bits=8), program="litert")
    faster = TimeRatio(way=litert, than=INT8.way, time=FASTER, place=HERE)
    assert decide(replace(CASE, faster=faster)).why.endswith(
        "; tflite-int8 in litert takes 0.60 times as long as that (measured on Other, 2 cores, x86_64), but board has "
        "onnxruntime as its runtime"
    )
    assert "tflite" not in decide(replace(CASE, faster=replace(faster, than=FP32.way))).why
