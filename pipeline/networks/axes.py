"""Where the axes of a tensor lie: reshapes and transposes are only read another way until a layer needs an order.

A flat graph keeps the batch first and apart.  Networks do not: attention moves it behind other axes or folds it into
them (``(N*heads, L, D)``), and comes back.  So a ``Value`` is a node of the flat graph whose batch stands first, and
says for each axis of the network's own tensor which axes of that node make it up.

    node (N, 4, 8), axes ((0, 1), (2,))    the network's tensor is (N*4, 8)
    node (N, 4, 8), axes ((2,), (0,), (1,))  the network's tensor is (8, N, 4)

An axis that is made up of nothing has one element; an axis of the node that is in none of them has one, too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import fx

# The size that stands for the batch while a network is read: a prime that is no layer's own size
BATCH = 1009


@dataclass(frozen=True, kw_only=True, eq=False)
class Value:
    """A computed tensor of the network that is read."""

    node: fx.Node
    dims: tuple[int, ...]  # of the node's value; dims[0] is BATCH
    axes: tuple[tuple[int, ...], ...]  # the network's axis → axes of the node, slowest first
    named: str = ""  # after the layer that reads it in this shape

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of the network's own tensor, with BATCH where the batch is."""
        return tuple(math.prod(self.dims[axis] for axis in group) for group in self.axes)

    @property
    def is_plain(self) -> bool:
        """Whether the node's value is the network's tensor as it is."""
        return self.axes == tuple((axis,) for axis in range(len(self.dims)))

    def stored_axis(self, axis: int) -> int | None:
        """Return the one axis of the node that is this axis of the tensor; None where it is none or several."""
        group = self.axes[axis % len(self.axes)]
        return group[0] if len(group) == 1 else None

    def permuted(self, order: Sequence[int]) -> Value:
        """Return the tensor with its axes in another order."""
        return replace(self, axes=tuple(self.axes[axis] for axis in order))

    def with_node(self, node: fx.Node, dims: tuple[int, ...] | None = None) -> Value:
        """Return what lies in another node in the same way."""
        return replace(self, node=node, dims=dims or self.dims, named="")


def plain(node: fx.Node, dims: Sequence[int]) -> Value:
    """Return a node's value as it is."""
    return Value(node=node, dims=tuple(dims), axes=tuple((axis,) for axis in range(len(dims))))


@dataclass(frozen=True, kw_only=True)
class Split:
    """How a reshape reads a value: axes of the node fall apart, and their parts are put together anew."""

    parts: tuple[tuple[int, ...], ...]  # node axis → the sizes into which it falls apart
    axes: tuple[tuple[int, ...], ...]  # of the new tensor, in axes of the node with all parts apart

    @property
    def dims(self) -> tuple[int, ...]:
        """Return the shape of the node with all parts apart."""
        return tuple(size for sizes in self.parts for size in sizes)


def split_for(value: Value, shape: Sequence[int]) -> Split | None:
    """Return how ``value`` is read in another shape without moving an element; None where that cannot be."""
    rest = [(axis, value.dims[axis]) for group in value.axes for axis in group if value.dims[axis] != 1]
    parts: dict[int, list[int]] = {axis: [] for axis, _ in rest}
    groups: list[list[tuple[int, int]]] = []  # of (node axis, number of its part)
    for size in shape:
        group: list[tuple[int, int]] = []
        wanted = size
        while wanted > 1:
            if not rest:
                return None
            axis, left = rest.pop(0)
            taken = math.gcd(wanted, left)
            if taken == 1 or (taken not in (wanted, left)):
                return None
            if taken < left:
                rest.insert(0, (axis, left // taken))
            group.append((axis, len(parts[axis])))
            parts[axis].append(taken)
            wanted //= taken
        groups.append(group)
    if rest:
        return None
    sizes = tuple(tuple(parts.get(axis) or (size,)) for axis, size in enumerate(value.dims))
    if sizes[0] != (BATCH,):
        return None
    starts = [sum(len(each) for each in sizes[:axis]) for axis in range(len(sizes))]
    return Split(parts=sizes, axes=tuple(tuple(starts[axis] + part for axis, part in group) for group in groups))


@dataclass(frozen=True, kw_only=True)
class Arrangement:
    """How to bring a value into the network's own order, the batch in front."""

    order: tuple[int, ...]  # of the node's axes
    dims: tuple[int, ...]  # then reshaped to
    axes: tuple[tuple[int, ...], ...]  # and these are its axes


def arrangement(value: Value) -> Arrangement:
    """Return the order in which every axis of the tensor is one axis of the node; what the batch is folded into, apart.

    ``(N*k, …)`` comes out as a node ``(N, k, …)``.
    """
    order, dims, axes = [0], [BATCH], []
    for group in value.axes:
        runs = _runs_around_batch(group)
        here: list[int] = []
        for run in runs:
            if run == (0,):
                here.append(0)
                continue
            if not run and len(runs) > 1:
                continue
            order += run
            here.append(len(dims))
            dims.append(math.prod(value.dims[axis] for axis in run))
        axes.append(tuple(here))
    unread = [axis for axis in range(1, len(value.dims)) if axis not in order]  # of one element each
    return Arrangement(order=(*order, *unread), dims=tuple(dims), axes=tuple(axes))


def _runs_around_batch(group: tuple[int, ...]) -> list[tuple[int, ...]]:
    """(2, 0, 3) → (2,), (0,), (3,);  (2, 3) → (2, 3)."""
    if 0 not in group:
        return [group]
    position = group.index(0)
    return [run for run in (group[:position], (0,), group[position + 1 :]) if run]
