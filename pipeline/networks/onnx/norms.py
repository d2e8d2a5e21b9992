"""Normalization over a sample's own values."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.networks.onnx.modules import Mixed
from pipeline.networks.onnx.nodes import Handler, Node, filled
from pipeline.networks.onnx.values import Refusal, Value

_INSTANCE = {3: nn.InstanceNorm1d, 4: nn.InstanceNorm2d, 5: nn.InstanceNorm3d}

_TINY = 1e-30  # zeros stay zeros


def _layer_norm(node: Node) -> Value:
    node.only_first_output()
    x, weight, bias = node.value(), node.needed(1), node.constant(2)
    rank = len(x.shape)
    first = node.attribute("axis", -1) % rank
    node.axis(first, rank)
    shape = x.shape[first:]
    layer = nn.LayerNorm(shape, eps=float(node.attribute("epsilon", 1e-5)), bias=bias is not None)
    layer.weight = nn.Parameter(torch.from_numpy(np.broadcast_to(weight, shape).astype(np.float32)))
    if bias is not None:
        layer.bias = nn.Parameter(torch.from_numpy(np.broadcast_to(bias, shape).astype(np.float32)))
    return node.run(layer, x)


def _instance_norm(node: Node) -> Value:
    x, weight, bias = node.value(), node.needed(1), node.needed(2)
    make = _INSTANCE.get(len(x.shape))
    if make is None:
        raise Refusal(f"is given a tensor with {len(x.shape)} axes")
    layer = make(len(weight), eps=float(node.attribute("epsilon", 1e-5)), affine=True)
    return node.layer(filled(layer, weight, bias), x)


def _group_norm(node: Node) -> Value:
    x, weight, bias = node.value(), node.needed(1), node.needed(2)
    groups, channels = node.attribute("num_groups"), x.shape[1]
    if node.opset < 21:  # one of each for a group, not for a channel
        weight, bias = (np.repeat(each, channels // groups) for each in (weight, bias))
    layer = nn.GroupNorm(groups, channels, eps=float(node.attribute("epsilon", 1e-5)))
    return node.layer(filled(layer, weight, bias), x)


def _rms_norm(node: Node) -> Value:
    x, weight = node.value(), node.needed(1)
    rank = len(x.shape)
    first = node.attribute("axis", -1) % rank
    axes = tuple(node.axis(axis, rank) for axis in range(first, rank))
    epsilon = float(node.attribute("epsilon", 1e-5))
    normed = node.run(lambda y: y / torch.sqrt((y * y).mean(axes, keepdim=True) + epsilon), x, part="norm")
    return node.broadcast(torch.mul, normed, weight)


def _lp_norm(node: Node) -> Value:
    x, order = node.value(), node.attribute("p", 2)
    axis = node.axis(node.attribute("axis", -1), len(x.shape))
    if order == 1:
        return node.run(lambda y: y / y.abs().sum(axis, keepdim=True).clamp(min=_TINY), x)
    return node.run(lambda y: y / torch.sqrt((y * y).sum(axis, keepdim=True)).clamp(min=_TINY), x)


def _mean_variance(node: Node) -> Value:
    x = node.value()
    axes = tuple(node.axis(axis, len(x.shape)) for axis in node.attribute("axes", (0, 2, 3)))

    def normed(y: Tensor) -> Tensor:
        centred = y - y.mean(axes, keepdim=True)
        return centred / (torch.sqrt((centred * centred).mean(axes, keepdim=True)) + 1e-9)

    return node.run(normed, x)


def _local_response(node: Node) -> Value:
    """X / (bias + alpha / size * sum of squares over channels near by) ** beta."""
    x, size = node.value(), node.attribute("size")
    channels, rank = x.shape[1], len(x.shape)
    alpha, beta, bias = (float(node.attribute(*each)) for each in (("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0)))
    if beta not in (0.75, 0.5, 1.0):
        raise Refusal(f"has beta {beta}")
    near = torch.zeros(channels, channels)
    for channel in range(channels):
        near[max(0, channel - (size - 1) // 2) : channel + math.ceil((size - 1) / 2) + 1, channel] = alpha / size
    squares = node.run(lambda y: y * y, x, part="squares")
    summed = node.run(Mixed(near, node.axis(1, rank)), squares, part="near")

    def divided(y: Tensor, total: Tensor) -> Tensor:
        root = torch.sqrt(total + bias)
        power = {0.5: root, 0.75: root * torch.sqrt(root), 1.0: total + bias}[beta]
        return y / power

    return node.run(divided, x, summed)


NORMS: Mapping[str, Handler] = {
    "LayerNormalization": _layer_norm,
    "InstanceNormalization": _instance_norm,
    "GroupNormalization": _group_norm,
    "RMSNormalization": _rms_norm,
    "LpNormalization": _lp_norm,
    "MeanVarianceNormalization": _mean_variance,
    "LRN": _local_response,
}
