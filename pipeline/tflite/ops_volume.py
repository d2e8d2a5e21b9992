"""Conv and ConvTranspose over volumes; over images and sequences as ``ops_conv`` and ``ops_deconv`` write them.

TFLite's own CONV_3D is float and has no groups.  So the frames that a kernel reads at one depth are put side by side as
channels, the depth goes along with the batch, and one CONV_2D does the rest, int8 where the graph is.

Shapes: N batch, C input channels, O output channels, G groups, D depth, H height, W width, kd, kh and kw window.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from pipeline.graph.params import QuantParams
from pipeline.tflite import layout, opcodes, ops_conv, ops_deconv
from pipeline.tflite.constants import Array, Constant
from pipeline.tflite.draft import Draft, Stored
from pipeline.tflite.graph import Node
from pipeline.tflite.ops_conv import convolve, real_bias, weighted_input
from pipeline.tflite.options import options
from pipeline.tflite.shapes import Shape
from pipeline.tflite.windows import Pair, Window, pad

_RANK = 5
_VOLUME: layout.Axes = (0, 2, 3, 4, 1)  # (N, D, H, W, C)
_FRAMES: layout.Axes = (0, 2, 3, 1)  # (N * D, H, W, C)
Triple = tuple[int, int, int]  # depth, height, width


@dataclass(frozen=True, kw_only=True)
class _Steps:
    """How a window moves over a volume that is padded already."""

    strides: Triple
    dilations: Triple
    groups: int


def conv(draft: Draft, node: Node) -> Stored:
    """Conv over volumes, images or sequences."""
    if draft.value(node).shape.rank != _RANK:
        return ops_conv.conv(draft, node)
    weights = draft.constant_of(node, 1)  # (O, C/G, kd, kh, kw)
    x, params = weighted_input(draft, node, weights, channel_axis=0)
    pads = node.integers("pads", (0,) * 6)
    x = _fitted(draft, draft.in_axes(x, _VOLUME), {axis + 2: (pads[axis], pads[axis + 3]) for axis in range(3)})
    steps = _Steps(
        strides=_triple(node, "strides"), dilations=_triple(node, "dilations"), groups=node.integer("group", 1)
    )
    return _convolved(draft, node, x, weights, params, steps)


def conv_transpose(draft: Draft, node: Node) -> Stored:
    """ConvTranspose over volumes, as a convolution over what it reads with zeros between; images as ``ops_deconv``."""
    if draft.value(node).shape.rank != _RANK:
        return ops_deconv.conv_transpose(draft, node)
    weights, groups = draft.constant_of(node, 1).real().astype(np.float32), node.integer("group", 1)
    strides, dilations = _triple(node, "strides"), _triple(node, "dilations")
    x = draft.in_axes(draft.as_float(draft.value(node)), _VOLUME)
    starts = node.integers("pads", (0,) * 6)[:3]
    amounts: dict[int, Pair] = {}
    for axis, (size, stride, gap, start) in enumerate(zip(weights.shape[2:], strides, dilations, starts, strict=True)):
        x = _spread(draft, x, axis + 2, stride)
        reach = gap * (size - 1)
        before = reach - start
        amounts[axis + 2] = (before, draft.shape(node).dims[axis + 2] + reach - before - x.shape.dims[axis + 2])
    turned = Constant(values=_turned(weights, groups))
    steps = _Steps(strides=(1, 1, 1), dilations=dilations, groups=groups)
    return _convolved(draft, node, _fitted(draft, x, amounts), turned, None, steps)


def _triple(node: Node, name: str) -> Triple:
    depth, height, width = node.integers(name, (1, 1, 1))
    return depth, height, width


def _turned(weights: Array, groups: int) -> Array:
    """(C, O/G, …) → (O, C/G, …), each kernel turned round."""
    blocks = [np.flip(each, (2, 3, 4)).swapaxes(0, 1) for each in np.split(weights, groups)]
    return np.concatenate(blocks)


def _convolved(  # noqa: PLR0917
    draft: Draft, node: Node, x: Stored, weights: Constant, params: QuantParams | None, steps: _Steps
) -> Stored:
    values = weights.values
    outputs, per_group, depth = values.shape[:3]
    frames = _frames(draft, x, draft.shape(node).dims[2], depth, steps)
    flat = values.transpose(0, 2, 1, 3, 4).reshape(outputs, depth * per_group, *values.shape[3:])
    window = Window(
        size=(values.shape[3], values.shape[4]), strides=steps.strides[1:], dilations=steps.dilations[1:],
        before=(0, 0), after=(0, 0),
    )  # fmt: skip
    after = draft.shape(node).dims
    shape = Shape(dims=(after[2], outputs, *after[3:]), batch=0)
    result = draft.new(f"{node.name}:frames", shape, _FRAMES, params)
    bias = real_bias(draft, node, outputs)
    stored = replace(weights, values=flat)
    convolved = convolve(draft, node, frames, stored, bias=bias, window=window, result=result)
    return draft.reshape(convolved, draft.result(node, _VOLUME, params))


def _frames(draft: Draft, x: Stored, after: int, size: int, steps: _Steps) -> Stored:
    """(N, D, H, W, C) → (N * D', H, W, G * kd * C/G): what a window reads at one depth."""
    stride, gap, groups = steps.strides[0], steps.dilations[0], steps.groups
    _, channels, depth, height, width = x.shape.dims
    indices = np.array([place * stride + each * gap for place in range(after) for each in range(size)], np.int32)
    if not np.array_equal(indices, np.arange(depth)):
        rows = _read(draft, x, (1, depth, height * width * channels))
        x = draft.new(
            f"{x.name}:taken", Shape(dims=(1, after * size, rows.dims[2]), batch=0), layout.plain(3), x.params
        )
        draft.op(opcodes.GATHER, [rows, draft.constant(indices)], x, options("Gather", axis=1))
    if size > 1:
        x = _read(draft, x, (after, size, height * width, groups, channels // groups))
        turned = tuple(x.shape.dims[axis] for axis in (0, 2, 3, 1, 4))
        x = replace(x, shape=Shape(dims=turned, batch=0), axes=(0, 3, 1, 2, 4))
        x = draft.in_axes(x, layout.plain(5))
    shape = Shape(dims=(after, size * channels, height, width), batch=0)
    return draft.reshape(x, draft.new(f"{x.name}:frames", shape, _FRAMES, x.params))


def _read(draft: Draft, x: Stored, dims: tuple[int, ...]) -> Stored:
    """Read the elements as they lie in another shape, the batch in front."""
    shape = Shape(dims=dims, batch=0)
    return draft.reshape(x, draft.new(f"{x.name}:read", shape, layout.plain(len(dims)), x.params))


def _fitted(draft: Draft, x: Stored, amounts: Mapping[int, Pair]) -> Stored:
    """Add zeros before and after ONNX axes; of a negative amount elements go."""
    cut = {axis: (max(-before, 0), max(-after, 0)) for axis, (before, after) in amounts.items()}
    if any(map(any, cut.values())):
        shape = x.shape.with_dims({axis: x.shape.dims[axis] - sum(pair) for axis, pair in cut.items()})
        begin = [0 if axis is None else cut.get(axis, (0, 0))[0] for axis in x.axes]
        result = draft.new(f"{x.name}:cut", shape, x.axes, x.params)
        bounds = [draft.constant(np.array(e, np.int32)) for e in (begin, layout.stored_signature(shape, x.axes))]
        x = draft.op(opcodes.SLICE, [x, *bounds], result, options("Slice"))
    pads = {axis: (max(before, 0), max(after, 0)) for axis, (before, after) in amounts.items()}
    pads = {axis: pair for axis, pair in pads.items() if any(pair)}
    return pad(draft, x, pads) if pads else x


def _spread(draft: Draft, x: Stored, axis: int, stride: int) -> Stored:
    """Put stride - 1 zeros behind each element along an axis."""
    if stride == 1:
        return x
    position = x.axes.index(axis)
    behind = int(np.prod(x.dims[position + 1 :]))
    rows = _read(draft, x, (int(np.prod(x.dims[: position + 1])), behind))
    wide = pad(draft, rows, {1: (0, (stride - 1) * behind)})
    shape = x.shape.with_dims({axis: x.shape.dims[axis] * stride})
    return draft.reshape(wide, draft.new(f"{x.name}:spread", shape, x.axes, x.params))
