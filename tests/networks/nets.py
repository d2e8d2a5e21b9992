"""Tiny networks around one function, and what every reading of them has to agree with.

Shapes: N batch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pipeline.networks.from_torch import folded_graph
from tests.networks.files import drawn, in_the_files

Function = Callable[[Tensor], Tensor]
ROUNDING = 1e-5  # sums of some dozens of float32 in another order


class Block(nn.Module):
    """A function as a module."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Applied(nn.Module):
    """A function behind a layer, in a block of its own."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.before = nn.Conv2d(4, 4, 1)
        self.block = Block(function)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.block(self.before(x))
        return result


@torch.no_grad()
def agrees(function: Function, shape: tuple[int, ...]) -> None:
    """Compare graph and float files with the function, also on samples (N, …) that do not lie in their order."""
    network = Block(function).eval()
    graph = folded_graph(network, shape)
    for batch in (1, 3):
        x = drawn(shape, batch).transpose(0, -1).contiguous().transpose(0, -1)
        torch.testing.assert_close(graph(x.clone()), network(x.clone()), rtol=ROUNDING, atol=ROUNDING)
    in_the_files(graph, network, shape)
