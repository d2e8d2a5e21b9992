"""Means, sums and largest elements over some axes of a sample."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from pipeline.graph import ops
from pipeline.networks.aten.choices import CHOICES
from pipeline.networks.aten.linear import mixed
from pipeline.networks.aten.pointwise import scaled, square, two
from pipeline.networks.aten.shapes import Handler
from pipeline.networks.axes import Value
from pipeline.networks.flat import Call, FlatGraph, Refusal


def _mean(flat: FlatGraph, call: Call) -> Value:
    return reduced(flat, call, call.value(), call["dim"], "ReduceMean", keep=bool(call["keepdim"]))


def reduced(flat: FlatGraph, call: Call, value: Value, axes: Any, name: str, *, keep: bool) -> Value:
    """Reduce over ``axes`` (all where there are none); GlobalAveragePool where that is what it is."""
    rank = len(value.axes)
    wanted = sorted({axis % rank for axis in ([axes] if isinstance(axes, int) else axes or range(rank))})
    if len(value.axes) == len(value.dims) and wanted == list(range(2, rank)) and name == "ReduceMean" and rank > 2:
        value = flat.plain(call, value)
    if any(value.stored_axis(axis) is None and value.axes[axis] for axis in wanted):
        value = flat.arranged(call, value)
    stored = [value.stored_axis(axis) for axis in wanted if value.axes[axis]]
    if any(not axis for axis in stored):
        raise Refusal(f"{call.name} over the batch")
    lying = tuple(sorted(axis for axis in stored if axis))
    dims = tuple(1 if axis in lying else side for axis, side in enumerate(value.dims))
    if lying:
        spatial = value.is_plain and lying == tuple(range(2, len(dims))) and name == "ReduceMean"
        module = ops.GlobalAveragePool() if spatial else ops.Reduce(name, lying)
        value = value.with_node(flat.add(call, module, [value.node], dims), dims)
    if keep:
        return value
    left = tuple(group for axis, group in enumerate(value.axes) if axis not in wanted)
    return replace(value, axes=left, named=call.layer)


def _sum(flat: FlatGraph, call: Call) -> Value:
    value = call.value()
    rank = len(value.axes)
    axes = [call["dim"]] if isinstance(call["dim"], int) else call["dim"] or range(rank)
    count = math.prod(value.shape[axis] for axis in axes)
    mean = reduced(flat, call.within("mean"), value, call["dim"], "ReduceMean", keep=bool(call["keepdim"]))
    return scaled(flat, call, mean, count, 0.0)


def _amax(flat: FlatGraph, call: Call) -> Value:
    return reduced(flat, call, call.value(), call["dim"], "ReduceMax", keep=bool(call["keepdim"]))


def _amin(flat: FlatGraph, call: Call) -> Value:
    """-max(-x)."""
    mirrored = scaled(flat, call.within("mirrored"), call.value(), -1.0, 0.0)
    largest = _amax(flat, replace(call.within("max"), given={**call.given, "self": mirrored}))
    return scaled(flat, call, largest, -1.0, 0.0)


def _extreme(reduce: Handler, of_two: str) -> Handler:
    """Return ``max`` or ``min``: of two tensors, of a whole sample, or along an axis and then with places."""

    def convert(flat: FlatGraph, call: Call) -> Any:
        if call["other"] is not None:
            return CHOICES[of_two](flat, call)
        result = reduce(flat, call)
        return result if call["dim"] is None else (result, None)

    return convert


def _vector_norm(flat: FlatGraph, call: Call) -> Value:
    """(sum |x|^p)^(1/p), or the largest |x|."""
    order, value = call["ord"], call.value()
    given = {"dim": call["dim"], "keepdim": call["keepdim"]}
    if order == 2:
        powers = square(flat, call.within("square"), value)
    else:
        powers = flat.each(call.within("size"), ops.Function("Abs"), value)
        if order == math.inf:
            return _amax(flat, replace(call, given={**given, "self": powers}))
        if order <= 0:
            raise Refusal(f"a vector norm of order {order}")
        if order != 1:
            powers = flat.each(call.within("power"), ops.Power(float(order)), powers)
    total = _sum(flat, replace(call.within("sum"), given={**given, "self": powers}))
    if order == 1:
        return total
    return flat.each(call, ops.Function("Sqrt") if order == 2 else ops.Power(1 / order), total)


def _log_sum_exp(flat: FlatGraph, call: Call) -> Value:
    """Add the largest element m to the logarithm of the sum of e^(x - m)."""
    value, axes, keep = call.value(), call["dim"], bool(call["keepdim"])
    largest = reduced(flat, call.within("max"), value, axes, "ReduceMax", keep=True)
    below = flat.each(call.within("exp"), ops.Function("Exp"), two(ops.Sub)(flat, call.within("below"), value, largest))
    given = {"self": below, "dim": axes, "keepdim": keep}
    rest = flat.each(call.within("log"), ops.Function("Log"), _sum(flat, replace(call.within("sum"), given=given)))
    if not keep:
        largest = reduced(flat, call.within("max"), value, axes, "ReduceMax", keep=False)
    return two(ops.Add)(flat, call, rest, largest)


def _cumulative_sum(flat: FlatGraph, call: Call) -> Value:
    value, axis = call.value(), call["dim"] % len(call.value().axes)
    return mixed(flat, call, value, axis, torch.ones(value.shape[axis], value.shape[axis]).tril())


def _with_mean(flat: FlatGraph, call: Call) -> tuple[Value, Value]:
    mean = reduced(flat, call.within("mean"), call.value(), call["dim"], "ReduceMean", keep=bool(call["keepdim"]))
    return _var(flat, replace(call, name=call.name.removesuffix("_mean"))), mean


def _var(flat: FlatGraph, call: Call) -> Value:
    value = call.value()
    axes = [call["dim"]] if isinstance(call["dim"], int) else list(call["dim"] or range(len(value.axes)))
    count = math.prod(value.shape[axis] for axis in axes)
    correction = call["correction"]
    if correction is None:
        correction = 0 if call["unbiased"] is False else 1
    if count <= correction:
        raise Refusal(f"{call.name} of {count} element{'s'[: count != 1]}, less a correction of {correction:g},")
    mean = reduced(flat, call.within("mean"), value, axes, "ReduceMean", keep=True)
    centred = two(ops.Sub)(flat, call.within("centred"), value, mean)
    squared = square(flat, call.within("square"), centred)
    spread = reduced(flat, call.within("spread"), squared, axes, "ReduceMean", keep=bool(call["keepdim"]))
    result = scaled(flat, call, spread, count / (count - correction), 0.0)
    return flat.each(call.within("sqrt"), ops.Function("Sqrt"), result) if call.name == "std" else result


REDUCTIONS: Mapping[str, Handler] = {
    "mean": _mean,
    "amax": _amax,
    "amin": _amin,
    "max": _extreme(_amax, "maximum"),
    "min": _extreme(_amin, "minimum"),
    "logsumexp": _log_sum_exp,
    "cumsum": _cumulative_sum,
    "sum": _sum,
    "linalg_vector_norm": _vector_norm,
    **dict.fromkeys(("std_mean", "var_mean"), _with_mean),
    "var": _var,
    "std": _var,
}
