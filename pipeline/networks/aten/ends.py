"""The ends of networks with several inputs or outputs (``graph.ends``)."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.graph import ends, ops
from pipeline.networks.aten.shapes import Handler
from pipeline.networks.axes import Value, plain
from pipeline.networks.flat import Call, FlatGraph, Refusal


def _input(flat: FlatGraph, call: Call) -> Value:
    value = flat.apply(call, ends.Input(call["name"], call["start"], call["shape"]), call.value("whole"))
    value.node.meta["end"] = True
    return value


def _outputs(flat: FlatGraph, call: Call) -> Value:
    nodes = []
    for value, name in zip(call["values"], call["names"], strict=True):
        if not isinstance(value, Value):
            raise Refusal(f"an output ('{name}') that does not follow from the inputs")
        node = flat.plain(call, value).node
        if (
            node.op == "placeholder" or node.meta.get("end") or node in nodes
        ):  # a file needs a node of its own for each output
            node = flat.add(call.within("same"), ops.Scale(1.0, 0.0), [node], value.dims)
        nodes.append(node)
    shapes = [tuple(node.meta["shape"][1:]) for node in nodes]
    return plain(flat.add(call, ends.Outputs(call["names"], shapes), nodes, call.shape), call.shape)


ENDS: Mapping[str, Handler] = {"input": _input, "outputs": _outputs}
