"""What the kernels of an ONNX file's nodes have to do."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from onnx import NodeProto, numpy_helper

from pipeline.estimating.work import RECURRENT, Work
from pipeline.inspecting.onnx_graph import CLAMPS, GRIDS, RESHAPING, Graph, weight_of
from pipeline.inspecting.onnx_recurrent import moves_steps_alone, work_of_recurrence
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
_ASKING = ("Shape", "Constant")  # which read no values
_NO_KERNEL = RESHAPING | {"Identity", "Dropout", "Cast", *_ASKING}


def works_of_node(graph: Graph, node: NodeProto, *, integer: bool, quantized: bool) -> Iterator[Work]:
    """Yield what the node's kernel does and what converts for it; nothing where it runs inside another's."""
    if node.op_type in _ASKING:
        return
    reads = [name for name in node.input if name and name not in graph.constants]
    shapes = [graph.shapes.get(name, ()) for name in reads]
    makers = [graph.makers.get(name) for name in reads]
    if quantized:
        for maker, shape in zip(makers, shapes, strict=True):
            if maker is not None and maker.op_type in GRIDS and _converts(graph, maker, node, integer=integer):
                yield _converting("QuantizeEnd" if integer else "Dequantize", shape)
    made = graph.shapes.get(node.output[0], ())
    if not (_inside(graph, node, integer=integer) or moves_steps_alone(graph, node)):
        yield from _kernel_of(graph, node, shapes, integer=integer)
    readers = graph.readers.get(node.output[0], [])
    if quantized and not integer and any(reader.op_type == "QuantizeLinear" for reader in readers):
        yield _converting("Quantize", made)
    if _ends_dequantized(graph, readers):
        yield _converting("DequantizeEnd", made)


def _kernel_of(graph: Graph, node: NodeProto, reads: Sequence[Shape], *, integer: bool) -> Iterator[Work]:
    if node.op_type in RECURRENT:
        weight = next((graph.constants.get(name, ()) for name in node.input[1:]), ())
        yield work_of_recurrence(
            node, steps=graph.steps.get(node.input[0], 0), weight=weight if len(weight) == 3 else (1, 1, 1)
        )
        return
    parts = node.output if node.op_type == "Split" else node.output[:1]
    made = [graph.shapes.get(name, ()) for name in parts]
    seen = Seen(reads=reads, weight=weight_of(graph, node), made=made[0], sizes=_sizes_of(node))
    activated = any(_inside(graph, user, integer=False) for user in _activations(graph, node))
    for work in _work_of_node(graph, node, seen, integer=integer, activated=activated):
        yield replace(work, makes=sum(map(math.prod, made)))


def _activations(graph: Graph, node: NodeProto) -> list[NodeProto]:
    """Return the ReLUs and clips that read a node, or the bias that is added to it."""
    readers = graph.readers.get(node.output[0], [])
    if len(readers) == 1 and _is_bias(graph, readers[0]):
        readers = graph.readers.get(readers[0].output[0], [])
    return [reader for reader in readers if reader.op_type in CLAMPS]


def _converting(kernel: str, shape: tuple[int, ...]) -> Work:
    return Work(kernel=kernel, integer=True, reads=math.prod(shape), makes=math.prod(shape))


def _inside(graph: Graph, node: NodeProto, *, integer: bool) -> bool:
    """Whether a ReLU, a clip or a bias is the end of the kernel before it."""
    if _is_bias(graph, node):
        return True
    before = graph.makers.get(node.input[0]) if node.input else None
    if node.op_type not in CLAMPS or before is None or len(graph.readers.get(node.input[0], ())) != 1:
        return False
    return before.op_type not in GRIDS and (integer or _takes_in(graph, before))


def _takes_in(graph: Graph, node: NodeProto) -> bool:
    """Whether a float kernel ends in the ReLU or clip after it."""
    if node.op_type == "MatMul":
        return bool(weight_of(graph, node))
    if node.op_type == "Add":
        return _is_bias(graph, node) or not any(name in graph.constants for name in node.input)
    return node.op_type in ("Conv", "Gemm")


def _is_bias(graph: Graph, node: NodeProto) -> bool:
    """Whether a node adds one number per column to a product that nothing else reads."""
    if node.op_type != "Add":
        return False
    values = [name for name in node.input if name not in graph.constants]
    before = graph.makers.get(values[0]) if len(values) == 1 else None
    if before is None or before.op_type != "MatMul" or len(graph.readers.get(values[0], ())) != 1:
        return False
    weight, sizes = weight_of(graph, before), [math.prod(graph.constants.get(name, ())) for name in node.input]
    return bool(weight) and weight[-1] in sizes


def _converts(graph: Graph, grid: NodeProto, node: NodeProto, *, integer: bool) -> bool:
    """Whether a value is converted for this reader: from integers, or as the first one from the network's input."""
    if not integer:
        return grid.op_type == "DequantizeLinear"
    quantizer = graph.makers.get(grid.input[0]) if grid.op_type == "DequantizeLinear" else grid
    if quantizer is None or quantizer.input[0] in graph.makers:
        return False
    first = next(_past_grids(graph, quantizer), None)
    return first is not None and node.output[0] == first.output[0]


