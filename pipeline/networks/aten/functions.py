"""Powers, logarithms and other functions of each element, put together from those that both runtimes have."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from pipeline.graph import ops
from pipeline.networks.aten.pointwise import add, mul, rsqrt, scaled, square, subtract, two
from pipeline.networks.aten.shapes import Handler
from pipeline.networks.axes import Value
from pipeline.networks.flat import Call, Constant, FlatGraph, Refusal


def _pow(flat: FlatGraph, call: Call) -> Value:
    base, exponent = call["self"], call["exponent"]
    if isinstance(base, int | float) and base > 0:  # base^x is e^(x log base)
        power = scaled(flat, call.within("power"), call.value("exponent"), math.log(base), 0.0)
        return flat.each(call, ops.Function("Exp"), power)
    value = call.value()
    if not isinstance(exponent, int | float):
        raise Refusal("pow with a computed exponent")
    own = {2: square, 0.5: _root, -0.5: lambda *given: rsqrt(given[0], given[1]), -1: _inverse, 3: _cube, 4: _fourth}
    if exponent in own:
        return own[exponent](flat, call, value)
    return flat.each(call, ops.Power(float(exponent)), value)


def _root(flat: FlatGraph, call: Call, value: Value) -> Value:
    return flat.each(call, ops.Function("Sqrt"), value)


def _inverse(flat: FlatGraph, call: Call, value: Value) -> Value:
    return flat.each(call, ops.Function("Reciprocal"), value)


def _cube(flat: FlatGraph, call: Call, value: Value) -> Value:
    return two(ops.Mul)(flat, call, square(flat, call.within("square"), value), value)


def _fourth(flat: FlatGraph, call: Call, value: Value) -> Value:
    return square(flat, call, square(flat, call.within("square"), value))


def _after(name: str, factor: float, offset: float) -> Handler:
    """Return the function of ``x * factor + offset``."""

    def convert(flat: FlatGraph, call: Call) -> Value:
        inner = scaled(flat, call.within("inner"), call.value(), factor, offset)
        return flat.each(call, ops.Function(name), inner)

    return convert


def _before(name: str, factor: float, offset: float) -> Handler:
    """Return ``f(x) * factor + offset``."""

    def convert(flat: FlatGraph, call: Call) -> Value:
        return scaled(flat, call, flat.each(call.within("inner"), ops.Function(name), call.value()), factor, offset)

    return convert


def _hyperbolic(join: Callable[[FlatGraph, Call], Value]) -> Handler:
    """Return half of e^x and e^-x joined."""

    def convert(flat: FlatGraph, call: Call) -> Value:
        up = flat.each(call.within("up"), ops.Function("Exp"), call.value())
        down = flat.each(call.within("down"), ops.Function("Reciprocal"), up)
        both = join(flat, replace(call.within("both"), given={"self": up, "other": down}))
        return scaled(flat, call, both, 0.5, 0.0)

    return convert


def _tan(flat: FlatGraph, call: Call) -> Value:
    sine = flat.each(call.within("sin"), ops.Function("Sin"), call.value())
    cosine = flat.each(call.within("cos"), ops.Function("Cos"), call.value())
    return two(ops.Div)(flat, call, sine, cosine)


def _log_sigmoid(flat: FlatGraph, call: Call) -> Value:
    """-log(1 + e^-x)."""
    mirrored = scaled(flat, call.within("mirrored"), call.value(), -1.0, 0.0)
    return scaled(flat, call, flat.each(call.within("softplus"), nn.Softplus(), mirrored), -1.0, 0.0)


def _lerp(flat: FlatGraph, call: Call) -> Value:
    """Return a + weight * (b - a)."""
    a, b = call["self"], call["end"]
    if isinstance(a, Constant) and isinstance(b, Constant):
        way: Any = replace(b, tensor=b.tensor.detach() - a.tensor.detach(), learned=False)
    else:
        way = subtract(flat, replace(call.within("way"), given={"self": b, "other": a}))
    part = mul(flat, replace(call.within("part"), given={"self": way, "other": call["weight"]}))
    return add(flat, replace(call, given={"self": part, "other": a}))


FUNCTIONS: Mapping[str, Handler] = {
    "pow": _pow,
    "sinh": _hyperbolic(subtract),
    "cosh": _hyperbolic(add),
    "tan": _tan,
    "expm1": _before("Exp", 1.0, -1.0),
    "exp2": _after("Exp", math.log(2), 0.0),
    "log1p": _after("Log", 1.0, 1.0),
    "log2": _before("Log", 1 / math.log(2), 0.0),
    "log10": _before("Log", 1 / math.log(10), 0.0),
    "erf": lambda flat, call: flat.each(call, ops.Function("Erf"), call.value()),
    "log_sigmoid": _log_sigmoid,
    "lerp": _lerp,
}
