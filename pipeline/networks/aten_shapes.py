"""ATen functions that only move elements: most of them are another reading of the same values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pipeline.graph import ops
from pipeline.networks.axes import BATCH, Value
from pipeline.networks.flat import Call, Constant, FlatGraph, Refusal

Handler = Callable[[FlatGraph, Call], Any]


def _reshape(flat: FlatGraph, call: Call) -> Value:
    return flat.reshaped(call, call.value(), call.shape)


def _permute(_: FlatGraph, call: Call) -> Value:
    value = call.value()
    return value.permuted([axis % len(value.axes) for axis in call["dims"]])


def _transpose(_: FlatGraph, call: Call) -> Value:
    value = call.value()
    order = list(range(len(value.axes)))
    axes = [call[name] for name in ("dim0", "dim1", "axis0", "axis1") if call[name] is not None] or [0, -1]
    a, b = (axis % len(order) for axis in axes)
    order[a], order[b] = order[b], order[a]
    return value.permuted(order)


def _expand(flat: FlatGraph, call: Call) -> Value:
    value = call.value()
    shape = call.shape
    missing = len(shape) - len(value.axes)
    value = replace(value, axes=((),) * missing + value.axes)
    grown = [axis for axis, (before, after) in enumerate(zip(value.shape, shape, strict=True)) if before != after]
    if not grown:
        return value
    value = flat.arranged(call, value)
    # an axis of one element is repeated by gathering it
    for axis in grown:
        if shape[axis] % BATCH == 0:
            raise Refusal(f"{call.name} along the batch")
        value = gathered(flat, call, value, axis, torch.zeros(shape[axis], dtype=torch.int64))
    return value


def gathered(flat: FlatGraph, call: Call, value: Value, axis: int, indices: Tensor) -> Value:
    """Take elements along one axis of a tensor."""
    stored = value.stored_axis(axis)
    if stored is None:
        value = flat.arranged(call, value)
        stored = value.stored_axis(axis)
    if not stored:
        raise Refusal(f"{call.name} along the batch")
    dims = tuple(len(indices) if place == stored else side for place, side in enumerate(value.dims))
    return value.with_node(flat.add(call, ops.Gather(stored, indices), [value.node], dims), dims)


def sliced(flat: FlatGraph, call: Call, value: Value, axis: int, start: int, stop: int, step: int = 1) -> Value:
    """Take a range along one axis of a tensor."""
    axis %= len(value.axes)
    side = value.shape[axis]
    if (start, stop, step) == (0, side, 1):
        return value
    stored = value.stored_axis(axis)
    if stored is None:
        value = flat.arranged(call, value)
        stored = value.stored_axis(axis)
    if not stored:
        raise Refusal(f"{call.name} along the batch")
    count = len(range(start, stop, step))
    dims = tuple(count if place == stored else size for place, size in enumerate(value.dims))
    return value.with_node(flat.add(call, ops.Slice(stored, start, stop, step), [value.node], dims), dims)


def _slice(flat: FlatGraph, call: Call) -> Value:
    value, axis = call.value(), call["dim"] or 0
    side = value.shape[axis]
    start, stop, step = slice(call["start"], call["end"], call["step"] or 1).indices(side)
    return sliced(flat, call, value, axis, start, stop, step)


def _without(value: Value, axis: int) -> Value:
    axis %= len(value.axes)
    return replace(value, axes=tuple(group for place, group in enumerate(value.axes) if place != axis))


def _select(flat: FlatGraph, call: Call) -> Value:
    value, axis = call.value(), call["dim"]
    index = call["index"] % value.shape[axis]
    return _without(sliced(flat, call, value, axis, index, index + 1), axis)


def _unbind(flat: FlatGraph, call: Call) -> tuple[Value, ...]:
    value, axis = call.value(), call["dim"] or 0
    return tuple(
        _without(sliced(flat, call, value, axis, index, index + 1), axis) for index in range(value.shape[axis])
    )


def _split(flat: FlatGraph, call: Call) -> tuple[Value, ...]:
    value, axis = call.value(), call["dim"] or 0
    side = value.shape[axis]
    if call.name == "chunk":
        size = -(-side // call["chunks"])
    else:
        size = call["split_size"] if call["split_size"] is not None else call["split_sizes"]
    sizes = list(size) if isinstance(size, list | tuple) else [min(size, side - at) for at in range(0, side, size)]
    starts = [sum(sizes[:number]) for number in range(len(sizes))]
    return tuple(
        sliced(flat, call, value, axis, start, start + each) for start, each in zip(starts, sizes, strict=True)
    )


def _cat(flat: FlatGraph, call: Call) -> Value:
    return _joined(flat, call, call["tensors"], call["dim"] or 0)


def _stack(flat: FlatGraph, call: Call) -> Value:
    axis = (call["dim"] or 0) % len(call.shape)
    parts = [
        replace(each, axes=(*each.axes[:axis], (), *each.axes[axis:])) if isinstance(each, Value) else _raised(each, axis)
        for each in call["tensors"]
    ]
    return _joined(flat, call, parts, axis)


def _raised(constant: Constant, axis: int) -> Constant:
    return replace(constant, tensor=constant.tensor.unsqueeze(axis))


def _joined(flat: FlatGraph, call: Call, parts: list[Any], axis: int) -> Value:
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
    return _with_constants(flat, call, parts, iter(values), axis, stored)


def _concat(flat: FlatGraph, call: Call, values: list[Value], stored: int) -> Value:
    dims = list(values[0].dims)
    dims[stored] = sum(each.dims[stored] for each in values)
    return values[0].with_node(flat.add(call, ops.Concat(stored), [each.node for each in values], dims), tuple(dims))


def _with_constants(flat: FlatGraph, call: Call, parts: list[Any], values: Any, axis: int, stored: int) -> Value:  # noqa: ANN401
    """Join constants (class tokens) to one computed value: room is made with zeros, and they are added."""
    computed = [next(values) if isinstance(each, Value) else each for each in parts]
    places = [number for number, each in enumerate(computed) if isinstance(each, Value)]
    if len(places) != 1:
        raise Refusal(f"{call.name} of constants and several computed values")
    value = computed[places[0]]
    sizes = [each.dims[stored] if isinstance(each, Value) else each.tensor.shape[axis] for each in computed]
    before, after = sum(sizes[: places[0]]), sum(sizes[places[0] + 1 :])
    dims = list(value.dims)
    dims[stored] = sum(sizes)
    rank = len(dims)
    pads = [0, 0] * (rank - 1 - stored) + [before, after]
    padded = flat.add(call.within("room"), ops.Pad(tuple(pads)), [value.node], dims)
    rows = []
    for each, size in zip(computed, sizes, strict=True):
        shape = [1] * rank
        shape[stored] = size
        for place, group in enumerate(value.axes):
            if place != axis and group and group != (0,):
                for own in group:
                    shape[own] = value.dims[own] if own else 1
        rows.append(torch.zeros(shape) if isinstance(each, Value) else each.tensor.detach().expand(_torch_shape(each, value, axis)).reshape(shape))
    offset = torch.cat(rows, stored)
    learned = any(isinstance(each, Constant) and each.learned for each in computed)
    scale = ops.Scale(1.0, torch.nn.Parameter(offset) if learned else offset)
    return value.with_node(flat.add(call, scale, [padded], dims), tuple(dims))


def _torch_shape(constant: Constant, value: Value, axis: int) -> list[int]:
    shape = [1 if side % BATCH == 0 else side for side in value.shape]
    shape[axis] = constant.tensor.shape[axis]
    return shape


def _roll(flat: FlatGraph, call: Call) -> Value:
    value = call.value()
    for shift, axis in zip(call["shifts"], call["dims"], strict=True):
        side = value.shape[axis]
        cut = -shift % side
        if cut:
            first = sliced(flat, call, value, axis, cut, side)
            second = sliced(flat, call, value, axis, 0, cut)
            inner = replace(call, shape=value.shape)
            value = _joined(flat, inner, [first, second], axis)
    return value


def _flip(flat: FlatGraph, call: Call) -> Value:
    value = call.value()
    for axis in call["dims"]:
        value = gathered(flat, call, value, axis, torch.arange(value.shape[axis] - 1, -1, -1))
    return value


def _index_select(flat: FlatGraph, call: Call) -> Value:
    indices = call.tensor("index")
    if indices is None:
        raise Refusal("index_select without indices")
    return gathered(flat, call, call.value(), call["dim"], indices)


def _index(flat: FlatGraph, call: Call) -> Value:
    value = call.value()
    places = [axis for axis, each in enumerate(call["indices"]) if each is not None]
    if len(places) != 1 or not isinstance(call["indices"][places[0]], Constant):
        raise Refusal("indexing by computed values or by several index tensors")
    indices = call["indices"][places[0]].tensor
    if indices.dtype == torch.bool:
        indices = indices.nonzero().flatten()
    taken = gathered(flat, call, value, places[0], indices.flatten())
    return taken if indices.dim() == 1 else flat.reshaped(call, taken, call.shape)


def _repeat(flat: FlatGraph, call: Call) -> Value:
    value = call.value()
    repeats = list(call["repeats"])
    value = replace(value, axes=((),) * (len(repeats) - len(value.axes)) + value.axes)
    for axis, times in enumerate(repeats):
        if times != 1:
            side = value.shape[axis]
            value = gathered(flat, call, flat.arranged(call, value), axis, torch.arange(side).repeat(times))
    return value


def _pixel_shuffle(flat: FlatGraph, call: Call) -> Value:
    """(N, C*r*r, H, W) → (N, C, H*r, W*r)."""
    value = flat.plain(call, call.value())
    factor = call["upscale_factor"]
    n, channels, height, width = value.dims
    apart = flat.reshaped(call, value, (n, channels // factor**2, factor, factor, height, width))
    return flat.reshaped(call, apart.permuted((0, 1, 4, 2, 5, 3)), call.shape)


def _pixel_unshuffle(flat: FlatGraph, call: Call) -> Value:
    """(N, C, H*r, W*r) → (N, C*r*r, H, W)."""
    value = flat.plain(call, call.value())
    factor = call["downscale_factor"]
    n, channels, height, width = value.dims
    apart = flat.reshaped(call, value, (n, channels, height // factor, factor, width // factor, factor))
    return flat.reshaped(call, apart.permuted((0, 1, 3, 5, 2, 4)), call.shape)


def _channel_shuffle(flat: FlatGraph, call: Call) -> Value:
    """(N, G*D, …) → (N, D*G, …)."""
    value = flat.plain(call, call.value())
    groups = call["groups"]
    apart = flat.reshaped(call, value, (value.dims[0], groups, value.dims[1] // groups, *value.dims[2:]))
    turned = apart.permuted((0, 2, 1, *range(3, len(value.dims) + 1)))
    return flat.reshaped(call, turned, call.shape)


def _constant_of_shape(number: float) -> Handler:
    def convert(_: FlatGraph, call: Call) -> Constant:
        shape = [side // BATCH if side % BATCH == 0 else side for side in call.shape]
        return Constant(tensor=torch.full(shape, number), name="", learned=False)

    return convert


SHAPES: Mapping[str, Handler] = {
    **dict.fromkeys(("view", "reshape", "flatten", "unflatten", "_unsafe_view", "squeeze", "unsqueeze"), _reshape),
    "permute": _permute,
    **dict.fromkeys(("transpose", "t", "swapaxes", "swapdims"), _transpose),
    "expand": _expand,
    "expand_as": _expand,
    "slice": _slice,
    "select": _select,
    "unbind": _unbind,
    **dict.fromkeys(("split", "split_with_sizes", "chunk"), _split),
    "cat": _cat,
    "concat": _cat,
    "stack": _stack,
    "roll": _roll,
    "flip": _flip,
    "index_select": _index_select,
    "index": _index,
    "repeat": _repeat,
    "pixel_shuffle": _pixel_shuffle,
    "pixel_unshuffle": _pixel_unshuffle,
    "channel_shuffle": _channel_shuffle,
    **dict.fromkeys(("zeros_like", "new_zeros"), _constant_of_shape(0.0)),
    **dict.fromkeys(("ones_like", "new_ones"), _constant_of_shape(1.0)),
}
