"""Functions of each element by itself, and arithmetic with numbers, constants and other values."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from pipeline.graph import ops
from pipeline.graph.kept import KeptGrid
from pipeline.networks.aten.shapes import Handler
from pipeline.networks.aten.weights import own_name, parameter
from pipeline.networks.axes import BATCH, Value
from pipeline.networks.flat import Call, Constant, FlatGraph, Refusal, constant_like

_SOFTPLUS_THRESHOLD = 12  # e^-12 is lost beside it in float32


def _each(make: Callable[[Call], nn.Module]) -> Handler:
    return lambda flat, call: flat.each(call, make(call), _input(call))


def _input(call: Call) -> Value:
    return call.value("input" if "input" in call.given and "self" not in call.given else "self")


def _silu(flat: FlatGraph, call: Call) -> Value:
    value = call.value()
    gate = flat.each(call.within("gate"), nn.Sigmoid(), value)
    return value.with_node(flat.add(call, ops.Mul(), [value.node, gate.node], value.dims))


def clamped(flat: FlatGraph, call: Call) -> Value:
    """Clamp to numbers; bounds that leave no room give the upper one."""
    low, high = call["min"], call["max"]
    low = -math.inf if low is None else float(low)
    high = math.inf if high is None else float(high)
    if low >= high:
        return scaled(flat, call, call.value(), 0.0, high)
    module = nn.ReLU() if (low, high) == (0.0, math.inf) else nn.ReLU6() if (low, high) == (0.0, 6.0) else None
    return flat.each(call, module or nn.Hardtanh(low, high), call.value())


def _hardtanh(flat: FlatGraph, call: Call) -> Value:
    bounds = {"min": call["min_val"], "max": call["max_val"], "self": call["self"]}
    return clamped(flat, replace(call, given=bounds))


def _prelu(flat: FlatGraph, call: Call) -> Value:
    call = own_name(call)
    weight = call.constant("weight")
    if weight is None:
        raise Refusal("prelu without slopes")
    layer = nn.PReLU(weight.tensor.numel(), device="meta")
    layer.weight = parameter(weight)
    value = flat.plain(call, call.value())
    return flat.apply(call, layer, value)


def softmax(flat: FlatGraph, call: Call) -> Value:
    """Softmax or its logarithm, over one axis."""
    value = call.value()
    axis = value.stored_axis(call["dim"])
    if axis is None or axis == 0:
        value = flat.arranged(call, value)
        axis = value.stored_axis(call["dim"])
    if not axis:
        raise Refusal(f"{call.name} over the batch")
    value = flat.each(call, nn.Softmax(dim=axis), value)
    return flat.each(call.within("log"), ops.Function("Log"), value) if call.name == "log_softmax" else value


def _elu(flat: FlatGraph, call: Call) -> Value:
    """Elu and what is made of it: selu and celu scale what comes out and what goes in."""
    value, outer, inner = call.value(), call["scale"], call["input_scale"]
    if inner == 1:
        bent = flat.each(call if outer == 1 else call.within("elu"), nn.ELU(call["alpha"]), value)
    else:  # alpha * (e^(x * inner) - 1) below 0, x above: elu of the inner value, divided again
        if outer != 1 or not math.isclose(call["alpha"] * inner, 1.0):
            raise Refusal("elu with an input_scale of its own")
        narrow = scaled(flat, call.within("inner"), value, inner, 0.0)
        return scaled(flat, call, flat.each(call.within("elu"), nn.ELU(1.0), narrow), call["alpha"], 0.0)
    return bent if outer == 1 else scaled(flat, call, bent, outer, 0.0)


def _softplus(flat: FlatGraph, call: Call) -> Value:
    """log(1 + e^(beta x)) / beta; torch takes x itself above a threshold, where both are the same."""
    beta, threshold = call["beta"], call["threshold"]
    if threshold < _SOFTPLUS_THRESHOLD:
        raise Refusal(f"softplus with a threshold of {threshold}")
    if beta == 1:
        return flat.each(call, nn.Softplus(), call.value())
    steep = scaled(flat, call.within("steep"), call.value(), beta, 0.0)
    return scaled(flat, call, flat.each(call.within("softplus"), nn.Softplus(), steep), 1 / beta, 0.0)


def _gelu(call: Call) -> nn.Module:
    return nn.GELU(approximate=call["approximate"] or "none")


def _function(name: str) -> Handler:
    return _each(lambda _: ops.Function(name))


def two(make: Callable[[], nn.Module]) -> Callable[[FlatGraph, Call, Value, Value], Value]:
    """Return how two computed values are brought into the same order of axes and joined, with broadcasting."""

    def both(flat: FlatGraph, call: Call, a: Value, b: Value) -> Value:
        if a.axes != b.axes or a.dims != b.dims:
            rank = max(len(a.axes), len(b.axes))
            a, b = (flat.arranged(call, _raised(each, rank)) for each in (a, b))
            if a.axes != b.axes:
                a, b = _same_rank(flat, call, a, b)
        dims = tuple(max(pair) for pair in zip(a.dims, b.dims, strict=True))
        return a.with_node(flat.add(call, make(), [a.node, b.node], dims), dims)

    return both


def _raised(value: Value, rank: int) -> Value:
    """Give a value further axes of one element in front, as broadcasting does; the batch has to stay where it is."""
    missing = rank - len(value.axes)
    return replace(value, axes=((),) * missing + value.axes) if missing else value


def _same_rank(flat: FlatGraph, call: Call, a: Value, b: Value) -> tuple[Value, Value]:
    """Give both nodes the same axes: where one has none for an axis of one element, it gets one."""
    wanted = [max(one, other, key=len) for one, other in zip(a.axes, b.axes, strict=True)]
    if [0 in group for group in a.axes] != [0 in group for group in b.axes]:
        raise Refusal(f"{call.name} that mixes the batch with other axes")
    return _stretched(flat, call, a, wanted), _stretched(flat, call, b, wanted)


def _stretched(flat: FlatGraph, call: Call, value: Value, wanted: Sequence[tuple[int, ...]]) -> Value:
    if list(value.axes) == list(wanted):
        return value
    dims = [BATCH] + [1] * max(axis for group in wanted for axis in group)
    for own, group in zip(value.axes, wanted, strict=True):
        sizes = [value.dims[axis] for axis in own]
        if len(own) == len(group):
            for axis, size in zip(group, sizes, strict=True):
                dims[axis] = size
        elif math.prod(sizes) != 1:
            raise Refusal(f"{call.name} that mixes the batch with other axes")
    node = flat.add(call.within("reshape"), ops.Reshape(tuple(dims[1:])), [value.node], dims)
    return Value(node=node, dims=tuple(dims), axes=tuple(wanted))


def scaled(flat: FlatGraph, call: Call, value: Value, factor: Any, offset: Any) -> Value:
    """``value * factor + offset`` with numbers or constants."""
    if isinstance(factor, Constant) or isinstance(offset, Constant):
        value = flat.arranged(call, value)
    parts = [constant_like(value, each) if isinstance(each, Constant) else float(each) for each in (factor, offset)]
    return flat.each(call, ops.Scale(*parts), value)


def _negated(constant: Any) -> Any:
    if isinstance(constant, Constant):
        tensor = -constant.tensor.detach()
        return replace(constant, tensor=nn.Parameter(tensor) if constant.learned else tensor)
    return -constant


def _inverse(constant: Any) -> Any:
    if isinstance(constant, Constant):
        tensor = 1 / constant.tensor.detach()
        return replace(constant, tensor=nn.Parameter(tensor) if constant.learned else tensor)
    if not constant:
        raise Refusal("division by zero")
    return 1 / constant


def _addend(flat: FlatGraph, call: Call, name: str) -> Any:
    """Return an argument times alpha."""
    each, alpha = call[name], call["alpha"]
    if alpha in (None, 1):
        return each
    if isinstance(each, Value):
        return scaled(flat, call.within("alpha"), each, alpha, 0.0)
    if isinstance(each, Constant):
        tensor = each.tensor.detach() * alpha
        return replace(each, tensor=nn.Parameter(tensor) if each.learned else tensor)
    return each * alpha


def add(flat: FlatGraph, call: Call) -> Value:
    """Sum of two values, or of a value and a constant."""
    a, b = call["self"], _addend(flat, call, "other")
    if isinstance(a, Value) and isinstance(b, Value):
        return two(ops.Add)(flat, call, a, b)
    value, constant = (a, b) if isinstance(a, Value) else (b, a)
    return scaled(flat, call, value, 1.0, constant)


def subtract(flat: FlatGraph, call: Call) -> Value:
    """Difference of two values, or of a value and a constant."""
    a, b = call["self"], call["other"]
    if call.name == "rsub":
        a, b = b, _addend(flat, call, "self")
    else:
        b = _addend(flat, call, "other")
    if isinstance(a, Value) and isinstance(b, Value):
        return two(ops.Sub)(flat, call, a, b)
    return scaled(flat, call, a, 1.0, _negated(b)) if isinstance(a, Value) else scaled(flat, call, b, -1.0, a)


def mul(flat: FlatGraph, call: Call) -> Value:
    """Product of two values, or of a value and a constant."""
    a, b = call["self"], call["other"]
    if isinstance(a, Value) and isinstance(b, Value):
        return two(ops.Mul)(flat, call, a, b)
    value, constant = (a, b) if isinstance(a, Value) else (b, a)
    return scaled(flat, call, value, constant, 0.0)


def _div(flat: FlatGraph, call: Call) -> Value:
    a, b = call["self"], call["other"]
    if call["rounding_mode"] is not None:
        raise Refusal("division with rounding_mode")
    if isinstance(a, Value) and isinstance(b, Value):
        return two(ops.Div)(flat, call, a, b)
    if isinstance(a, Value):
        return scaled(flat, call, a, _inverse(b), 0.0)
    inverse = flat.each(call.within("reciprocal"), ops.Function("Reciprocal"), b)
    return scaled(flat, call, inverse, a, 0.0)


def square(flat: FlatGraph, call: Call, value: Value) -> Value:
    """Return x * x."""
    return value.with_node(flat.add(call, ops.Mul(), [value.node, value.node], value.dims))


def rsqrt(flat: FlatGraph, call: Call) -> Value:
    """1 / sqrt(x)."""
    root = flat.each(call.within("sqrt"), ops.Function("Sqrt"), call.value())
    return flat.each(call, ops.Function("Reciprocal"), root)


def _addcmul(flat: FlatGraph, call: Call) -> Value:
    product = replace(call, given={"self": call["tensor1"], "other": call["tensor2"]}).within("product")
    other = scaled(flat, call.within("value"), mul(flat, product), call["value"], 0.0)
    return add(flat, replace(call, given={"self": call["self"], "other": other}))


POINTWISE: Mapping[str, Handler] = {
    "relu": _each(lambda _: nn.ReLU()),
    "relu6": _each(lambda _: nn.ReLU6()),
    "hardtanh": _hardtanh,
    "grid": lambda flat, call: flat.each(call, KeptGrid(call["scale"], call["zero_point"]), call.value("x")),
    "leaky_relu": _each(lambda call: nn.LeakyReLU(call["negative_slope"])),
    "prelu": _prelu,
    "elu": _elu,
    "rrelu": _each(lambda call: nn.LeakyReLU((call["lower"] + call["upper"]) / 2)),
    "silu": _silu,
    "gelu": _each(_gelu),
    "mish": _each(lambda _: nn.Mish()),
    "softplus": _softplus,
    "hardswish": _each(lambda _: nn.Hardswish()),
    "hardsigmoid": _each(lambda _: nn.Hardsigmoid()),
    "sigmoid": _each(lambda _: nn.Sigmoid()),
    "tanh": _each(lambda _: nn.Tanh()),
    "softmax": softmax,
    "log_softmax": softmax,
    "add": add,
    "sub": subtract,
    "rsub": subtract,
    "mul": mul,
    "div": _div,
    "neg": lambda flat, call: scaled(flat, call, call.value(), -1.0, 0.0),
    "square": lambda flat, call: square(flat, call, call.value()),
    "rsqrt": rsqrt,
    "addcmul": _addcmul,
    "abs": _function("Abs"),
    "cos": _function("Cos"),
    "exp": _function("Exp"),
    "log": _function("Log"),
    "reciprocal": _function("Reciprocal"),
    "sin": _function("Sin"),
    "sqrt": _function("Sqrt"),
}
