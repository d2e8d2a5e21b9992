"""Gemm and MatMul with constant weights as FULLY_CONNECTED.

Shapes: N batch, F input features, O output features.  TFLite's weights are (O, F).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pipeline.errors import UnsupportedOpError
from pipeline.tflite import layout, opcodes, ops_float
from pipeline.tflite.constants import Constant
from pipeline.tflite.draft import Draft, Stored
from pipeline.tflite.graph import Node
from pipeline.tflite.ops_conv import real_bias, weighted_input, weights_and_bias
from pipeline.tflite.options import options


def gemm(draft: Draft, node: Node) -> Stored:
    """Gemm; a flattened image before it keeps its order, the weights' columns follow."""
    if node.integer("transA", 0):
        raise UnsupportedOpError("transA=1", where=node.where, remedy="transpose the input before this layer")
    weights = draft.constant_of(node, 1)
    if not node.integer("transB", 0):
        weights = _turned(weights)
    return _fully_connected(draft, node, _times(weights, node.number("alpha", 1.0)), node.number("beta", 1.0))


def matmul(draft: Draft, node: Node) -> Stored:
    """MatMul of a computed value (N, …, F) with constant weights (F, O), or of two computed values."""
    if not draft.is_constant(node, 1):
        return ops_float.matmul(draft, node)
    weights = draft.constant_of(node, 1)
    if weights.values.ndim != 2:
        raise UnsupportedOpError(
            f"weights with {weights.values.ndim} axes",
            where=node.where,
            remedy="use weights (features in, features out)",
        )
    return _fully_connected(draft, node, _turned(weights), 0.0)


def _fully_connected(draft: Draft, node: Node, weights: Constant, bias_factor: float) -> Stored:
    x, params = weighted_input(draft, node, weights, channel_axis=0)
    x = draft.in_axes(x, layout.plain(x.shape.rank))
    if x.features is not None:
        weights = replace(weights, values=weights.values[:, x.features])
    outputs = weights.values.shape[0]
    bias = real_bias(draft, node, outputs) * bias_factor if bias_factor else np.zeros(outputs)
    inputs = [x, *weights_and_bias(draft, node, x, weights, bias)]
    result = draft.result(node, layout.plain(x.shape.rank), params)
    if x.shape.rank == 2:
        return draft.op(opcodes.FULLY_CONNECTED, inputs, result, options("FullyConnected", node.activation))
    table = options("FullyConnected", node.activation, keepNumDims=True)
    return draft.op(opcodes.FULLY_CONNECTED_ND, inputs, result, table)


def _turned(weights: Constant) -> Constant:
    """(F, O) → (O, F)."""
    params = None if weights.params is None else replace(weights.params, axis=1 - weights.params.axis)
    return Constant(values=weights.values.T, params=params)


def _times(weights: Constant, factor: float) -> Constant:
    if factor == 1.0:
        return weights
    if weights.params is not None:
        scales = (np.array(weights.params.scales) * factor).astype(np.float32).tolist()
        return replace(weights, params=replace(weights.params, scales=tuple(scales)))
    return replace(weights, values=(weights.values * factor).astype(np.float32))
