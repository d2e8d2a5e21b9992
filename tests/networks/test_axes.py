"""Reshapes and transposes as another reading of the same values, the batch anywhere among them.

Shapes: N batch.
"""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor, nn

from pipeline.graph import ops
from pipeline.graph.kinds import compute_nodes, module_of
from pipeline.networks.axes import BATCH, Value, arrangement, plain, split_for
from pipeline.networks.from_torch import flat_graph

SHAPE = (2, 3, 4)
MOVING = {30}  # reads 2 x 3 as 6, and that as 3 x 2: the one drawn here in which elements have to move


def node() -> torch.fx.Node:
    return torch.fx.Graph().placeholder("x")


def test_a_value_knows_its_shape() -> None:
    value = Value(node=node(), dims=(BATCH, 4, 8), axes=((0, 1), (2,), ()))
    assert value.shape == (BATCH * 4, 8, 1)
    assert not value.is_plain
    assert (value.stored_axis(0), value.stored_axis(1), value.stored_axis(2)) == (None, 2, None)
    assert value.permuted((2, 0, 1)).shape == (1, BATCH * 4, 8)


@pytest.mark.parametrize(
    ("shape", "dims", "axes"),
    [
        ((BATCH, 24), (BATCH, 4, 6), ((0,), (1, 2))),
        ((BATCH * 2, 12), (BATCH, 2, 2, 6), ((0, 1), (2, 3))),
        ((BATCH, 1, 4, 6), (BATCH, 4, 6), ((0,), (), (1,), (2,))),
        ((BATCH, 4, 3, 2), (BATCH, 4, 3, 2), ((0,), (1,), (2,), (3,))),
    ],
)
def test_a_reshape_is_another_reading(
    shape: tuple[int, ...], dims: tuple[int, ...], axes: tuple[tuple[int, ...], ...]
) -> None:
    split = split_for(plain(node(), (BATCH, 4, 6)), shape)
    assert split is not None
    assert (split.dims, split.axes) == (dims, axes)


@pytest.mark.parametrize("shape", [(BATCH, 3, 8), (2, BATCH, 12), (BATCH // 2, 2, 24)])
def test_what_moves_elements_is_no_reading(shape: tuple[int, ...]) -> None:
    assert split_for(plain(node(), (BATCH, 4, 6)), shape) is None


def test_the_batch_comes_to_the_front_and_apart() -> None:
    value = Value(node=node(), dims=(BATCH, 4, 8), axes=((2,), (0, 1)))  # (8, N*4)
    found = arrangement(value)
    assert (found.order, found.dims, found.axes) == ((0, 2, 1), (BATCH, 8, 4), ((1,), (0, 2)))


Side = tuple[int, bool]  # a size, and whether it is that many times the batch


class Turned(nn.Module):
    """Any sequence of reshapes and transposes of (N, 2, 3, 4), a function in the middle, and all the way back."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        draw = random.Random(seed)  # noqa: S311  (repeatable, not secret)
        self.steps: list[tuple[list[int] | None, list[Side], list[Side]]] = []  # an order, or None; before; after
        sides: list[Side] = [(1, True), *((side, False) for side in SHAPE)]
        for _ in range(draw.randint(1, 6)):
            order = draw.sample(range(len(sides)), len(sides)) if draw.random() < 0.5 else None
            after = [sides[axis] for axis in order] if order else self._reshaped(sides, draw)
            self.steps.append((order, sides, after))
            sides = after

    @staticmethod
    def _reshaped(sides: list[Side], draw: random.Random) -> list[Side]:
        axis = draw.randrange(len(sides))
        (size, batch), behind = sides[axis], sides[axis + 1 :]
        if behind and draw.random() < 0.5:
            return [*sides[:axis], (size * behind[0][0], batch or behind[0][1]), *behind[1:]]
        if size % 2 == 0 and not batch:
            return [*sides[:axis], (size // 2, False), (2, False), *behind]
        return [*sides[:axis], (1, False), *sides[axis:]]

    def forward(self, x: Tensor) -> Tensor:
        count = x.shape[0]
        for order, _, after in self.steps:
            x = x.permute(order) if order else x.reshape([size * count if batch else size for size, batch in after])
        x = torch.relu(x - 0.1)
        for order, before, _ in reversed(self.steps):
            sizes = [size * count if batch else size for size, batch in before]
            x = x.permute([order.index(axis) for axis in range(len(order))]) if order else x.reshape(sizes)
        return x


@pytest.mark.parametrize("seed", range(40))
def test_there_and_back_by_any_way(seed: int) -> None:
    graph = flat_graph(Turned(seed).eval(), SHAPE)
    x = torch.randn(5, *SHAPE)
    torch.testing.assert_close(graph(x), torch.relu(x - 0.1))
    moves = [each for each in compute_nodes(graph) if isinstance(module_of(each), ops.Permute)]
    assert bool(moves) == (seed in MOVING)  # nothing in between needs an order
