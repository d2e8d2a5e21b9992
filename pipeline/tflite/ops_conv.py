"""Conv as CONV_2D or DEPTHWISE_CONV_2D.

Shapes: N batch, C input channels, O output channels, G groups, H height, W width, kh and kw window.
ONNX weights are (O, C/G, kh, kw); TFLite's are (O, kh, kw, C/G), depthwise (1, kh, kw, O).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pipeline.graph.params import INT32, QuantParams
from pipeline.tflite import layout, opcodes
from pipeline.tflite.constants import Constant
from pipeline.tflite.draft import Draft, Stored
from pipeline.tflite.graph import Node
from pipeline.tflite.options import options
from pipeline.tflite.windows import Window, apply_pads, window_of


def conv(draft: Draft, node: Node) -> Stored:
    """Conv over images or sequences, with groups, as CONV_2D or DEPTHWISE_CONV_2D."""
    weights = image_weights(draft.constant_of(node, 1))  # (O, C/G, kh, kw)
    x, params = weighted_input(draft, node, weights, channel_axis=0)
    x = draft.in_axes(x, layout.image(x.shape.rank))
    window = window_of(node, x.shape, weights.values.shape[-(x.shape.rank - 2) :])
    bias = real_bias(draft, node, weights.values.shape[0])
    result = draft.result(node, layout.image(x.shape.rank), params)
    return convolve(draft, node, x, weights, bias=bias, window=window, result=result)


def weighted_input(
    draft: Draft, node: Node, weights: Constant, *, channel_axis: int
) -> tuple[Stored, QuantParams | None]:
    """Return a weighted layer's input and its output's parameters: int8 if all its parts are, else float."""
    x, goal = draft.value(node), draft.goal(node)
    if x.params is not None and goal is not None and weights.is_symmetric_int8(channel_axis):
        return x, goal
    return draft.as_float(x), None


def real_bias(draft: Draft, node: Node, channels: int) -> NDArray[np.float64]:
    """Return the bias (channels,) in real numbers; zeros when there is none."""
    if not node.input(2):
        return np.zeros(channels)
    return np.broadcast_to(draft.constant_of(node, 2).real().ravel(), (channels,))


def weights_and_bias(
    draft: Draft,
    node: Node,
    x: Stored,
    weights: Constant,
    bias: NDArray[np.float64],
) -> list[Stored | int]:
    """Store weights (in TFLite's order, ``axis`` their output channels) and bias, as the input needs them."""
    weights_name, bias_name = f"{node.name}.weight", f"{node.name}.bias"
    if x.params is None or weights.params is None:
        real = weights.real().astype(np.float32)
        return [draft.constant(real, name=weights_name), draft.constant(bias.astype(np.float32), name=bias_name)]
    scale = (x.params.scale * np.array(weights.params.scales)).astype(np.float32)  # of the accumulator
    steps = np.clip(np.rint(bias / scale), *INT32).astype(np.int32)
    params = QuantParams(scales=tuple(scale.tolist()), zero_points=(0,) * scale.size, grid=INT32)
    return [
        draft.constant(weights.values, weights.params, name=weights_name),
        draft.constant(steps, params, name=bias_name),
    ]


def convolve(
    draft: Draft,
    node: Node,
    x: Stored,
    weights: Constant,
    *,
    bias: NDArray[np.float64],
    window: Window,
    result: Stored,
) -> Stored:
    """Slide ``weights`` (O, C/G, kh, kw) over ``x``, which lies channels last; ``result`` has its tensor already."""
    channels, per_group = x.shape.dims[1], weights.values.shape[1]
    depthwise = per_group == 1 and channels > 1
    x, padding = apply_pads(draft, x, window)
    shared = {
        "padding": padding,
        "strideH": window.strides[0],
        "strideW": window.strides[1],
        "dilationHFactor": window.dilations[0],
        "dilationWFactor": window.dilations[1],
    }
    if depthwise:
        multiplier = weights.values.shape[0] // channels
        table = options("DepthwiseConv2D", node.activation, depthMultiplier=multiplier, **shared)
        order, axis, opcode = (1, 2, 3, 0), 3, opcodes.DEPTHWISE_CONV_2D
    else:
        table = options("Conv2D", node.activation, **shared)
        opcode = opcodes.CONV_2D if per_group == channels else opcodes.GROUPED_CONV_2D
        order, axis = (0, 2, 3, 1), 0
    params = weights.params and replace(weights.params, axis=axis)
    stored = Constant(values=weights.values.transpose(order), params=params)
    return draft.op(opcode, [x, *weights_and_bias(draft, node, x, stored, bias)], result, table)


def image_weights(weights: Constant) -> Constant:
    """Return weights over sequences (O, C/G, k) as weights over images (O, C/G, 1, k)."""
    return replace(weights, values=np.expand_dims(weights.values, 2)) if weights.values.ndim == 3 else weights