def _past_grids(graph: Graph, quantizer: NodeProto) -> Iterator[NodeProto]:
    """Yield who reads a quantized value, as integers or behind a DequantizeLinear."""
    for reader in graph.readers.get(quantizer.output[0], ()):
        if reader.op_type == "DequantizeLinear":
            yield from graph.readers.get(reader.output[0], ())
        else:
            yield reader


def _ends_dequantized(graph: Graph, readers: Sequence[NodeProto]) -> bool:
    """Whether a value leaves the network behind a DequantizeLinear; integer operators need no QuantizeLinear."""
    outputs = {value.name for value in graph.proto.output}
    quantizers = [reader for reader in readers if reader.op_type == "QuantizeLinear"]
    ends = [*readers, *(end for each in quantizers for end in graph.readers.get(each.output[0], ()))]
    return any(end.op_type == "DequantizeLinear" and end.output[0] in outputs for end in ends)


# ── kernels ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _work_of_node(graph: Graph, node: NodeProto, seen: Seen, *, integer: bool, activated: bool) -> tuple[Work, ...]:
    """Return the work of one node that is not recurrent."""
    kind = _NAMED.get(node.op_type, node.op_type)
    if kind in _NO_KERNEL:
        return ()
    if kind == "Resize":
        mode = next((each.s for each in node.attribute if each.name == "mode"), b"nearest")
        kind = "ResizeNearest" if mode == b"nearest" else "ResizeLinear"
    if kind == "Pad" and _fills(graph, node):
        kind = "PadFilled"
    if kind == "MatMul" and seen.weight:
        kind = "Gemm" if node.input[0] not in graph.constants else "FromLeft"
    numbers: dict[str, Any] = numbers_of(kind, seen, _SHAPED)
    kernel = numbers.pop("kernel", kind)
    reads, makes = sum(map(math.prod, seen.reads)), math.prod(seen.made)
    activated = activated and not integer
    return (Work(kernel=kernel, integer=integer, activated=activated, reads=reads, makes=makes, **numbers),)


def _fills(graph: Graph, node: NodeProto) -> bool:
    """Whether a pad writes anything but zeros."""
    name = node.input[2] if len(node.input) > 2 else ""
    stored = next((each for each in graph.proto.initializer if name and each.name == name), None)
    return stored is not None and bool(numpy_helper.to_array(stored).any())


def _sizes_of(node: NodeProto) -> Mapping[str, tuple[int, ...]]:
    """Return the attributes that are numbers."""
    return {each.name: tuple(each.ints) or (int(each.i),) for each in node.attribute}


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
    """Read weights (…, I, O), or (O, I): what is not the number of columns is the depth."""
    columns, groups = (1, *seen.made)[-1], math.prod(seen.weight[:-2])
    depth = math.prod(seen.weight) // max(columns * groups, 1)
    numbers = linear(max(1, math.prod(seen.made) // max(columns * groups, 1)), columns, depth)
    return {**numbers, "groups": groups}


def _from_left(seen: Seen) -> Numbers:
    """Read weights (O, I) that stand before a value (…, I, rows)."""
    columns, depth = seen.weight[-2:]
    return linear(max(1, math.prod(seen.made) // columns), columns, depth)


def _pool(seen: Seen) -> Numbers:
    window = math.prod(seen.sizes.get("kernel_shape", ()))
    return {"window": window, "groups": seen.made[0], "lines": math.prod(seen.made[1:-1])}


def _mean(seen: Seen) -> Numbers:
    return {"groups": (*seen.made, 1)[0]}


def _softmax(seen: Seen) -> Numbers:
    (axis,) = seen.sizes.get("axis", (-1,))
    return _rows_of(seen, seen.made[axis - 1 if axis > 0 else axis])


def _norm(seen: Seen) -> Numbers:
    (axis,) = seen.sizes.get("axis", (-1,))
    return _rows_of(seen, math.prod(seen.made[axis - 1 if axis > 0 else axis :]))


def _rows_of(seen: Seen, length: int) -> Numbers:
    return {"rows": max(1, math.prod(seen.made) // max(1, length))}


_SHAPED: Mapping[str, Callable[[Seen], Numbers]] = {
    "Conv": _convolution,
    "ConvTranspose": _transposed,
    "Gemm": _linear,
    "FromLeft": _from_left,
    "MatMul": product,
    **dict.fromkeys(("MaxPool", "AveragePool"), _pool),
    "GlobalAveragePool": _mean,
    "Softmax": _softmax,
    "LayerNormalization": _norm,
    **dict.fromkeys(("ReduceMean", "ReduceMax"), by_rows),
    **dict.fromkeys(("Add", "Mul", "Sub", "Div"), pair),
}
