"""Operations put together from others: what they become, and that the files compute the same integers.

Shapes: N batch, C channels.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from pipeline.declare.recipe import QuantizeSpec
from pipeline.networks.from_torch import folded_graph
from pipeline.quant.calibrate import calibrate
from pipeline.quant.prepare import freeze, prepare
from pipeline.quant.to_onnx import to_bytes, write_onnx
from pipeline.tflite import write_tflite
from tests.quant.exact import run_exactly
from tests.tflite.nets import run_tflite

MEANS = {
    "2d": (nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(6, 8, 1)), (3, 12, 12)),
    "over the edge, counted": (nn.Sequential(nn.Conv2d(3, 6, 3), nn.AvgPool2d(3, 1, 1), nn.ReLU()), (3, 8, 8)),
    "another divisor": (nn.Sequential(nn.Conv2d(3, 5, 1), nn.AvgPool2d(2, divisor_override=3)), (3, 8, 8)),
    "strides and axes apart": (nn.Sequential(nn.Conv2d(3, 4, 1), nn.AvgPool2d((2, 3), (1, 2))), (3, 8, 9)),
    "ceil mode, nothing over": (nn.Sequential(nn.Conv2d(3, 4, 1), nn.AvgPool2d(2, 2, 0, True, False)), (3, 8, 8)),
    "large windows of even numbers": (nn.Sequential(nn.Conv2d(3, 4, 1), nn.AvgPool2d(6), nn.ReLU()), (3, 12, 12)),
    "all there is": (nn.Sequential(nn.Conv2d(3, 6, 1), nn.AvgPool2d(8), nn.Conv2d(6, 4, 1)), (3, 8, 8)),
    "1d": (nn.Sequential(nn.Conv1d(2, 6, 3), nn.AvgPool1d(4), nn.Conv1d(6, 3, 1)), (2, 32)),
}
POOLS = {
    "counts what is there": nn.AvgPool2d(3, 2, 1, count_include_pad=False),
    "windows over the end": nn.AvgPool2d(2, ceil_mode=True),
    "large windows of odd numbers": nn.AvgPool2d(7),
}


def quantized(network: nn.Module, shape: tuple[int, ...], *, samples: int = 32) -> tuple[fx.GraphModule, Tensor]:
    torch.manual_seed(0)
    prepared = prepare(folded_graph(network.eval(), shape), weight_bits=8)
    inputs = torch.randn(samples, *shape)
    calibrate(prepared, inputs, QuantizeSpec(calibration="min-max"))
    return prepared.eval(), inputs


@pytest.mark.parametrize("name", MEANS)
def test_means_over_small_windows_are_the_same_integers_everywhere(name: str) -> None:
    prepared, inputs = quantized(*MEANS[name])
    assert not any(isinstance(module, nn.AvgPool1d | nn.AvgPool2d) for module in prepared.modules())
    with torch.no_grad():
        wanted = freeze(prepared)(inputs).numpy()
    model = write_onnx(prepared, name="net")
    assert not [node for node in model.graph.node if node.op_type == "AveragePool"]
    found: dict[str, NDArray[np.float32]] = {
        "onnx": run_exactly(to_bytes(model), inputs.numpy()),
        "tflite": run_tflite(write_tflite(model), inputs.numpy()).values,
    }
    for outputs in found.values():
        np.testing.assert_array_equal(outputs, wanted)


def test_a_mean_is_near_to_what_it_was_and_is_not_trained() -> None:
    network, shape = MEANS["2d"]
    prepared, inputs = quantized(network, shape)
    with torch.no_grad():
        wanted = network(inputs)
        assert (prepared(inputs) - wanted).abs().mean() < 0.02 * wanted.std()
    (mean,) = (module for module in prepared.modules() if isinstance(module, nn.Conv2d) and module.groups == 6)
    assert not mean.weight.requires_grad


@pytest.mark.parametrize("name", POOLS)
def test_other_means_stay_pools(name: str) -> None:
    prepared, _ = quantized(nn.Sequential(nn.Conv2d(3, 6, 1), POOLS[name]), (3, 13, 13), samples=4)
    assert any(isinstance(module, nn.AvgPool2d) for module in prepared.modules())
