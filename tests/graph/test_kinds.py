"""Flat graphs, folding and quantization parameters: what each promises, checked where it is broken."""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, fx, nn

from pipeline.errors import ModelError, UnsupportedOpError
from pipeline.graph.kinds import check_flat, compute_nodes, kind_of, module_of, output_node
from pipeline.graph.params import INT8, UINT8, Grid, QuantParams, symmetric
from pipeline.networks.from_torch import flat_graph, folded_graph
from pipeline.quant.to_onnx import write_onnx
from pipeline.tflite import write_tflite
from tests.quant import networks
from tests.quant.exact import run_exactly
from tests.tflite.nets import run_tflite

SHAPE = networks.SAMPLE_SHAPE


# ── flat ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", networks.ALL)
def test_a_traced_graph_is_flat_and_keeps_the_users_names(name: str) -> None:
    graph = flat_graph(networks.build(name), SHAPE)
    check_flat(graph, after="trace")
    labels = [node.meta["label"] for node in compute_nodes(graph)]
    assert len(set(labels)) == len(labels)
    named = {own for own, module in networks.build(name).named_modules() if isinstance(module, nn.Conv2d | nn.Linear)}
    assert named <= set(labels)


def broken(graph: fx.GraphModule, what: str) -> None:
    first, second = compute_nodes(graph)[:2]
    if what == "label twice":
        second.meta["label"] = first.meta["label"]
    elif what == "no shape":
        del second.meta["shape"]
    elif what == "unknown module":
        graph.set_submodule(str(second.target), nn.CELU())
    else:
        with graph.graph.inserting_after(first):
            graph.graph.call_method("relu", (first,))


@pytest.mark.parametrize("what", ["label twice", "no shape", "unknown module", "method"])
def test_a_graph_that_is_not_flat_is_noticed(what: str) -> None:
    graph = flat_graph(networks.build("residual"), SHAPE)
    broken(graph, what)
    with pytest.raises(ModelError, match=r"graph after somewhere: .* is no known operation") as caught:
        check_flat(graph, after="somewhere")
    assert "report it" in caught.value.remedy


def test_module_types_may_be_let_in() -> None:
    graph = flat_graph(networks.build("residual"), SHAPE)
    graph.set_submodule(str(compute_nodes(graph)[1].target), nn.CELU())
    check_flat(graph, after="somewhere", beside=(nn.CELU,))


def test_an_unknown_module_has_no_kind() -> None:
    with pytest.raises(UnsupportedOpError, match="CELU"):
        kind_of(nn.CELU())
    assert [kind_of(nn.Upsample(scale_factor=2, mode=mode)) for mode in ("nearest", "bilinear")] == [
        "ResizeNearest",
        "ResizeLinear",
    ]


def test_a_network_with_two_results_is_refused() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 2, 1)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.conv(x), x

    with pytest.raises(ModelError, match="more than one tensor") as caught:
        flat_graph(Both(), SHAPE)
    assert "return one tensor" in caught.value.remedy


