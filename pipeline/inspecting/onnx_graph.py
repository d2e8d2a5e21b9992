"""An ONNX file's graph, with what is known about its values."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import NodeProto

from pipeline.errors import ModelError

GRIDS = ("QuantizeLinear", "DequantizeLinear")
CLAMPS = ("Relu", "Clip")
_NO_CORRECT_FILE = "is it an ONNX file, and whole?"
_WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "QLinearConv", "QLinearMatMul", "QGemm"})
_WEIGHTED |= {"ConvInteger", "MatMulInteger"}
RESHAPING = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze"})
_OTHER_ROWS = frozenset({"Transpose", "Concat", "Slice", "Split", "Gather", "Shape", "Expand", "Tile"})

Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Graph:
    """An ONNX graph and what is known about its values."""

    proto: onnx.GraphProto
    constants: Mapping[str, Shape]  # name → shape; also of constants behind a DequantizeLinear
    stored: Mapping[str, str]  # name → name of the initializer that it is made of
    shapes: Mapping[str, Shape]  # without the batch; with the rows that it was joined with
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
    batch = _batch_of(proto)
    for value in (*proto.input, *proto.value_info, *proto.output):
        sides = _sides(value)
        shapes[value.name] = _of_one_sample(sides, batch)
        steps[value.name] = next(iter(sides), 0)
        types[value.name] = value.type.tensor_type.elem_type
    _take_apart(proto.node, shapes, constants)
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


def _sides(value: onnx.ValueInfoProto) -> Shape:
    return tuple(int(side.dim_value) for side in value.type.tensor_type.shape.dim)


def _batch_of(proto: onnx.GraphProto) -> int:
    """Return how many samples the file takes at once; 0 where any number."""
    constants = {each.name for each in proto.initializer}
    sides = next((_sides(value) for value in proto.input if value.name not in constants), ())
    return sides[0] if len(sides) > 1 else 1


def _of_one_sample(sides: Shape, batch: int) -> Shape:
    """Leave the batch out, wherever it stands; rows that it was joined with stay."""
    if 0 in sides:
        place = sides.index(0)
        return (*sides[:place], *sides[place + 1 :])
    if not sides:
        return ()
    first, *rest = sides
    samples = batch if batch and first % batch == 0 else 1
    return tuple(rest) if first == samples else (first // samples, *rest)


def _take_apart(nodes: Iterable[NodeProto], shapes: dict[str, Shape], constants: Mapping[str, Shape]) -> None:
    """Give values back the rows that were joined with a batch of any size."""
    rows: dict[str, int] = {}
    for node in nodes:
        read = next((name for name in node.input if name and name not in constants), "")
        if not read or not node.output or node.output[0] not in shapes or read not in shapes:
            continue
        made = node.output[0]
        if node.op_type in RESHAPING:
            there, here = math.prod(shapes[read]), math.prod(shapes[made])
            more = there // here if here and there % here == 0 else 1
        elif node.op_type in _OTHER_ROWS or len(shapes[made]) + 1 != len(shapes[read]):
            more = 1
        else:
            more = rows.get(read, 1)
        if more > 1:
            rows[made] = more
            shapes[made] = (more, *shapes[made])


def weight_of(graph: Graph, node: NodeProto) -> Shape:
    """Return the shape of a layer's weights; empty where it has none."""
    if node.op_type not in _WEIGHTED:
        return ()
    return next((graph.constants[name] for name in node.input if len(graph.constants.get(name, ())) > 1), ())


def attribute(node: NodeProto, name: str, default: int) -> int:
    """Return a number among a node's attributes."""
    return next((int(each.i) for each in node.attribute if each.name == name), default)
