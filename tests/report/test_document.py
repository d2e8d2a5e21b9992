"""The JSON documents: exactly the keys that were promised, strict JSON, the words of every task."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from pipeline.artifacts.evidence import Place
from pipeline.artifacts.files import Variant
from pipeline.artifacts.outcome import Check
from pipeline.report.document import document, report_json
from pipeline.report.rows import comparison_of
from tests.judging.cases import measured
from tests.report.recorded import FOLDER, Recorded
from tests.report.variations import (
    HOST,
    LAPTOP,
    PI,
    float_only,
    seen_on,
    stopped_early,
    target_of,
    untimed,
    with_checks,
    with_target,
    with_targets,
)

DOCUMENT_KEYS = {
    "run",
    "recipe",
    "task",
    "metric",
    "places",
    "targets",
    "artifacts",
    "baselines",
    "comparison",
    "hints",
}
TARGET_KEYS = {"name", "passed", "state", "to_try", "ship", "checks", "measurements"}
CHECK_KEYS = {"name", "limit", "got", "unit", "passed", "bound", "state"}
MEASUREMENT_KEYS = {"what", "artifact", "runtime", "value", "unit", "how", "where", "low", "high"}
COMPARISON_KEYS = {
    *("value_float", "value_int8", "difference", "low", "high", "p", "detectable", "agreement", "method"),
}
OF_CLASSIFICATION = {
    *("accuracy_float", "accuracy_int8", "difference_pp", "low_pp", "high_pp", "mcnemar_p", "detectable_pp"),
}
FILES = {
    *("onnx-fp32", "tflite-fp32", "onnx-int8", "tflite-int8", "onnx-int8-w7", "tflite-int8-w7"),
}


def strict(text: str) -> Any:
    """Parse JSON; NaN and Infinity are refused."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def parsed(run: Recorded) -> Any:
    return strict(document(run.outcome, FOLDER).to_json())


def rows(found: Any, what: str, target: int = 0) -> list[Any]:
    return [each for each in found["targets"][target]["measurements"] if each["what"] == what]


def test_the_document_has_exactly_the_promised_keys(digits: Recorded) -> None:
    found = parsed(digits)
    assert set(found) == DOCUMENT_KEYS
    assert found["metric"] == {"name": "accuracy", "unit": "share", "higher_is_better": True}
    assert found["task"] == "classification"
    for target in found["targets"]:
        assert set(target) == TARGET_KEYS
        assert set(target["ship"]) == {"artifact", "why"}
        assert all(set(check) == CHECK_KEYS for check in target["checks"])
        assert all(set(each) == MEASUREMENT_KEYS for each in target["measurements"])
    assert set(found["artifacts"]) == FILES
    assert all(set(file) == {"path", "sha256", "size_bytes"} for file in found["artifacts"].values())
    assert set(found["comparison"]) == COMPARISON_KEYS | OF_CLASSIFICATION


def test_another_task_has_its_own_words_and_none_of_classification(plane: Recorded) -> None:
    found = parsed(plane)
    assert found["metric"] == {"name": "RMSE", "unit": "", "higher_is_better": False}
    assert set(found["comparison"]) == COMPARISON_KEYS
    assert {each["unit"] for each in rows(found, "RMSE")} == {""}
    assert rows(found, "accuracy") == []
    checks = {check["name"]: check for check in found["targets"][0]["checks"]}
    assert checks["RMSE (int8)"]["bound"] == "at most"
    assert checks["RMSE rise (int8)"]["unit"] == "%"


def test_values_come_from_the_outcome(digits: Recorded) -> None:
    found = parsed(digits)
    file = next(each for each in digits.outcome.files if each.variant.key == "onnx-int8")
    assert found["artifacts"]["onnx-int8"] == {
        "path": f"runs/digits/{file.filename}",
        "sha256": file.file,
        "size_bytes": file.size_bytes,
    }
    for shown, target in zip(found["targets"], digits.outcome.targets, strict=True):
        assert shown["ship"]["artifact"] == (target.verdict.ship and target.verdict.ship.variant.key)
        assert (shown["passed"], shown["state"]) == (target.verdict.passed, target.verdict.state)
    compared = comparison_of(digits.outcome, digits.outcome.targets[0])
    assert compared is not None
    assert found["comparison"]["p"] == found["comparison"]["mcnemar_p"] == compared.comparison.p
    assert found["comparison"]["difference_pp"] == pytest.approx(100 * compared.comparison.difference)


@pytest.mark.parametrize(
    ("bound", "found", "passed", "state"),
    [
        ("at least", (0.98, 0.975, 0.985), True, "met"),
        ("at least", (0.975, 0.96, 0.985), True, "uncertain"),
        ("at least", (0.965, 0.96, 0.985), False, "uncertain"),
        ("at most", (0.98, 0.975, 0.985), False, "missed"),
        ("at most", (None, None, None), None, "open"),
    ],
)
def test_a_check_says_what_was_found_and_how_sure_it_is(
    digits: Recorded, bound: Any, found: tuple[Any, Any, Any], passed: bool | None, state: str
) -> None:
    got, low, high = found
    int8 = Variant(format="onnx", precision="int8", weight_bits=8)
    check = Check(quantity="accuracy", variant=int8, bound=bound, limit=0.97, unit="share", got=got, low=low, high=high)
    assert parsed(with_checks(digits, check))["targets"][0]["checks"] == [
        {
            "name": "accuracy (int8)",
            "limit": 97.0,
            "got": got and pytest.approx(100 * got),
            "unit": "%",
            "passed": passed,
            "bound": bound,
            "state": state,
        }
    ]


