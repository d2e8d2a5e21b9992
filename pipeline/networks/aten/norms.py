"""Normalization over a sample's own values.

Shapes: N batch, C channels, G groups.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import nn

from pipeline.graph import ops
from pipeline.networks.aten.shapes import Handler
from pipeline.networks.aten.weights import own_name, parameter
from pipeline.networks.axes import BATCH, Value, plain
from pipeline.networks.flat import Call, FlatGraph, Refusal


def _layer_norm(flat: FlatGraph, call: Call) -> Value:
    call = own_name(call)
    weight, bias = call.constant("weight"), call.constant("bias")
    sizes = tuple(call["normalized_shape"])
    value = flat.arranged(call, call.value("input"))
    if value.axes[-len(sizes) :] != tuple((axis,) for axis in range(len(value.dims) - len(sizes), len(value.dims))):
        raise Refusal("layer norm that mixes the batch with other axes")
    layer = nn.LayerNorm(sizes, eps=call["eps"], elementwise_affine=weight is not None, bias=bias is not None)
    if weight is not None:
        layer.weight = parameter(weight)
    if bias is not None:
        layer.bias = parameter(bias)
    return value.with_node(flat.add(call, layer, [value.node], value.dims))


def _group_norm(flat: FlatGraph, call: Call) -> Value:
    call = own_name(call)
    return _normed(flat, call, call.value("input"), call["num_groups"], call["eps"])


def instance_norm(flat: FlatGraph, call: Call) -> Value:
    """Each channel of a sample by itself."""
    call = own_name(call)
    value = call.value("input")
    return _normed(flat, call, value, value.shape[1], call["eps"])


def _normed(flat: FlatGraph, call: Call, value: Value, groups: int, eps: float) -> Value:
    """(N, C, …) → (N, G, C/G * …), each row to mean 0 and variance 1, then scaled per channel."""
    value = flat.plain(call, value)
    rows = (BATCH, groups, math.prod(value.dims[1:]) // groups)
    flattened = flat.add(call.within("rows"), ops.Reshape(rows[1:]), [value.node], rows)
    layer = nn.LayerNorm(rows[-1], eps=eps, elementwise_affine=False)
    normed = flat.add(call, layer, [flattened], rows)
    result = flat.add(call.within("maps"), ops.Reshape(value.dims[1:]), [normed], value.dims)
    weight, bias = call.constant("weight"), call.constant("bias")
    if weight is not None or bias is not None:
        channels = (1, value.dims[1], *(1,) * (len(value.dims) - 2))
        factor = 1.0 if weight is None else weight.shaped(*channels)
        offset = 0.0 if bias is None else bias.shaped(*channels)
        result = flat.add(call.within("scale"), ops.Scale(factor, offset), [result], value.dims)
    return plain(result, value.dims)


NORMS: Mapping[str, Handler] = {
    "layer_norm": _layer_norm,
    "group_norm": _group_norm,
}
