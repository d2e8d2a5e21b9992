"""Layers with weights.

Shapes: C channels in, O channels out, G groups, K kernel.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from pipeline.networks.onnx.modules import Stacked
from pipeline.networks.onnx.nodes import Array, Handler, Node, filled, tensor_of
from pipeline.networks.onnx.values import Refusal, TouchesBatch, Value
from pipeline.networks.onnx.windows import evened, sides_of, window_pads

_MOST_MATRICES = 256
_CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_BATCH_NORMS = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}


def _conv(node: Node) -> Value:
    weight, bias, x = node.needed(1), node.constant(2), node.value()
    axes = weight.ndim - 2
    make: Any = _CONVOLUTIONS.get(axes)
    if make is None or len(x.shape) != axes + 2:
        raise Refusal(f"is a convolution over {axes} axes")
    kernel, strides, dilations = weight.shape[2:], sides_of(node, "strides", axes), sides_of(node, "dilations", axes)
    pads = window_pads(node, x.shape[2:], kernel, strides, dilations)
    x, padding = evened(node, x, pads, 0.0)
    groups = node.attribute("group", 1)
    layer = make(
        weight.shape[1] * groups, weight.shape[0], kernel, strides, padding, dilations, groups, bias is not None
    )
    return node.layer(filled(layer, weight, bias), x)


def _conv_transpose(node: Node) -> Value:
    weight, bias, x = node.needed(1), node.constant(2), node.value()  # (C, O/G, *K)
    axes = weight.ndim - 2
    make: Any = _TRANSPOSED.get(axes)
    if make is None or len(x.shape) != axes + 2:
        raise Refusal(f"is a convolution over {axes} axes")
    strides, dilations = sides_of(node, "strides", axes), sides_of(node, "dilations", axes)
    more = node.attribute("output_padding", (0,) * axes)
    whole = tuple(
        (side - 1) * stride + (kernel - 1) * dilation + 1
        for side, stride, kernel, dilation in zip(x.shape[2:], strides, weight.shape[2:], dilations, strict=True)
    )
    before, after = _cropped(node, whole, more, x.shape[2:], strides)
    # torch cuts the same on both sides and then adds at the end
    added = tuple(first - last + extra for first, last, extra in zip(before, after, more, strict=True))
    fits = all(0 <= extra < max(pair) for extra, *pair in zip(added, strides, dilations, strict=True))
    fits = fits and min(before, default=0) >= 0
    groups = node.attribute("group", 1)
    layer = make(
        weight.shape[0],
        weight.shape[1] * groups,
        weight.shape[2:],
        strides,
        before if fits else 0,
        added if fits else 0,
        groups,
        bias is not None,
        dilations,
    )
    result = node.layer(filled(layer, weight, bias), x)
    if fits:
        return result
    if min(*before, *after) < 0 or any(more):
        raise Refusal("pads what it gives in a way that torch cannot")
    cut = tuple(slice(first, side - last) for first, last, side in zip(before, after, result.shape[2:], strict=True))
    return node.run(lambda y: y[(..., *cut)], result, part="crop")


def _cropped(
    node: Node, whole: tuple[int, ...], more: tuple[int, ...], given: tuple[int, ...], strides: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return how much is cut before and after each axis."""
    axes, mode = len(whole), node.attribute("auto_pad", "NOTSET")
    wanted = node.attribute("output_shape")
    if wanted is None and mode in ("SAME_UPPER", "SAME_LOWER"):
        wanted = tuple(side * stride for side, stride in zip(given, strides, strict=True))
    if wanted is not None:
        total = [side + extra - want for side, extra, want in zip(whole, more, wanted[-axes:], strict=True)]
        smaller, larger = [each // 2 for each in total], [each - each // 2 for each in total]
        pair = (smaller, larger) if mode == "SAME_UPPER" else (larger, smaller)
        return tuple(pair[0]), tuple(pair[1])
    pads = node.attribute("pads", (0,) * 2 * axes) if mode == "NOTSET" else (0,) * 2 * axes
    return pads[:axes], pads[axes:]


def _gemm(node: Node) -> Value:
    x, alpha, beta = node.inputs[0], float(node.attribute("alpha", 1.0)), float(node.attribute("beta", 1.0))
    added = node.inputs[2] if node.given(2) else None
    if not isinstance(x, Value) or isinstance(node.inputs[1], Value):
        return _products(node, alpha, beta)
    if node.attribute("transA", 0):
        x = _turned(node, x, "transA")
    weight = node.needed(1)
    weight = (weight if node.attribute("transB", 0) else weight.T) * np.float32(alpha)  # (O, C)
    bias = _as_bias(added, beta, len(weight))
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    result = node.run(filled(layer, weight, bias), x)
    return result if added is None or bias is not None else _sum(node, result, added, beta)


def _as_bias(added: Value | Array | None, beta: float, features: int) -> Array | None:
    """Return what is added, where it is the same for every row."""
    if added is None or isinstance(added, Value) or added.shape[:-1] not in ((), (1,)):
        return None
    return np.broadcast_to(added.reshape(-1) * np.float32(beta), (features,))


def _products(node: Node, alpha: float, beta: float) -> Value:
    """Multiply two matrices of which not just the first is computed."""
    sides: list[Value | Array] = []
    for place, name in enumerate(("transA", "transB")):
        side = node.inputs[place]
        turned = bool(node.attribute(name, 0))
        if isinstance(side, Value):
            sides.append(_turned(node, side, name) if turned else side)
        else:
            sides.append(node.needed(place).T if turned else node.needed(place))
    result = _matrix_product(node, *sides)
    if alpha != 1:
        result = node.broadcast(torch.mul, result, alpha, part="alpha")
    return _sum(node, result, node.inputs[2], beta) if node.given(2) else result


def _turned(node: Node, value: Value, part: str) -> Value:
    axes = node.axis(0, 2), node.axis(1, 2)
    return node.run(lambda y: y.transpose(*axes), value, part=part)


def _sum(node: Node, result: Value, added: Value | Array | None, beta: float) -> Value:
    if added is None:
        return result
    if beta != 1:
        added = node.broadcast(torch.mul, added, beta, part="beta") if isinstance(added, Value) else added * beta
    return node.broadcast(torch.add, result, added, part="sum")


def _matmul(node: Node) -> Value:
    a, b = node.inputs[:2]
    if isinstance(a, Value) and isinstance(b, np.ndarray) and b.ndim == 2:
        layer = nn.Linear(b.shape[0], b.shape[1], bias=node.bias is not None)
        if a.shape[-1:] != b.shape[:1]:
            raise Refusal(f"multiplies {a.shape} by {b.shape}")
        if len(a.shape) == 1 and not node.lifted:
            node.axis(0, 1)
        return node.run(filled(layer, b.T, node.bias), a)
    if a is None or b is None:
        raise Refusal("lacks an input")
    return _matrix_product(node, a, b)


def _matrix_product(node: Node, a: Value | Array, b: Value | Array) -> Value:
    if min(len(a.shape), len(b.shape)) < 2:
        return _with_vectors(node, a, b)
    if isinstance(a, Value) and isinstance(b, np.ndarray) and b.ndim > 2:
        return _stacked(node, a, b)
    if isinstance(b, Value) and isinstance(a, np.ndarray) and a.ndim > 2:  # (A b) = (b^T A^T)^T
        turned = node.run(lambda y: y.transpose(-1, -2), b, part="turned")
        return node.run(lambda y: y.transpose(-1, -2), _stacked(node, turned, np.swapaxes(a, -1, -2)))
    if not node.lifted and min(len(each.shape) for each in (a, b) if isinstance(each, Value)) < 3:
        node.axis(0, 2)  # rows of a matrix are no samples here
    return node.broadcast(torch.matmul, a, b)


def _stacked(node: Node, x: Value, matrices: Array) -> Value:
    """Multiply each matrix of a value by a constant one of its own."""
    if not node.lifted:
        raise TouchesBatch
    lead = np.broadcast_shapes(x.shape[:-2], matrices.shape[:-2])
    if math.prod(lead) > _MOST_MATRICES:
        raise Refusal(f"multiplies by {math.prod(lead):,} constant matrices")
    each = np.broadcast_to(matrices, (*lead, *matrices.shape[-2:])).reshape(-1, *matrices.shape[-2:])
    missing = (1,) * (len(lead) + 2 - len(x.shape))
    raised = node.run(lambda y: y.reshape(y.shape[0], *missing, *x.shape), x, part="raised") if missing else x
    return node.run(Stacked([tensor_of(one) for one in each], lead), raised, part="each")


def _with_vectors(node: Node, a: Value | Array, b: Value | Array) -> Value:
    """Take a vector for a matrix of one row or one column, whose axis is taken away again."""
    if not node.lifted:
        node.axis(0, 1)
    row, column = len(a.shape) == 1, len(b.shape) == 1
    a = _reshaped(node, a, (1, *a.shape), "row") if row else a
    b = _reshaped(node, b, (*b.shape, 1), "column") if column else b
    result = node.broadcast(torch.matmul, a, b)
    shape = list(result.shape)
    if column:
        del shape[-1]
    if row:
        del shape[-1 if column else -2]
    return node.run(lambda y: y.reshape(y.shape[0], *shape), result, part="vector")


def _reshaped(node: Node, value: Value | Array, shape: tuple[int, ...], part: str) -> Value | Array:
    if not isinstance(value, Value):
        return value.reshape(shape)
    return node.run(lambda y: y.reshape(y.shape[0], *shape), value, part=part)


def _batch_norm(node: Node) -> Value:
    if node.attribute("training_mode", 0) or any(node.wanted[1:]):
        raise Refusal("is written in training mode")
    if node.attribute("spatial", 1) == 0:
        raise Refusal("has statistics for each position")
    x = node.value()
    weight, bias, mean, variance = (tensor_of(node.needed(place)) for place in (1, 2, 3, 4))
    make = _BATCH_NORMS.get(len(x.shape))
    if make is None:
        raise Refusal(f"is given a tensor with {len(x.shape)} axes")
    if node.lifted and x.shape[0] != 1:  # several pictures are one sample
        factor = weight / torch.sqrt(variance + float(node.attribute("epsilon", 1e-5)))
        shape = (-1, *(1,) * (len(x.shape) - 2))
        scaled = node.broadcast(torch.mul, x, factor.reshape(shape).numpy(), part="scale")
        return node.broadcast(torch.add, scaled, (bias - mean * factor).reshape(shape).numpy())
    layer = make(len(weight), eps=float(node.attribute("epsilon", 1e-5)))
    layer.weight, layer.bias = nn.Parameter(weight), nn.Parameter(bias)
    layer.running_mean, layer.running_var = mean, variance
    return node.layer(layer, x)


def _prelu(node: Node) -> Value:
    x, slope = node.value(), node.needed(1)
    channels = len(x.shape) - 1  # axes from the channel's on
    if slope.size == 1 or (slope.ndim == channels and slope.size == slope.shape[0] == x.shape[1]):
        layer = nn.PReLU(slope.size)
        layer.weight = nn.Parameter(tensor_of(slope).flatten())
        return node.layer(layer, x)
    rest = node.broadcast(lambda y, factor: y.clamp(max=0.0) * factor, x, slope, part="negative")
    return node.broadcast(lambda y, z: y.clamp(min=0.0) + z, x, rest)


LAYERS: Mapping[str, Handler] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "BatchNormalization": _batch_norm,
    "PRelu": _prelu,
}
