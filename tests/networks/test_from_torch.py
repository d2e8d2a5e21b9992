"""Functions, methods and modules of forward(): every way to write an operation, in every file.

Shapes: N batch, C channels, H height, W width.
"""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from pipeline.errors import ModelError
from pipeline.graph.costs import layer_costs
from pipeline.graph.kinds import compute_nodes, kind_of, module_of
from pipeline.networks import sameness
from pipeline.networks.from_torch import flat_graph, folded_graph
from pipeline.quant.scheme import RULES
from tests.networks.files import in_the_files
from tests.networks.nets import Applied, Function

SHAPE = (4, 6, 6)


def same(graph: nn.Module, network: nn.Module) -> None:
    """Compare on fresh inputs."""
    x = torch.randn(5, *SHAPE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(graph(x), network(x), rtol=1e-4, atol=1e-5)


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
    "torch.squeeze": (lambda x: torch.squeeze(x.unsqueeze(1), 1) + 1, ["Scale"]),
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
    "F.pad, filled": (lambda x: F.pad(x, (1, 1), value=2.0), ["PadFilled"]),
    "F.pad, cut": (lambda x: F.pad(x, (-1, 2, 0, -1)), ["Slice", "Slice", "Pad"]),
    "F.pad, reflected": (lambda x: F.pad(x, (1, 2, 3, 1), mode="reflect"), ["Gather", "Gather"]),
    "F.pad, circular": (lambda x: F.pad(x, (1, 2, 0, 1), mode="circular"), ["Gather", "Gather"]),
    "F.pad, replicated": (lambda x: F.pad(x, (0, 0, 2, 2), mode="replicate"), ["Gather", "Gather"]),
    "a constant": (lambda x: x + torch.linspace(-1, 1, 6), ["Scale"]),
    "a constant per channel": (lambda x: x * torch.linspace(-1, 1, 4).view(4, 1, 1), ["Scale"]),
    "division by a tensor": (lambda x: x / (x.abs() + 1), ["Abs", "Scale", "Div"]),
    "one over": (lambda x: 3 / (x * x + 1), ["Mul", "Scale", "Reciprocal", "Scale"]),
    "broadcasting": (lambda x: x * x.mean((2, 3), keepdim=True), ["GlobalAveragePool", "Mul"]),
    "a mean of channels": (lambda x: x.mean(1), ["ReduceMean", "Reshape"]),
    "a mean of everything": (lambda x: x.mean((1, 2, 3)), ["ReduceMean", "Reshape"]),
    "x.sum": (lambda x: x.sum(-1, keepdim=True), ["ReduceMean", "Scale"]),
    "x.amax": (lambda x: x.amax(1), ["ReduceMax", "Reshape"]),
    "x.max over an axis": (lambda x: x.max(dim=2).values, ["ReduceMax", "Reshape"]),
    "x.var": (lambda x: x.var(1), ["ReduceMean", "Sub", "Mul", "ReduceMean", "Scale", "Reshape"]),
    "F.normalize": (
        lambda x: F.normalize(x, dim=1),
        ["Mul", "ReduceMean", "Scale", "Sqrt", "Clip", "Gather", "Div"],
    ),
    "x ** 2": (lambda x: x**2, ["Mul"]),
    "x ** 3": (lambda x: x**3, ["Mul", "Mul"]),
    "square root": (lambda x: torch.sqrt(x * x + 1), ["Mul", "Scale", "Sqrt"]),
    "rsqrt": (lambda x: torch.rsqrt(x * x + 1), ["Mul", "Scale", "Sqrt", "Reciprocal"]),
    "x ** 1.5": (lambda x: (x * x) ** 1.5, ["Mul", "Pow"]),
    "torch.erf": (torch.erf, ["Erf"]),
    "torch.floor": (lambda x: torch.floor(4 * x), ["Scale", "Floor"]),
    "torch.round": (lambda x: torch.round(4 * x), ["Scale", "Round"]),
    "x > 0": (lambda x: (x > 0) * x, ["Scale", "Positive", "Mul"]),
    "exp and log": (lambda x: torch.log(torch.exp(x) + 1), ["Exp", "Scale", "Log"]),
    "sin and cos": (lambda x: torch.sin(x) + torch.cos(x), ["Sin", "Cos", "Add"]),
    "torch.addcmul": (lambda x: torch.addcmul(x, x, x.relu(), value=2), ["Relu", "Mul", "Scale", "Add"]),
    "F.silu": (F.silu, ["Sigmoid", "Mul"]),
    "F.gelu": (F.gelu, ["Gelu"]),
    "F.gelu, tanh": (lambda x: F.gelu(x, approximate="tanh"), ["Gelu"]),
    "F.mish": (F.mish, ["Mish"]),
    "F.elu": (lambda x: F.elu(x, 0.7), ["Elu"]),
    "F.softplus": (F.softplus, ["Softplus"]),
    "F.log_softmax": (lambda x: F.log_softmax(x, 1), ["Softmax", "Log"]),
    "x.clamp": (lambda x: x.clamp(-0.5, 0.25), ["Clip"]),
    "x.clamp from below": (lambda x: x.clamp(min=0), ["Relu"]),
    "F.layer_norm": (lambda x: F.layer_norm(x, (6,)), ["LayerNormalization"]),
    "F.group_norm": (lambda x: F.group_norm(x, 2), ["Reshape", "LayerNormalization", "Reshape"]),
    "F.instance_norm": (F.instance_norm, ["Reshape", "LayerNormalization", "Reshape"]),
    "slices": (lambda x: x[:, 1:3, ::2] + 1, ["Slice", "Slice", "Scale"]),
    "x.select": (lambda x: x[:, 2], ["Slice", "Reshape"]),
    "x.chunk": (lambda x: x.chunk(2, 1)[1], ["Slice"]),
    "torch.split": (lambda x: torch.cat(torch.split(x, [1, 3], 1)[::-1], 1), ["Slice", "Slice", "Concat"]),
    "x.unbind": (lambda x: x.unbind(1)[3], ["Slice", "Reshape"]),
    "torch.stack": (lambda x: torch.stack([x, x.relu()], 1), ["Relu", "Reshape", "Reshape", "Concat"]),
    "torch.roll": (lambda x: torch.roll(x, (1, -2), (2, 3)), ["Slice", "Slice", "Concat"] * 2),
    "torch.flip": (lambda x: torch.flip(x, (3,)), ["Gather"]),
    "index": (lambda x: x[:, [3, 0, 1]], ["Gather"]),
    "x.repeat": (lambda x: x.repeat(1, 2, 1, 1), ["Gather"]),
    "x.expand": (lambda x: x.mean(1, keepdim=True).expand(-1, 3, -1, -1), ["ReduceMean", "Gather"]),
    "x.unfold": (lambda x: x.unfold(2, 3, 2).flatten(1), ["Gather", "Reshape", "Transpose", "Reshape"]),
    "x.permute": (lambda x: x.permute(0, 2, 3, 1), ["Transpose"]),
    "there and back": (lambda x: (x.permute(0, 2, 3, 1) + 1).permute(0, 3, 1, 2), ["Scale"]),
    "pixel shuffle": (lambda x: F.pixel_shuffle(x, 2), ["Reshape", "Transpose", "Reshape"]),
    "pixel unshuffle": (lambda x: F.pixel_unshuffle(x, 2), ["Reshape", "Transpose", "Reshape"]),
    "channel shuffle": (lambda x: F.channel_shuffle(x, 2), ["Reshape", "Transpose", "Reshape"]),
    "the batch folded and back": (lambda x: (x.reshape(-1, 6) * 2).reshape(x.shape), ["Scale"]),
    "F.linear": (lambda x: F.linear(x.flatten(1), torch.full((3, 144), 0.1)), ["Reshape", "Gemm"]),
    "a product": (lambda x: x @ x.transpose(2, 3), ["Transpose", "MatMul"]),
    "a product with a constant": (lambda x: x @ torch.ones(6, 2), ["Projection"]),
    "einsum": (
        lambda x: torch.einsum("nchw,ncvw->nchv", x, x.relu()),
        ["Relu", "Transpose", "MatMul"],
    ),
    "attention": (
        lambda x: F.scaled_dot_product_attention(x, x.relu(), x),
        ["Relu", "Scale", "Transpose", "MatMul", "Softmax", "MatMul"],
    ),
    "adaptive pooling": (lambda x: F.adaptive_avg_pool2d(x, 2), ["AveragePool"]),
    "adaptive pooling, uneven": (
        lambda x: F.adaptive_avg_pool2d(x, (4, 5)),
        ["Transpose", "Projection", "Transpose", "Projection"],
    ),
    "adaptive maximum": (lambda x: F.adaptive_max_pool2d(x, 3), ["MaxPool"]),
    "F.avg_pool2d, divisor": (lambda x: F.avg_pool2d(x, 2, divisor_override=3), ["AveragePool", "Scale"]),
    "F.avg_pool2d, ceil": (lambda x: F.avg_pool2d(x, 4, 3, ceil_mode=True), ["AveragePool"]),
    "F.avg_pool2d, ceil and pads": (
        lambda x: F.avg_pool2d(x, 3, 2, padding=1, ceil_mode=True),
        ["Pad", "AveragePool"],
    ),
    "F.max_pool2d, dilated": (lambda x: F.max_pool2d(x, 2, dilation=2), ["Gather", "MaxPool", "Gather", "MaxPool"]),
    "bicubic": (
        lambda x: F.interpolate(x, scale_factor=2, mode="bicubic"),
        ["Transpose", "Projection", "Transpose", "Projection"],
    ),
    "antialias": (
        lambda x: F.interpolate(x, scale_factor=0.5, mode="bilinear", antialias=True),
        ["Transpose", "Projection", "Transpose", "Projection"],
    ),
    "nearest-exact": (
        lambda x: F.interpolate(x, size=(4, 4), mode="nearest-exact"),
        ["Gather", "Gather"],
    ),
    "dropout vanishes": (lambda x: F.dropout(x.contiguous(), training=False), []),
    "clone vanishes": (lambda x: x.clone().detach() + 0, ["Scale"]),
}


