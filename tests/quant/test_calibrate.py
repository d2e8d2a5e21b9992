"""Ranges against numbers worked out by hand, and what measuring a layer's noise leaves behind: nothing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, fx, nn

from pipeline.declare.recipe import QuantizeSpec
from pipeline.networks.from_torch import folded_graph
from pipeline.quant.calibrate import calibrate, unquantized
from pipeline.quant.fakequant import ActivationQuantizer
from pipeline.quant.prepare import prepare
from pipeline.quant.sensitivity import layer_quality, sqnr_db
from tests.quant import networks

BINS = 2048  # ranges are found to one of so many parts


def graph_of(network: nn.Module, shape: tuple[int, ...] = (4,)) -> fx.GraphModule:
    return prepare(folded_graph(network, shape), weight_bits=8)


def input_range(x: Tensor, **spec: object) -> tuple[float, float]:
    """Calibrate one linear layer and return what its input got."""
    graph = graph_of(nn.Sequential(nn.Linear(x.shape[1], 3)), (x.shape[1],))
    calibrate(graph, x, QuantizeSpec.model_validate(spec))
    quantizer = next(module for module in graph.modules() if isinstance(module, ActivationQuantizer))
    return float(quantizer.low), float(quantizer.high)


def test_min_max_is_the_smallest_and_largest_value_over_all_batches() -> None:
    x = torch.zeros(150, 4)  # batches of 64
    x[3, 0], x[149, 2] = -2.5, 7.25
    assert input_range(x, calibration="min-max") == (-2.5, 7.25)


@pytest.mark.parametrize("method", ["min-max", "percentile", "mse"])
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_every_range_holds_zero(method: str, sign: float) -> None:
    x = sign * (torch.rand(64, 4) + 3)
    low, high = input_range(x, calibration=method)
    assert low <= 0 <= high
    assert max(-low, high) > 2.5


def test_percentile_cuts_both_tails() -> None:
    x = torch.linspace(-1, 3, 4 * 1001).reshape(-1, 4)
    low, high = input_range(x, calibration="percentile", percentile=90)
    assert (low, high) == pytest.approx((-1 + 0.4, 3 - 0.4), abs=2 * 4 / BINS)
    assert input_range(x, calibration="percentile", percentile=100) == pytest.approx((-1, 3), abs=4 / BINS)


def test_percentile_keeps_zero_as_the_low_end_of_what_is_never_negative() -> None:
    low, _ = input_range(torch.rand(500, 4) + 1, calibration="percentile", percentile=90)
    assert low == 0


def rounding_error(x: Tensor, low: float, high: float) -> float:
    scale = (high - low) / 255
    zero_point = round(-low / scale)
    steps = ((x / scale).round() + zero_point).clamp(0, 255)
    return float(((steps - zero_point) * scale - x).square().mean())


@pytest.mark.parametrize("power", [1, 3])
def test_no_other_range_has_a_clearly_smaller_error(power: int) -> None:
    x = torch.randn(4000, 4, generator=torch.Generator().manual_seed(0)) ** power
    low, high = input_range(x, calibration="min-max")
    shares = (0.3, 0.5, 0.7, 0.8, 0.9, 1.0)
    least = min(rounding_error(x, low * one, high * other) for one in shares for other in shares)
    # the ends are chosen one after the other, from histograms
    assert rounding_error(x, *input_range(x, calibration="mse")) <= 1.02 * least


@pytest.mark.parametrize("method", ["min-max", "percentile", "mse"])
def test_a_layer_that_is_always_zero_does_no_harm(method: str) -> None:
    assert input_range(torch.zeros(64, 4), calibration=method) == (0, 0)
    graph = graph_of(nn.Sequential(nn.Linear(4, 3)))
    calibrate(graph, torch.zeros(64, 4), QuantizeSpec.model_validate({"calibration": method}))
    with torch.no_grad():
        assert bool(torch.isfinite(graph(torch.zeros(2, 4))).all())


def test_calibration_leaves_no_taps_and_rounds_again() -> None:
    graph = graph_of(networks.build("mixed"), networks.SAMPLE_SHAPE)
    calibrate(graph, networks.inputs(32), QuantizeSpec())
    quantizers = [module for module in graph.modules() if isinstance(module, ActivationQuantizer)]
    assert all(quantizer.tap is None and quantizer.enabled for quantizer in quantizers)
    assert all(float(q.high) > float(q.low) for q in quantizers if q.fixed is None)


def test_unquantized_is_float_and_comes_back_after_an_error() -> None:
    network = networks.build("residual")
    graph = graph_of(network, networks.SAMPLE_SHAPE).eval()
    calibrate(graph, networks.inputs(32), QuantizeSpec())
    x = networks.inputs(8)
    with torch.no_grad():
        rounded = graph(x)
        with unquantized(graph):
            torch.testing.assert_close(graph(x), network(x), rtol=1e-4, atol=1e-5)
        with pytest.raises(RuntimeError), unquantized(graph):
            graph(x[:, :2])
        assert torch.equal(graph(x), rounded)


def test_measuring_layers_changes_nothing() -> None:
    graph = graph_of(networks.build("residual"), networks.SAMPLE_SHAPE).eval()
    calibrate(graph, networks.inputs(32), QuantizeSpec())
    x = networks.inputs(8)
    with torch.no_grad():
        before = graph(x)
        rows = layer_quality(graph, networks.inputs(32))
        assert torch.equal(graph(x), before)
    assert len(rows) == 6
    assert rows == layer_quality(graph, networks.inputs(32))


def test_signal_to_noise() -> None:
    signal = torch.tensor([3.0, 4.0])
    assert sqnr_db(signal, signal + torch.tensor([0.3, 0.4])) == pytest.approx(20, abs=1e-4)
    assert sqnr_db(signal, signal) == 200
    assert sqnr_db(torch.zeros(2), torch.zeros(2)) == 200
    assert sqnr_db(torch.zeros(2), signal) == -200
