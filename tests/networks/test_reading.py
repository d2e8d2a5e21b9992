"""What stands around the calls of a network: blocks without gradients, constants, results of every kind.

Shapes: N batch, C channels, H height, W width.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from pipeline.errors import ModelError, UnsupportedOpError
from pipeline.graph.kinds import compute_nodes, kind_of, module_of
from pipeline.networks.from_torch import flat_graph
from tests.networks.nets import Block, Function, agrees

SHAPE = (4, 6, 6)


def _without_gradients(x: Tensor) -> Tensor:
    with torch.no_grad():
        y = F.relu(x)
    return y + x


def _with_gradients_inside(x: Tensor) -> Tensor:
    with torch.no_grad():
        mean = x.mean(1, keepdim=True)
        with torch.enable_grad():
            y = x * mean
    return y


def _without_autocast(x: Tensor) -> Tensor:
    with torch.autocast("cpu", enabled=False):
        y = x.softmax(1)
    return y * x


AROUND: dict[str, Function] = {
    "without gradients": _without_gradients,
    "with gradients inside": _with_gradients_inside,
    "without autocast": _without_autocast,
    "a tensor written down": lambda x: x * torch.tensor([[0.5], [1], [2], [3], [4], [5]]),
    "sizes of the input": lambda x: x * x.shape[1] / x.size(-1) + torch.arange(x.shape[2])[:, None],
    "the input itself": lambda x: x,
    "the input in another shape": lambda x: x.permute(0, 3, 1, 2).flatten(1),
}


@pytest.mark.parametrize("name", AROUND)
def test_what_stands_around_calls_changes_nothing(name: str) -> None:
    agrees(AROUND[name], SHAPE)


def test_a_network_that_does_nothing_has_a_node_for_the_files() -> None:
    graph = flat_graph(Block(lambda x: x), SHAPE)
    assert [kind_of(module_of(node)) for node in compute_nodes(graph)] == ["Scale"]


def _refused_inside(x: Tensor) -> Tensor:
    with torch.no_grad():
        y = x.cumprod(1)
    return y + x


def test_what_is_refused_in_a_block_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedOpError, match="cumprod is not supported") as refused:
        flat_graph(Block(_refused_inside), SHAPE)
    assert ".py:" in refused.value.where


class Giving(nn.Module):
    """A function that need not give one tensor."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda x: (x, x.relu()), "returns more than one tensor"),
        (lambda x: {"a": x, "b": x.relu()}, "returns more than one tensor"),
        (lambda _: torch.ones(3), "returns something that does not follow from its input"),
        (lambda x: x.new_zeros(len(x), 3), "returns something that does not follow from its input"),
        (lambda x: x.relu() if x.sum() > 0 else x, "cannot be traced"),
    ],
    ids=["two", "a table", "a constant", "zeros for each sample", "what values decide"],
)
def test_results_that_no_file_gives_are_refused_in_words(function: Any, words: str) -> None:
    with pytest.raises(ModelError, match=words) as refused:
        flat_graph(Giving(function), SHAPE)
    assert refused.value.remedy
