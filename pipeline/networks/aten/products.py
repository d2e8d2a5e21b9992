"""Matrix products of two values, and attention, which is made of them.

Shapes: D features of a head.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import torch

from pipeline.graph import ops
from pipeline.networks.aten.layers import linear
from pipeline.networks.aten.pointwise import scaled, softmax, two
from pipeline.networks.aten.shapes import Handler
from pipeline.networks.aten.weights import transposed
from pipeline.networks.axes import Value
from pipeline.networks.flat import Call, Constant, FlatGraph, Refusal


def _matmul(flat: FlatGraph, call: Call) -> Value:
    a, b = call["self"], call["other"] if call["mat2"] is None else call["mat2"]
    if isinstance(a, Value) and isinstance(b, Constant):
        if b.tensor.dim() != 2:
            raise Refusal("matmul with a constant of more than two axes")
        weight = replace(b, tensor=transposed(b))
        return linear(flat, replace(call, given={"input": a, "weight": weight, "bias": None}))
    if isinstance(a, Constant):
        if a.tensor.dim() != 2 or not isinstance(b, Value):
            raise Refusal("matmul of a constant with more than two axes")
        # (A b) = (b^T A^T)^T
        given = {"input": _swapped(b), "weight": a, "bias": None}
        return _swapped(linear(flat, replace(call, given=given)))
    return _product(flat, call, a, b)


def _swapped(value: Value) -> Value:
    order = list(range(len(value.axes)))
    order[-2:] = order[:-3:-1]
    return value.permuted(order)


def _product(flat: FlatGraph, call: Call, a: Value, b: Value) -> Value:
    a, b = flat.arranged(call, a), flat.arranged(call, b)
    if len(a.axes) != len(b.axes) or len(a.axes) < 3:
        raise Refusal(f"{call.name} of values with {len(a.axes)} and {len(b.axes)} axes")
    ends = [(len(each.dims) - 2,) for each in (a, b)] + [(len(each.dims) - 1,) for each in (a, b)]
    if [a.axes[-2], b.axes[-2], a.axes[-1], b.axes[-1]] != ends or a.axes != b.axes:
        raise Refusal(f"{call.name} that mixes the batch with other axes")
    dims = (*(max(pair) for pair in zip(a.dims[:-2], b.dims[:-2], strict=True)), a.dims[-2], b.dims[-1])
    return a.with_node(flat.add(call, ops.MatMul(), [a.node, b.node], dims), dims)


def _attention(flat: FlatGraph, call: Call) -> Value:
    """softmax(q k^T / sqrt(D) + mask) v."""
    query, key, value = (call.value(name) for name in ("query", "key", "value"))
    if call["is_causal"] or call["enable_gqa"]:
        raise Refusal("attention that is causal or grouped")
    scale = call["scale"] if call["scale"] is not None else 1 / math.sqrt(query.shape[-1])
    query = scaled(flat, call.within("query"), query, scale, 0.0)
    weights = _product(flat, call.within("weights"), query, _swapped(key))
    mask = call["attn_mask"]
    if isinstance(mask, Value):
        weights = two(ops.Add)(flat, call.within("mask"), weights, mask)
    elif mask is not None:
        if mask.tensor.dtype == torch.bool:
            hidden = torch.zeros(mask.tensor.shape).masked_fill(~mask.tensor, -1e9)
            mask = replace(mask, tensor=hidden, learned=False)
        weights = scaled(flat, call.within("mask"), weights, 1.0, mask)
    rows = replace(call, name="softmax", given={"self": weights, "dim": -1}).within("softmax")
    return _product(flat, call, softmax(flat, rows), value)


def _einsum(flat: FlatGraph, call: Call) -> Value:
    """Two operands, every letter in both or in one and the result: a matrix product between transposes."""
    equation, operands = str(call["equation"]).replace(" ", ""), call["tensors"]
    left, _, right = equation.partition("->")
    terms = left.split(",")
    if len(terms) != 2 or not right or not all(isinstance(each, Value) for each in operands):
        raise Refusal(f"einsum '{equation}'")
    a, b = terms
    batch = [letter for letter in right if letter in a and letter in b]
    rows = [letter for letter in right if letter in a and letter not in b]
    columns = [letter for letter in right if letter in b and letter not in a]
    summed = [letter for letter in a if letter in b and letter not in right]
    if len(rows) != 1 or len(columns) != 1 or len(summed) != 1 or len(batch) + 2 != len(a) or len(a) != len(b):
        raise Refusal(f"einsum '{equation}'")
    first = operands[0].permuted([a.index(letter) for letter in (*batch, *rows, *summed)])
    second = operands[1].permuted([b.index(letter) for letter in (*batch, *summed, *columns)])
    product = _product(flat, call, first, second)
    found = [*batch, *rows, *columns]
    return product.permuted([found.index(letter) for letter in right])


PRODUCTS: Mapping[str, Handler] = {
    "matmul": _matmul,
    "bmm": _matmul,
    "scaled_dot_product_attention": _attention,
    "einsum": _einsum,
}