def test_a_latency_that_nobody_measured_has_no_value(digits: Recorded) -> None:
    found = parsed(with_targets(digits, PI))
    missing = [each for each in found["targets"][0]["measurements"] if each["how"] == "not measured"]
    assert {(each["what"], each["artifact"], each["where"]) for each in missing} == {
        (what, artifact, PI) for what in ("latency_p50", "latency_p95") for artifact in ("onnx-fp32", "onnx-int8")
    }
    assert {each["value"] for each in missing} == {None}


def test_on_the_target_itself_nothing_is_missing_and_nothing_stands_twice(digits: Recorded) -> None:
    found = parsed(with_targets(digits, HOST))
    assert [each for each in found["targets"][0]["measurements"] if each["how"] == "not measured"] == []
    for what in ("latency_p50", "latency_p95", "peak_memory"):
        ways = [(each["artifact"], each["runtime"]) for each in rows(found, what)]
        assert len(set(ways)) == len(ways) > 0
    assert [place["profile"] for place in found["places"]] == [HOST]


def test_one_latency_has_one_value_for_all_targets(digits: Recorded) -> None:
    found = parsed(digits)
    values: dict[tuple[str, str], set[float]] = {}
    for number in range(len(found["targets"])):
        for each in rows(found, "latency_p50", number):
            if each["value"] is not None:
                values.setdefault((each["artifact"], each["runtime"]), set()).add(each["value"])
    assert len(values) == 9  # 3 float ways and 3 for each width
    assert {len(each) for each in values.values()} == {1}


def test_estimated_memory_says_so(digits: Recorded) -> None:
    found = parsed(with_targets(digits, PI))
    hows = {(each["artifact"], each["how"]) for each in rows(found, "peak_memory")}
    assert {("onnx-int8", "measured"), ("onnx-int8", "estimated")} <= hows
    assert {place["how"] for place in found["places"]} == {"measured", "estimated"}


def test_places_list_where_numbers_come_from(digits: Recorded) -> None:
    emulator = Place(how="emulated", name="qemu cortex-a72", profile=PI)
    way = target_of(digits.outcome, PI).candidates[-1]
    number = dataclasses.replace(measured("latency_p95_ms", way, 3.0, how="emulated", profile=PI), place=emulator)
    found = parsed(seen_on(digits, emulator, number))
    assert {"how": "emulated", "name": "qemu cortex-a72", "profile": PI} in found["places"]
    assert [each["value"] for each in rows(found, "latency_p95") if each["how"] == "emulated"] == [3.0]


def test_two_weight_widths_do_not_collide(digits: Recorded) -> None:
    found = parsed(with_targets(digits, PI, LAPTOP))
    named = [{each["artifact"] for each in target["measurements"]} for target in found["targets"]]
    assert "onnx-int8" in named[0]
    assert "onnx-int8-w7" not in named[0]
    assert "onnx-int8-w7" in named[1]
    assert "onnx-int8" not in named[1]


def test_without_int8_there_is_no_comparison(digits: Recorded) -> None:
    found = parsed(float_only(digits))
    assert found["comparison"] is None
    assert set(found["artifacts"]) == {"onnx-fp32", "tflite-fp32"}


def test_without_times_only_the_missing_ones_are_listed(digits: Recorded) -> None:
    assert {each["how"] for each in rows(parsed(untimed(digits)), "latency_p50")} == {"not measured"}


def test_a_run_that_stopped_early_has_a_document(digits: Recorded) -> None:
    found = parsed(stopped_early(digits))
    assert (found["targets"], found["artifacts"], found["comparison"]) == ([], {}, None)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_json_does_not_know_are_null(digits: Recorded, number: float) -> None:
    target = digits.outcome.targets[0]
    broken = measured("latency_p50_ms", target.candidates[0], number, profile=PI)
    run = with_target(digits, dataclasses.replace(target, measurements=(broken,)))
    assert None in [each["value"] for each in rows(parsed(run), "latency_p50") if each["how"] == "measured"]
    whole = strict(report_json(run.outcome, FOLDER))
    assert whole["outcome"]["targets"][0]["measurements"][0]["value"] is None


def test_report_json_holds_the_outcome_the_tables_and_the_figures(digits: Recorded) -> None:
    found = strict(digits.json())
    assert found["document"] == parsed(digits)
    assert found["outcome"]["run"] == digits.outcome.run
    ways = [(row["way"]["variant"]["format"], row["way"]["variant"]["precision"]) for row in found["tables"][0]["runs"]]
    assert ways[:4] == [("torch", "fp32"), ("torch", "int8"), ("onnx", "fp32"), ("tflite", "fp32")]
    layers = found["tables"][0]["layers"]
    assert sum(layer["macs_share"] for layer in layers) == pytest.approx(1)
    assert {layer["runs"] for layer in layers} <= {"int8", "fp32", None}
    assert {"matrix", "table"} <= {figure["kind"] for figure in found["figures"]}


def test_hints_are_in_both_documents(digits: Recorded) -> None:
    hinted = digits.but(hints=("features are far apart",))
    assert parsed(hinted)["hints"] == ["features are far apart"]
    assert strict(hinted.json())["document"]["hints"] == ["features are far apart"]
    assert parsed(digits)["hints"] == []
