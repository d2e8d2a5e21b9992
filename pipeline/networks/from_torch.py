"""From a network in PyTorch to the flat graph of known operations that every later pass works on.

``torch.export`` runs the network's own code once and writes down which ATen functions it calls (non-strict, nothing
decomposed): branches and sizes are decided, in-place functions resolved, and every call says in which layer and on
which line it stands.  ``aten.ATEN`` turns each call into modules of ``graph.kinds.KINDS``; another call is taken apart
(``taken_apart``) into some that it knows.

Needs: forward() that takes and returns one tensor and does the same for every batch.
Guarantees: a flat graph (``kinds.check_flat``) that computes what the network does (checked with two sizes of batch);
dropout and identities are gone; whatever follows from parameters alone is a constant.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from pipeline.errors import ModelError, UnsupportedOpError
from pipeline.graph import ops
from pipeline.graph.fold import fold
from pipeline.graph.kinds import check_flat
from pipeline.networks import tracing
from pipeline.networks.aten import ATEN, MEANINGLESS
from pipeline.networks.aten.shapes import SHAPES
from pipeline.networks.axes import BATCH, Value, plain
from pipeline.networks.flat import Call, Constant, FlatGraph, Refusal, check_cast, check_truth
from pipeline.networks.lines import as_written, layer_of, place_of, refused
from pipeline.networks.sameness import check_same, is_same
from pipeline.networks.taken_apart import taken_apart
from pipeline.networks.tracing import Traced


def flat_graph(network: nn.Module, sample_shape: tuple[int, ...], *, checked: bool = True) -> fx.GraphModule:
    """Return the flat graph of a copy of ``network``, on the CPU, in evaluation mode, for samples of this shape.

    ``checked``: whether it is run to see that it computes what the network does; unchecked, its weights may be on
    torch's meta device, which knows shapes alone.
    Raises ModelError where the network's code cannot be followed, and UnsupportedOpError with all operations that are
    not known, each with its layer and the user's line.
    """
    network = copy.deepcopy(network).eval()
    if not any(parameter.is_meta for parameter in network.parameters()):
        network.cpu()
    try:
        return _followed(network, sample_shape, checked=checked)
    except UnsupportedOpError:
        _read(tracing.trace(network, sample_shape, lines=True), network, sample_shape)  # refuses it with the lines
        raise


def folded_graph(network: nn.Module, sample_shape: tuple[int, ...]) -> fx.GraphModule:
    """Return the flat graph with batch norms folded into the layers before them; raises as the two steps do."""
    return fold(flat_graph(network, sample_shape))


def _followed(network: nn.Module, sample_shape: tuple[int, ...], *, checked: bool) -> fx.GraphModule:
    known = tracing.recall(network, sample_shape) if checked else None
    if known is not None:
        flat = _read(known, network, sample_shape)
        if is_same(network, flat, sample_shape):
            return flat
    traced = tracing.trace(network, sample_shape)
    flat = _read(traced, network, sample_shape)
    if checked:
        check_same(network, flat, sample_shape)
        tracing.keep(network, sample_shape, traced)
    return flat


# ── reading ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _read(traced: Traced, network: nn.Module, sample_shape: tuple[int, ...]) -> fx.GraphModule:
    graph, flat = traced.module.graph, FlatGraph()
    reading = _Reading(flat, traced.module)
    for node in graph.nodes:
        if node.op != "placeholder":
            continue
        tensor = traced.tensor(node.name, network)
        if tensor is None:
            reading.known[node] = plain(flat.input(node.name, sample_shape), (BATCH, *sample_shape))
        else:
            name = traced.states.get(node.name, node.name)
            reading.known[node] = Constant(tensor=tensor, name=name, learned=isinstance(tensor, nn.Parameter))
    results = reading.read(graph)
    if reading.refusals:
        raise refused(reading.refusals)
    finished = flat.finished(_one_value(flat, results, next(iter(reversed(graph.nodes)))))
    check_flat(finished, after="from_torch")
    return finished


class _Unread(Exception):  # noqa: N818  (it is no error: what came before was refused already)
    """An input of this call is the result of one that was refused."""


class _Reading:
    """Goes through a graph of ATen calls, node after node."""

    def __init__(self, flat: FlatGraph, owner: nn.Module) -> None:
        self.flat, self.owner = flat, owner
        self.known: dict[fx.Node, Any] = {}  # Value, Constant, number, or a tuple of such
        self.refusals: list[Refusal] = []

    def read(self, graph: fx.Graph) -> tuple[Any, ...]:
        """Return what the graph's results are; its inputs are known already."""
        for node in graph.nodes:
            if node.op == "get_attr":
                self.known[node] = self._attribute(str(node.target))
            elif node.op == "call_function":
                with contextlib.suppress(_Unread):
                    self._take(node)
        last = next(iter(reversed(graph.nodes))).args[0]
        return tuple(self.known.get(each) if isinstance(each, fx.Node) else each for each in last)

    def _attribute(self, name: str) -> Any:
        value: Any = self.owner
        for part in name.split("."):
            value = getattr(value, part)
        return Constant(tensor=value.clone(), name=name, learned=False) if isinstance(value, Tensor) else value

    def _take(self, node: fx.Node) -> None:
        arguments = fx.node.map_arg(list(node.args), self._look_up)
        options = fx.node.map_arg(dict(node.kwargs), self._look_up)
        try:
            self.known[node] = self._result(node, arguments, options)
        except Refusal as refusal:
            self.refusals.append(refusal.at(*place_of(node)))

    def _look_up(self, argument: fx.Node) -> Any:
        if argument not in self.known:
            raise _Unread
        return self.known[argument]

    def _result(self, node: fx.Node, arguments: list[Any], options: dict[str, Any]) -> Any:
        if getattr(node.target, "__name__", "") == "getitem":
            return _one_of(node, *arguments)
        block = next((each for each in arguments if isinstance(each, fx.GraphModule)), None)
        if block is not None:  # under autocast or without gradients: on the CPU in float32 that means nothing
            return self._inside(block, arguments[arguments.index(block) + 1 :])
        call = Call.of(node, _named(node, arguments, options), layer=layer_of(node))
        if not any(isinstance(each, Value) for each in _leaves([arguments, options])):
            return None if call.name in MEANINGLESS and not arguments else _computed(node, arguments, options)
        if call.name in MEANINGLESS:
            check_cast(node)
            return arguments[0]
        try:
            if call.name.startswith("logical_"):
                check_truth(call.name, [each for each in node.all_input_nodes if isinstance(self.known[each], Value)])
            result = self._handled(node, call)
        except Refusal as refusal:
            return self._apart(node, refusal)
        return _reading(result, call.layer) if call.name in SHAPES else result

    def _handled(self, node: fx.Node, call: Call) -> Any:
        handler = ATEN.get(call.name)
        if handler is None:
            raise Refusal(as_written(node, call.name))
        return handler(self.flat, call)

    def _apart(self, node: fx.Node, refusal: Refusal) -> Any:
        """Read a function as what it is made of.  Raises the refusal where that is not known either."""
        parts = None if refusal.whole else taken_apart(node)
        if parts is None:
            raise refusal
        inner = _Reading(self.flat, parts)
        inputs = [each for each in parts.graph.nodes if each.op == "placeholder"]
        given = [self._look_up(each) for each in node.all_input_nodes]
        if None in given:
            raise refusal
        inner.known.update(zip(inputs, given, strict=True))
        results = inner.read(parts.graph)
        if inner.refusals:
            raise refusal
        return results if isinstance(node.meta.get("val"), list | tuple) else results[0]

    def _inside(self, block: fx.GraphModule, arguments: list[Any]) -> tuple[Any, ...]:
        inner = _Reading(self.flat, block)
        inputs = [node for node in block.graph.nodes if node.op == "placeholder"]
        inner.known.update(zip(inputs, arguments, strict=True))
        results = inner.read(block.graph)
        self.refusals += inner.refusals
        if inner.refusals:
            raise _Unread
        return results


