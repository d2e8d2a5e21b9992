"""The nodes of an ONNX file, as they stand in it: nothing is run."""

from __future__ import annotations

import math
from pathlib import Path

import onnx
from onnx import NodeProto, TensorProto

from pipeline.estimating.work import PRODUCTS, RECURRENT
from pipeline.inspecting.layers import Inspected, Layer, Step, peaks
from pipeline.inspecting.onnx_graph import CLAMPS, GRIDS, RESHAPING, Graph, attribute, read_graph, weight_of
from pipeline.inspecting.onnx_works import works_of_node

_IN_PLACE = RESHAPING | {"Identity"}
_ORDERING = frozenset({*_IN_PLACE, "Transpose", "Slice", "Gather", "Split", "Concat"})
_MOVING = frozenset({*_ORDERING, "MaxPool", "Pad", "Relu", "Clip"})
_INTEGER_OPS = ("QLinear", "QGemm", "ConvInteger", "MatMulInteger", "QAttention")
# what ONNX Runtime makes an integer kernel of where quantizers stand around it
_FUSED = frozenset({*_MOVING, "Add", "AveragePool", "Conv", "Gemm", "GlobalAveragePool", "LeakyRelu", "MatMul", "Mul"})
_FUSED |= {"Resize", "Sigmoid", "Softmax", "Where"}
_BYTES = (TensorProto.INT8, TensorProto.UINT8)
_SQUASHING = ("Sigmoid", "Tanh")


def inspect_onnx(path: Path) -> Inspected:
    """Return the nodes of an ONNX file with shapes, costs and what runs on integers.

    Quantizers between nodes get no row.  Raises ModelError for what is no ONNX file.
    """
    graph = read_graph(path)
    nodes = [node for node in graph.proto.node if node.op_type not in (*GRIDS, "Constant")]
    quantized = any(node.op_type in GRIDS or node.op_type.startswith(_INTEGER_OPS) for node in graph.proto.node)
    initializers = {each.name for each in graph.proto.initializer}
    inputs = [value for value in graph.proto.input if value.name not in initializers]
    alive = _alive(graph, [value.name for value in inputs])
    counted: set[str] = set()
    layers = tuple(_layer(graph, node, alive[node.output[0]], counted, quantized=quantized) for node in nodes)
    return Inspected(
        subject=path.name,
        kind="onnx",
        input_shapes=tuple(graph.shapes.get(value.name, ()) for value in inputs),
        layers=layers,
        parameter_bytes=sum(_stored_bytes(each) for each in graph.proto.initializer),
        normalized=None,
    )


def _layer(graph: Graph, node: NodeProto, peak_bytes: int, counted: set[str], *, quantized: bool) -> Layer:
    made = node.output[0]
    shape = graph.shapes.get(made, ())
    own = {graph.stored[name] for name in node.input if name in graph.stored} - counted
    counted |= own
    held = [
        math.prod(graph.constants[name])
        for name in own
        if graph.types.get(name) in (TensorProto.FLOAT, *_BYTES, TensorProto.INT32)
    ]
    why = _why_float(graph, node) if quantized else ""
    weight = weight_of(graph, node)
    works = tuple(works_of_node(graph, node, integer=quantized and not why, quantized=quantized))
    return Layer(
        name=node.name or made,
        op=node.op_type,
        output_shape=shape,
        parameters=sum(held),
        macs=sum(work.macs for work in works if work.kernel in PRODUCTS | RECURRENT),
        activation_bytes=_value_bytes(graph, made),
        peak_bytes=peak_bytes,
        integer=quantized and not why,
        why_float=why,
        channels=_channels(node, weight),
        squashes=node.op_type in _SQUASHING and not _ends_or_gates(graph, made),
        works={"int8" if quantized else "fp32": works},
    )


