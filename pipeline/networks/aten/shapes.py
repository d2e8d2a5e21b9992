"""ATen functions that only move elements: most of them are another reading of the same values."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

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
    return _taken(flat, call, value, axis, len(indices), lambda stored: ops.Gather(stored, indices))


def sliced(flat: FlatGraph, call: Call, value: Value, axis: int, places: range) -> Value:
    """Take a range along one axis of a tensor."""
    axis %= len(value.axes)
    if places == range(value.shape[axis]):
        return value
    start, stop, step = places.start, places.stop, places.step
    return _taken(flat, call, value, axis, len(places), lambda stored: ops.Slice(stored, start, stop, step))


def _taken(  # noqa: PLR0917
    flat: FlatGraph, call: Call, value: Value, axis: int, count: int, make: Callable[[int], nn.Module]
) -> Value:
    stored = value.stored_axis(axis)
    if stored is None:
        value = flat.arranged(call, value)
        stored = value.stored_axis(axis)
    if not stored:
        raise Refusal(f"{call.name} along the batch")
    dims = tuple(count if place == stored else side for place, side in enumerate(value.dims))
    return value.with_node(flat.add(call, make(stored), [value.node], dims), dims)


def padded(flat: FlatGraph, call: Call, value: Value, pads: Sequence[int], fill: float) -> Value:
    """Pad as ``torch.nn.functional.pad`` does: two amounts for each axis, the last one first; negative ones cut."""
    rank = len(value.axes)
    for pair in range(len(pads) // 2):
        before, after = (min(each, 0) for each in pads[2 * pair : 2 * pair + 2])
        if before or after:
            side = value.shape[rank - 1 - pair]
            value = sliced(flat, call.within("crop"), value, rank - 1 - pair, range(-before, side + after))
    amounts = {rank - 1 - pair: (max(pads[2 * pair], 0), max(pads[2 * pair + 1], 0)) for pair in range(len(pads) // 2)}
    amounts = {axis: pair for axis, pair in amounts.items() if any(pair)}
    if not amounts:
        return value
    value = flat.arranged(call, value)
    stored = {value.stored_axis(axis): pair for axis, pair in amounts.items()}
    if not all(stored):
        raise Refusal("padding that mixes the batch with other axes")
    dims = [side + sum(stored.get(axis, (0, 0))) for axis, side in enumerate(value.dims)]
    first = min(axis for axis in stored if axis)
    flat_pads = [amount for axis in range(len(dims) - 1, first - 1, -1) for amount in stored.get(axis, (0, 0))]
    node = flat.add(call, ops.Pad(tuple(flat_pads), fill), [value.node], dims)
    return value.with_node(node, tuple(dims))


def _slice(flat: FlatGraph, call: Call) -> Value:
    value, axis = call.value(), call["dim"] or 0
    side = value.shape[axis]
    return sliced(flat, call, value, axis, range(side)[call["start"] : call["end"] : call["step"] or 1])


def _without(value: Value, axis: int) -> Value:
    axis %= len(value.axes)
    return replace(value, axes=tuple(group for place, group in enumerate(value.axes) if place != axis))


def selected(flat: FlatGraph, call: Call, value: Value, axis: int, index: int) -> Value:
    """Take one element along an axis, which is gone then."""
    return _without(sliced(flat, call, value, axis, range(index, index + 1)), axis)


def _select(flat: FlatGraph, call: Call) -> Value:
    value, axis = call.value(), call["dim"]
    return selected(flat, call, value, axis, call["index"] % value.shape[axis])


def _unbind(flat: FlatGraph, call: Call) -> tuple[Value, ...]:
    value, axis = call.value(), call["dim"] or 0
    return tuple(selected(flat, call, value, axis, index) for index in range(value.shape[axis]))


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
        sliced(flat, call, value, axis, range(start, start + each)) for start, each in zip(starts, sizes, strict=True)
    )


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
    chosen = [call["indices"][axis] for axis in places]
    if not all(isinstance(each, Constant) for each in chosen):
        raise Refusal("indexing by computed values")
    first, count = places[0], len(places)
    tensors = [each.tensor for each in chosen]
    if tensors[0].dtype == torch.bool:
        count = sum(each.dim() for each in tensors)
        tensors = [axis for each in tensors for axis in each.nonzero(as_tuple=True)]
    if places != list(range(first, first + len(places))):
        raise Refusal("indexing of axes that do not lie side by side")
    shape = value.shape
    if count > 1:  # read as one axis
        whole = math.prod(shape[first : first + count])
        value = flat.reshaped(call, value, (*shape[:first], whole, *shape[first + count :]))
    indices = torch.zeros((), dtype=torch.int64)
    for tensor, side in zip(tensors, shape[first : first + count], strict=True):
        indices = indices * side + tensor % side
    taken = gathered(flat, call, value, first, indices.flatten())
    if indices.dim() == 1:
        return taken
    return flat.reshaped(call, taken, (*shape[:first], *indices.shape, *shape[first + count :]))


def _diagonal(flat: FlatGraph, call: Call) -> Value:
    """Elements on a diagonal of two axes, which become the last one."""
    value = call.value()
    axes = [call[name] % len(value.axes) for name in ("dim1", "dim2")]
    rest = [axis for axis in range(len(value.axes)) if axis not in axes]
    turned = value.permuted([*rest, *axes])
    rows, columns = turned.shape[-2:]
    places = torch.arange(rows * columns).reshape(rows, columns).diagonal(call["offset"])
    flattened = flat.reshaped(call, turned, (*turned.shape[:-2], rows * columns))
    return gathered(flat, call, flattened, len(rest), places)


def _repeat(flat: FlatGraph, call: Call) -> Value:
    value = call.value()
    repeats = list(call["repeats"])
    value = replace(value, axes=((),) * (len(repeats) - len(value.axes)) + value.axes)
    for axis, times in enumerate(repeats):
        if times != 1:
            side = value.shape[axis]
            value = gathered(flat, call, flat.arranged(call, value), axis, torch.arange(side).repeat(times))
    return value


def _repeat_interleave(flat: FlatGraph, call: Call) -> Value:
    """Each element along an axis several times in a row; of the batch, each sample's repeats stand beside it."""
    value, axis, times = call.value(), call["dim"], call["repeats"]
    if not isinstance(times, int) or axis is None:
        raise Refusal("repeat_interleave by computed counts")
    axis %= len(value.axes)
    raised = replace(value, axes=(*value.axes[: axis + 1], (), *value.axes[axis + 1 :]))
    room = flat.reshaped(call, raised, raised.shape)
    room = with_unit(flat, call, room, axis + 1)
    return flat.reshaped(call, gathered(flat, call, room, axis + 1, torch.zeros(times, dtype=torch.int64)), call.shape)


