"""What folding makes of norms and constants beside layers: which weights, by hand.

Shapes: N batch, C channels, L length.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, fx, nn

from pipeline.errors import ModelError
from pipeline.graph import fold as folding
from pipeline.graph.fold import fold
from pipeline.graph.kinds import compute_nodes, kind_of, module_of
from pipeline.graph.ops import Add, Projection, Scale
from tests.graph.flat import Flat, chain


def kinds(graph: fx.GraphModule) -> list[str]:
    return [kind_of(module_of(node)) for node in compute_nodes(graph)]


def weights(graph: fx.GraphModule, place: int = 0) -> tuple[list[float], list[float]]:
    module = module_of(compute_nodes(graph)[place])
    assert isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d)
    assert module.bias is not None
    return module.weight.flatten().tolist(), module.bias.tolist()


def linear(weight: Sequence[Sequence[float]], bias: Sequence[float] | None = None) -> nn.Linear:
    layer = nn.Linear(len(weight[0]), len(weight), bias=bias is not None)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight))
        if bias is not None:
            layer.bias.copy_(torch.tensor(bias))
    return layer


def norm(
    kind: type[nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d], means: list[float], variances: list[float]
) -> nn.Module:
    """Return a norm without parameters of its own: (x - mean) / sqrt(variance)."""
    module = kind(len(means), eps=0.0, affine=False)
    assert module.running_mean is not None
    assert module.running_var is not None
    module.running_mean.copy_(torch.tensor(means))
    module.running_var.copy_(torch.tensor(variances))
    return module


# ── norms ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_norm_behind_a_linear_layer_scales_its_rows() -> None:
    graph = fold(chain((2,), linear([[1, 2], [3, 4]], [5, 6]), norm(nn.BatchNorm1d, [1.0, 2.0], [4.0, 0.25])))
    assert kinds(graph) == ["Gemm"]
    assert weights(graph) == ([0.5, 1, 6, 8], [2, 8])  # (5 - 1) / 2, (6 - 2) / 0.5


def test_a_norm_before_a_linear_layer_scales_its_columns() -> None:
    flat = Flat(2)
    normed = flat.add(norm(nn.BatchNorm1d, [1.0, 2.0], [4.0, 0.25]), flat.add(nn.ReLU(), flat.x))
    graph = fold(flat.ending_in(flat.add(linear([[1, 2], [3, 4]]), normed)))
    assert kinds(graph) == ["Relu", "Gemm"]
    assert weights(graph, 1) == ([0.5, 4, 1.5, 8], [-8.5, -17.5])  # - 0.5 - 2 * 4, - 1.5 - 4 * 4


@pytest.mark.parametrize(
    ("kind", "shape", "axes"),
    [(nn.BatchNorm1d, (2, 5), 1), (nn.BatchNorm2d, (2, 1, 3), 2), (nn.BatchNorm3d, (2, 1, 1, 1), 3)],
)
def test_a_norm_that_stands_alone_becomes_a_depthwise_convolution(
    kind: type[nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d], shape: tuple[int, ...], axes: int
) -> None:
    graph = fold(chain(shape, norm(kind, [1.0, -2.0], [4.0, 0.25])))
    layer = module_of(compute_nodes(graph)[0])
    assert isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d)
    assert (layer.groups, layer.kernel_size) == (2, (1,) * axes)
    assert weights(graph) == ([0.5, 2], [-0.5, 4])


def test_a_norm_of_features_at_the_input_stays() -> None:
    """Its columns may differ much, and an integer layer would have one scale for all."""
    assert kinds(fold(chain((2,), norm(nn.BatchNorm1d, [1e6, 0], [1, 1]), linear([[1, 1]])))) == [
        "BatchNormalization", "Gemm",
    ]  # fmt: skip


def test_a_norm_that_two_layers_read_stays() -> None:
    flat = Flat(2)
    normed = flat.add(norm(nn.BatchNorm1d, [1, 1], [1, 1]), flat.add(nn.ReLU(), flat.x))
    graph = flat.ending_in(flat.add(Add(), *(flat.add(linear([[1, 1]]), normed) for _ in range(2))))
    assert kinds(fold(graph)) == ["Relu", "BatchNormalization", "Gemm", "Gemm", "Add"]


def test_a_norm_of_the_axes_behind_a_projection_is_a_convolution_of_its_own() -> None:
    """(N, C, L): the norm's channels are the rows, not what the projection puts out."""
    layer = Projection(2, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.eye(2))
    graph = fold(chain((3, 2), layer, norm(nn.BatchNorm1d, [1, 2, 3], [1, 1, 1])))
    assert kinds(graph) == ["Projection", "Conv"]
    assert weights(graph, 1) == ([1, 1, 1], [-1, -2, -3])


