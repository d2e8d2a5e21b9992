"""The nodes of an ONNX file, as they stand in it: nothing is run."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import NodeProto, TensorProto

from pipeline.errors import ModelError
from pipeline.estimating.work import Work
from pipeline.inspecting.layers import Inspected, Layer, Step, peaks
from pipeline.inspecting.onnx_works import NO_KERNEL, RECURRENT, sizes_of, work_of_node, work_of_recurrence
from pipeline.inspecting.seen import Seen

_NO_CORRECT_FILE = "is it an ONNX file, and whole?"
_GRIDS = ("QuantizeLinear", "DequantizeLinear")
_IN_PLACE = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity"})
_ORDERING = frozenset({*_IN_PLACE, "Transpose", "Slice", "Gather", "Split", "Concat"})
_MOVING = frozenset({*_ORDERING, "MaxPool", "Pad", "Relu", "Clip"})
_INTEGER_OPS = ("QLinear", "QGemm", "ConvInteger", "MatMulInteger", "QAttention")
# what ONNX Runtime makes an integer kernel of where quantizers stand around it
_FUSED = frozenset({*_MOVING, "Add", "AveragePool", "Conv", "Gemm", "GlobalAveragePool", "LeakyRelu", "MatMul", "Mul"})
_FUSED |= {"Resize", "Sigmoid", "Softmax", "Where"}
_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul", "QLinearConv", "QLinearMatMul", "QGemm", "ConvInteger")
_BYTES = (TensorProto.INT8, TensorProto.UINT8)
_SQUASHING = ("Sigmoid", "Tanh")
_CLAMPS = ("Relu", "Clip")
_TAKE_IN = ("Conv", "Gemm", "MatMul", "Add")  # a ReLU or a clip, in float


@dataclass(frozen=True, kw_only=True)
class _Graph:
    """An ONNX graph and what is known about its values."""

    proto: onnx.GraphProto
    constants: Mapping[str, tuple[int, ...]]  # name → shape; also of constants behind a DequantizeLinear
    stored: Mapping[str, str]  # name → name of the initializer that it is made of
    shapes: Mapping[str, tuple[int, ...]]  # without the batch
    steps: Mapping[str, int]  # the first axis, which is the batch elsewhere than in recurrent layers
    types: Mapping[str, int]
    makers: Mapping[str, NodeProto]
    readers: Mapping[str, list[NodeProto]]


def inspect_onnx(path: Path) -> Inspected:
    """Return the nodes of an ONNX file with shapes, costs and what runs on integers.

    Quantizers between nodes get no row.  Raises ModelError for what is no ONNX file.
    """
    graph = _read(path)
    nodes = [node for node in graph.proto.node if node.op_type not in (*_GRIDS, "Constant")]
    quantized = any(node.op_type in _GRIDS or node.op_type.startswith(_INTEGER_OPS) for node in graph.proto.node)
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


def _read(path: Path) -> _Graph:
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
        elif node.op_type in (*_GRIDS, "Identity") and node.input and node.input[0] in constants:
            constants[node.output[0]] = constants[node.input[0]]
            stored[node.output[0]] = stored[node.input[0]]
    shapes, steps = {}, {}
    for value in (*proto.input, *proto.value_info, *proto.output):
        shapes[value.name] = tuple(int(side.dim_value) for side in value.type.tensor_type.shape.dim)[1:]
        steps[value.name] = next((int(side.dim_value) for side in value.type.tensor_type.shape.dim), 0)
        types[value.name] = value.type.tensor_type.elem_type
    return _Graph(
        proto=proto,
        constants=constants,
        stored=stored,
        shapes=shapes,
        steps=steps,
        types=types,
        makers={name: node for node in proto.node for name in node.output},
        readers=readers,
    )


def _layer(graph: _Graph, node: NodeProto, peak_bytes: int, counted: set[str], *, quantized: bool) -> Layer:
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
    weight = _weight(graph, node)
    return Layer(
        name=node.name or made,
        op=node.op_type,
        output_shape=shape,
        parameters=sum(held),
        macs=_macs(graph, node, weight),
        activation_bytes=_value_bytes(graph, made),
        peak_bytes=peak_bytes,
        integer=quantized and not why,
        why_float=why,
        channels=_channels(node, weight),
        squashes=node.op_type in _SQUASHING and not _ends_or_gates(graph, made),
        works={
            "int8" if quantized else "fp32": tuple(
                _works(graph, node, integer=quantized and not why, quantized=quantized)
            )
        },
    )


def _weight(graph: _Graph, node: NodeProto) -> tuple[int, ...]:
    if node.op_type not in _WEIGHTED:
        return ()
    return next((graph.constants[name] for name in node.input if len(graph.constants.get(name, ())) > 1), ())


def _channels(node: NodeProto, weight: tuple[int, ...]) -> int | None:
    if not weight:
        return None
    if node.op_type == "ConvTranspose":
        return weight[1] * _attribute(node, "group", 1)
    last: bool = node.op_type in ("MatMul", "QLinearMatMul") or (
        node.op_type in ("Gemm", "QGemm") and not _attribute(node, "transB", 0)
    )
    return weight[-1] if last else weight[0]


def _attribute(node: NodeProto, name: str, default: int) -> int:
    return next((int(each.i) for each in node.attribute if each.name == name), default)


def _macs(graph: _Graph, node: NodeProto, weight: tuple[int, ...]) -> int:
    """Count what each output value sums over: a row of the weights, or the shared axis of two computed factors."""
    made = math.prod(graph.shapes.get(node.output[0], ()))
    channels = _channels(node, weight)
    if channels and node.op_type == "ConvTranspose":
        return math.prod(graph.shapes.get(node.input[0], ())) * math.prod(weight[1:])
    if channels:
        return made * math.prod(weight) // channels
    if node.op_type == "MatMul":
        return made * (graph.shapes.get(node.input[0], ()) or (0,))[-1]
    return 0


# ── work ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _works(graph: _Graph, node: NodeProto, *, integer: bool, quantized: bool) -> Iterator[Work]:
    """Yield what the node's kernel does and what converts for it; nothing where it runs inside another's."""
    if node.op_type in NO_KERNEL:
        return
    reads = [name for name in node.input if name and name not in graph.constants]
    shapes = [_read_shape(graph, name) for name in reads]
    makers = [graph.makers.get(name) for name in reads]
    if quantized:
        for maker, shape in zip(makers, shapes, strict=True):
            if (
                maker is not None
                and maker.op_type == "DequantizeLinear"
                and _converts(graph, maker, node, integer=integer)
            ):
                yield _converting("QuantizeEnd" if integer else "Dequantize", shape)
    made = graph.shapes.get(node.output[0], ())
    if not _inside(graph, node, integer=integer):
        if node.op_type in RECURRENT:
            weight = graph.constants.get(node.input[1], ())
            yield from work_of_recurrence(
                node, steps=graph.steps.get(node.input[0], 0), weight=weight if len(weight) == 3 else (1, 1, 1)
            )
        else:
            readers = graph.readers.get(node.output[0], ())
            activated = any(user.op_type in _CLAMPS and _inside(graph, user, integer=False) for user in readers)
            seen = Seen(reads=shapes, weight=_constant(graph, node), made=made, sizes=sizes_of(node))
            yield from work_of_node(node, seen, integer=integer, activated=activated)
    readers = graph.readers.get(node.output[0], [])
    if quantized and not integer and any(reader.op_type == "QuantizeLinear" for reader in readers):
        yield _converting("Quantize", made)
    if _ends_dequantized(graph, readers):
        yield _converting("DequantizeEnd", made)


def _read_shape(graph: _Graph, name: str) -> tuple[int, ...]:
    """Return a value's shape; one whose rows were joined with the batch has them again."""
    shape, maker = graph.shapes.get(name, ()), graph.makers.get(name)
    if maker is not None and maker.op_type in ("Reshape", "DequantizeLinear", "QuantizeLinear") and len(shape) == 1:
        elements = math.prod(_read_shape(graph, maker.input[0]))
        return (elements // shape[0], *shape) if shape[0] and elements > shape[0] else shape
    return shape


def _converting(kernel: str, shape: tuple[int, ...]) -> Work:
    return Work(kernel=kernel, integer=True, reads=math.prod(shape), makes=math.prod(shape))


def _constant(graph: _Graph, node: NodeProto) -> tuple[int, ...]:
    return next((graph.constants[name] for name in node.input if graph.constants.get(name)), ())


def _inside(graph: _Graph, node: NodeProto, *, integer: bool) -> bool:
    """Whether a ReLU, a clip or a bias is the end of the kernel before it."""
    before = graph.makers.get(node.input[0]) if node.input else None
    if before is None or len(graph.readers.get(node.input[0], ())) != 1:
        return False
    if node.op_type == "Add":
        return before.op_type == "MatMul" and bool(_weight(graph, before)) and bool(_constant(graph, node))
    return node.op_type in _CLAMPS and (integer or before.op_type in _TAKE_IN)


def _converts(graph: _Graph, dequantizer: NodeProto, node: NodeProto, *, integer: bool) -> bool:
    """Whether a value is converted for this reader: from integers, or as the first one from the network's input."""
    quantizer = graph.makers.get(dequantizer.input[0])
    if not integer or quantizer is None:
        return not integer
    readers = [
        reader.output[0]
        for each in graph.readers[quantizer.output[0]]
        for reader in graph.readers.get(each.output[0], ())
    ]
    return quantizer.input[0] not in graph.makers and node.output[0] in readers[:1]


def _ends_dequantized(graph: _Graph, readers: Sequence[NodeProto]) -> bool:
    outputs = {value.name for value in graph.proto.output}
    ends = [
        end
        for reader in readers
        if reader.op_type == "QuantizeLinear"
        for end in graph.readers.get(reader.output[0], ())
    ]
    return any(end.op_type == "DequantizeLinear" and end.output[0] in outputs for end in ends)


# ── integers ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _why_float(graph: _Graph, node: NodeProto) -> str:
    """Say why a node of a quantized file does not run on integers; empty where it does."""
    if node.op_type.startswith(_INTEGER_OPS) or graph.types.get(node.output[0]) in _BYTES:
        return ""
    reads = [name for name in node.input if name and name not in graph.constants]
    if not all(_from_grid(graph, name) for name in reads):
        return "an input is not quantized"
    if node.op_type not in _FUSED:
        return "ONNX Runtime has no integer kernel for it"
    return "" if _to_grid(graph, node.output[0]) else "its output is not quantized"


def _from_grid(graph: _Graph, name: str) -> bool:
    maker = graph.makers.get(name)
    if maker is None:
        return False
    return maker.op_type == "DequantizeLinear" or (maker.op_type in _MOVING and _from_grid(graph, maker.input[0]))


def _to_grid(graph: _Graph, name: str) -> bool:
    """Whether a value ends on a grid: past an activation function, or at once."""
    readers = graph.readers.get(name, [])
    return bool(readers) and all(
        reader.op_type == "QuantizeLinear" or (reader.op_type in _MOVING and _to_grid(graph, reader.output[0]))
        for reader in readers
    )


def _ends_or_gates(graph: _Graph, name: str) -> bool:
    readers = graph.readers.get(name, [])
    passing = (*_GRIDS, *_ORDERING)
    return all(
        reader.op_type == "Mul" or (reader.op_type in passing and _ends_or_gates(graph, reader.output[0]))
        for reader in readers
    )


# ── memory ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _value_bytes(graph: _Graph, name: str) -> int:
    each = 1 if graph.types.get(name) in _BYTES or _to_grid(graph, name) else 4
    return math.prod(graph.shapes.get(name, ())) * each


def _alive(graph: _Graph, inputs: list[str]) -> dict[str, int]:
    """Return the bytes that are alive while each node works; quantizers take no memory of their own."""
    steps = [
        Step(
            reads=tuple(name for name in node.input if name and name not in graph.constants),
            makes=tuple(name for name in node.output if name),
            size_bytes=sum(_value_bytes(graph, name) for name in node.output if name),
            in_place=node.op_type in (*_GRIDS, *_IN_PLACE)
            or (node.op_type in ("Relu", "Clip") and len(graph.readers.get(node.input[0], ())) == 1),
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
