"""Quantizers between computed values: real numbers pass, and their range stays (it is the activation function)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from pipeline.networks.onnx.modules import Quantizer
from pipeline.networks.onnx.nodes import Handler, Node
from pipeline.networks.onnx.values import Refusal, Value


def _quantize(node: Node) -> Value:
    scale, zero_point = node.needed(1), node.constant(2)
    if scale.size != 1:
        raise Refusal("has a scale for each channel of a computed value")
    dtype = zero_point.dtype if zero_point is not None else np.dtype(np.uint8)
    if dtype not in (np.uint8, np.int8, np.uint16, np.int16):
        raise Refusal(f"makes numbers of type {dtype}")
    limits = np.iinfo(dtype)
    offset = int(zero_point.ravel()[0]) if zero_point is not None else 0
    return node.run(Quantizer(float(scale.ravel()[0]), offset, int(limits.min), int(limits.max)), node.value())


def _dequantize(node: Node) -> Value:
    if not isinstance(node.inputs[0], Value):
        return _scaled_constant(node)
    x = node.value()
    if x.number != 0:  # what a quantizer has left
        return x
    scale, zero_point = node.number(1, 1.0), node.number(2, 0.0)
    return node.run(lambda y: (y - zero_point) * scale, x)


def _scaled_constant(node: Node) -> Value:
    """Return constant integers times a computed scale."""
    integers, scale = node.needed(0), node.value(1)
    axis = node.attribute("axis", 1) % max(integers.ndim, 1)
    zero_point = node.constant(2)
    if node.attribute("block_size", 0) or len(scale.shape) > 1:
        raise Refusal("has a computed scale for each block")
    if scale.shape and scale.shape != (1,):
        shape = [1] * integers.ndim
        shape[axis] = scale.shape[0]
        scale = node.run(lambda x: x.reshape(-1, *shape), scale, part="scale")
        zero_point = None if zero_point is None else zero_point.reshape(shape)
    steps = integers.astype(np.float32) - (0 if zero_point is None else zero_point.astype(np.float32))
    return node.broadcast(torch.mul, scale, steps)


QUANTIZERS: Mapping[str, Handler] = {"QuantizeLinear": _quantize, "DequantizeLinear": _dequantize}
