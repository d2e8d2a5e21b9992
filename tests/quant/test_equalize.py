"""Cross-layer equalisation and bias correction: the same function in float, nearer to it in integers."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, fx, nn

from pipeline.declare.recipe import QuantizeSpec
from pipeline.graph.kinds import compute_nodes, module_of
from pipeline.networks.from_torch import folded_graph
from pipeline.quant.calibrate import calibrate
from pipeline.quant.correct import correct_biases
from pipeline.quant.equalize import equalized
from pipeline.quant.fakequant import QWeighted
from pipeline.quant.prepare import freeze, prepare
from pipeline.quant.sensitivity import sqnr_db

SHAPE = (3, 8, 8)
UNEVEN = torch.logspace(-2, 2, 8)  # what the channels' values are multiplied by


def inputs(count: int = 64, seed: int = 0) -> Tensor:
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(seed))


def uneven(*between: nn.Module, last: nn.Module) -> nn.Sequential:
    """Return a network whose first layer has channels of very different ranges."""
    torch.manual_seed(0)
    first = nn.Conv2d(3, 8, 3, padding=1)
    with torch.no_grad():
        first.weight.mul_(UNEVEN.view(-1, 1, 1, 1))
        assert first.bias is not None
        first.bias.mul_(UNEVEN)
        if isinstance(last, nn.Conv2d) and last.groups == 1:
            last.weight.div_(UNEVEN.view(1, -1, 1, 1))
        elif isinstance(last, nn.Linear):
            last.weight.div_(UNEVEN.repeat_interleave(last.in_features // 8))
    return nn.Sequential(first, *between, last).eval()


def ptq(graph: fx.GraphModule) -> fx.GraphModule:
    prepared = prepare(graph, weight_bits=8)
    calibrate(prepared, inputs(), QuantizeSpec(calibration="min-max"))
    return prepared


def quality(prepared: fx.GraphModule, network: nn.Module) -> float:
    x = inputs(seed=1)
    with torch.no_grad():
        return sqnr_db(network(x), freeze(prepared)(x))


PAIRS = {
    "convolution": ((nn.ReLU(),), nn.Conv2d(8, 5, 3)),
    "nothing between": ((), nn.Conv2d(8, 5, 1)),
    "groups": ((nn.ReLU(),), nn.Conv2d(8, 4, 3, groups=2)),
    "depthwise": ((nn.ReLU(), nn.MaxPool2d(2)), nn.Conv2d(8, 8, 3, groups=8)),
    "flattened": ((nn.ReLU(), nn.AvgPool2d(2), nn.Flatten()), nn.Linear(8 * 16, 5)),
    "global mean": ((nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()), nn.Linear(8, 5)),
}


@pytest.mark.parametrize("name", PAIRS)
def test_an_equalised_network_computes_the_same(name: str) -> None:
    between, last = PAIRS[name]
    folded = folded_graph(uneven(*between, last=copy.deepcopy(last)), SHAPE)
    before, x = copy.deepcopy(folded), inputs()
    even = equalized(folded, x)
    assert even is not None
    torch.testing.assert_close(even(x), folded(x), rtol=1e-4, atol=1e-4)
    assert not torch.equal(even.get_parameter("0.weight"), folded.get_parameter("0.weight"))
    for mine, theirs in zip(folded.parameters(), before.parameters(), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("name", ["convolution", "nothing between", "flattened", "global mean"])
def test_an_equalised_network_is_nearer_to_float_in_integers(name: str) -> None:
    between, last = PAIRS[name]
    network = uneven(*between, last=copy.deepcopy(last))
    folded = folded_graph(network, SHAPE)
    even = equalized(folded, inputs())
    assert even is not None
    assert quality(ptq(even), network) > quality(ptq(folded), network) + 6


class _Twice(nn.Module):
    """The first layer's result is read twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        result: Tensor = x + self.second(x)
        return result


@pytest.mark.parametrize(
    "network",
    [
        _Twice(),
        nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU6(), nn.Conv2d(8, 2, 1)),
        nn.Sequential(nn.Conv2d(3, 8, 1), nn.Sigmoid(), nn.Conv2d(8, 2, 1)),
        nn.Sequential(nn.Conv2d(3, 8, 1), nn.MaxPool2d(2), nn.ReLU6(), nn.Conv2d(8, 2, 1)),
        nn.Sequential(nn.Conv2d(3, 8, 1)),
    ],
    ids=["read twice", "clamped", "sigmoid", "pooled, clamped", "alone"],
)
def test_nothing_is_equalised_where_a_scale_would_be_seen(network: nn.Module) -> None:
    assert equalized(folded_graph(network.eval(), SHAPE), inputs()) is None


def test_channels_that_never_fire_stay_as_they_are() -> None:
    network = uneven(nn.ReLU(), last=nn.Conv2d(8, 5, 1))
    with torch.no_grad():
        network.get_parameter("0.weight")[2] = 0
        network.get_parameter("0.bias")[2] = -1
    even = equalized(folded_graph(network, SHAPE), inputs())
    assert even is not None
    assert float(even.get_parameter("0.bias")[2].detach()) == -1


# ── biases ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_corrected_biases_take_the_mean_error_out_of_every_layer() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3)).eval()
    folded = folded_graph(network, SHAPE)
    prepared = prepare(folded, weight_bits=3)
    calibrate(prepared, inputs(), QuantizeSpec(calibration="min-max"))
    with torch.no_grad():
        wanted = folded(inputs()).mean((0, 2, 3))
        before = (prepared(inputs()).mean((0, 2, 3)) - wanted).abs().max()
        correct_biases(prepared, folded, inputs())
        after = (prepared(inputs()).mean((0, 2, 3)) - wanted).abs().max()
    assert float(after) < 0.2 * float(before)


def test_layers_without_a_bias_stay_without() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.ReLU(), nn.Conv2d(8, 4, 3)).eval()
    folded = folded_graph(network, SHAPE)
    prepared = ptq(folded)
    correct_biases(prepared, folded, inputs())
    layers = [module_of(node) for node in compute_nodes(prepared) if isinstance(module_of(node), QWeighted)]
    assert [layer.bias is None for layer in layers] == [True, False]