def _reading(result: Any, layer: str) -> Any:
    """Name a value that is only read another way after the layer that does: elements may have to move after all."""
    if isinstance(result, tuple):
        return tuple(_reading(each, layer) for each in result)
    return replace(result, named=layer) if isinstance(result, Value) else result


def _one_value(flat: FlatGraph, results: tuple[Any, ...], last: fx.Node) -> fx.Node:
    if len(results) != 1 or not isinstance(results[0], Value):
        what = "more than one tensor" if len(results) > 1 else "something that does not follow from its input"
        raise ModelError(
            f"the network returns {what}",
            where="network",
            remedy="return one tensor from forward(): what is trained, and what the files give",
        )
    node = last.args[0][0]  # type: ignore[index]
    assert isinstance(node, fx.Node)  # noqa: S101  (it has a value)
    call = Call.of(node, {}, layer=layer_of(node))
    try:
        value = flat.plain(call, results[0])
    except Refusal as refusal:
        raise refused([refusal.at(*place_of(node))]) from refusal
    if value.node.op == "placeholder":  # a file needs a node
        return flat.add(call.within("same"), ops.Scale(1.0, 0.0), [value.node], value.dims)
    return value.node


def _one_of(node: fx.Node, results: Any, place: int) -> Any:
    """Return one of several results.  Raises Refusal where it is read and no graph gives it: places of the largest."""
    result, function = results[place], node.args[0]
    if result is None and node.users and isinstance(function, fx.Node):
        name = Call.of(function, {}, layer="").name.removesuffix("_with_indices")
        raise Refusal(f"reading the indices that {name} gives")
    return result


def _named(node: fx.Node, arguments: list[Any], options: dict[str, Any]) -> dict[str, Any]:
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        raise Refusal(str(node.target))
    named = {each.name: each.default_value for each in schema.arguments if each.has_default_value()}
    named |= {each.name: value for each, value in zip(schema.arguments, arguments, strict=False)}
    return named | options


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, list | tuple):
        for each in value:
            yield from _leaves(each)
    elif isinstance(value, Mapping):
        yield from _leaves(list(value.values()))
    else:
        yield value


@torch.no_grad()
def _computed(node: fx.Node, arguments: list[Any], options: dict[str, Any]) -> Any:
    """Compute what follows from constants alone; the batch has one element there, and is broadcast."""
    learned = any(isinstance(each, Constant) and each.learned for each in _leaves([arguments, options]))

    def plainly(value: Any) -> Any:
        if isinstance(value, Constant):
            return value.tensor.detach()
        if isinstance(value, int) and not isinstance(value, bool) and value and value % BATCH == 0:
            return value // BATCH
        if isinstance(value, list | tuple):
            return type(value)(plainly(each) for each in value)
        return value

    result = node.target(*plainly(arguments), **{name: plainly(value) for name, value in options.items()})  # type: ignore[operator]

    def kept(value: Any) -> Any:
        if isinstance(value, Tensor):
            learns = learned and value.is_floating_point()
            return Constant(tensor=nn.Parameter(value.clone()) if learns else value, name=node.name, learned=learns)
        return tuple(kept(each) for each in value) if isinstance(value, list | tuple) else value

    return kept(result)