# ── constants ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("scale", "weight", "bias"),
    [
        (Scale(2.0, 1.0), [2, 4, 6, 8], [11, 13]),
        (Scale(torch.tensor([2.0, -1.0]), 0.0), [2, 4, -3, -4], [10, -6]),
        (Scale(1.0, torch.tensor([[0.5, 0.25]])), [1, 2, 3, 4], [5.5, 6.25]),
        (Scale(0.0, 0.0), [0, 0, 0, 0], [0, 0]),
    ],
)
def test_a_constant_behind_a_linear_layer(scale: Scale, weight: list[float], bias: list[float]) -> None:
    graph = fold(chain((2,), linear([[1, 2], [3, 4]], [5, 6]), scale))
    assert kinds(graph) == ["Gemm"]
    assert weights(graph) == (weight, bias)


def test_a_layer_without_a_bias_gets_one() -> None:
    assert weights(fold(chain((2,), linear([[1, 2]]), Scale(3.0, -1.0)))) == ([3, 6], [-1])


def test_two_constants_one_after_the_other() -> None:
    assert weights(fold(chain((2,), linear([[1, 2]], [1]), Scale(3.0, 1.0), Scale(-1.0, 10.0)))) == ([-3, -6], [6])


def test_channels_of_a_convolution_lie_on_axis_one() -> None:
    layer = nn.Conv1d(1, 2, 1)
    with torch.no_grad():
        layer.weight.fill_(1.0)
        layer.bias.zero_()  # type: ignore[union-attr]
    graph = fold(chain((1, 3), layer, Scale(torch.tensor([[2.0], [3.0]]), torch.tensor([[[4.0], [5.0]]]))))
    assert kinds(graph) == ["Conv"]
    assert weights(graph) == ([2, 3], [4, 5])


@pytest.mark.parametrize(
    "scale", [Scale(torch.tensor([1.0, 2.0, 3.0]), 0.0), Scale(1.0, torch.ones(2, 3)), Scale(2.0, torch.ones(1, 1, 3))]
)
def test_a_constant_that_differs_along_another_axis_stays(scale: Scale) -> None:
    assert kinds(fold(chain((1, 3), nn.Conv1d(1, 2, 1), scale))) == ["Conv", "Scale"]


def test_a_constant_stays_where_others_read_the_layer_or_there_is_none() -> None:
    flat = Flat(2)
    layer = flat.add(linear([[1, 2], [3, 4]]), flat.x)
    graph = fold(flat.ending_in(flat.add(Add(), flat.add(Scale(2.0, 0.0), layer), layer)))
    assert kinds(graph) == ["Gemm", "Scale", "Add"]
    assert kinds(fold(chain((2,), Scale(2.0, 0.0)))) == ["Scale"]
    assert kinds(fold(chain((2,), nn.ReLU(), Scale(2.0, 0.0)))) == ["Relu", "Scale"]


# ── promises ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_weights_that_are_no_finite_numbers_are_refused_with_the_layer(value: float) -> None:
    with pytest.raises(ModelError, match=r"'m0\.bias' holds values that are no finite numbers") as caught:
        fold(chain((2,), linear([[1, 2]], [1]), Scale(1.0, value)))
    assert caught.value.where == "network"
    assert caught.value.remedy.startswith("train with a smaller learning rate")


@pytest.mark.parametrize(
    ("shape", "modules"),
    [
        ((2, 3, 3), (norm(nn.BatchNorm2d, [0.0, 0.0], [1.0, 1.0]),)),
        ((2,), (linear([[1, 2], [3, 4]]), norm(nn.BatchNorm1d, [0.0, 0.0], [1.0, 1.0]))),
    ],
)
def test_a_norm_that_is_forgotten_is_noticed(
    shape: tuple[int, ...], modules: tuple[nn.Module, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folding, "_fold_batch_norm", lambda *_: None)
    last = f"m{len(modules) - 1}"
    with pytest.raises(ModelError, match=f"graph after fold: the batch norm '{last}' is still there"):
        fold(chain(shape, *modules))


def test_a_folded_graph_computes_the_same() -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 2, 5)
    layers: list[nn.Module] = [norm(nn.BatchNorm1d, [1.0, 2.0], [4.0, 9.0]), nn.Conv1d(2, 4, 2), nn.BatchNorm1d(4)]
    graph = chain((2, 5), *layers, Scale(torch.randn(4, 1), 0.5), nn.Tanh(), Scale(2.0, 0.0))
    with torch.no_grad():
        before: Tensor = graph(x)
        assert float((fold(graph)(x) - before).abs().max()) < 1e-5
    assert kinds(graph) == ["Conv", "Conv", "Tanh", "Scale"]
