"""Pools, global pools and means.

int8: MAX_POOL_2D, AVERAGE_POOL_2D and REDUCE_MAX keep their input's scale; MEAN may have its own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UnsupportedOpError
from pipeline.tflite import layout, opcodes
from pipeline.tflite.draft import Draft, Stored
from pipeline.tflite.graph import Activation, Node
from pipeline.tflite.options import SAME, VALID, options
from pipeline.tflite.windows import Pair, Window, apply_pads, image_size, padded, window_of


def max_pool(draft: Draft, node: Node) -> Stored:
    """MaxPool; padded positions never win."""
    x = draft.value(node)
    x = draft.in_axes(x, layout.image(x.shape.rank))
    window = _pool_window(draft, node, x)
    result = draft.result(node, x.axes, x.params)
    x, padding = apply_pads(draft, x, window, lowest=not _never_negative(draft, node, x))
    return draft.op(opcodes.MAX_POOL_2D, [x], result, _pool_options(window, padding))


def _never_negative(draft: Draft, node: Node, x: Stored) -> bool:
    """Tell whether padded zeros never win either: PAD stays inside XNNPACK's part of the graph, PADV2 splits it."""
    if x.params is not None:
        return x.params.lowest >= 0
    made_by = next((each for each in draft.graph.nodes if each.output == node.input(0)), None)
    rectified = (Activation.RELU, Activation.RELU6)
    return made_by is not None and (made_by.op == "Relu" or made_by.activation in rectified)


def average_pool(draft: Draft, node: Node) -> Stored:
    """AveragePool, with padded positions counted or not."""
    x = draft.value(node)
    x = x if draft.goal(node) is not None else draft.as_float(x)
    x = draft.in_axes(x, layout.image(x.shape.rank))
    window = _pool_window(draft, node, x)
    image, counts_pads = image_size(x.shape), bool(node.integer("count_include_pad", 0))
    if window.has_pads and not counts_pads and window.is_same(image):  # SAME does not count what it pads
        return _average(draft, x, window, SAME, draft.result(node, x.axes, x.params))
    if counts_pads or not window.has_pads:
        result = draft.result(node, x.axes, x.params)
        return _average(draft, padded(draft, x, window), window, VALID, result)
    x = draft.as_float(x)  # the correction has no place on int8's grid
    result = draft.result(node, x.axes, None)
    counted = draft.like(result, f"{node.name}:counted", None)
    counted = _average(draft, padded(draft, x, window), window, VALID, counted)
    return draft.op(opcodes.MUL, [counted, draft.constant(_uncounted(window, image))], result, options("Mul"))


def global_max_pool(draft: Draft, node: Node) -> Stored:
    """GlobalMaxPool over all axes after the channels."""
    x = draft.value(node)
    spatial = set(range(2, x.shape.rank))
    positions = _stored_positions(x, spatial)
    result = draft.result(node, x.axes, x.params)
    return draft.op(opcodes.REDUCE_MAX, [x, draft.constant(positions)], result, options("Reducer", keepDims=True))


def global_average_pool(draft: Draft, node: Node) -> Stored:
    """GlobalAveragePool over all axes after the channels."""
    rank = draft.value(node).shape.rank
    return _mean(draft, node, set(range(2, rank)), keeps=True)


def reduce_mean(draft: Draft, node: Node) -> Stored:
    """ReduceMean over any axes but the batch."""
    rank = draft.value(node).shape.rank
    reduced = reduced_axes(draft, node, rank) or set(range(rank))
    if draft.value(node).shape.batch in reduced:
        raise UnsupportedOpError("a mean over the batch", where=node.where, remedy="reduce over other axes")
    return _mean(draft, node, reduced, keeps=bool(node.integer("keepdims", 1)))


def reduced_axes(draft: Draft, node: Node, rank: int) -> set[int]:
    """Return the axes that a reduction names, from opset 18 on as an input; none where it names none."""
    axes: Iterable[int] = node.integers("axes", ())
    if node.input(1):
        axes = map(int, draft.constant_of(node, 1).values.ravel())
    return {axis % rank for axis in axes}


def _mean(draft: Draft, node: Node, reduced: set[int], *, keeps: bool) -> Stored:
    x, goal = draft.value(node), draft.goal(node)
    if x.params is None or goal is None:
        x, goal = draft.as_float(x), None
    positions = _stored_positions(x, reduced)
    if keeps:
        axes = x.axes
    else:
        kept = [axis for axis in range(x.shape.rank) if axis not in reduced]
        left = tuple(axis for axis in x.axes if axis not in reduced)
        axes = layout.relabelled(left, {axis: index for index, axis in enumerate(kept)}.get)
    result = draft.result(node, axes, goal)
    return draft.op(opcodes.MEAN, [x, draft.constant(positions)], result, options("Reducer", keepDims=keeps))


def _stored_positions(x: Stored, reduced: Collection[int]) -> NDArray[np.int32]:
    """Return where the reduced axes lie in the tensor."""
    return np.array([position for position, axis in enumerate(x.axes) if axis in reduced], np.int32)


def _pool_window(draft: Draft, node: Node, x: Stored) -> Window:
    window = window_of(node, x.shape, node.integers("kernel_shape", ()))
    if window.dilations != (1, 1):
        raise UnsupportedOpError("a dilated pool", where=node.where, remedy="use dilation 1")
    if window.positions(image_size(x.shape)) != image_size(draft.shape(node)):
        raise UnsupportedOpError(
            "ceil_mode adds a position here", where=node.where, remedy="use ceil_mode=False and pad explicitly"
        )
    return window


def _pool_options(window: Window, padding: int) -> object:
    (height, width), (down, right) = window.size, window.strides
    return options("Pool2D", padding=padding, filterHeight=height, filterWidth=width, strideH=down, strideW=right)


def _average(draft: Draft, x: Stored, window: Window, padding: int, result: Stored) -> Stored:
    return draft.op(opcodes.AVERAGE_POOL_2D, [x], result, _pool_options(window, padding))


def _uncounted(window: Window, image: Pair) -> NDArray[np.float32]:
    """Window size / positions that lie inside the image, (1, H, W, 1)."""
    inside = np.ones((1, 1))
    for axis in range(2):
        length = window.positions(image)[axis]
        starts = np.arange(length) * window.strides[axis] - window.before[axis]
        ends = np.minimum(starts + window.size[axis], image[axis])
        inside = inside * np.expand_dims(ends - np.maximum(starts, 0), 1 - axis)
    whole = window.size[0] * window.size[1]
    correction: NDArray[np.float32] = (whole / inside).astype(np.float32)[None, :, :, None]
    return correction
