"""Tables are read off the artifacts; a target's row never shows another machine's number beside its own."""

from __future__ import annotations

import dataclasses

from pipeline.artifacts.evidence import Executed, ExecutedOp, Place
from pipeline.artifacts.outcome import Outcome
from pipeline.artifacts.training import LayerQuality
from pipeline.report.rows import export_set, layer_rows, run_rows, shown, timings_of, widths, worst_layers
from tests.judging.cases import measured
from tests.report.recorded import Recorded
from tests.report.variations import HOST, LAPTOP, PI, float_only, seen_on, target_of, untimed, with_targets


def with_nodes(outcome: Outcome, *nodes: ExecutedOp) -> Outcome:
    way = target_of(outcome, PI).candidates[-1]
    seen = dataclasses.replace(outcome.observed[0], executed=(Executed(way=way, nodes=nodes),))
    return dataclasses.replace(outcome, observed=(seen,))


def test_a_row_takes_the_numbers_of_its_own_runtime(digits: Recorded) -> None:
    outcome = digits.outcome
    rows = {(row.way.variant.key, row.way.program): row for row in run_rows(outcome, target_of(outcome, PI))}
    litert, old = rows["tflite-int8", "litert"], rows["tflite-int8", "tflite-runtime"]
    measured_here = {(each.way, each.quantity): each.value for each in outcome.observed[0].measurements}
    for row in (litert, old):
        assert row.p50 is not None
        assert row.p95 is not None
        assert row.p50.value == measured_here[row.way, "latency_p50_ms"]
        assert row.p95.value == measured_here[row.way, "latency_p95_ms"]
    assert litert.p50 != old.p50
    assert litert.size_bytes == old.size_bytes
    assert litert.same is not None
    assert rows["torch-fp32", "torch"].size_bytes is None
    assert rows["onnx-fp32", "onnxruntime"].same is None


def test_each_target_sees_the_files_of_its_weight_bits(digits: Recorded) -> None:
    widths_seen = [
        {row.way.variant.weight_bits for row in run_rows(digits.outcome, target_of(digits.outcome, name))}
        for name in (PI, LAPTOP, HOST)
    ]
    host_bits = target_of(digits.outcome, HOST).weight_bits
    assert widths_seen == [{32, 8}, {32, 7}, {32, host_bits}]


def test_another_machines_times_are_shown_only_where_the_target_has_none(digits: Recorded) -> None:
    way = target_of(digits.outcome, PI).candidates[-1]
    board = Place(how="measured", name="pi@garden", profile=PI)
    number = dataclasses.replace(measured("latency_p95_ms", way, 3.0, profile=PI), place=board)
    run = seen_on(digits, board, number)
    rows = {row.way: row for row in run_rows(run.outcome, run.outcome.targets[0])}
    assert rows[way].p95 == number
    assert {row.p50 for row in rows.values()} == {None}  # not even the recorded machine's p50
    assert [each for row in rows.values() if (each := row.p95)] == [number]
    before = shown(digits.outcome, target_of(digits.outcome, PI), "latency_p95_ms")
    assert {each.place.profile for each in before.values()} == {None}


def test_the_distribution_is_that_of_the_times_in_the_table(digits: Recorded) -> None:
    for name in (PI, HOST):
        found = timings_of(digits.outcome, target_of(digits.outcome, name))
        assert found is not None
        place, timings = found
        assert place.profile == (HOST if name == HOST else None)
        assert len({timing.threads for timing in timings}) == 1
    assert timings_of(untimed(digits).outcome, untimed(digits).outcome.targets[0]) is None


def test_nodes_belong_to_the_layer_with_the_longest_fitting_name(digits: Recorded) -> None:
    first, second, third, fourth = (each.layer for each in export_set(digits.outcome, 8).layers[:4])
    outcome = with_nodes(
        digits.outcome,
        ExecutedOp(name=f"{first}_quant", op="QLinearConv", integer=True),
        ExecutedOp(name=second, op="Conv", integer=False, reason="computes in float"),
        ExecutedOp(name=f"{third}0", op="Conv", integer=False),  # another layer's
        ExecutedOp(name=f"{fourth}.q", op="QuantizeLinear", integer=True),  # part of a name is no name
    )
    rows = {row.layer: row for row in layer_rows(outcome, 8, target_of(outcome, PI))}
    assert rows[first].runs == "int8"
    assert (rows[second].runs, rows[second].reason) == ("fp32", "computes in float")
    assert rows[third].runs is None
    assert rows[fourth].runs is None


def test_a_layer_that_missed_the_margin_says_so(digits: Recorded) -> None:
    last = export_set(digits.outcome, 8).layers[-1].layer
    quantized = digits.outcome.quantized | {8: dataclasses.replace(digits.outcome.quantized[8], float_layers=(last,))}
    outcome = dataclasses.replace(digits.outcome, quantized=quantized)
    rows = {row.layer: row for row in layer_rows(outcome, 8, target_of(outcome, PI))}
    assert "margin" in rows[last].reason


def test_layers_without_a_target_have_costs_and_no_kernels(digits: Recorded) -> None:
    rows = layer_rows(digits.outcome, 8)
    assert {row.runs for row in rows} == {None}
    assert rows[0].output_shape[1:] == (8, 8)
    assert rows[0].output_values == rows[0].output_shape[0] * 64
    assert {row.runs for row in layer_rows(digits.outcome, 8, target_of(digits.outcome, PI))} >= {"int8"}


def test_widths_and_their_files(digits: Recorded) -> None:
    assert widths(digits.outcome) == (8, 7)
    assert [export_set(digits.outcome, bits).weight_bits for bits in (8, 7)] == [8, 7]
    bare = float_only(with_targets(digits, PI)).outcome
    assert widths(bare) == (32,)
    assert export_set(bare, 8).precision == "fp32"


def test_the_worst_layers_are_those_with_the_lowest_output_sqnr() -> None:
    layers = [
        LayerQuality(layer=name, weight_sqnr_db=None, activation_sqnr_db=None, output_sqnr_db=db, precision="int8")
        for name, db in (("a", 30.0), ("b", 10.0), ("c", 20.0))
    ]
    assert [each.layer for each in worst_layers(layers, 2)] == ["b", "c"]
