"""Tensors joined along an axis.

A stack is a join along a new axis of one element; a roll joins what it cut.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from pipeline.graph import ops
from pipeline.networks.aten.pointwise import scaled
from pipeline.networks.aten.shapes import Handler, padded, sliced, with_unit
from pipeline.networks.axes import BATCH, Value
from pipeline.networks.flat import Call, Constant, FlatGraph, Refusal


def _cat(flat: FlatGraph, call: Call) -> Value:
    return _joined(flat, call, call["tensors"], call["dim"] or 0)


def _stack(flat: FlatGraph, call: Call) -> Value:
    return stacked(flat, call, call["tensors"], (call["dim"] or 0) % len(call.shape))


def stacked(flat: FlatGraph, call: Call, parts: Sequence[Value | Constant], axis: int) -> Value:
    """Join tensors along a new axis; the call's shape is the result's."""
    return _joined(flat, call, [_raised(flat, call, each, axis) for each in parts], axis)


def _raised(flat: FlatGraph, call: Call, each: Value | Constant, axis: int) -> Value | Constant:
    if isinstance(each, Constant):
        return replace(each, tensor=each.tensor.unsqueeze(axis))
    return with_unit(flat, call, replace(each, axes=(*each.axes[:axis], (), *each.axes[axis:])), axis)


def _joined(flat: FlatGraph, call: Call, parts: Sequence[Value | Constant], axis: int) -> Value:
    parts = [each for each in parts if not (isinstance(each, Constant) and each.tensor.numel() == 0)]
    axis %= len(call.shape)
    values = [flat.arranged(call, each) for each in parts if isinstance(each, Value)]
    stored = values[0].stored_axis(axis)
    if any(each.axes != values[0].axes for each in values) or (not stored and values[0].axes[axis]):
        raise Refusal(f"{call.name} that mixes the batch with other axes")
    if not stored:  # an axis of one element that no node has
        raise Refusal(f"{call.name} along an axis that was folded away")
    if len(values) == len(parts):
        return _concat(flat, call, values, stored)
    groups = _around_values(parts)
    if len(groups) == 1:
        return _with_constants(flat, call, parts, axis)
    inner = call.within("part")
    joined = [_with_constants(flat, inner, each, axis) if len(each) > 1 else each[0] for each in groups]
    return _joined(flat, call, joined, axis)


def _around_values(parts: Sequence[Value | Constant]) -> list[list[Value | Constant]]:
    """Divide into runs with one computed value each, the constants between two with the first."""
    groups: list[list[Value | Constant]] = [[]]
    for each in parts:
        if isinstance(each, Value) and any(isinstance(other, Value) for other in groups[-1]):
            groups.append([])
        groups[-1].append(each)
    return groups


def _concat(flat: FlatGraph, call: Call, values: list[Value], stored: int) -> Value:
    dims = list(values[0].dims)
    dims[stored] = sum(each.dims[stored] for each in values)
    return values[0].with_node(flat.add(call, ops.Concat(stored), [each.node for each in values], dims), tuple(dims))


def _with_constants(flat: FlatGraph, call: Call, parts: Sequence[Value | Constant], axis: int) -> Value:
    """Join constants (class tokens) to one computed value: room is made with zeros, and they are added."""
    place, value = next((number, each) for number, each in enumerate(parts) if isinstance(each, Value))
    sizes = [each.shape[axis] if isinstance(each, Value) else each.tensor.shape[axis] for each in parts]
    before, after = sum(sizes[:place]), sum(sizes[place + 1 :])
    room = padded(flat, call.within("room"), value, [0, 0] * (len(value.axes) - 1 - axis) + [before, after], 0.0)
    rows = [
        torch.zeros(_row_shape(value, axis, size)) if isinstance(each, Value) else _row(each, value, axis, size)
        for each, size in zip(parts, sizes, strict=True)
    ]
    learned = any(isinstance(each, Constant) and each.learned for each in parts)
    tokens = torch.cat(rows, axis)
    constant = Constant(tensor=nn.Parameter(tokens) if learned else tokens, name="", learned=learned)
    return scaled(flat, call, room, 1.0, constant)


def _row_shape(value: Value, axis: int, size: int) -> list[int]:
    shape = [1 if side % BATCH == 0 else side for side in value.shape]
    shape[axis] = size
    return shape


def _row(constant: Constant, value: Value, axis: int, size: int) -> Tensor:
    return constant.tensor.detach().expand(_row_shape(value, axis, size))


def _slice_scatter(flat: FlatGraph, call: Call) -> Value | Constant:
    """Put a part into a tensor: its rest before and behind is cut off and joined to it."""
    axis = call["dim"] or 0
    side = call.shape[axis]
    places = range(side)[call["start"] : call["end"] : call["step"] or 1]
    if places.step != 1:
        raise Refusal("assigning to every second element")
    parts = [
        _cut(flat, call, call["self"], axis, range(places.start)),
        call["src"],
        _cut(flat, call, call["self"], axis, range(places.stop, side)),
    ]
    wide = [each for each in parts if each is not None]
    return wide[0] if len(wide) == 1 else _joined(flat, call, wide, axis)


def _select_scatter(flat: FlatGraph, call: Call) -> Value | Constant:
    axis = (call["dim"] or 0) % len(call.shape)
    start = call["index"] % call.shape[axis]
    part = _raised(flat, call, call["src"], axis)
    given = {"self": call["self"], "src": part, "dim": axis, "start": start, "end": start + 1}
    return _slice_scatter(flat, replace(call, given=given))


def _cut(flat: FlatGraph, call: Call, whole: Value | Constant, axis: int, places: range) -> Value | Constant | None:
    if not places:
        return None
    if isinstance(whole, Value):
        return sliced(flat, call.within("rest"), whole, axis, places)
    return replace(whole, tensor=whole.tensor.detach().narrow(axis, places.start, len(places)), learned=False)


def _roll(flat: FlatGraph, call: Call) -> Value:
    value = call.value()
    if not call["dims"]:
        raise Refusal("roll over the batch")
    for shift, axis in zip(call["shifts"], call["dims"], strict=True):
        side = value.shape[axis]
        cut = -shift % side
        if cut:
            first = sliced(flat, call, value, axis, range(cut, side))
            second = sliced(flat, call, value, axis, range(cut))
            inner = replace(call, shape=value.shape)
            value = _joined(flat, inner, [first, second], axis)
    return value


JOINS: Mapping[str, Handler] = {
    "cat": _cat,
    "concat": _cat,
    "stack": _stack,
    "roll": _roll,
    "slice_scatter": _slice_scatter,
    "select_scatter": _select_scatter,
}
