"""The flat graph under construction: modules are added, values brought into the order that a layer needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from pipeline.graph import ops
from pipeline.networks.axes import BATCH, Value, arrangement, plain, split_for

_FLOAT_BYTES = 4


class Refusal(Exception):  # noqa: N818  (collected, then raised as one UnsupportedOpError)
    """A call that cannot be taken, and where it stands; ``whole``: it is not taken apart either."""

    def __init__(self, what: str, *, whole: bool = False) -> None:
        super().__init__(what)
        self.what, self.layer, self.place, self.line = what, "", "", ""
        self.whole = whole

    def at(self, layer: str, place: str, line: str) -> Refusal:
        """Say where it stands in the user's network."""
        self.layer, self.place, self.line = layer, place, line
        return self

    @property
    def spot(self) -> str:
        """Return the user's line in brackets' words; empty where it is not known."""
        return f", {self.place}: {self.line}" if self.place else ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Constant:
    """A parameter or buffer, or what follows from some."""

    tensor: Tensor
    name: str
    learned: bool

    @property
    def owner(self) -> str:
        """Return the layer that it is the weight of."""
        return self.name.rpartition(".")[0]

    def shaped(self, *shape: int) -> Tensor:
        """Return it in another shape; it is still trained if it was."""
        if tuple(self.tensor.shape) == shape:
            return self.tensor
        reshaped = self.tensor.detach().reshape(shape)
        return nn.Parameter(reshaped) if self.learned else reshaped


@dataclass(frozen=True, kw_only=True, eq=False)
class Call:
    """One call of an ATen function."""

    name: str  # conv2d, add, relu …; in-place ones without the underscore
    given: Mapping[str, Any]  # by the names of the function's schema
    shape: tuple[int, ...]  # of its result, with BATCH; of the first one where it gives several
    layer: str
    owner: str = ""  # the network's module whose weights it reads

    @classmethod
    def of(cls, node: fx.Node, given: Mapping[str, Any], *, layer: str) -> Call:
        """Read a node of the exported graph."""
        value = node.meta.get("val")
        first = value[0] if isinstance(value, list | tuple) and value else value
        shape = tuple(first.shape) if isinstance(first, Tensor) else ()
        if not all(isinstance(side, int) for side in shape):  # it follows from values
            shape = ()
        name = str(node.target).split(".")[1].rstrip("_") if "." in str(node.target) else str(node.target)
        return cls(name=name, given=given, shape=shape, layer=layer)

    def __getitem__(self, name: str) -> Any:
        """Return an argument; None where the function has none of that name."""
        return self.given.get(name)

    def value(self, name: str = "self") -> Value:
        """Return an argument that is computed."""
        value = self.given.get(name)
        if not isinstance(value, Value):
            raise Refusal(f"{self.name} of a constant")
        return value

    def constant(self, name: str) -> Constant | None:
        """Return an argument that is a constant or left out."""
        value = self.given.get(name)
        if isinstance(value, Value):
            raise Refusal(f"{self.name} with a computed {name}")
        return value

    def tensor(self, name: str) -> Tensor | None:
        """Return a constant argument's tensor; None where it is left out."""
        constant = self.constant(name)
        return None if constant is None else constant.tensor

    def within(self, part: str) -> Call:
        """Return the call under the name of one of its parts."""
        return replace(self, layer=f"{self.layer}_{part}" if self.layer else part, owner="")


