"""Functions that exporters write out, put together again: GELU from erf, Hard-swish from a clip.

Needs: nodes in order, and the constants of one element by name.
Guarantees: other nodes are left as they are; values in between that somebody else reads stay.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import onnx
from onnx import helper

_CLOSE = 1e-4


class _Graph:
    """The nodes, asked by what makes a value and by what reads it."""

    def __init__(
        self, nodes: Sequence[onnx.NodeProto], numbers: Mapping[str, float], readers: Mapping[str, int]
    ) -> None:
        self.nodes, self.numbers, self.readers = nodes, numbers, readers
        self.makers = {name: node for node in nodes for name in node.output}
        self.users: dict[str, list[onnx.NodeProto]] = {}
        for node in nodes:
            for name in node.input:
                self.users.setdefault(name, []).append(node)

    def user(self, name: str, *kinds: str) -> onnx.NodeProto | None:
        """Return the only node that reads a value, where it is of one of these kinds."""
        users = self.users.get(name, [])
        alone = len(users) == 1 and self.readers.get(name, 0) == 1
        return users[0] if alone and users[0].op_type in kinds else None

    def other(self, node: onnx.NodeProto, name: str) -> str:
        """Return the other one of two inputs."""
        return next((each for each in node.input if each != name), "")

    def is_number(self, name: str, number: float) -> bool:
        """Tell whether a value is this constant."""
        return name in self.numbers and math.isclose(self.numbers[name], number, rel_tol=_CLOSE)

    def scaled_by(self, node: onnx.NodeProto | None, factor: float) -> str:
        """Return what a node multiplies by a number, or divides by its inverse; "" where it does not."""
        if node is None or node.op_type not in ("Mul", "Div"):
            return ""
        a, b = node.input
        if node.op_type == "Div":
            return a if self.is_number(b, 1 / factor) else ""
        return a if self.is_number(b, factor) else b if self.is_number(a, factor) else ""

    def limits(self, clip: onnx.NodeProto) -> tuple[float, float] | None:
        """Return both bounds of a clip; None where they are not known."""
        given = {each.name: each.f for each in clip.attribute}
        if "min" in given and "max" in given:
            return given["min"], given["max"]
        if len(clip.input) == 3 and clip.input[1] in self.numbers and clip.input[2] in self.numbers:
            return self.numbers[clip.input[1]], self.numbers[clip.input[2]]
        return None


def fused(
    nodes: Sequence[onnx.NodeProto], numbers: Mapping[str, float], readers: Mapping[str, int]
) -> list[onnx.NodeProto]:
    """Return the nodes with one in place of each pattern; ``readers``: how often each value is read."""
    graph = _Graph(nodes, numbers, readers)
    gone, new = set[int](), dict[int, onnx.NodeProto]()
    for kind, x, pattern in _found(graph):
        last = pattern[-1]
        if gone.isdisjoint(map(id, pattern)):
            gone.update(map(id, pattern))
            new[id(last)] = helper.make_node(kind, [x], list(last.output), name=last.name)
    return [new.get(id(node), node) for node in nodes if id(node) not in gone or id(node) in new]


def _found(graph: _Graph) -> Iterator[tuple[str, str, list[onnx.NodeProto]]]:
    for node in graph.nodes:
        if node.op_type == "Erf":
            yield from _gelu(graph, node)
        elif node.op_type in ("Clip", "HardSigmoid"):
            yield from _hard_swish(graph, node)


def _gelu(graph: _Graph, erf: onnx.NodeProto) -> Iterator[tuple[str, str, list[onnx.NodeProto]]]:
    """X * (erf(x / sqrt 2) + 1) * 0.5, in any order."""
    inner = graph.makers.get(erf.input[0])
    x = graph.scaled_by(inner, math.sqrt(0.5))
    plus = graph.user(erf.output[0], "Add")
    if not x or inner is None or plus is None or not graph.is_number(graph.other(plus, erf.output[0]), 1.0):
        return
    pattern = [erf, plus] if graph.user(erf.input[0], "Erf") is None else [inner, erf, plus]
    product = graph.user(plus.output[0], "Mul")
    if product is None:
        return
    other = graph.other(product, plus.output[0])
    half = graph.makers.get(other)
    if graph.scaled_by(half, 0.5) == x and half is not None:
        yield "Gelu", x, [*pattern, *([half] if graph.user(other, "Mul") else []), product]
        return
    last = graph.user(product.output[0], "Mul", "Div")
    if last is None:
        return
    scaled = graph.scaled_by(last, 0.5) == product.output[0] and other == x
    turned = graph.is_number(other, 0.5) and last.op_type == "Mul" and graph.other(last, product.output[0]) == x
    if scaled or turned:
        yield "Gelu", x, [*pattern, product, last]


def _hard_swish(graph: _Graph, gate: onnx.NodeProto) -> Iterator[tuple[str, str, list[onnx.NodeProto]]]:
    """X * clip(x + 3, 0, 6) / 6, in any order, or x * hard sigmoid(x)."""
    if gate.op_type == "HardSigmoid":
        given = {each.name: each.f for each in gate.attribute}
        product = graph.user(gate.output[0], "Mul")
        is_sixth = math.isclose(given.get("alpha", 0.2), 1 / 6, rel_tol=_CLOSE) and given.get("beta", 0.5) == 0.5
        if product is not None and is_sixth and graph.other(product, gate.output[0]) == gate.input[0]:
            yield "HardSwish", gate.input[0], [gate, product]
        return
    plus = graph.makers.get(gate.input[0])
    if graph.limits(gate) != (0.0, 6.0) or plus is None or plus.op_type != "Add":
        return
    x = next((name for name in plus.input if graph.is_number(graph.other(plus, name), 3.0)), "")
    next_one = graph.user(gate.output[0], "Mul", "Div")
    if not x or next_one is None or graph.user(gate.input[0], "Clip") is None:
        return
    last = graph.user(next_one.output[0], "Mul", "Div")
    if last is None:
        return
    first_product = next_one.op_type == "Mul" and graph.other(next_one, gate.output[0]) == x
    then_product = last.op_type == "Mul" and graph.other(last, next_one.output[0]) == x
    scaled_after = first_product and graph.scaled_by(last, 1 / 6) == next_one.output[0]
    if scaled_after or (then_product and graph.scaled_by(next_one, 1 / 6) == gate.output[0]):
        yield "HardSwish", x, [plus, gate, next_one, last]
