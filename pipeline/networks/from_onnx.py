"""From an ONNX file to a network of torch, which is then treated like anybody's: trained, pruned, quantized, written.

Each node becomes a module under the node's name, with the file's weights as its parameters (``networks.onnx.ONNX``).
What follows from constants and shapes alone is computed once.  A batch size that is fixed in the file becomes free:
the graph is read as what it does to one sample (``networks.onnx.nodes``).

Guarantees: the network gives what ONNX Runtime makes of the file, on random input, sample by sample and in batches;
one that does not is refused.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper

from pipeline.declare.card import outside_name
from pipeline.errors import ModelError, UnsupportedOpError
from pipeline.graph.ends import Input as EndInput
from pipeline.graph.ends import joined_shape
from pipeline.networks.onnx import ONNX
from pipeline.networks.onnx.agreement import check_same
from pipeline.networks.onnx.building import Building
from pipeline.networks.onnx.constants import array_of, constant_node, folded
from pipeline.networks.onnx.ends import Input, Shapes, inputs_of, outputs_of, spec_of
from pipeline.networks.onnx.files import OnnxFile, name_of, read_file
from pipeline.networks.onnx.fusions import fused
from pipeline.networks.onnx.linear import LINEAR, as_matrix
from pipeline.networks.onnx.modules import Computed, OnnxNetwork
from pipeline.networks.onnx.nodes import Array, Handler, Node
from pipeline.networks.onnx.values import Doubtful, Refusal, TouchesBatch, Value
from pipeline.visible import shown_text

_OWN_DOMAINS = ("", "ai.onnx")
_MOST_SHOWN = 20
# what comes of attributes and inputs that are missing, of another type, or out of all bounds
_MALFORMED = (
    *(ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError),
    *(RuntimeError, StopIteration, TypeError, ValueError),
)
_Known = dict[str, Value | Array]


def network_from(
    path: Path,
    *,
    sample_shape: Shapes | None = None,
    output: str = "",
    whole: bool = False,
) -> OnnxNetwork:
    """Return the network of an ONNX file, with its weights, in training mode.

    ``sample_shape``: of what it shall be given, where the file leaves axes free (of several inputs by their names);
    pictures are (C, H, W) even where the file has them last.  ``output``: which of several outputs, "a" or "a,b"; all
    unless it is said.  ``whole``: an input with its first axis is one sample.
    Raises ModelError, and UnsupportedOpError with all nodes that cannot be taken.
    """
    file = read_file(path)
    given = inputs_of(file, sample_shape, whole=whole)
    wanted = outputs_of(file, output)
    building = Building()
    reading = _Reading(file, building, wanted)
    reading.known.update(_inputs(building, given))
    reading.read()
    results = {name: _result(file, reading.known.get(name), name) for name in wanted}
    lifted = whole or any(each.shape[:1] != (1,) for each in results.values())
    try:
        last = next(iter(results.values())) if len(wanted) == 1 else building.joined(results, lifted=whole)
        network = building.finished(last, lifted=lifted and len(wanted) == 1)
    except TouchesBatch as error:
        raise ModelError(f"output '{shown_text(wanted[0])}' is not one per sample", where=str(path)) from error
    network.order = given[0].order if len(given) == 1 else None
    network.inputs = tuple(spec_of(outside_name(each.name), each.sample_shape) for each in given)
    network.outputs = tuple(
        spec_of(name, each.shape if whole or each.shape[:1] != (1,) else each.shape[1:])
        for name, each in results.items()
    )
    network.sample_shape = joined_shape(network.inputs)
    network.said = check_same(network, file, given, whole=whole)
    return network.train()


def _inputs(building: Building, given: Sequence[Input]) -> Iterator[tuple[str, Value]]:
    """Add the inputs; several are cut out of one tensor that holds them side by side."""
    if len(given) == 1:
        yield given[0].name, building.input(given[0].shape, lifted=given[0].lifted)
        return
    sizes = [math.prod(each.sample_shape) for each in given]
    lifted = given[0].lifted
    whole = building.input((sum(sizes),) if lifted else (1, sum(sizes)), lifted=lifted)
    for start, each in zip(itertools.accumulate(sizes, initial=0), given, strict=False):
        cut = building.run(
            EndInput(outside_name(each.name), start, each.sample_shape), [whole], lifted=lifted, name=each.name
        )
        if each.order is not None:
            turn = Computed(partial(torch.permute, dims=each.order))
            cut = building.run(turn, [cut], lifted=False, name=f"{each.name}_turned")
        yield each.name, cut


def _result(file: OnnxFile, found: Value | Array | None, name: str) -> Value:
    if not isinstance(found, Value):
        others = ",".join(each for each in file.outputs if each != name)
        raise ModelError(
            f"output '{shown_text(name)}' does not follow from its input",
            where=str(file.path),
            remedy=f'leave it out: [network.options] output = "{shown_text(others)}"' if others else "",
        )
    return found


# ── nodes ───────────────────────────────────────────────────────────────────────────────────────────────────────────


class _Reading:
    """Goes through the nodes that the wanted outputs need, one after the other."""

    def __init__(self, file: OnnxFile, building: Building, wanted: Collection[str]) -> None:
        self.file, self.building = file, building
        self.known: _Known = {}
        self.refusals: list[tuple[str, str, str]] = []  # name, operation, why
        needed = _needed(file.model.graph.node, wanted)
        self.readers = _readers(needed, wanted)
        self.nodes = fused(needed, _numbers(file.model.graph, needed), self.readers)
        self.readers = _readers(self.nodes, wanted)
        self.done: set[int] = set()  # places of nodes that another one has taken along
        self.unread: set[str] = set()  # what refused nodes would give

    def read(self) -> None:
        """Take all nodes.  Raises UnsupportedOpError with those that cannot be taken."""
        self._initializers(self.file.model.graph)
        self._take_all(self.nodes)
        if self.refusals:
            raise _refused(self.file.path, self.refusals)

    def _initializers(self, graph: onnx.GraphProto) -> None:
        for tensor in graph.initializer:
            if self.readers[tensor.name]:
                try:
                    self.known[tensor.name] = array_of(tensor)
                except Refusal as refusal:
                    raise ModelError(f"'{shown_text(tensor.name)}' {refusal}", where=str(self.file.path)) from refusal

    def _take_all(self, nodes: Sequence[onnx.NodeProto]) -> None:
        for place, node in enumerate(nodes):
            if id(node) in self.done:
                continue
            if any(name in self.unread for name in node.input):
                self.unread.update(node.output)
                if node.op_type not in {*ONNX, *LINEAR, *_INNER}:
                    self.refusals.append((name_of(node), _kind(node), "is not supported"))
                continue
            try:
                for name, value in zip(node.output, self._taken(node, nodes[place + 1 :]), strict=False):
                    if value is not None:
                        self.known[name] = value
            except Refusal as refusal:
                self.refusals.append((name_of(node), _kind(node), str(refusal)))
                self.unread.update(node.output)
            except _MALFORMED as error:
                why = f"is not written as its operation asks ({next(iter(str(error).splitlines()), '')})"
                self.refusals.append((name_of(node), _kind(node), why))
                self.unread.update(node.output)

    def _taken(self, node: onnx.NodeProto, following: Sequence[onnx.NodeProto]) -> Sequence[Value | Array | None]:
        if node.op_type == "Constant":
            return [constant_node(node)]
        missing = [name for name in node.input if name and name not in self.known]
        if missing:
            raise Refusal(f"reads '{shown_text(missing[0])}' before anything makes it")
        inputs = tuple(self.known[name] if name else None for name in node.input)
        if node.op_type == "If":
            return self._branch(node, inputs)
        arrays = [None if isinstance(each, Value) else each for each in inputs]
        attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        if node.op_type in ("Shape", "Size") and isinstance(inputs[0], Value):
            shape = inputs[0].shape
            ends = slice(attributes.get("start", 0), attributes.get("end"))
            return [np.array(shape[ends] if node.op_type == "Shape" else math.prod(shape), np.int64)]
        if node.op_type == "CastLike" and isinstance(inputs[0], np.ndarray):
            return [inputs[0].astype(np.float32)]  # what is computed is float
        if not any(isinstance(each, Value) for each in inputs):
            return folded(node, arrays, self.file.opset)
        known = node.op_type in ONNX or node.op_type in LINEAR
        if not known or node.domain not in _OWN_DOMAINS:
            raise Refusal("is not supported")
        seen = Node(
            op=node.op_type,
            name=name_of(node),
            opset=self.file.opset,
            inputs=inputs,
            attributes=attributes,
            wanted=tuple(bool(name) and self.readers[name] > 0 for name in node.output),
            building=self.building,
            lifted=any(isinstance(each, Value) and each.shape[:1] != (1,) for each in inputs),
            bias=self._bias(node, inputs, following) if node.op_type == "MatMul" else None,
        )
        result = self._handled(node, seen)
        results = result if isinstance(result, tuple) else (result,)
        if seen.bias is not None:
            self._take_along(node, following, results[0])
        return results

    def _handled(self, written: onnx.NodeProto, node: Node) -> Any:
        """Let the operation's handler add its modules; where it has none that can, a linear one is a matrix."""
        handler = ONNX.get(node.op)
        if handler is None:
            return self._lifted_if_needed(lambda each: as_matrix(each, written), node)
        try:
            return self._lifted_if_needed(handler, node)
        except Refusal as refusal:
            if node.op not in LINEAR or isinstance(refusal, Doubtful):
                raise
            try:
                return self._lifted_if_needed(lambda each: as_matrix(each, written), node)
            except Refusal:
                raise refusal from None

    def _lifted_if_needed(self, handler: Handler, node: Node) -> Any:
        mark = self.building.mark()
        try:
            return handler(node)
        except TouchesBatch:
            self.building.back(mark)
            return handler(replace(node, lifted=True))
        except Refusal:
            self.building.back(mark)
            raise

    def _branch(self, node: onnx.NodeProto, inputs: Sequence[Value | Array | None]) -> list[Value | Array | None]:
        """Follow the branch that a constant condition chooses."""
        if not isinstance(inputs[0], np.ndarray) or inputs[0].size != 1:
            raise Refusal("depends on a computed condition")
        wanted = "then_branch" if bool(inputs[0].ravel()[0]) else "else_branch"
        graph = next(each.g for each in node.attribute if each.name == wanted)
        self._initializers(graph)
        before = len(self.refusals)
        self._take_all(graph.node)
        if len(self.refusals) > before:
            raise Refusal("has a branch that cannot be taken")
        return [self.known.get(each.name) for each in graph.output]

    # ── a bias that follows ──

    def _bias(
        self, node: onnx.NodeProto, inputs: Sequence[Value | Array | None], following: Sequence[onnx.NodeProto]
    ) -> Array | None:
        """Return what an Add right after a product of matrices adds to every row."""
        add = self._sole_reader(node.output[0], following)
        weight = inputs[1]
        if add is None or add.op_type != "Add" or not isinstance(weight, np.ndarray) or weight.ndim != 2:
            return None
        other = next((name for name in add.input if name != node.output[0]), "")
        bias = self.known.get(other)
        if not isinstance(bias, np.ndarray) or bias.shape != weight.shape[1:]:
            return None
        return bias

    def _sole_reader(self, name: str, following: Sequence[onnx.NodeProto]) -> onnx.NodeProto | None:
        if self.readers[name] != 1:
            return None
        return next((node for node in following if name in node.input), None)

    def _take_along(
        self, node: onnx.NodeProto, following: Sequence[onnx.NodeProto], result: Value | Array | None
    ) -> None:
        add = self._sole_reader(node.output[0], following)
        if add is not None and isinstance(result, Value):
            self.done.add(id(add))
            self.known[add.output[0]] = result