class FlatGraph:
    """Adds modules to a graph, each under a free name."""

    def __init__(self) -> None:
        self._root = nn.Module()
        self._graph = fx.Graph()
        self._taken: set[str] = set()
        self._blocks: set[str] = set()

    def input(self, name: str, sample_shape: Sequence[int]) -> fx.Node:
        """Add an input of the network."""
        node = self._graph.placeholder(name)
        node.meta.update(label=name, shape=(BATCH, *sample_shape))
        return node

    def add(self, call: Call, module: nn.Module, inputs: Sequence[fx.Node], dims: Sequence[int]) -> fx.Node:
        """Add a module that gives a value of this shape; of reshapes in a row only the last one counts."""
        if isinstance(module, ops.Reshape):
            inputs = [self._before_reshapes(inputs[0])]
            if tuple(inputs[0].meta["shape"]) == tuple(dims):
                return inputs[0]
        label = self._free(call.layer)
        _attach(self._root, label, module.eval())
        node = self._graph.create_node("call_module", label, tuple(inputs))
        node.meta.update(label=label, shape=tuple(dims), owner=call.owner, called=call.layer)
        return node

    def _before_reshapes(self, node: fx.Node) -> fx.Node:
        while node.op == "call_module" and isinstance(self._root.get_submodule(str(node.target)), ops.Reshape):
            (source,) = node.all_input_nodes
            node = source
        return node

    def apply(self, call: Call, module: nn.Module, *inputs: Value, shape: Sequence[int] | None = None) -> Value:
        """Add a module that takes tensors as they are in the network, and gives one of ``shape`` (the call's)."""
        nodes = [self.plain(call, value).node for value in inputs]
        dims = call.shape if shape is None else tuple(shape)
        return plain(self.add(call, module, nodes, dims), dims)

    def each(self, call: Call, module: nn.Module, value: Value) -> Value:
        """Add a function of each element by itself: wherever the axes lie, they stay there."""
        return value.with_node(self.add(call, module, [value.node], value.dims))

    def arranged(self, call: Call, value: Value) -> Value:
        """Bring a value into the network's own order, the batch in front and apart."""
        want = arrangement(value)
        order = [axis for axis in want.order if value.dims[axis] != 1]
        turned = tuple(value.dims[axis] for axis in want.order)
        turns, reshapes = order != sorted(order), want.dims != (turned if order != sorted(order) else value.dims)
        named = replace(call, layer=value.named) if value.named else call.within("permute" if turns else "reshape")
        node = value.node
        if turns:
            node = self.add(named.within("permute") if reshapes else named, ops.Permute(want.order), [node], turned)
        if reshapes:
            node = self.add(named, ops.Reshape(want.dims[1:]), [node], want.dims)
        return Value(node=node, dims=want.dims, axes=want.axes, named="" if turns or reshapes else value.named)

    def plain(self, call: Call, value: Value) -> Value:
        """Bring a value into a node that is the network's own tensor.  Raises Refusal where the batch is mixed in."""
        if value.is_plain:
            return value
        result = self.arranged(call, value)
        if not result.is_plain:
            raise Refusal(f"{call.name} that mixes the batch with other axes")
        return result

    def reshaped(self, call: Call, value: Value, shape: Sequence[int]) -> Value:
        """Read a value in another shape; moves elements only where it must."""
        split = split_for(value, shape)
        if split is not None:
            if split.dims == value.dims:
                return replace(value, axes=split.axes)
            call = replace(call, layer=value.named) if value.named else call
            whole = split.axes == tuple((axis,) for axis in range(len(split.dims)))
            named = call if whole else call.within("apart")
            node = self.add(named, ops.Reshape(split.dims[1:]), [value.node], split.dims)
            return Value(node=node, dims=split.dims, axes=split.axes)
        value = self.arranged(call, value)
        first, wanted = (next((side for side in sides if side != 1), 1) for sides in (value.shape, shape))
        if first % BATCH or wanted % BATCH or next(g for g in value.axes if 0 in g)[0] != 0:
            raise Refusal(f"{call.name} that mixes the batch with other axes")
        dims, axes = [BATCH], list[tuple[int, ...]]()
        for side in shape:
            folded = side // BATCH if side % BATCH == 0 else 0  # what the batch is folded into, apart
            if folded == 1 or side == 1:
                axes.append((0,) if folded else ())
                continue
            axes.append((0, len(dims)) if folded else (len(dims),))
            dims.append(folded or side)
        node = self.add(call, ops.Reshape(tuple(dims[1:])), [value.node], dims)
        return Value(node=node, dims=tuple(dims), axes=tuple(axes))

    def finished(self, result: fx.Node) -> fx.GraphModule:
        """Return the graph with one result; what nothing reads is gone."""
        self._graph.output(result)
        graph = fx.GraphModule(self._root, self._graph)
        graph.graph.eliminate_dead_code()
        graph.delete_all_unused_submodules()
        graph.graph.lint()
        graph.recompile()
        return graph

    def _free(self, wanted: str) -> str:
        """Return a name that no module and no block has, and that stands in no other module."""
        parts = wanted.split(".")
        for length in range(len(parts) - 1, 0, -1):
            if ".".join(parts[:length]) in self._taken:
                parts = [*parts[: length - 1], "_".join(parts[length - 1 :])]
        wanted = ".".join(parts)
        label, count = wanted, 2
        while label in self._taken or label in self._blocks:
            label, count = f"{wanted}_{count}", count + 1
        self._taken.add(label)
        self._blocks.update(".".join(parts[:length]) for length in range(1, len(parts)))
        return label


def _attach(root: nn.Module, label: str, module: nn.Module) -> None:
    *path, name = label.split(".")
    parent = root
    for part in path:
        if part not in parent._modules:
            parent.add_module(part, nn.Module())
        parent = parent.get_submodule(part)
    parent.add_module(name, module)


def check_cast(node: fx.Node) -> None:
    """Raise Refusal where digits are lost: a graph computes in float32, and truth is 0 or 1 there."""
    before, after = (each.meta.get("val") for each in (node.all_input_nodes[0], node))
    if not isinstance(before, Tensor) or not isinstance(after, Tensor) or before.dtype == after.dtype:
        return
    if before.dtype.is_floating_point and (not after.dtype.is_floating_point or after.dtype.itemsize < _FLOAT_BYTES):
        raise Refusal(f"a cast of computed values to {str(after.dtype).removeprefix('torch.')}")


def check_truth(name: str, computed: Sequence[fx.Node]) -> None:
    """Raise Refusal for logic with computed numbers: a graph's truth is 0 or 1."""
    values = (each.meta.get("val") for each in computed)
    if any(isinstance(each, Tensor) and each.dtype != torch.bool for each in values):
        raise Refusal(f"{name} of numbers")


def constant_like(value: Value, constant: Constant) -> Tensor:
    """Return a constant so that it broadcasts against the node of an arranged value.

    Raises Refusal where it differs along the batch.
    """
    rank = len(value.axes)
    given = (1,) * (rank - constant.tensor.dim()) + tuple(constant.tensor.shape)
    if len(given) > rank:
        raise Refusal("a constant with more axes than the value it meets")
    shape = [1] * len(value.dims)
    for side, group in zip(given, value.axes, strict=True):
        if side == 1:
            continue
        own = [axis for axis in group if axis != 0]
        if side != torch.Size([value.dims[axis] for axis in own]).numel():
            raise Refusal("a constant that grows what it meets")
        for axis in own:
            shape[axis] = value.dims[axis]
    return constant.shaped(*shape)
