"""Means, sums and largest elements over some axes of a sample."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pipeline.graph import ops
from pipeline.networks.aten.pointwise import scaled, square, two
from pipeline.networks.aten.shapes import Handler
from pipeline.networks.axes import Value
from pipeline.networks.flat import Call, FlatGraph, Refusal


def _reduce(name: str) -> Handler:
    def convert(flat: FlatGraph, call: Call) -> Value:
        return reduced(flat, call, call.value(), call["dim"], name, keep=bool(call["keepdim"]))

    return convert


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


def _max(flat: FlatGraph, call: Call) -> tuple[Value | None, ...]:
    return (reduced(flat, call, call.value(), call["dim"], "ReduceMax", keep=bool(call["keepdim"])), None)


def _vector_norm(flat: FlatGraph, call: Call) -> Value:
    if call["ord"] != 2:
        raise Refusal(f"a vector norm of order {call['ord']}")
    squared = square(flat, call.within("square"), call.value())
    given = {"self": squared, "dim": call["dim"], "keepdim": call["keepdim"]}
    return flat.each(call, ops.Function("Sqrt"), _sum(flat, replace(call, given=given).within("sum")))


def _var(flat: FlatGraph, call: Call) -> Value:
    value = call.value()
    axes = [call["dim"]] if isinstance(call["dim"], int) else list(call["dim"] or range(len(value.axes)))
    count = math.prod(value.shape[axis] for axis in axes)
    correction = 1 if call["correction"] is None else call["correction"]
    mean = reduced(flat, call.within("mean"), value, axes, "ReduceMean", keep=True)
    centred = two(ops.Sub)(flat, call.within("centred"), value, mean)
    squared = square(flat, call.within("square"), centred)
    spread = reduced(flat, call.within("spread"), squared, axes, "ReduceMean", keep=bool(call["keepdim"]))
    result = scaled(flat, call, spread, count / (count - correction), 0.0)
    return flat.each(call.within("sqrt"), ops.Function("Sqrt"), result) if call.name == "std" else result


REDUCTIONS: Mapping[str, Handler] = {
    "mean": _reduce("ReduceMean"),
    "amax": _reduce("ReduceMax"),
    "max": _max,
    "sum": _sum,
    "linalg_vector_norm": _vector_norm,
    "var": _var,
    "std": _var,
}
