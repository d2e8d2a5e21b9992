"""What the kernels of an ONNX file's nodes have to do."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from onnx import NodeProto

from pipeline.estimating.work import Work
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
NO_KERNEL = frozenset(
    {"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Shape", "Constant", "Dropout", "Cast"}
)
RECURRENT = ("LSTM", "GRU", "RNN")


def work_of_node(node: NodeProto, seen: Seen, *, integer: bool, activated: bool) -> tuple[Work, ...]:
    """Return the work of one node that is not recurrent."""
    kind = _NAMED.get(node.op_type, node.op_type)
    if kind in NO_KERNEL:
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


def sizes_of(node: NodeProto) -> Mapping[str, tuple[int, ...]]:
    """Return the attributes that are numbers."""
    return {each.name: tuple(each.ints) or (int(each.i),) for each in node.attribute}


def work_of_recurrence(node: NodeProto, *, steps: int, weight: Shape) -> tuple[Work, ...]:
    """Return the work of an LSTM, GRU or RNN over so many steps; ``weight``: (directions, gates * H, F)."""
    directions, columns, features = weight
    (hidden,) = sizes_of(node).get("hidden_size", (1,))
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
