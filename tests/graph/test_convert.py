"""Functions, methods and modules of forward(): every way to write an operation, and every refusal with its place.

Shapes: N batch, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from pipeline.graph.convert import _FUNCTIONS
from torch import Tensor, fx, nn

from pipeline.errors import UnsupportedOpError
from pipeline.graph.kinds import KINDS, compute_nodes, kind_of, module_of
from pipeline.networks.from_torch import flat_graph

SHAPE = (4, 6, 6)
Function = Callable[[Tensor], Tensor]


class Applied(nn.Module):
    """A function between two layers, in a block of its own."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.before = nn.Conv2d(4, 4, 1)
        self.block = Block(function)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.block(self.before(x))
        return result


class Block(nn.Module):
    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def kinds(function: Function) -> list[str]:
    """Trace, compare with the network itself on fresh inputs, and name the operations after the first layer."""
    network = Applied(function).eval()
    graph = flat_graph(network, SHAPE)
    x = torch.randn(5, *SHAPE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(graph(x), network(x))
    return [kind_of(module_of(node)) for node in compute_nodes(graph)][1:]


WAYS: dict[str, tuple[Function, list[str]]] = {
    "a + b": (lambda x: x + x, ["Add"]),
    "torch.add": (lambda x: torch.add(x, x), ["Add"]),
    "x.add": (lambda x: x.add(x), ["Add"]),
    "x.add_": (lambda x: (x + 1).add_(x), ["Scale", "Add"]),
    "a - b": (lambda x: x - torch.relu(x), ["Relu", "Sub"]),
    "torch.sub": (lambda x: torch.sub(x, torch.relu(x)), ["Relu", "Sub"]),
    "x.sub": (lambda x: x.sub(x.relu()), ["Relu", "Sub"]),
    "a * b": (lambda x: x * x, ["Mul"]),
    "torch.mul": (lambda x: torch.mul(x, x), ["Mul"]),
    "x.mul": (lambda x: x.mul(x), ["Mul"]),
    "x + 3": (lambda x: x + 3, ["Scale"]),
    "3 + x": (lambda x: 3 + x, ["Scale"]),
    "x - 3": (lambda x: x - 3, ["Scale"]),
    "3 - x": (lambda x: 3 - x, ["Scale"]),
    "x * 3": (lambda x: x * 3, ["Scale"]),
    "0.5 * x": (lambda x: 0.5 * x, ["Scale"]),
    "x / 4": (lambda x: x / 4, ["Scale"]),
    "torch.div": (lambda x: torch.div(x, 4), ["Scale"]),
    "x.div": (lambda x: x.div(4), ["Scale"]),
    "F.relu": (F.relu, ["Relu"]),
    "x.relu_": (lambda x: (x + 1).relu_(), ["Scale", "Relu"]),
    "F.tanh": (F.tanh, ["Tanh"]),
    "F.sigmoid": (F.sigmoid, ["Sigmoid"]),
    "torch.softmax": (lambda x: torch.softmax(x, 1), ["Softmax"]),
    "torch.reshape": (lambda x: torch.reshape(x, (x.shape[0], 12, 12)), ["Reshape"]),
    "torch.squeeze": (lambda x: torch.squeeze(x.unsqueeze(1), 1), ["Reshape", "Reshape"]),
    "torch.unsqueeze": (lambda x: torch.unsqueeze(x, 1), ["Reshape"]),
    "torch.relu": (torch.relu, ["Relu"]),
    "x.relu": (lambda x: x.relu(), ["Relu"]),
    "F.relu6": (F.relu6, ["Clip"]),
    "F.leaky_relu": (lambda x: F.leaky_relu(x, 0.3), ["LeakyRelu"]),
    "F.hardswish": (F.hardswish, ["HardSwish"]),
    "F.hardsigmoid": (F.hardsigmoid, ["HardSigmoid"]),
    "torch.tanh": (torch.tanh, ["Tanh"]),
    "x.tanh": (lambda x: x.tanh(), ["Tanh"]),
    "torch.sigmoid": (torch.sigmoid, ["Sigmoid"]),
    "x.sigmoid": (lambda x: x.sigmoid(), ["Sigmoid"]),
    "F.softmax": (lambda x: F.softmax(x, dim=1), ["Softmax"]),
    "x.softmax": (lambda x: x.softmax(1), ["Softmax"]),
    "torch.flatten": (lambda x: torch.flatten(x, 1), ["Reshape"]),
    "x.flatten": (lambda x: x.flatten(1), ["Reshape"]),
    "x.view": (lambda x: x.view(x.size(0), -1), ["Reshape"]),
    "x.view with shape": (lambda x: x.view(x.shape[0], 4, 36), ["Reshape"]),
    "x.reshape": (lambda x: x.reshape(x.shape[0], 12, 12), ["Reshape"]),
    "x.squeeze": (lambda x: x.mean((2, 3), keepdim=True).squeeze(3), ["GlobalAveragePool", "Reshape"]),
    "x.unsqueeze": (lambda x: x.unsqueeze(1), ["Reshape"]),
    "x.mean": (lambda x: x.mean((2, 3)), ["GlobalAveragePool", "Reshape"]),
    "torch.mean, kept": (lambda x: torch.mean(x, (2, 3), keepdim=True), ["GlobalAveragePool"]),
    "x.mean, from the end": (lambda x: x.mean((-1, -2)), ["GlobalAveragePool", "Reshape"]),
    "torch.cat": (lambda x: torch.cat([x, x.relu()], 1), ["Relu", "Concat"]),
    "torch.concat": (lambda x: torch.concat((x, x.relu()), dim=-1), ["Relu", "Concat"]),
    "F.max_pool2d": (lambda x: F.max_pool2d(x, 2), ["MaxPool"]),
    "F.max_pool2d, strided": (lambda x: F.max_pool2d(x, 3, 1, padding=1), ["MaxPool"]),
    "F.max_pool2d, ceil": (lambda x: F.max_pool2d(x, 4, 3, ceil_mode=True), ["MaxPool"]),
    "F.avg_pool2d": (lambda x: F.avg_pool2d(x, 2), ["AveragePool"]),
    "F.avg_pool2d, pads left out": (
        lambda x: F.avg_pool2d(x, 3, 1, padding=1, count_include_pad=False),
        ["AveragePool"],
    ),
    "F.adaptive_avg_pool2d": (lambda x: F.adaptive_avg_pool2d(x, 1), ["GlobalAveragePool"]),
    "F.interpolate": (lambda x: F.interpolate(x, scale_factor=2), ["ResizeNearest"]),
    "F.interpolate, bilinear": (
        lambda x: F.interpolate(x, size=(9, 7), mode="bilinear", align_corners=False),
        ["ResizeLinear"],
    ),
    "F.interpolate to another's size": (
        lambda x: F.interpolate(F.max_pool2d(x, 2), size=x.shape[-2:]),
        ["MaxPool", "ResizeNearest"],
    ),
    "F.pad": (lambda x: F.pad(x, (1, 2, 0, 1)), ["Pad"]),
    "dropout vanishes": (lambda x: F.dropout(x.contiguous(), training=False), []),
    "clone vanishes": (lambda x: x.clone().detach() + 0, ["Scale"]),
}


@pytest.mark.parametrize("name", WAYS)
def test_every_way_to_write_it(name: str) -> None:
    function, found = WAYS[name]
    assert kinds(function) == found


def test_every_function_of_the_table_has_a_way() -> None:
    used = {
        node.target
        for function, _ in WAYS.values()
        for node in fx.Tracer().trace(Applied(function)).nodes
        if node.op in ("call_function", "call_method")
    }
    assert _FUNCTIONS.keys() - used == {F.adaptive_avg_pool1d}  # of sequences


MODULES: list[tuple[nn.Module, str]] = [
    (nn.ReLU(), "Relu"),
    (nn.ReLU6(), "Clip"),
    (nn.Hardtanh(-2, 3), "Clip"),
    (nn.LeakyReLU(0.2), "LeakyRelu"),
    (nn.Hardswish(), "HardSwish"),
    (nn.Hardsigmoid(), "HardSigmoid"),
    (nn.Tanh(), "Tanh"),
    (nn.Sigmoid(), "Sigmoid"),
    (nn.Softmax(1), "Softmax"),
    (nn.MaxPool2d(2), "MaxPool"),
    (nn.AvgPool2d(2), "AveragePool"),
    (nn.AdaptiveAvgPool2d(1), "GlobalAveragePool"),
    (nn.AdaptiveAvgPool2d((1, 1)), "GlobalAveragePool"),
    (nn.Upsample(scale_factor=2), "ResizeNearest"),
    (nn.Upsample(size=(9, 7), mode="bilinear"), "ResizeLinear"),
    (nn.Flatten(), "Reshape"),
    (nn.Unflatten(1, (2, 2)), "Reshape"),
    (nn.ZeroPad2d((1, 0, 2, 1)), "Pad"),
    (nn.BatchNorm2d(4), "BatchNormalization"),
    (nn.Conv2d(4, 3, 2), "Conv"),
    (nn.ConvTranspose2d(4, 3, 2), "ConvTranspose"),
    (nn.Linear(6, 3), "Gemm"),
]


@pytest.mark.parametrize(("module", "kind"), MODULES, ids=lambda value: str(value)[:40])
def test_every_module(module: nn.Module, kind: str) -> None:
    network = nn.Sequential(nn.Conv2d(4, 4, 1), module).eval()
    graph = flat_graph(network, SHAPE)
    nodes = compute_nodes(graph)
    assert [kind_of(module_of(node)) for node in nodes] == ["Conv", kind]
    assert nodes[1].meta["label"] == "1"  # its own name, though it may have become another module
    x = torch.randn(3, *SHAPE)
    with torch.no_grad():
        torch.testing.assert_close(graph(x), network(x))


def test_every_kind_of_the_table_is_among_them() -> None:
    found = {kind for _, kind in MODULES} | {kind for _, kinds in WAYS.values() for kind in kinds}
    assert set(KINDS.values()) - {"Resize"} <= found


def test_sequences() -> None:
    network = nn.Sequential(
        nn.Conv1d(4, 8, 3), nn.BatchNorm1d(8), nn.ReLU(), nn.MaxPool1d(2), nn.AdaptiveAvgPool1d(1), nn.Flatten()
    ).eval()
    graph = flat_graph(network, (4, 12))
    found = [kind_of(module_of(node)) for node in compute_nodes(graph)]
    assert found == ["Conv", "BatchNormalization", "Relu", "MaxPool", "GlobalAveragePool", "Reshape"]


# ── names ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_functions_are_named_after_the_block_they_stand_in() -> None:
    graph = flat_graph(Applied(lambda x: torch.relu(x + x) + x).eval(), SHAPE)
    assert [node.meta["label"] for node in compute_nodes(graph)] == ["before", "block.add", "block.relu", "block.add_2"]


def test_a_function_never_takes_the_name_of_a_layer() -> None:
    class Clash(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.add = nn.Conv2d(4, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            total: Tensor = self.add(x) + x
            return total

    graph = flat_graph(Clash().eval(), SHAPE)
    assert [node.meta["label"] for node in compute_nodes(graph)] == ["add", "add_2"]


def test_a_module_that_is_called_twice_has_two_labels() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.act, self.conv = nn.ReLU(), nn.Conv2d(4, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.act(self.conv(self.act(x)))
            return result

    assert [node.meta["label"] for node in compute_nodes(flat_graph(Twice().eval(), SHAPE))] == ["act", "conv", "act_2"]


# ── refusals ────────────────────────────────────────────────────────────────────────────────────────────────────────

REFUSED: dict[str, tuple[Function, str]] = {
    "cumsum": (lambda x: torch.cumsum(x, 1), "cumsum is not supported"),
    "alpha": (lambda x: torch.add(x, x, alpha=2), "add with alpha"),
    "a constant tensor": (lambda x: x + torch.ones(6), "add with a constant tensor"),
    "division by a tensor": (lambda x: x / x, "division by anything but a number"),
    "a mean of channels": (lambda x: x.mean(1), r"mean over axes \(1,\)"),
    "a mean of everything": (lambda x: x.mean((1, 2, 3)), "mean over axes"),
    "adaptive pooling": (lambda x: F.adaptive_avg_pool2d(x, 2), r"adaptive average pooling to \(2, 2\)"),
    "bicubic": (lambda x: F.interpolate(x, scale_factor=2, mode="bicubic"), "interpolate with mode 'bicubic'"),
    "antialias": (
        lambda x: F.interpolate(x, scale_factor=0.5, mode="bilinear", antialias=True),
        "interpolate with antialias",
    ),
    "a bicubic layer": (nn.Upsample(scale_factor=2, mode="bicubic"), "interpolate with mode 'bicubic'"),
    "a nearest-exact layer": (
        nn.Upsample(scale_factor=2, mode="nearest-exact"),
        "interpolate with mode 'nearest-exact'",
    ),
    "reflection": (lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"), "padding with anything but zeros"),
    "a filled pad": (lambda x: F.pad(x, (1, 1), value=2.0), "padding with anything but zeros"),
    "the batch": (lambda x: x.reshape(-1, 2, 6, 6), "reshape that changes the batch"),
    "joining the batch": (lambda x: torch.cat([x, x], 0), "joining along the batch|changes the batch"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_names_operation_layer_and_line(name: str) -> None:
    function, words = REFUSED[name]
    with pytest.raises(UnsupportedOpError, match=words) as caught:
        flat_graph(Applied(function).eval(), SHAPE)
    assert "layer 'block" in caught.value.where
    assert __file__ in caught.value.where
    assert "write this layer with supported torch.nn modules" in caught.value.remedy


def test_a_parameter_outside_of_a_layer_is_refused() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gain = nn.Parameter(torch.ones(1))

        def forward(self, x: Tensor) -> Tensor:
            return x * self.gain

    with pytest.raises(UnsupportedOpError, match="a parameter used outside a layer: gain"):
        flat_graph(Scaled().eval(), SHAPE)


def test_an_unknown_module_is_met_with_the_nearest_known_one() -> None:
    with pytest.raises(UnsupportedOpError, match=r"nn\.MaxPool3d is not supported; did you mean 'MaxPool\dd'"):
        flat_graph(nn.Sequential(nn.Unflatten(1, (2, 2)), nn.MaxPool3d(2)).eval(), SHAPE)
