"""Clips in int8 graphs end on the grid of the kernel before them; no file has two quantizers in a row.

Shapes: (N, 6, 8, 8) inputs.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx
import pytest
import torch
from torch import Tensor, fx, nn

from pipeline.declare.recipe import QuantizeSpec
from pipeline.graph.kinds import compute_nodes, kind_of, module_of
from pipeline.networks.from_torch import folded_graph
from pipeline.quant.calibrate import calibrate
from pipeline.quant.prepare import prepare
from pipeline.quant.to_onnx import write_onnx
from tests.quant.test_sums import SHAPE, same_in_both


class Shifted(nn.Module):
    """A batch norm that is folded into nothing, and a ReLU: a branch as MobileOne has it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.stem, self.branch, self.norm = nn.Conv2d(6, 6, 1), nn.Conv2d(6, 6, 1), nn.BatchNorm2d(6)
        self.last = nn.Conv2d(6, 6, 1)
        nn.init.uniform_(self.norm.weight, 0.5, 2)
        nn.init.uniform_(self.norm.bias, -1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        result: Tensor = self.last(self.norm(x + self.branch(x)).relu())
        return result


class Parts(nn.Module):
    """One half of a convolution's channels is clipped, and the other is not."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.stem, self.last = nn.Conv2d(6, 12, 1), nn.Conv2d(6, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.stem(x).chunk(2, 1)
        result: Tensor = self.last(first.relu() * second)
        return result


def pooled_first() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(6, 8, 3),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Conv2d(8, 8, 1),
        nn.ZeroPad2d(1),
        nn.ReLU6(),
        nn.Conv2d(8, 6, 1),
    )


def clipped_input() -> nn.Module:
    torch.manual_seed(4)
    return nn.Sequential(nn.ReLU(), nn.Conv2d(6, 6, 1))


def joined() -> nn.Module:
    class Joined(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(5)
            self.a, self.b, self.last = nn.Conv2d(6, 6, 1), nn.Conv2d(6, 6, 1), nn.Conv2d(12, 6, 1)

        def forward(self, x: Tensor) -> Tensor:
            both = torch.cat([self.a(x), 3 * self.b(x)], 1)
            result: Tensor = self.last(both.clamp(0, 2))
            return result

    return Joined()


def quantized(network: nn.Module, x: Tensor) -> fx.GraphModule:
    graph = prepare(folded_graph(network.eval(), SHAPE), weight_bits=8)
    calibrate(graph, x[:32], QuantizeSpec(calibration="min-max"))
    return graph.eval()


def quantizers_in_a_row(model: onnx.ModelProto) -> list[str]:
    real = {name for node in model.graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    return [node.output[0] for node in model.graph.node if node.op_type == "QuantizeLinear" and node.input[0] in real]


@torch.no_grad()
@pytest.mark.parametrize("network", [Shifted, Parts, pooled_first, clipped_input, joined])
def test_files_have_the_integers_of_the_graph(network: Callable[[], nn.Module]) -> None:
    x = torch.randn(256, *SHAPE, generator=torch.Generator().manual_seed(1))
    graph = quantized(network(), x)
    assert quantizers_in_a_row(write_onnx(graph, name="net")) == []
    assert same_in_both(graph, x) == (True, True)


@torch.no_grad()
def test_a_clip_of_what_was_only_chosen_or_moved_goes_before_that() -> None:
    x = torch.randn(64, *SHAPE, generator=torch.Generator().manual_seed(1))
    graph = quantized(pooled_first(), x)
    kinds = [kind_of(module_of(node)) for node in compute_nodes(graph) if not node.target.startswith("quantizers.")]  # type: ignore[union-attr]
    # zero lies inside ReLU6, but a clip that begins elsewhere would change what is filled in
    assert kinds == ["Conv", "Relu", "MaxPool", "Conv", "Pad", "Clip", "Conv"]
