"""Nodes that move elements, or read them in another shape."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.networks.onnx.modules import Selected
from pipeline.networks.onnx.nodes import Array, Handler, Node, tensor_of
from pipeline.networks.onnx.values import Refusal, Value


def reshaped(node: Node, x: Value, shape: Sequence[int], part: str = "") -> Value:
    """Read a value in another shape."""
    shape = tuple(shape)
    if math.prod(shape) != math.prod(x.shape):
        raise Refusal(f"reads {list(x.shape)} as {list(shape)}")
    if not node.lifted:
        if shape[:1] != (1,):
            node.axis(0, 1)
        if len(shape) == 2:
            return node.run(nn.Flatten(), x, part=part)
        return node.run(lambda y: y.reshape(y.shape[0], *shape[1:]), x, part=part)
    return node.run(lambda y: y.reshape(y.shape[0], *shape), x, part=part)


def _reshape(node: Node) -> Value:
    x, wanted = node.value(), node.whole_numbers("shape", 1)
    if wanted is None:
        raise Refusal("does not say to which shape")
    zeros = not node.attribute("allowzero", 0)
    shape = [x.shape[at] if side == 0 and zeros and at < len(x.shape) else side for at, side in enumerate(wanted)]
    if shape.count(-1) == 1:
        rest = -math.prod(shape)
        if not rest or math.prod(x.shape) % rest:
            raise Refusal(f"reads {list(x.shape)} as {list(wanted)}")
        shape[shape.index(-1)] = math.prod(x.shape) // rest
    return reshaped(node, x, shape)


def _flatten(node: Node) -> Value:
    x = node.value()
    axis = node.attribute("axis", 1)
    axis = axis + len(x.shape) if axis < 0 else axis
    return reshaped(node, x, (math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))


def _squeeze(node: Node) -> Value:
    x = node.value()
    rank, axes = len(x.shape), node.whole_numbers("axes", 1)
    gone = {axis % rank for axis in axes} if axes is not None else {at for at, side in enumerate(x.shape) if side == 1}
    if any(x.shape[axis] != 1 for axis in gone):
        raise Refusal("takes away an axis that has more than one element")
    return reshaped(node, x, [side for at, side in enumerate(x.shape) if at not in gone])


def _unsqueeze(node: Node) -> Value:
    x, axes = node.value(), node.whole_numbers("axes", 1) or ()
    rank = len(x.shape) + len(axes)
    new = {axis % rank for axis in axes}
    rest = iter(x.shape)
    return reshaped(node, x, [1 if at in new else next(rest) for at in range(rank)])


def _transpose(node: Node) -> Value:
    x = node.value()
    rank = len(x.shape)
    order = node.attribute("perm") or tuple(reversed(range(rank)))
    if order == tuple(range(rank)):
        return x
    if not node.lifted and order[0] != 0:
        node.axis(0, rank)
    lying = (0, *(axis + 1 for axis in order)) if node.lifted else order
    return node.run(lambda y: y.permute(lying), x)


def _concat(node: Node) -> Value:
    given = [each for each in node.inputs if each is not None and 0 not in each.shape]
    values = [each for each in given if isinstance(each, Value)]
    axis = node.axis(node.attribute("axis", 1), len(values[0].shape))
    if len(given) == 1:
        return values[0]
    constants = {place: each for place, each in enumerate(given) if not isinstance(each, Value)}
    if not constants:
        return node.run(lambda *parts: torch.cat(parts, axis), *values)
    tensors = {at: tensor_of(each)[None] if node.lifted else tensor_of(each) for at, each in constants.items()}
    if not node.lifted and any(each.shape[0] != 1 for each in tensors.values()):
        node.axis(0, 1)

    def joined(*parts: Tensor) -> Tensor:
        whole = list(parts)
        for at, tensor in tensors.items():
            whole.insert(at, tensor.to(parts[0].device).expand(parts[0].shape[0], *tensor.shape[1:]))
        return torch.cat(whole, axis)

    return node.run(joined, *values)


def _split(node: Node) -> tuple[Value, ...]:
    x = node.value()
    rank, axis = len(x.shape), node.attribute("axis", 0)
    side, count = x.shape[axis], len(node.wanted)
    sizes = node.whole_numbers("split", 1)
    if sizes is None:
        each = math.ceil(side / count)
        sizes = tuple(min(each, side - at * each) for at in range(count))
    if sum(sizes) != side or min(sizes) < 0:
        raise Refusal(f"splits {side} elements into {list(sizes)}")
    lying = node.axis(axis, rank)
    starts = [sum(sizes[:number]) for number in range(len(sizes))]
    return tuple(_taken(node, x, lying, start, size) for start, size in zip(starts, sizes, strict=True))


def _taken(node: Node, x: Value, axis: int, start: int, size: int) -> Value:
    cut = (slice(None),) * axis + (slice(start, start + size),)
    return node.run(lambda y: y[cut], x)


def _slice(node: Node) -> Value:
    x = node.value()
    rank = len(x.shape)
    starts, ends = node.whole_numbers("starts", 1), node.whole_numbers("ends", 2)
    if starts is None or ends is None:
        raise Refusal("does not say from where to where")
    axes = node.whole_numbers("axes", 3) or tuple(range(len(starts)))
    steps = node.whole_numbers("steps", 4) or (1,) * len(starts)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        side = x.shape[axis]
        places = range(side)[_python_slice(start, end, step, side)]
        if places == range(side):
            continue
        if not places:
            raise Refusal("takes nothing")
        x = _ranged(node, x, node.axis(axis, rank), places)
    return x


def _python_slice(start: int, end: int, step: int, side: int) -> slice:
    """With a negative step an end before the beginning means to take the first element, too."""
    if step < 0 and end < -side:
        return slice(start, None, step)
    return slice(start, end, step)


def _ranged(node: Node, x: Value, axis: int, places: range) -> Value:
    if places.step < 0:
        return _selected(node, x, axis, np.array(places))
    cut = (slice(None),) * axis + (slice(places.start, places.stop, places.step),)
    return node.run(lambda y: y[cut], x)


def _selected(node: Node, x: Value, axis: int, indices: Array) -> Value:
    return node.run(Selected(axis, torch.from_numpy(indices.astype(np.int64))), x)


def _gather(node: Node) -> Value:
    x, indices = node.value(), node.needed(1)
    rank, axis = len(x.shape), node.attribute("axis", 0)
    side, lying = x.shape[axis], node.axis(axis, rank)
    if indices.size == 0 or indices.min() < -side or indices.max() >= side:
        raise Refusal("takes elements that are not there")
    indices = indices % side
    if indices.ndim == 0:
        return node.run(lambda y: y.select(lying, int(indices)), x)
    taken = _selected(node, x, lying, indices.ravel())
    if indices.ndim == 1:
        return taken
    axis %= rank
    return reshaped(node, taken, (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]), part="apart")


def _expand(node: Node) -> Value:
    x, wanted = node.value(), node.whole_numbers("shape", 1) or ()
    shape = np.broadcast_shapes(x.shape, wanted)
    if shape == x.shape:
        return x
    if not node.lifted:
        if len(shape) != len(x.shape) or shape[0] != 1:
            node.axis(0, 1)
        return node.run(lambda y: y.expand(y.shape[0], *shape[1:]), x)
    raised = reshaped(node, x, (*(1,) * (len(shape) - len(x.shape)), *x.shape), part="raised")
    return node.run(lambda y: y.expand(y.shape[0], *shape), raised)


def _tile(node: Node) -> Value:
    x, repeats = node.value(), node.whole_numbers("repeats", 1) or ()
    if len(repeats) != len(x.shape):
        raise Refusal(f"repeats {len(x.shape)} axes {list(repeats)} times")
    if not node.lifted and repeats[0] != 1:
        node.axis(0, 1)
    times = (1, *repeats) if node.lifted else repeats
    return node.run(lambda y: y.repeat(times), x)


def _depth_to_space(node: Node) -> Value:
    size, crd = node.attribute("blocksize"), node.attribute("mode", "DCR") == "CRD"
    if crd:
        return node.layer(nn.PixelShuffle(size), node.value())

    def spread(y: Tensor) -> Tensor:
        n, channels, height, width = y.shape
        apart = y.reshape(n, size, size, channels // size**2, height, width)
        return apart.permute(0, 3, 4, 1, 5, 2).reshape(n, channels // size**2, height * size, width * size)

    return node.layer(spread, node.value())


def _space_to_depth(node: Node) -> Value:
    size = node.attribute("blocksize")

    def gathered(y: Tensor) -> Tensor:
        n, channels, height, width = y.shape
        apart = y.reshape(n, channels, height // size, size, width // size, size)
        return apart.permute(0, 3, 5, 1, 2, 4).reshape(n, channels * size**2, height // size, width // size)

    return node.layer(gathered, node.value())


def _trilu(node: Node) -> Value:
    x, shift = node.value(), int(node.number(1, 0.0))
    triangle = np.triu if node.attribute("upper", 1) else np.tril
    return node.broadcast(torch.mul, x, triangle(np.ones(x.shape[-2:], np.float32), shift))


SHAPES: Mapping[str, Handler] = {
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Transpose": _transpose,
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Gather": _gather,
    "Expand": _expand,
    "Tile": _tile,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
    "Trilu": _trilu,
}