def with_unit(flat: FlatGraph, call: Call, value: Value, axis: int) -> Value:
    """Give an axis of one element, which no node has, an axis of the node."""
    if value.axes[axis]:
        return value
    value = flat.arranged(call, value)
    if value.axes[axis]:
        return value
    dims = (*value.dims, 1)
    node = flat.add(call.within("unit"), ops.Reshape(dims[1:]), [value.node], dims)
    axes = tuple((len(dims) - 1,) if place == axis else group for place, group in enumerate(value.axes))
    return Value(node=node, dims=dims, axes=axes)


def _unfold(flat: FlatGraph, call: Call) -> Value:
    """Windows along an axis: (…, L, …) → (…, count, …, size)."""
    value, axis = call.value(), call["dimension"] % len(call.value().axes)
    size, step = call["size"], call["step"]
    starts = torch.arange(0, value.shape[axis] - size + 1, step)
    indices = (starts[:, None] + torch.arange(size)).flatten()  # (count * size,)
    taken = gathered(flat, call, value, axis, indices)
    shape = taken.shape
    apart = flat.reshaped(call, taken, (*shape[:axis], len(starts), size, *shape[axis + 1 :]))
    order = [place for place in range(len(apart.axes)) if place != axis + 1]
    return apart.permuted([*order, axis + 1])


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


def _copy(flat: FlatGraph, call: Call) -> Value | Constant:
    """Give what is written into a tensor its shape."""
    source = call["src"]
    if isinstance(source, Value):
        return _expand(flat, replace(call, given={"self": source}))
    assert isinstance(source, Constant)  # noqa: S101
    return replace(source, tensor=source.tensor.detach().expand(_without_batch(call.shape)), learned=False)


def _fill(_: FlatGraph, call: Call) -> Constant:
    filled = call["value"].tensor if isinstance(call["value"], Constant) else call["value"]
    return Constant(tensor=torch.full(_without_batch(call.shape), float(filled)), name="", learned=False)


def _without_batch(shape: Sequence[int]) -> list[int]:
    return [side // BATCH if side % BATCH == 0 else side for side in shape]


def _constant_of_shape(number: float | None) -> Handler:
    def convert(_: FlatGraph, call: Call) -> Constant:
        filled = call["fill_value"] if number is None else number
        tensor = torch.full(_without_batch(call.shape), filled, dtype=torch.float32)
        return Constant(tensor=tensor, name="", learned=False)

    return convert


SHAPES: Mapping[str, Handler] = {
    **dict.fromkeys(("view", "reshape", "flatten", "unflatten", "_unsafe_view", "squeeze", "unsqueeze"), _reshape),
    "permute": _permute,
    **dict.fromkeys(("transpose", "t", "swapaxes", "swapdims"), _transpose),
    "expand": _expand,
    "expand_as": _expand,
    "copy": _copy,
    "fill": _fill,
    "slice": _slice,
    "select": _select,
    "unbind": _unbind,
    **dict.fromkeys(("split", "split_with_sizes", "chunk"), _split),
    "flip": _flip,
    "index_select": _index_select,
    "index": _index,
    "diagonal": _diagonal,
    "repeat": _repeat,
    "repeat_interleave": _repeat_interleave,
    "unfold": _unfold,
    "pixel_shuffle": _pixel_shuffle,
    "pixel_unshuffle": _pixel_unshuffle,
    "channel_shuffle": _channel_shuffle,
    **dict.fromkeys(("zeros_like", "new_zeros"), _constant_of_shape(0.0)),
    **dict.fromkeys(("full_like", "new_full"), _constant_of_shape(None)),
    **dict.fromkeys(("ones_like", "new_ones"), _constant_of_shape(1.0)),
}
