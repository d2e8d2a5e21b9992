"""Tables are read off the artifacts, also where names do not match letter by letter."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from pipeline.artifacts import ExecutedOp, LayerQuality, Measurement, Outcome
from pipeline.report.rows import find_measurement, layer_rows, run_rows, worst_layers
from tests.report.builder import MACHINE, make


def with_nodes(outcome: Outcome, *nodes: ExecutedOp) -> Outcome:
    target = dataclasses.replace(outcome.targets[0], executed={"onnx-int8": nodes})
    return dataclasses.replace(outcome, targets=(target,))


def test_a_row_takes_the_numbers_of_its_own_runtime(tmp_path: Path) -> None:
    outcome = make(tmp_path).outcome
    rows = {(row.artifact, row.runtime.split()[0]): row for row in run_rows(outcome, outcome.targets[0])}
    litert, old = rows["tflite-int8", "litert"], rows["tflite-int8", "tflite-runtime"]
    assert litert.latency_p50_ms is not None
    assert old.latency_p50_ms is not None
    assert old.latency_p50_ms > litert.latency_p50_ms
    assert litert.size_bytes == old.size_bytes
    assert litert.same_class == 1.0
    assert (litert.latency_how, litert.latency_where) == ("measured", MACHINE)
    assert rows["torch-fp32", "torch"].size_bytes is None


def test_agreements_give_the_same_class_where_no_measurement_does(tmp_path: Path) -> None:
    outcome = make(tmp_path).outcome
    agreements = tuple(dataclasses.replace(each, same_class=0.5) for each in outcome.targets[0].agreements)
    target = dataclasses.replace(outcome.targets[0], measurements=(), agreements=agreements)
    found = {row.artifact: row.same_class for row in run_rows(outcome, target)}
    assert found["onnx-int8"] == 0.5
    assert found["onnx-fp32"] is None


def test_measured_comes_before_estimated() -> None:
    about = Measurement(
        what="latency_p50", artifact="a", runtime="r 1", value=3.0, unit="ms", how="estimated", where="pi"
    )
    measured = dataclasses.replace(about, value=1.0, how="measured", where="pc")
    nothing = dataclasses.replace(about, value=None, how="not measured")
    found = find_measurement((about, nothing, measured), "latency_p50", "a", "r 1.2")
    assert found == measured
    assert find_measurement((nothing,), "latency_p50", "a", "r 1.2") is None
    assert find_measurement((measured,), "latency_p50", "a", "rr 1") is None


def test_nodes_belong_to_the_layer_with_the_longest_fitting_name(tmp_path: Path) -> None:
    outcome = with_nodes(
        make(tmp_path).outcome,
        ExecutedOp(name="stages.0.conv1_quant", op="QLinearConv", integer=True),
        ExecutedOp(name="stages.0.conv2", op="Conv", integer=False, reason="computes in float"),
        ExecutedOp(name="stages.0.conv20", op="Conv", integer=False),  # another layer's
        ExecutedOp(name="head.q", op="QuantizeLinear", integer=True),  # part of a name is no name
    )
    rows = {row.layer: row for row in layer_rows(outcome, 8, outcome.targets[0])}
    assert rows["stages.0.conv1"].runs == "int8"
    assert (rows["stages.0.conv2"].runs, rows["stages.0.conv2"].reason) == ("fp32", "computes in float")
    assert rows["stages.0.relu1"].runs is None
    assert rows["head"].runs is None


def test_a_layer_that_missed_the_margin_says_so(tmp_path: Path) -> None:
    outcome = make(tmp_path).outcome
    quantized = {8: dataclasses.replace(outcome.quantized[8], float_layers=("head",))}
    rows = layer_rows(dataclasses.replace(outcome, quantized=quantized), 8, outcome.targets[0])
    assert "margin" in {row.layer: row for row in rows}["head"].reason


def test_layers_without_a_target_have_costs_and_no_kernels(tmp_path: Path) -> None:
    rows = layer_rows(make(tmp_path).outcome, 8)
    assert {row.runs for row in rows} == {None}
    assert rows[0].output_values == 24 * 8 * 8


def test_the_worst_layers_are_those_with_the_lowest_output_sqnr() -> None:
    layers = [
        LayerQuality(layer=name, weight_sqnr_db=None, activation_sqnr_db=None, output_sqnr_db=db, precision="int8")
        for name, db in (("a", 30.0), ("b", 10.0), ("c", 20.0))
    ]
    assert [each.layer for each in worst_layers(layers, 2)] == ["b", "c"]
