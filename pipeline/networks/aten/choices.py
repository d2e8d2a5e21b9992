"""Comparisons, choices by masks, and the larger or smaller of two.

What is true is 1, what is false 0; so a choice is a sum of two products.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.graph import ops
from pipeline.networks.aten.pointwise import add, clamped, mul, scaled, subtract
from pipeline.networks.aten.shapes import Handler
from pipeline.networks.axes import Value
from pipeline.networks.flat import Call, Constant, FlatGraph, Refusal

_LARGEST = torch.finfo(torch.float32).max
_NEVER = 1e9  # in the place of infinity, which a product with 0 makes no number of: as far away for every softmax


def _minus(flat: FlatGraph, call: Call, a: Any, b: Any) -> Value:
    a, b = (each if isinstance(each, Value) else _finite(each, _LARGEST) for each in (a, b))
    return subtract(flat, replace(call.within("difference"), given={"self": a, "other": b}))


def _not(flat: FlatGraph, call: Call, value: Value) -> Value:
    return scaled(flat, call, value, -1.0, 1.0)


def _above(flat: FlatGraph, call: Call, a: Any, b: Any) -> Value:
    """Return a > b."""
    return flat.each(call, ops.Function("Positive"), _minus(flat, call, a, b))


def _alike(flat: FlatGraph, call: Call, a: Any, b: Any) -> Value:
    """Return a == b: neither is larger."""
    distance = flat.each(call.within("distance"), ops.Function("Abs"), _minus(flat, call, a, b))
    return _not(flat, call, flat.each(call.within("differs"), ops.Function("Positive"), distance))


def _compare(compare: Callable[[FlatGraph, Call, Any, Any], Value]) -> Handler:
    return lambda flat, call: compare(flat, call, call["self"], call["other"])


def _sign(flat: FlatGraph, call: Call) -> Value:
    positive = flat.each(call.within("positive"), ops.Function("Positive"), call.value())
    mirrored = scaled(flat, call.within("mirrored"), call.value(), -1.0, 0.0)
    negative = flat.each(call.within("negative"), ops.Function("Positive"), mirrored)
    return _minus(flat, call, positive, negative)


def _truth(each: Any) -> Any:
    return replace(each, tensor=(each.tensor != 0).float(), learned=False) if isinstance(each, Constant) else each


def _both(flat: FlatGraph, call: Call) -> Value:
    return mul(flat, replace(call, given={"self": _truth(call["self"]), "other": _truth(call["other"])}))


def _either(flat: FlatGraph, call: Call) -> Value:
    """Return a or b: not (not a and not b)."""
    negated = [_negated(flat, call, _truth(call[name])) for name in ("self", "other")]
    both = mul(flat, replace(call.within("neither"), given={"self": negated[0], "other": negated[1]}))
    return _not(flat, call, both)


def _negated(flat: FlatGraph, call: Call, each: Any) -> Any:
    if isinstance(each, Value):
        return _not(flat, call.within("not"), each)
    return replace(each, tensor=1.0 - each.tensor.float(), learned=False)


def _where(flat: FlatGraph, call: Call) -> Value:
    return _chosen(flat, call, call["condition"], call["self"], call["other"])


def _masked_fill(flat: FlatGraph, call: Call) -> Value:
    return _chosen(flat, call, call["mask"], call["value"], call["self"])


def _chosen(flat: FlatGraph, call: Call, mask: Any, yes: Any, no: Any) -> Value:
    """Return ``yes`` where the mask is 1, ``no`` where it is 0."""
    parts = [
        mul(flat, replace(call.within(name), given={"self": _finite(each), "other": chosen}))
        if isinstance(chosen, Value) or isinstance(each, Value)
        else replace(chosen, tensor=chosen.tensor.float() * _number(each), learned=False)
        for name, each, chosen in (("yes", yes, _float(mask)), ("no", no, _negated(flat, call, _float(mask))))
    ]
    if not any(isinstance(each, Value) for each in parts):
        raise Refusal(f"{call.name} of constants alone")
    return add(flat, replace(call, given={"self": parts[0], "other": parts[1]}))


def _float(mask: Any) -> Any:
    return replace(mask, tensor=mask.tensor.float(), learned=False) if isinstance(mask, Constant) else mask


def _finite(each: Any, most: float = _NEVER) -> Any:
    if isinstance(each, Constant):
        tensor = each.tensor.detach().float().clamp(-most, most)
        return replace(each, tensor=nn.Parameter(tensor) if each.learned else tensor)
    return each if isinstance(each, Value) else max(min(float(each), most), -most)


def _number(each: Any) -> Tensor | float:
    finite = _finite(each)
    return finite.tensor.detach() if isinstance(finite, Constant) else finite


def _larger(flat: FlatGraph, call: Call) -> Value:
    """Return the larger one: b + relu(a - b)."""
    a, b = _computed_first(call)
    more = flat.each(call.within("more"), nn.ReLU(), _minus(flat, call, a, b))
    return add(flat, replace(call, given={"self": more, "other": b}))


def _smaller(flat: FlatGraph, call: Call) -> Value:
    """Return the smaller one: a - relu(a - b)."""
    a, b = _computed_first(call)
    more = flat.each(call.within("more"), nn.ReLU(), _minus(flat, call, a, b))
    return subtract(flat, replace(call, given={"self": a, "other": more}))


def _computed_first(call: Call) -> tuple[Any, Any]:
    a, b = call["self"], call["other"]
    return (a, b) if isinstance(a, Value) else (b, a)


def _clamp(flat: FlatGraph, call: Call) -> Value:
    """Clamp to numbers, or to constants with a value for each element."""
    value = call.value()
    if not any(isinstance(call[name], Value | Constant) for name in ("min", "max")):
        return clamped(flat, call)
    for name, bounded in (("min", _larger), ("max", _smaller)):
        bound = call[name]
        if isinstance(bound, Value | Constant):
            value = bounded(flat, replace(call.within(name), given={"self": value, "other": bound}))
        elif bound is not None:
            value = clamped(flat, replace(call, given={"self": value, name: bound}))
    return value


def _whole(name: str) -> Handler:
    """Return how to round: towards 0 is floor(|x|) with the sign of x."""

    def convert(flat: FlatGraph, call: Call) -> Value:
        value = call.value()
        if name == "floor":
            return flat.each(call, ops.Function("Floor"), value)
        if name == "ceil":
            mirrored = scaled(flat, call.within("mirrored"), value, -1.0, 0.0)
            return scaled(flat, call, flat.each(call.within("floor"), ops.Function("Floor"), mirrored), -1.0, 0.0)
        size = flat.each(call.within("size"), ops.Function("Abs"), value)
        whole = flat.each(call.within("floor"), ops.Function("Floor"), size)
        sign = _sign(flat, call.within("sign"))
        return mul(flat, replace(call, given={"self": whole, "other": sign}))

    return convert


def _round(flat: FlatGraph, call: Call) -> Value:
    """Round to whole numbers, or to so many decimals."""
    decimals = call["decimals"] or 0
    if not decimals:
        return flat.each(call, ops.Function("Round"), call.value())
    larger = scaled(flat, call.within("larger"), call.value(), 10.0**decimals, 0.0)
    whole = flat.each(call.within("whole"), ops.Function("Round"), larger)
    return scaled(flat, call, whole, 10.0**-decimals, 0.0)


def _frac(flat: FlatGraph, call: Call) -> Value:
    whole = _whole("trunc")(flat, call.within("trunc"))
    return subtract(flat, replace(call, given={"self": call.value(), "other": whole}))


def _remainder(flat: FlatGraph, call: Call) -> Value:
    """Return a - b * floor(a / b), or with truncation; of powers of two alone is the quotient exact."""
    divisor = call["other"]
    if isinstance(divisor, Value | Constant) or math.frexp(abs(float(divisor)))[0] != 0.5:
        raise Refusal(f"{call.name} by something else than a power of two")
    quotient = scaled(flat, call.within("quotient"), call.value(), 1 / divisor, 0.0)
    rounding = "trunc" if call.name == "fmod" else "floor"
    whole: Value = _whole(rounding)(flat, replace(call.within("whole"), given={"self": quotient}))
    if call.name == "floor_divide":
        return whole
    back = scaled(flat, call.within("back"), whole, divisor, 0.0)
    return subtract(flat, replace(call, given={"self": call.value(), "other": back}))


def _triangle(flat: FlatGraph, call: Call) -> Value:
    """Keep one side of a diagonal of the last two axes."""
    value = call.value()
    cut = getattr(torch, call.name)(torch.ones(value.shape[-2:]), call["diagonal"] or 0)
    return scaled(flat, call, value, Constant(tensor=cut, name="", learned=False), 0.0)


CHOICES: Mapping[str, Handler] = {
    "gt": _compare(_above),
    "lt": _compare(lambda flat, call, a, b: _above(flat, call, b, a)),
    "le": _compare(lambda flat, call, a, b: _not(flat, call, _above(flat, call.within("above"), a, b))),
    "ge": _compare(lambda flat, call, a, b: _not(flat, call, _above(flat, call.within("below"), b, a))),
    "eq": _compare(_alike),
    "ne": _compare(lambda flat, call, a, b: _not(flat, call, _alike(flat, call.within("equal"), a, b))),
    **dict.fromkeys(("logical_and", "bitwise_and"), _both),
    **dict.fromkeys(("logical_or", "bitwise_or"), _either),
    **dict.fromkeys(("logical_not", "bitwise_not"), lambda flat, call: _not(flat, call, call.value())),
    "where": _where,
    "masked_fill": _masked_fill,
    "maximum": _larger,
    "minimum": _smaller,
    **dict.fromkeys(("clamp", "clip", "clamp_min", "clamp_max"), _clamp),
    "sign": _sign,
    "floor": _whole("floor"),
    "ceil": _whole("ceil"),
    "trunc": _whole("trunc"),
    "fix": _whole("trunc"),
    "round": _round,
    "frac": _frac,
    **dict.fromkeys(("remainder", "fmod", "floor_divide"), _remainder),
    "triu": _triangle,
    "tril": _triangle,
}