def _channels(node: NodeProto, weight: tuple[int, ...]) -> int | None:
    if not weight:
        return None
    if node.op_type == "ConvTranspose":
        return weight[1] * attribute(node, "group", 1)
    last: bool = node.op_type in ("MatMul", "MatMulInteger", "QLinearMatMul") or (
        node.op_type in ("Gemm", "QGemm") and not attribute(node, "transB", 0)
    )
    return weight[-1] if last else weight[0]


# ── integers ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _why_float(graph: Graph, node: NodeProto) -> str:
    """Say why a node of a quantized file does not run on integers; empty where it does."""
    if node.op_type.startswith(_INTEGER_OPS) or graph.types.get(node.output[0]) in _BYTES:
        return ""
    reads = [name for name in node.input if name and name not in graph.constants]
    if not all(_from_grid(graph, name) or _ends_integers(graph, node, name) for name in reads):
        return "an input is not quantized"
    if node.op_type not in _FUSED:
        return "ONNX Runtime has no integer kernel for it"
    if _to_grid(graph, node.output[0]) or (node.op_type in RESHAPING and _read_by_integers(graph, node)):
        return ""
    return "its output is not quantized"


def _ends_integers(graph: Graph, node: NodeProto, name: str) -> bool:
    """Whether a node is the end of an integer kernel, or reads what one made in another shape."""
    maker = graph.makers.get(name)
    return node.op_type in (*RESHAPING, *CLAMPS) and maker is not None and not _why_float(graph, maker)


def _read_by_integers(graph: Graph, node: NodeProto) -> bool:
    readers = graph.readers.get(node.output[0], [])
    return bool(readers) and not any(_why_float(graph, reader) for reader in readers)


def _from_grid(graph: Graph, name: str) -> bool:
    maker = graph.makers.get(name)
    if maker is None:
        return False
    return maker.op_type == "DequantizeLinear" or (maker.op_type in _MOVING and _from_grid(graph, maker.input[0]))


def _to_grid(graph: Graph, name: str) -> bool:
    """Whether a value ends on a grid: past an activation function, or at once."""
    readers = graph.readers.get(name, [])
    return bool(readers) and all(
        reader.op_type == "QuantizeLinear" or (reader.op_type in _MOVING and _to_grid(graph, reader.output[0]))
        for reader in readers
    )


def _ends_or_gates(graph: Graph, name: str) -> bool:
    readers = graph.readers.get(name, [])
    passing = (*GRIDS, *_ORDERING)
    return all(
        reader.op_type == "Mul" or (reader.op_type in passing and _ends_or_gates(graph, reader.output[0]))
        for reader in readers
    )


# ── memory ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _value_bytes(graph: Graph, name: str) -> int:
    each = 1 if graph.types.get(name) in _BYTES or _to_grid(graph, name) else 4
    return math.prod(graph.shapes.get(name, ())) * each


def _alive(graph: Graph, inputs: list[str]) -> dict[str, int]:
    """Return the bytes that are alive while each node works; quantizers take no memory of their own."""
    steps = [
        Step(
            reads=tuple(name for name in node.input if name and name not in graph.constants),
            makes=tuple(name for name in node.output if name),
            size_bytes=sum(_value_bytes(graph, name) for name in node.output if name),
            in_place=node.op_type in (*GRIDS, *_IN_PLACE)
            or (node.op_type in CLAMPS and len(graph.readers.get(node.input[0], ())) == 1),
        )
        for node in graph.proto.node
        if node.output[0] not in graph.constants
    ]
    sizes = {name: math.prod(graph.shapes.get(name, ())) * 4 for name in inputs}
    found = peaks(sizes, steps, [value.name for value in graph.proto.output])
    return {step.makes[0]: alive for step, alive in zip(steps, found, strict=True)}


def _stored_bytes(tensor: TensorProto) -> int:
    try:
        each_bytes: int = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    except (KeyError, TypeError):  # text, or a type that numpy has not
        return 0
    return each_bytes * math.prod(map(int, tensor.dims))
