"""How well each layer stands 8 bits, and the samples on which that is measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import fx, nn

from pipeline.data.load import load
from pipeline.data.source import ArraySource, Dataset
from pipeline.declare.recipe import QuantizeSpec
from pipeline.networks.from_torch import folded_graph
from pipeline.quant.calibrate import calibrate
from pipeline.quant.prepare import float_reasons, prepare, quantized_labels
from pipeline.quant.samples import calibration_inputs, some_of
from pipeline.quant.sensitivity import layer_quality, sensitivity, sqnr_db
from tests import learnable
from tests.quant import networks


def prepared(network: nn.Module, *, bits: int = 8, float_layers: tuple[str, ...] = ()) -> fx.GraphModule:
    graph = prepare(folded_graph(network.eval(), networks.SAMPLE_SHAPE), weight_bits=bits, float_layers=float_layers)
    calibrate(graph, networks.inputs(64), QuantizeSpec(calibration="min-max"))
    return graph.eval()


# ── quality ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_rows_stand_in_the_order_of_the_network() -> None:
    rows = layer_quality(prepared(networks.build("mixed")), networks.inputs(32))
    assert [row.layer for row in rows] == [
        "x", "left", "right", "cat", "depthwise", "gate", "sigmoid", "mul", "average", "fc",
    ]  # fmt: skip
    weighted = {row.layer for row in rows if row.weight_sqnr_db is not None}
    assert weighted == {"left", "right", "depthwise", "gate", "average", "fc"}


def test_a_bit_less_costs_six_decibels_of_the_weights() -> None:
    eight, seven = (
        {row.layer: row.weight_sqnr_db for row in layer_quality(graph, networks.inputs(16))}
        for graph in (prepared(networks.build("residual"), bits=bits) for bits in (8, 7))
    )
    for layer, found in eight.items():
        if found is not None:
            narrow = seven[layer]
            assert narrow is not None
            assert found - narrow == pytest.approx(6, abs=1.5)


def test_a_layer_with_an_outlier_is_the_worst() -> None:
    network = networks.build("residual")
    with torch.no_grad():
        network.get_parameter("fc.weight")[:, 0] = 60.0  # eats the bits of every channel
        network.get_parameter("bn2.weight")[0] = 0.0
    rows = layer_quality(prepared(network), networks.inputs(32))
    weighted = [row for row in rows if row.weight_sqnr_db is not None]
    assert min(weighted, key=lambda row: row.weight_sqnr_db or 0.0).layer == "fc"


def test_float_layers_have_no_row_of_weights() -> None:
    graph = prepared(networks.build("residual"), float_layers=("conv2",))
    assert "conv2" not in quantized_labels(graph)
    rows = {row.layer: row for row in layer_quality(graph, networks.inputs(16))}
    assert "conv2" not in rows or rows["conv2"].weight_sqnr_db is None
    assert [reason.split(":")[0] for reason in float_reasons(graph)] == ["conv2 (Conv)"]


def test_what_all_samples_have_in_common_does_not_hide_what_is_lost() -> None:
    """A large constant makes steps coarse: the output as a whole hardly changes, what tells samples apart does."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 8), nn.ReLU(), nn.Linear(8, 5))
    with torch.no_grad():
        network.get_parameter("3.bias").fill_(100.0)
    measured = sensitivity(prepared(network), networks.inputs(32))
    last = next(row for row in measured.rows if row.layer == "3")
    assert measured.worst_first[0] == "3"
    assert last.output_sqnr_db > 40


@pytest.mark.parametrize("factor", [1e-6, 1.0, 1e6])
def test_decibels_do_not_depend_on_the_unit(factor: float) -> None:
    signal = torch.randn(1000, generator=torch.Generator().manual_seed(0)) * factor
    assert sqnr_db(signal, signal * 1.01) == pytest.approx(40, abs=0.01)


# ── samples ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_calibration_samples_are_prepared_and_those_of_the_card(tmp_path: Path) -> None:
    data = learnable.dataset(tmp_path)
    dataset, facts = load(data), learnable.facts(data)
    everything = calibration_inputs(dataset, facts.frontend)
    assert everything.shape == (64, *learnable.SHAPE)  # as many as the card says
    assert everything.dtype is torch.float32
    few = calibration_inputs(dataset, facts.frontend, most=5)
    assert few.shape == (5, *learnable.SHAPE)
    assert torch.equal(few[0], everything[0])
    assert torch.equal(few[-1], everything[-1])  # spread over all of them
    assert torch.equal(calibration_inputs(dataset, facts.frontend, most=1000), everything)


@pytest.mark.parametrize(("values", "samples"), [(1 << 40, 32), (20 * 2709, 20), (20 * 2709 - 1, 19), (1, 8)])
def test_of_large_samples_few_are_enough(values: int, samples: int) -> None:
    graph = folded_graph(networks.build("residual").eval(), networks.SAMPLE_SHAPE)  # five layers of 8×8×8 and smaller
    assert len(some_of(networks.inputs(64), graph, most=32, values=values)) == samples


def test_several_inputs_lie_side_by_side(tmp_path: Path) -> None:
    dataset = load(learnable.dataset(tmp_path))
    both = {"left": np.zeros((200, 3), np.float32), "right": np.ones((200, 2, 2), np.float32)}
    train = ArraySource(inputs=both, labels={"class": np.arange(200) % 4}, strata=np.arange(200) % 4)
    several = Dataset(card=dataset.card, classes=dataset.classes, train=train, val=train, test=train, frontend={})
    assert calibration_inputs(several, {})[0].tolist() == [0, 0, 0, 1, 1, 1, 1]
