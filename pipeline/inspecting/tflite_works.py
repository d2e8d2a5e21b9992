"""What the kernels of a TFLite file's operators have to do."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from pipeline.estimating.work import Work
from pipeline.inspecting.seen import Numbers, Seen, by_rows, linear, numbers_of, pair, product
from pipeline.inspecting.works import convolution

_NAMED = {
    "FULLY_CONNECTED": "Gemm",
    "CONV_2D": "Conv",
    "DEPTHWISE_CONV_2D": "Depthwise",
    "TRANSPOSE_CONV": "ConvTranspose",
    "BATCH_MATMUL": "MatMul",
    "LOGISTIC": "Sigmoid",
    "MAX_POOL_2D": "MaxPool",
    "AVERAGE_POOL_2D": "AveragePool",
    "MEAN": "GlobalAveragePool",
    "REDUCE_MAX": "ReduceMax",
    "CONCATENATION": "Concat",
    "SOFTMAX": "Softmax",
    "ADD": "Add",
    "MUL": "Mul",
    "SUB": "Sub",
    "DIV": "Div",
    "SQUARED_DIFFERENCE": "Mul",
    "HARD_SWISH": "HardSwish",
    "LEAKY_RELU": "LeakyRelu",
    "RELU": "Relu",
    "RELU6": "Relu",
    "RELU_0_TO_1": "Relu",
    "TANH": "Tanh",
    "GELU": "Gelu",
    "ELU": "Elu",
    "PRELU": "PRelu",
    "PAD": "Pad",
    "PADV2": "PadFilled",
    "TRANSPOSE": "Transpose",
    "DEPTH_TO_SPACE": "Transpose",
    "SPACE_TO_DEPTH": "Transpose",
    "SLICE": "Slice",
    "STRIDED_SLICE": "Slice",
    "SPLIT": "Slice",
    "GATHER": "Gather",
    "RESIZE_NEAREST_NEIGHBOR": "ResizeNearest",
    "RESIZE_BILINEAR": "ResizeLinear",
    "QUANTIZE": "Quantize",
    "DEQUANTIZE": "Dequantize",
    "UNIDIRECTIONAL_SEQUENCE_LSTM": "LSTM",
    "EXP": "Exp",
    "SQRT": "Sqrt",
    "POW": "Pow",
}
_NO_KERNEL = frozenset({"RESHAPE", "SQUEEZE", "EXPAND_DIMS", "SHAPE"})


def work_of_operator(name: str, seen: Seen, *, integer: bool, activated: bool, strided: bool) -> tuple[Work, ...]:
    """Return the work of one operator."""
    if name in _NO_KERNEL:
        return ()
    kind = _NAMED.get(name, name.title())
    numbers: dict[str, Any] = numbers_of(kind, seen, _SHAPED)
    if kind == "Conv" and numbers:
        numbers["kernel"] = convolution(
            groups=numbers["groups"], window=numbers["window"], depth=numbers["depth"], stride=2 if strided else 1
        )
    kernel = numbers.pop("kernel", kind)
    return (
        Work(
            kernel=kernel,
            integer=integer or kind in ("Quantize", "Dequantize"),
            activated=activated and not integer,
            reads=sum(map(math.prod, seen.reads)),
            makes=math.prod(seen.made),
            **numbers,
        ),
    )


def _convolution(seen: Seen) -> Numbers:
    """Read weights (O, H, W, I): fewer input channels than there are belong to groups."""
    outputs, height, width, inputs = seen.weight
    groups = max(1, seen.reads[0][-1] // inputs)
    return _by_positions(seen, groups, outputs // groups, height * width * inputs, height * width)


def _depthwise(seen: Seen) -> Numbers:
    """Read weights (1, H, W, O)."""
    _, height, width, outputs = seen.weight
    groups = seen.reads[0][-1]
    return _by_positions(seen, groups, outputs // groups, height * width, height * width)


def _by_positions(seen: Seen, groups: int, columns: int, depth: int, window: int) -> Numbers:
    return {
        "rows": math.prod(seen.made[:-1]),
        "columns": columns,
        "depth": depth,
        "groups": groups,
        "window": window,
        "lines": math.prod(seen.made[:-2]),
    }


def _transposed(seen: Seen) -> Numbers:
    """Read weights (O, H, W, I)."""
    before = seen.reads[-1]
    return {
        "rows": math.prod(before[:-1]),
        "columns": math.prod(seen.weight[:3]),
        "depth": seen.weight[3],
        "window": seen.weight[1] * seen.weight[2],
        "lines": math.prod(before[:-2]),
    }


def _linear(seen: Seen) -> Numbers:
    return linear(math.prod(seen.made[:-1]), seen.weight[0], seen.weight[1])


def _pool(seen: Seen) -> Numbers:
    return {"window": math.prod(seen.sizes["filter"]), "groups": seen.made[-1], "lines": math.prod(seen.made[:-2])}


def _mean(seen: Seen) -> Numbers:
    """Count the means."""
    return {"groups": max(1, math.prod(seen.made))}


def _lstm(seen: Seen) -> Numbers:
    """Read weights (H, F) of the first of four gates."""
    hidden, features = seen.weight
    return {"rows": math.prod(seen.made[:-1]), "columns": 4 * hidden, "depth": features + hidden}


_SHAPED: Mapping[str, Callable[[Seen], Numbers]] = {
    "Conv": _convolution,
    "Depthwise": _depthwise,
    "ConvTranspose": _transposed,
    "Gemm": _linear,
    "MatMul": product,
    **dict.fromkeys(("MaxPool", "AveragePool"), _pool),
    "GlobalAveragePool": _mean,
    "LSTM": _lstm,
    **dict.fromkeys(("Softmax", "ReduceMax"), by_rows),
    **dict.fromkeys(("Add", "Mul", "Sub", "Div"), pair),
}
