"""An ONNX file's graph, with what is known about its values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import NodeProto

from pipeline.errors import ModelError

GRIDS = ("QuantizeLinear", "DequantizeLinear")
_NO_CORRECT_FILE = "is it an ONNX file, and whole?"
_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul", "QLinearConv", "QLinearMatMul", "QGemm", "ConvInteger")


@dataclass(frozen=True, kw_only=True)
class Graph:
    """An ONNX graph and what is known about its values."""

    proto: onnx.GraphProto
    constants: Mapping[str, tuple[int, ...]]  # name → shape; also of constants behind a DequantizeLinear
    stored: Mapping[str, str]  # name → name of the initializer that it is made of
    shapes: Mapping[str, tuple[int, ...]]  # without the batch
    steps: Mapping[str, int]  # the first axis, which is the batch elsewhere than in recurrent layers
    types: Mapping[str, int]
    makers: Mapping[str, NodeProto]
    readers: Mapping[str, list[NodeProto]]


def read_graph(path: Path) -> Graph:
    """Read a file and infer its shapes.  Raises ModelError for what is no ONNX file."""
    try:
        model = onnx.load(path, load_external_data=False)
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except OSError as error:
        raise ModelError(f"cannot be read: {error.strerror}", where=str(path)) from error
    except Exception as error:
        what = f"is no readable ONNX file: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
        raise ModelError(what, where=str(path), remedy=_NO_CORRECT_FILE) from error
    proto = inferred.graph
    constants = {each.name: tuple(each.dims) for each in proto.initializer}
    types = {each.name: each.data_type for each in proto.initializer}
    stored = {each.name: each.name for each in proto.initializer}
    readers: dict[str, list[NodeProto]] = {}
    for node in proto.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
        if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
            constants[node.output[0]] = tuple(node.attribute[0].t.dims)
            stored[node.output[0]] = node.output[0]
        elif node.op_type in (*GRIDS, "Identity") and node.input and node.input[0] in constants:
            constants[node.output[0]] = constants[node.input[0]]
            stored[node.output[0]] = stored[node.input[0]]
    shapes, steps = {}, {}
    for value in (*proto.input, *proto.value_info, *proto.output):
        shapes[value.name] = tuple(int(side.dim_value) for side in value.type.tensor_type.shape.dim)[1:]
        steps[value.name] = next((int(side.dim_value) for side in value.type.tensor_type.shape.dim), 0)
        types[value.name] = value.type.tensor_type.elem_type
    return Graph(
        proto=proto,
        constants=constants,
        stored=stored,
        shapes=shapes,
        steps=steps,
        types=types,
        makers={name: node for node in proto.node for name in node.output},
        readers=readers,
    )


def weight_of(graph: Graph, node: NodeProto) -> tuple[int, ...]:
    """Return the shape of a layer's weights; empty where it has none."""
    if node.op_type not in _WEIGHTED:
        return ()
    return next((graph.constants[name] for name in node.input if len(graph.constants.get(name, ())) > 1), ())


def attribute(node: NodeProto, name: str, default: int) -> int:
    """Return a number among a node's attributes."""
    return next((int(each.i) for each in node.attribute if each.name == name), default)
