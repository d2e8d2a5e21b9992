"""What the kernels of an ONNX file's nodes have to do."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from onnx import NodeProto

from pipeline.estimating.work import Work
from pipeline.inspecting.onnx_graph import Graph, weight_of
from pipeline.inspecting.seen import Numbers, Seen, Shape, by_rows, linear, numbers_of, pair, product
from pipeline.inspecting.works import convolution

_NAMED = {
    "QLinearConv": "Conv",
    "ConvInteger": "Conv",
    "QGemm": "Gemm",
    "QLinearMatMul": "MatMul",
    "MatMulInteger": "MatMul",
    "QLinearAdd": "Add",
    "QLinearMul": "Mul",
    "QLinearSigmoid": "Sigmoid",
    "QLinearLeakyRelu": "LeakyRelu",
    "QLinearSoftmax": "Softmax",
    "QLinearConcat": "Concat",
    "QLinearAveragePool": "AveragePool",
    "QLinearGlobalAveragePool": "GlobalAveragePool",
    "Swish": "HardSwish",
    "Split": "Slice",
    "GatherElements": "Gather",
}
_NO_KERNEL = frozenset(
    {"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Shape", "Constant", "Dropout", "Cast"}
)
_RECURRENT = ("LSTM", "GRU", "RNN")
_CLAMPS = ("Relu", "Clip")
_TAKE_IN = ("Conv", "Gemm", "MatMul", "Add")  # a ReLU or a clip, in float


def works_of_node(graph: Graph, node: NodeProto, *, integer: bool, quantized: bool) -> Iterator[Work]:
    """Yield what the node's kernel does and what converts for it; nothing where it runs inside another's."""
    if node.op_type in _NO_KERNEL:
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
        if node.op_type in _RECURRENT:
            weight = graph.constants.get(node.input[1], ())
            yield from _work_of_recurrence(
                node, steps=graph.steps.get(node.input[0], 0), weight=weight if len(weight) == 3 else (1, 1, 1)
            )
        else:
            readers = graph.readers.get(node.output[0], ())
            activated = any(user.op_type in _CLAMPS and _inside(graph, user, integer=False) for user in readers)
            seen = Seen(reads=shapes, weight=_constant(graph, node), made=made, sizes=_sizes_of(node))
            yield from _work_of_node(node, seen, integer=integer, activated=activated)
    readers = graph.readers.get(node.output[0], [])
    if quantized and not integer and any(reader.op_type == "QuantizeLinear" for reader in readers):
        yield _converting("Quantize", made)
    if _ends_dequantized(graph, readers):
        yield _converting("DequantizeEnd", made)


def _read_shape(graph: Graph, name: str) -> tuple[int, ...]:
    """Return a value's shape; one whose rows were joined with the batch has them again."""
    shape, maker = graph.shapes.get(name, ()), graph.makers.get(name)
    if maker is not None and maker.op_type in ("Reshape", "DequantizeLinear", "QuantizeLinear") and len(shape) == 1:
        elements = math.prod(_read_shape(graph, maker.input[0]))
        return (elements // shape[0], *shape) if shape[0] and elements > shape[0] else shape
    return shape


def _converting(kernel: str, shape: tuple[int, ...]) -> Work:
    return Work(kernel=kernel, integer=True, reads=math.prod(shape), makes=math.prod(shape))


def _constant(graph: Graph, node: NodeProto) -> tuple[int, ...]:
    return next((graph.constants[name] for name in node.input if graph.constants.get(name)), ())


def _inside(graph: Graph, node: NodeProto, *, integer: bool) -> bool:
    """Whether a ReLU, a clip or a bias is the end of the kernel before it."""
    before = graph.makers.get(node.input[0]) if node.input else None
    if before is None or len(graph.readers.get(node.input[0], ())) != 1:
        return False
    if node.op_type == "Add":
        return before.op_type == "MatMul" and bool(weight_of(graph, before)) and bool(_constant(graph, node))
    return node.op_type in _CLAMPS and (integer or before.op_type in _TAKE_IN)


def _converts(graph: Graph, dequantizer: NodeProto, node: NodeProto, *, integer: bool) -> bool:
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


def _ends_dequantized(graph: Graph, readers: Sequence[NodeProto]) -> bool:
    outputs = {value.name for value in graph.proto.output}
    ends = [
        end
        for reader in readers
        if reader.op_type == "QuantizeLinear"
        for end in graph.readers.get(reader.output[0], ())
    ]
    return any(end.op_type == "DequantizeLinear" and end.output[0] in outputs for end in ends)


# ── kernels ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _work_of_node(node: NodeProto, seen: Seen, *, integer: bool, activated: bool) -> tuple[Work, ...]:
    """Return the work of one node that is not recurrent."""
    kind = _NAMED.get(node.op_type, node.op_type)
    if kind in _NO_KERNEL:
        return ()
    if kind == "Resize":
        mode = next((each.s for each in node.attribute if each.name == "mode"), b"nearest")
        kind = "ResizeNearest" if mode == b"nearest" else "ResizeLinear"
    if kind == "MatMul" and seen.weight:
        kind = "Gemm"
    numbers: dict[str, Any] = numbers_of(kind, seen, _SHAPED)
    kernel = numbers.pop("kernel", kind)
    reads = sum(map(math.prod, seen.reads))
    return (
        Work(
            kernel=kernel,
            integer=integer,
            activated=activated and not integer,
            reads=reads,
            makes=max(
                math.prod(seen.made), numbers.get("rows", 1) * numbers.get("columns", 0) if kind == "Gemm" else 0
            ),
            **numbers,
        ),
    )


def _sizes_of(node: NodeProto) -> Mapping[str, tuple[int, ...]]:
    """Return the attributes that are numbers."""
    return {each.name: tuple(each.ints) or (int(each.i),) for each in node.attribute}


def _work_of_recurrence(node: NodeProto, *, steps: int, weight: Shape) -> tuple[Work, ...]:
    """Return the work of an LSTM, GRU or RNN over so many steps; ``weight``: (directions, gates * H, F)."""
    directions, columns, features = weight
    (hidden,) = _sizes_of(node).get("hidden_size", (1,))
    return (
        Work(
            kernel=node.op_type,
            reads=steps * features,
            makes=steps * hidden * directions,
            rows=steps,
            columns=columns,
            depth=features + hidden,
            groups=directions,
        ),
    )


def _convolution(seen: Seen) -> Numbers:
    """Read weights (O, I / groups, …)."""
    (groups,) = seen.sizes.get("group", (1,))
    window, depth = math.prod(seen.weight[2:]), math.prod(seen.weight[1:])
    stride = max(seen.sizes.get("strides", (1,)))
    return {
        "kernel": convolution(groups=groups, window=window, depth=depth, stride=stride),
        "rows": math.prod(seen.made[1:]),
        "columns": seen.weight[0] // groups,
        "depth": depth,
        "groups": groups,
        "window": window,
        "lines": math.prod(seen.made[1:-1]),
    }


def _transposed(seen: Seen) -> Numbers:
    """Read weights (I, O / groups, …)."""
    (groups,) = seen.sizes.get("group", (1,))
    before = seen.reads[0]
    return {
        "rows": math.prod(before[1:]),
        "columns": math.prod(seen.weight[1:]),
        "depth": before[0] // groups,
        "groups": groups,
        "window": math.prod(seen.weight[2:]),
        "lines": math.prod(before[1:-1]),
    }


def _linear(seen: Seen) -> Numbers:
    """Count rows of what it reads: in its result they may be one axis with the batch."""
    columns = (1, *seen.made)[-1]
    depth = math.prod(seen.weight) // max(columns, 1)
    return linear(max(1, math.prod(seen.reads[0]) // max(depth, 1)), columns, depth)


def _pool(seen: Seen) -> Numbers:
    window = math.prod(seen.sizes.get("kernel_shape", ()))
    return {"window": window, "groups": seen.made[0], "lines": math.prod(seen.made[1:-1])}


def _mean(seen: Seen) -> Numbers:
    return {"groups": (*seen.made, 1)[0]}


_SHAPED: Mapping[str, Callable[[Seen], Numbers]] = {
    "Conv": _convolution,
    "ConvTranspose": _transposed,
    "Gemm": _linear,
    "MatMul": product,
    **dict.fromkeys(("MaxPool", "AveragePool"), _pool),
    "GlobalAveragePool": _mean,
    **dict.fromkeys(("Softmax", "LayerNormalization", "ReduceMean", "ReduceMax"), by_rows),
    **dict.fromkeys(("Add", "Mul", "Sub", "Div"), pair),
}
