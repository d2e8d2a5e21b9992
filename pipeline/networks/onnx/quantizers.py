"""Quantizers between computed values: real numbers pass, and their range stays (it is the activation function)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

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
    x = node.value()
    if x.number != 0:  # what a quantizer has left
        return x
    scale, zero_point = node.number(1, 1.0), node.number(2, 0.0)
    return node.run(lambda y: (y - zero_point) * scale, x)


QUANTIZERS: Mapping[str, Handler] = {"QuantizeLinear": _quantize, "DequantizeLinear": _dequantize}