class Maps(nn.Module):
    """A map per class, at the picture's own size: the output has as many axes as the input."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.Upsample(scale_factor=2, mode=mode)
        self.head = nn.Conv2d(7, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        maps: Tensor = self.head(torch.cat([x, self.up(F.relu(self.down(x)))], 1))
        return maps


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_outputs_may_be_maps(mode: str) -> None:
    graph = folded_graph(Maps(mode).eval(), SHAPE)
    assert output_node(graph).meta["shape"][1:] == (5, 8, 8)


N = TypeVar("N", bound=nn.Module)


@pytest.mark.parametrize(("before", "after"), [((10, 10), (20, 21)), ((9, 7), (17, 13)), ((5, 11), (24, 32))])
def test_maps_of_any_size_are_resized_to_any_size(before: tuple[int, int], after: tuple[int, int]) -> None:
    network = nn.Upsample(size=after, mode="bilinear", align_corners=True)
    graph = folded_graph(nn.Sequential(nn.Conv2d(2, 2, 1), network).eval(), (2, *before))
    model = write_onnx(graph, name="resize")
    x = torch.randn(3, 2, *before)
    with torch.no_grad():
        wanted = graph(x).numpy()
    assert np.abs(run_exactly(model.SerializeToString(), x.numpy()) - wanted).max() < 1e-5
    assert np.abs(run_tflite(write_tflite(model), x.numpy()).values - wanted).max() < 1e-5


# ── fold ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def seen(network: N) -> N:
    """Let batch norms see data."""
    torch.manual_seed(0)
    for _ in range(3):
        network.train()(torch.randn(16, *SHAPE) * 2 + 1)
    return network.eval()


def test_a_norm_becomes_weights_where_it_can_and_a_depthwise_convolution_where_it_cannot() -> None:
    network = seen(
        nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.BatchNorm2d(4))
    )
    graph = folded_graph(network, SHAPE)
    assert [kind_of(module_of(node)) for node in compute_nodes(graph)] == ["Conv", "Conv", "Relu", "Conv"]
    x = torch.randn(4, *SHAPE)
    with torch.no_grad():
        torch.testing.assert_close(graph(x), network(x), rtol=1e-4, atol=1e-5)
    assert isinstance(network[2], nn.BatchNorm2d)  # the network itself stays as it is


def test_a_norm_after_a_layer_that_others_read_stays_apart() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x)
            both: Tensor = self.norm(x) + x
            return both

    network = seen(Shared())
    graph = folded_graph(network, SHAPE)
    assert [kind_of(module_of(node)) for node in compute_nodes(graph)] == ["Conv", "Conv", "Add"]
    x = torch.randn(4, *SHAPE)
    with torch.no_grad():
        torch.testing.assert_close(graph(x), network(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
def test_a_norm_of_features_becomes_weights_of_the_linear_layer_behind_it(*, bias: bool) -> None:
    first = [nn.BatchNorm1d(5), nn.Linear(5, 4), nn.ReLU(), nn.BatchNorm1d(4)]
    network = nn.Sequential(*first, nn.Linear(4, 3, bias=bias), nn.Sigmoid(), nn.BatchNorm1d(3), nn.Tanh())
    x = torch.randn(32, 5, generator=torch.Generator().manual_seed(0)) * 3 + 1
    network.train()(x)
    graph = folded_graph(network.eval(), (5,))
    kinds = [kind_of(module_of(node)) for node in compute_nodes(graph)]
    assert kinds == ["BatchNormalization", "Gemm", "Relu", "Gemm", "Sigmoid", "BatchNormalization", "Tanh"]
    with torch.no_grad():
        torch.testing.assert_close(graph(x), network(x), rtol=1e-4, atol=1e-5)


def test_weights_that_overflow_when_they_are_folded_are_refused() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, eps=0.0)).eval()
    assert isinstance(network[1], nn.BatchNorm2d)
    assert network[1].running_var is not None
    network[1].running_var.fill_(1e-38)
    with torch.no_grad():
        network[0].weight.fill_(1e25)  # type: ignore[operator]
    with pytest.raises(ModelError, match=r"no finite numbers|computes something else"):
        folded_graph(network, SHAPE)


# ── parameters ──────────────────────────────────────────────────────────────────────────────────────────────────────


@given(st.floats(1e-6, 1e3), st.integers(0, 255), st.integers(0, 255))
def test_what_is_on_the_grid_comes_back(scale: float, zero_point: int, steps: int) -> None:
    params = QuantParams.of(scale, zero_point)
    assert params.quantize(params.real(steps)) == steps
    assert params.lowest <= params.real(steps) <= params.highest


@given(st.floats(1e-6, 1e3), st.integers(0, 255), st.integers(0, 255))
def test_int8_holds_the_same_numbers(scale: float, zero_point: int, steps: int) -> None:
    params = QuantParams.of(scale, zero_point)
    shifted = params.as_int8()
    assert shifted.grid == INT8
    assert shifted.real(steps - 128) == params.real(steps)
    assert (shifted.lowest, shifted.highest) == (params.lowest, params.highest)
    assert shifted.as_int8() == shifted


def test_values_saturate_and_ties_go_to_even() -> None:
    params = QuantParams.of(0.5, 10)
    assert [params.quantize(value) for value in (-1e9, 1e9, 0.25, 0.75)] == [0, 255, 10, 12]


def test_bits_are_data() -> None:
    assert [tuple(symmetric(bits)) for bits in (2, 4, 7, 8)] == [(-1, 1), (-7, 7), (-63, 63), (-127, 127)]
    assert Grid(0, 255) == UINT8
    assert UINT8.steps == INT8.steps == 255


def test_one_scale_is_asked_of_a_whole_tensor_only() -> None:
    params = QuantParams(scales=(0.1, 0.2), zero_points=(0, 0), grid=INT8, axis=1)
    assert not params.per_tensor
    with pytest.raises(ValueError, match="too many values"):
        _ = params.scale
    assert math.isclose(QuantParams.of(0.1).scale, 0.1)
