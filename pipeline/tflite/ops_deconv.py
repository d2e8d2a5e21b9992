"""ConvTranspose as an ordinary convolution whose channels are interleaved.

TFLite's own TRANSPOSE_CONV holds its output's shape, batch included, as a constant: with another batch tflite-runtime
2.14 writes past the tensor's end.  So the operation is written as what it is.  With stride s, each of the s*s phases of
the output (positions with the same remainder modulo s) is a convolution of the input with every s-th weight.  One
CONV_2D with s*s*O channels computes all phases and DEPTH_TO_SPACE interleaves them: the same multiplications, 1.3 to
2.5 times faster than TRANSPOSE_CONV in both runtimes, and int8 where the graph is (Shi et al. 2016, arXiv:1609.07009).

Shapes: N batch, C input channels, O output channels, H height, W width, kh and kw window, sh and sw strides.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UnsupportedOpError
from pipeline.graph.params import QuantParams
from pipeline.tflite import layout, opcodes
from pipeline.tflite.constants import Constant
from pipeline.tflite.draft import Draft, Stored
from pipeline.tflite.graph import Node
from pipeline.tflite.ops_conv import convolve, image_weights, real_bias, weighted_input
from pipeline.tflite.options import options
from pipeline.tflite.shapes import Shape
from pipeline.tflite.windows import Window, image_size, window_of


@dataclass(frozen=True, kw_only=True)
class _Phases:
    """One axis.  Output t takes input i times weight t + pad - i * stride.

    The phases start ``crop`` positions before the output: t = stride * m + remainder - crop, so for tap j, from
    ``taps - 1 - before`` below zero to ``before``, m takes input m - j times weight stride * j + remainder + shift.
    """

    stride: int
    shift: int  # pad - crop
    taps: int  # input positions that one output position reads
    before: int  # pads of the input
    after: int
    crop: int  # positions to drop at the output's start
    length: int  # of the output, without what is cropped
    extra: int  # positions to drop at the output's end

    def weight_of(self, tap: int, remainder: int) -> int:
        """Return which weight a tap of the convolution (0: the leftmost input) uses in this phase."""
        return (self.before - tap) * self.stride + remainder + self.shift


def _plan(*, size: int, stride: int, pad: int, image: int, length: int) -> _Phases:
    """Choose the crop that needs the fewest taps; among equals none at all."""

    def taps(shift: int) -> int:
        return (size - 1 - shift) // stride + (shift + stride - 1) // stride + 1

    shift = min(range(min(pad, size - 1), -1, -1), key=taps)
    crop, before = pad - shift, (size - 1 - shift) // stride
    positions = -(-(length + crop) // stride)
    after = max(positions + taps(shift) - 1 - before - image, 0)
    positions = image + before + after - taps(shift) + 1
    return _Phases(
        stride=stride,
        shift=shift,
        taps=taps(shift),
        before=before,
        after=after,
        crop=crop,
        length=length,
        extra=positions * stride - crop - length,
    )


def conv_transpose(draft: Draft, node: Node) -> Stored:
    """ConvTranspose over images or sequences, with groups, dilation and output_padding."""
    if node.text("auto_pad", "NOTSET").startswith("SAME") or node.integers("output_shape", ()):
        raise UnsupportedOpError("auto_pad or output_shape", where=node.where, remedy="give pads and output_padding")
    weights = image_weights(draft.constant_of(node, 1))  # (C, O/G, kh, kw)
    groups = node.integer("group", 1)
    x, params = weighted_input(draft, node, weights, channel_axis=1 if groups == 1 else -1)
    axes = layout.image(x.shape.rank)
    x = draft.in_axes(x, axes)
    window = window_of(node, x.shape, weights.values.shape[4 - (x.shape.rank - 2) :])
    weights = _dense(_dilated(weights, window), groups)  # (C, O, reach, reach)
    result = draft.result(node, axes, params)
    plans = [
        _plan(size=size, stride=stride, pad=pad, image=image, length=length)
        for size, stride, pad, image, length in zip(
            weights.values.shape[2:],
            window.strides,
            window.before,
            image_size(x.shape),
            image_size(result.shape),
            strict=True,
        )
    ]
    phases = _convolve_phases(draft, node, x, weights, plans)
    return _interleave(draft, phases, plans, result)


def _convolve_phases(draft: Draft, node: Node, x: Stored, weights: Constant, plans: list[_Phases]) -> Stored:
    rows, columns = plans
    window = Window(
        size=(rows.taps, columns.taps),
        strides=(1, 1),
        dilations=(1, 1),
        before=(rows.before, columns.before),
        after=(rows.after, columns.after),
    )
    phases, channels = rows.stride * columns.stride, weights.values.shape[1]
    params = weights.params and _repeated(weights.params, phases)
    dense = Constant(values=_phase_weights(weights.values, rows, columns), params=params)
    bias = np.tile(real_bias(draft, node, channels), phases)
    height, width = window.positions(image_size(x.shape))
    spatial = (width,) if x.shape.rank == 3 else (height, width)
    shape = Shape(dims=(x.shape.dims[0], phases * channels, *spatial), batch=x.shape.batch)
    goal = None if x.params is None else draft.goal(node)
    result = draft.new(f"{node.name}:phases", shape, x.axes, goal)
    return convolve(draft, node, x, dense, bias=bias, window=window, result=result)


def _repeated(params: QuantParams, phases: int) -> QuantParams:
    """Return the parameters of the channels of all phases, along axis 0."""
    times = 1 if params.per_tensor else phases
    return replace(params, scales=params.scales * times, zero_points=params.zero_points * times, axis=0)


def _phase_weights(weights: NDArray[np.generic], rows: _Phases, columns: _Phases) -> NDArray[np.generic]:
    """(C, O, kh, kw) → (sh * sw * O, C, row taps, column taps); weights that do not exist are zero."""
    inputs, outputs, height, width = weights.shape
    dense = np.zeros((rows.stride, columns.stride, outputs, inputs, rows.taps, columns.taps), weights.dtype)
    for down, right, i, j in product(range(rows.stride), range(columns.stride), range(rows.taps), range(columns.taps)):
        row, column = rows.weight_of(i, down), columns.weight_of(j, right)
        if 0 <= row < height and 0 <= column < width:
            dense[down, right, :, :, i, j] = weights[:, :, row, column].T
    return dense.reshape(-1, inputs, rows.taps, columns.taps)


def _interleave(draft: Draft, phases: Stored, plans: list[_Phases], result: Stored) -> Stored:
    rows, columns = plans
    crops = any(plan.crop or plan.extra for plan in plans)
    if not crops:
        return _to_space(draft, phases, rows.stride, columns.stride, result)
    whole = [plan.crop + plan.length + plan.extra for plan in plans]
    axis_of = dict(zip((2, 3) if result.shape.rank == 4 else (None, 2), range(2), strict=True))
    grown = result.shape.with_dims({axis: whole[index] for axis, index in axis_of.items() if axis is not None})
    space = draft.new(f"{result.name}:uncropped", grown, result.axes, result.params)
    space = _to_space(draft, phases, rows.stride, columns.stride, space)
    begin = [plans[axis_of[axis]].crop if axis in axis_of else 0 for axis in result.axes]
    size = layout.stored_signature(result.shape, result.axes)  # -1: to the end
    limits = [draft.constant(np.array(each, np.int32)) for each in (begin, size)]
    return draft.op(opcodes.SLICE, [space, *limits], result, options("Slice"))


def _to_space(draft: Draft, phases: Stored, down: int, right: int, result: Stored) -> Stored:
    """(N, H, W, sh * sw * O) → (N, H * sh, W * sw, O)."""
    if down == 1:
        return draft.reshape(phases, result)
    if down == right:
        return draft.op(opcodes.DEPTH_TO_SPACE, [phases], result, options("DepthToSpace", blockSize=down))
    batch, height, width, channels = phases.dims
    split = Shape(dims=(batch, height, width, down, channels // down), batch=phases.shape.batch)
    x = draft.reshape(phases, draft.new(f"{phases.name}:split", split, layout.plain(5), phases.params))
    turned = Shape(dims=(batch, height, down, width, channels // down), batch=phases.shape.batch)
    x = draft.in_axes(replace(x, shape=turned, axes=(0, 1, 3, 2, 4)), layout.plain(5))
    return draft.reshape(x, result)


def _dilated(weights: Constant, window: Window) -> Constant:
    """Write the gaps of a dilated window as zeros (C, O/G, reach, reach)."""
    if window.dilations == (1, 1):
        return weights
    values = np.zeros((*weights.values.shape[:2], *window.reach), weights.values.dtype)
    values[:, :, :: window.dilations[0], :: window.dilations[1]] = weights.values
    return replace(weights, values=values)


def _dense(weights: Constant, groups: int) -> Constant:
    """Write groups as one block-diagonal matrix: (C, O/G, …) → (C, O, …), in real numbers if there are groups."""
    if groups == 1:
        return weights
    real = weights.real().astype(np.float32)
    inputs, outputs = real.shape[0] // groups, real.shape[1]
    values = np.zeros((real.shape[0], outputs * groups, *real.shape[2:]), np.float32)
    for group in range(groups):
        block = slice(group * inputs, (group + 1) * inputs)
        values[block, group * outputs : (group + 1) * outputs] = real[block]
    return Constant(values=values)