@pytest.mark.parametrize("name", WAYS, scope="module")  # both tests of a way, one after the other: it is followed once
def test_every_way_to_write_it(name: str) -> None:
    function, found = WAYS[name]
    assert kinds(function) == found


@pytest.mark.parametrize("name", WAYS, scope="module")  # both tests of a way, one after the other: it is followed once
def test_every_way_in_both_files(name: str) -> None:
    network = Applied(WAYS[name][0]).eval()
    in_the_files(folded_graph(network, SHAPE), network, SHAPE)


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
    (nn.Linear(6, 3), "Projection"),
    (nn.PReLU(4), "PRelu"),
    (nn.Conv2d(4, 4, 3, padding="same"), "Conv"),
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
    of_operations = {"LSTM", "GRU", "RNN"}  # ``test_operations`` has every form of them
    of_several = {"Input", "Outputs"}  # ends of networks with several
    assert set(RULES) <= found | of_operations | of_several


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


def test_a_network_that_is_a_single_layer_has_a_name_for_it() -> None:
    assert [node.meta["label"] for node in compute_nodes(flat_graph(nn.Linear(2, 3), (2,)))] == ["linear"]


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


# ── what is checked ───────────────────────────────────────────────────────────────────────────────────────────────────


class _NormOfAlike(nn.Module):
    """Its norm divides rounding errors by next to nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(8, eps=1e-30)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.norm(F.scaled_dot_product_attention(x, x, x * 1e-4 + 1000.1))
        return result


def test_a_network_whose_rounding_says_little_is_compared_with_more_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    network, x = _NormOfAlike().eval(), torch.randn(3, 4, 8, generator=torch.Generator().manual_seed(0)).double()
    torch.testing.assert_close(flat_graph(network, (4, 8)).double()(x), copy.deepcopy(network).double()(x))
    monkeypatch.setattr(sameness, "_near_in_float64", lambda *_: False)
    with pytest.raises(ModelError, match="computes something else"):
        flat_graph(network, (4, 8))


def test_what_depends_on_the_batch_alone_is_noticed() -> None:
    class Counts(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * x.shape[0]

    with pytest.raises(ModelError, match="computes something else"):
        flat_graph(Counts().eval(), SHAPE)


# ── parameters ──────────────────────────────────────────────────────────────────────────────────────────────────────


class Tokens(nn.Module):
    """A small vision transformer: patches, a class token, positions, attention over folded batches, layer scale."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(4, 8, 2, 2)
        self.token, self.positions = nn.Parameter(torch.randn(1, 1, 8)), nn.Parameter(torch.randn(1, 10, 8))
        self.norm, self.attention = nn.LayerNorm(8), nn.MultiheadAttention(8, 2, batch_first=True)
        self.scale = nn.Parameter(torch.randn(8))
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.patches(x).flatten(2).transpose(1, 2)  # (N, 9, 8)
        x = torch.cat([self.token.expand(len(x), -1, -1), patches], 1) + self.positions
        y = self.norm(x)
        y, _ = self.attention(y, y, y, need_weights=False)
        logits: Tensor = self.head((x + self.scale * y)[:, 0])
        return logits


