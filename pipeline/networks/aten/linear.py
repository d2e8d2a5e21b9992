"""Linear layers on one axis: of the network's own, and constant ways to mix the elements along an axis.

Shapes: F input features, O output features.
"""

from __future__ import annotations

from torch import Tensor, nn

from pipeline.graph import ops
from pipeline.networks.aten.weights import own_name, weighted
from pipeline.networks.axes import Value
from pipeline.networks.flat import Call, FlatGraph, Refusal


def linear(flat: FlatGraph, call: Call) -> Value:
    """Add a linear layer on the last axis of however many."""
    call = own_name(call)
    weight = call.tensor("weight")
    if weight is None:
        raise Refusal("linear without weights")
    value = flat.arranged(call, call.value("input"))
    make = nn.Linear if len(value.dims) == 2 else ops.Projection
    layer = weighted(call, make, weight.shape[1], weight.shape[0])
    dims = (*value.dims[:-1], weight.shape[0])
    return value.with_node(flat.add(call, layer, [value.node], dims), dims)


def mixed(flat: FlatGraph, call: Call, value: Value, axis: int, weights: Tensor) -> Value:
    """Mix the elements along an axis with constant weights."""
    last = len(value.axes) - 1
    order = [*(each for each in range(last + 1) if each != axis), axis]
    turned = flat.arranged(call, value.permuted(order))
    if 0 in turned.axes[-1]:
        raise Refusal(f"{call.name} along the batch")
    layer = ops.Projection(weights.shape[1], weights.shape[0], bias=False)
    layer.weight = nn.Parameter(weights, requires_grad=False)
    dims = (*turned.dims[:-1], weights.shape[0])
    mixed = turned.with_node(flat.add(call, layer, [turned.node], dims), dims)
    back = [order.index(each) for each in range(last + 1)]
    return mixed.permuted(back)
