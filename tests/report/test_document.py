"""The JSON documents: exactly the keys that were promised, strict JSON, names that do not collide."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.artifacts import Measurement
from pipeline.report.document import document, report_json
from tests.report.builder import HOSTILE, MACHINE, Made, make

FOLDER = Path("runs/digits")
TARGET_KEYS = {"name", "passed", "ship", "checks", "measurements"}
CHECK_KEYS = {"name", "limit", "got", "unit", "passed"}
MEASUREMENT_KEYS = {"what", "artifact", "runtime", "value", "unit", "how", "where", "low", "high"}
COMPARISON_KEYS = {
    "accuracy_float",
    "accuracy_int8",
    "difference_pp",
    "low_pp",
    "high_pp",
    "mcnemar_p",
    "detectable_pp",
    "agreement",
}


def strict(text: str) -> Any:
    """Parse JSON; NaN and Infinity are refused."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def parsed(made: Made) -> Any:
    return strict(document(made.outcome, FOLDER).to_json())


def test_the_document_has_exactly_the_promised_keys(tmp_path: Path) -> None:
    found = parsed(make(tmp_path))
    assert set(found) == {"run", "recipe", "targets", "artifacts", "comparison"}
    target = found["targets"][0]
    assert set(target) == TARGET_KEYS
    assert set(target["ship"]) == {"artifact", "why"}
    assert all(set(check) == CHECK_KEYS for check in target["checks"])
    assert all(set(each) == MEASUREMENT_KEYS for each in target["measurements"])
    assert set(found["artifacts"]) == {"onnx-fp32", "onnx-int8", "tflite-fp32", "tflite-int8"}
    assert all(set(file) == {"path", "sha256", "size_bytes"} for file in found["artifacts"].values())
    assert set(found["comparison"]) == COMPARISON_KEYS


def test_values_come_from_the_outcome(tmp_path: Path) -> None:
    made = make(tmp_path)
    found = parsed(made)
    assert found["artifacts"]["onnx-int8"]["path"] == "runs/digits/digits-int8.onnx"
    assert found["targets"][0]["ship"]["artifact"] == "onnx-int8"
    assert found["targets"][0]["passed"] == made.outcome.targets[0].verdict.passed
    comparison = made.outcome.targets[0].comparison
    assert comparison is not None
    assert found["comparison"]["mcnemar_p"] == comparison.mcnemar_p
    open_checks = [check for check in found["targets"][0]["checks"] if check["got"] is None]
    assert [check["passed"] for check in open_checks] == [None]


def test_a_latency_that_nobody_measured_has_no_value(tmp_path: Path) -> None:
    measurements = parsed(make(tmp_path))["targets"][0]["measurements"]
    missing = [each for each in measurements if each["how"] == "not measured"]
    assert {each["where"] for each in missing} == {"raspberry-pi-4b"}
    assert {each["value"] for each in missing} == {None}
    assert {each["where"] for each in measurements if each["how"] == "measured"} == {MACHINE}


def test_two_weight_widths_do_not_collide(tmp_path: Path) -> None:
    found = parsed(make(tmp_path, targets=(("raspberry-pi-4b", 8), ("x86-laptop-avx2", 7))))
    assert set(found["artifacts"]) == {
        *("onnx-fp32", "onnx-int8", "tflite-fp32", "tflite-int8"),
        *("onnx-int8-w7", "tflite-int8-w7"),
    }
    assert [target["ship"]["artifact"] for target in found["targets"]] == ["onnx-int8", "onnx-int8-w7"]
    named = {each["artifact"] for target in found["targets"] for each in target["measurements"]}
    assert named <= set(found["artifacts"])


def test_seven_bits_alone_need_no_suffix(tmp_path: Path) -> None:
    found = parsed(make(tmp_path, targets=(("x86-laptop-avx2", 7),)))
    assert "onnx-int8" in found["artifacts"]
    assert found["targets"][0]["ship"]["artifact"] == "onnx-int8"


def test_without_int8_there_is_no_comparison(tmp_path: Path) -> None:
    found = parsed(make(tmp_path, int8=False))
    assert found["comparison"] is None
    assert set(found["artifacts"]) == {"onnx-fp32", "tflite-fp32"}


def test_a_run_that_stopped_early_has_a_document(tmp_path: Path) -> None:
    early = dataclasses.replace(make(tmp_path).outcome, targets=(), exports={}, quantized={}, pruned=None)
    found = strict(document(early, FOLDER).to_json())
    assert (found["targets"], found["artifacts"], found["comparison"]) == ([], {}, None)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_json_does_not_know_are_null(tmp_path: Path, number: float) -> None:
    outcome = make(tmp_path).outcome
    broken = Measurement(
        what="latency_p50", artifact="onnx-int8", runtime="x", value=number, unit="ms", how="measured", where=MACHINE
    )
    target = dataclasses.replace(outcome.targets[0], measurements=(broken,))
    outcome = dataclasses.replace(outcome, targets=(target,))
    assert strict(document(outcome, FOLDER).to_json())["targets"][0]["measurements"][0]["value"] is None
    assert strict(report_json(outcome, FOLDER))["outcome"]["targets"][0]["measurements"][0]["value"] is None


def test_report_json_holds_the_outcome_and_the_tables(tmp_path: Path) -> None:
    made = make(tmp_path, class_names=(HOSTILE, "b"))
    found = strict(report_json(made.outcome, FOLDER))
    assert found["document"] == strict(document(made.outcome, FOLDER).to_json())
    assert found["outcome"]["targets"][0]["per_class"][0][0] == HOSTILE
    rows = found["tables"][0]["runs"]
    assert [row["artifact"] for row in rows][:4] == ["torch-fp32", "torch-fake-quant", "onnx-fp32", "onnx-int8"]
    layers = found["tables"][0]["layers"]
    assert sum(layer["macs_share"] for layer in layers) == pytest.approx(1)
    assert {layer["layer"]: layer["runs"] for layer in layers}["stages.0.conv2"] == "int8"