def test_parameters_outside_of_layers_are_trained_on() -> None:
    network = Tokens().eval()
    graph = flat_graph(network, SHAPE)
    same(graph, network)
    graph(torch.randn(2, *SHAPE)).sum().backward()
    trained = {name for name, parameter in graph.named_parameters() if parameter.grad is not None}
    assert {name for name, _ in graph.named_parameters()} == trained
    assert (
        sum(parameter.numel() for parameter in graph.parameters())
        == 80
        + sum(parameter.numel() for name, parameter in network.named_parameters() if name not in ("token", "positions"))
        + 80
    )


def test_what_follows_from_parameters_alone_is_a_constant() -> None:
    network = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 5, 3)), nn.ReLU()).eval()
    graph = flat_graph(network, SHAPE)
    assert [kind_of(module_of(node)) for node in compute_nodes(graph)] == ["Conv", "Relu"]
    same(graph, network)


def test_a_layer_called_twice_is_two_with_the_same_weights() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.conv(self.conv(x).relu())
            return result

    graph = flat_graph(Twice().eval(), SHAPE)
    first, _, second = (module_of(node) for node in compute_nodes(graph))
    assert first is not second
    assert first.weight is second.weight
    assert sum(row.parameters for row in layer_costs(graph)) == 4 * 4 + 4


def test_an_activation_in_place_changes_what_is_used_again() -> None:
    class Skip(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = x + 1
            z = F.relu(y, inplace=True)
            return z + y

    network = Skip().eval()
    same(flat_graph(network, SHAPE), network)


def test_layers_may_be_called_like_the_ends_and_like_blocks() -> None:
    class Names(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.input, self.output = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 2, 1)
            self.input_2 = nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.output(self.input_2(self.input(x)))
            return result

    network = Names().eval()
    graph = folded_graph(network, SHAPE)
    assert [node.meta["label"] for node in compute_nodes(graph)] == ["input", "input_2", "output"]
    in_the_files(graph, network, SHAPE)