_INNER = frozenset({"Constant", "If", "Shape", "Size"})


def _needed(nodes: Sequence[onnx.NodeProto], wanted: Collection[str]) -> list[onnx.NodeProto]:
    """Return the nodes that these outputs follow from, in their order."""
    names, kept = {*wanted}, list[onnx.NodeProto]()
    for node in reversed(nodes):
        if names.intersection(node.output):
            kept.append(node)
            names.update(_read_by(node))
    return kept[::-1]


def _readers(nodes: Sequence[onnx.NodeProto], wanted: Collection[str]) -> Counter[str]:
    """Count how often each value is read."""
    return Counter([*(name for node in nodes for name in _read_by(node)), *wanted])


def _numbers(graph: onnx.GraphProto, nodes: Sequence[onnx.NodeProto]) -> dict[str, float]:
    """Return the constants of one element."""
    tensors = {each.name: each for each in graph.initializer}
    for node in nodes:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            tensors[node.output[0]] = node.attribute[0].t
    found = {}
    for name, tensor in tensors.items():
        with contextlib.suppress(Refusal):  # whoever reads it is told
            array = array_of(tensor) if math.prod(tensor.dims) == 1 else np.zeros(0)
            if array.size == 1 and array.dtype.kind in "fiu":
                found[name] = float(array.ravel()[0])
    return found


def _read_by(node: onnx.NodeProto) -> list[str]:
    """Return all that a node reads, inside its branches, too."""
    inner = [graph for each in node.attribute for graph in (each.g, *each.graphs)]
    below = [name for graph in inner for each in graph.node for name in _read_by(each)]
    return [*node.input, *below, *(each.name for graph in inner for each in graph.output)]


# ── words ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _kind(node: onnx.NodeProto) -> str:
    return node.op_type if node.domain in _OWN_DOMAINS else f"{node.domain}.{node.op_type}"


def _refused(path: Path, refusals: Sequence[tuple[str, str, str]]) -> UnsupportedOpError:
    said = [shown_text(f"node '{name}' ({kind}) {why}") for name, kind, why in refusals]
    more = [f"and {len(said) - _MOST_SHOWN} more"] if len(said) > _MOST_SHOWN else []
    return UnsupportedOpError(
        said[0],
        where=str(path),
        remedy="\n  ".join([*said[1:_MOST_SHOWN], *more, "docs/operations.md lists what is supported"]),
    )
