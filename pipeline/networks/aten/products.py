"""Matrix products of two values, and attention, which is made of them.

Shapes: D features of a head.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import nn

from pipeline.graph import ops
from pipeline.networks.aten.layers import LAYERS
from pipeline.networks.aten.linear import linear
from pipeline.networks.aten.pointwise import scaled, softmax, two
from pipeline.networks.aten.shapes import Handler, gathered
from pipeline.networks.aten.weights import transposed
from pipeline.networks.axes import BATCH, Value
from pipeline.networks.flat import Call, Constant, FlatGraph, Refusal


def _matmul(flat: FlatGraph, call: Call) -> Value:
    a, b = call["self"], call["other"] if call["mat2"] is None else call["mat2"]
    if isinstance(a, Value) and isinstance(b, Constant):
        return _by_constant(flat, call, a, b)
    if isinstance(a, Constant) and isinstance(b, Value):
        if a.tensor.dim() < 2:
            raise Refusal("matmul of a vector that is a constant")
        # (A b) = (b^T A^T)^T
        return _swapped(_by_constant(flat, call, _swapped(b), replace(a, tensor=transposed(a))))
    rank = max(len(a.axes), len(b.axes))
    return _product(flat, call, _raised(a, rank), _raised(b, rank))


def _raised(value: Value, rank: int) -> Value:
    return replace(value, axes=((),) * (rank - len(value.axes)) + value.axes)


def _by_constant(flat: FlatGraph, call: Call, a: Value, b: Constant) -> Value:
    """Multiply with a matrix, with a vector, or with one matrix for each index of the axes before."""
    tensor = b.tensor
    if tensor.dim() == 1:
        column = linear(flat, _linear_call(call, a, replace(b, tensor=b.shaped(1, len(tensor)))))
        return flat.reshaped(call, column, column.shape[:-1])
    if all(side == 1 for side in tensor.shape[:-2]):
        matrix = replace(b, tensor=b.shaped(*tensor.shape[-2:]))
        product = linear(flat, _linear_call(call, a, replace(matrix, tensor=transposed(matrix))))
        return _raised(product, max(len(a.axes), tensor.dim()))
    return _each_its_matrix(flat, call, a, b)


def _linear_call(call: Call, value: Value, weight: Constant) -> Call:
    return replace(call, given={"input": value, "weight": weight, "bias": None})


def _each_its_matrix(flat: FlatGraph, call: Call, a: Value, b: Constant) -> Value:
    """(N, …, H, R, D) with a matrix (D, E) for each H: a grouped convolution of one element over (N, …, H * D, R)."""
    lead, (rows, features), outputs = a.shape[:-2], a.shape[-2:], b.tensor.shape[-1]
    groups = b.tensor.shape[:-2]
    pairs = zip(lead[::-1], groups[::-1], strict=False)
    if len(groups) <= len(lead) and all(1 in pair for pair in pairs):
        return _each_by_all(flat, call, a, b)
    batched = tuple(side for side in lead if side % BATCH)
    if tuple(side for side in groups if side != 1) != tuple(side for side in batched if side != 1) or BATCH not in lead:
        raise Refusal(f"{call.name} with a constant whose matrices are not those of the value")
    count = math.prod(groups)
    rank = len(lead)
    turned = a.permuted([*range(rank), rank + 1, rank])
    channels = flat.reshaped(call, turned, (BATCH, count * features, rows))
    kernels = b.tensor.detach().reshape(count, features, outputs).transpose(1, 2).reshape(-1, features, 1).contiguous()
    weight = Constant(tensor=nn.Parameter(kernels) if b.learned else kernels, name="", learned=b.learned)
    options = {"stride": 1, "padding": 0, "dilation": 1, "groups": count}
    given = {"input": channels, "weight": weight, "bias": None, **options}
    shape = (BATCH, count * outputs, rows)
    mixed = LAYERS["conv1d"](flat, replace(call, given=given, shape=shape, owner=""))
    apart = flat.reshaped(call, mixed, (*lead, outputs, rows))
    return apart.permuted([*range(rank), rank + 1, rank])


def _each_by_all(flat: FlatGraph, call: Call, a: Value, b: Constant) -> Value:
    """(N, …, 1, R, D) with matrices (…, G, D, E): one linear layer with G * E outputs."""
    lead, rank = a.shape[:-2], len(a.shape) - 2
    *groups, features, outputs = b.tensor.shape
    groups = [1] * (rank - len(groups)) + groups
    matrix = b.tensor.detach().reshape(-1, features, outputs).transpose(0, 1).reshape(features, -1).T.contiguous()
    weight = replace(b, tensor=nn.Parameter(matrix) if b.learned else matrix)
    product = linear(flat, _linear_call(call, a, weight))
    kept = [axis for axis in range(rank) if groups[axis] == 1]
    grown = [axis for axis in range(rank) if groups[axis] != 1]
    sides = (*(lead[axis] for axis in kept), a.shape[-2], *(groups[axis] for axis in grown), outputs)
    apart = flat.reshaped(call.within("reshape"), product, sides)
    order = [kept.index(axis) if axis in kept else len(kept) + 1 + grown.index(axis) for axis in range(rank)]
    return apart.permuted([*order, len(kept), len(sides) - 1])


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
    if call["enable_gqa"]:
        heads = query.shape[-3] // key.shape[-3]
        key = _repeated(flat, call.within("key"), key, heads)
        value = _repeated(flat, call.within("value"), value, heads)
    scale = call["scale"] if call["scale"] is not None else 1 / math.sqrt(query.shape[-1])
    query = scaled(flat, call.within("query"), query, scale, 0.0)
    weights = _product(flat, call.within("weights"), query, _swapped(key))
    mask = call["attn_mask"]
    if call["is_causal"]:
        seen = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool).tril()
        mask = Constant(tensor=seen, name="", learned=False)
    if isinstance(mask, Value):
        weights = two(ops.Add)(flat, call.within("mask"), weights, mask)
    elif mask is not None:
        if mask.tensor.dtype == torch.bool:
            mask = replace(mask, tensor=torch.zeros(mask.tensor.shape).masked_fill(~mask.tensor, -1e9), learned=False)
        elif not mask.learned:  # infinity is no number that a file may hold
            mask = replace(mask, tensor=mask.tensor.clamp(min=-1e9))
        weights = scaled(flat, call.within("mask"), weights, 1.0, mask)
    rows = replace(call, name="softmax", given={"self": weights, "dim": -1}).within("softmax")
    return _product(flat, call, softmax(flat, rows), value)


def _repeated(flat: FlatGraph, call: Call, value: Value, times: int) -> Value:
    """Let several heads read the same keys."""
    heads = torch.arange(value.shape[-3]).repeat_interleave(times)
    return gathered(flat, call, value, len(value.axes) - 3, heads)


def _einsum(flat: FlatGraph, call: Call) -> Value:
    """Two operands, every letter in both or in one and the result: a matrix product between transposes."""
    equation, operands = str(call["equation"]).replace(" ", ""), call["tensors"]
    left, _, right = equation.partition("->")
    terms = left.split(",")
    if "->" not in equation:
        right = "".join(sorted(letter for letter in set(left) - {","} if left.count(letter) == 1))
    if len(terms) != 2 or not all(each.isalpha() for each in (*terms, right)):
        raise Refusal(f"einsum '{equation}'")
    a, b = terms
    if not isinstance(operands[0], Value):
        a, b, operands = b, a, operands[::-1]
    batch = [letter for letter in right if letter in a and letter in b]
    rows = [letter for letter in right if letter in a and letter not in b]
    columns = [letter for letter in right if letter in b and letter not in a]
    summed = [letter for letter in a if letter in b and letter not in right]
    if set(a) | set(b) != {*batch, *rows, *columns, *summed} or len(set(a)) + len(set(b)) != len(a) + len(b):
        raise Refusal(f"einsum '{equation}'")
    if isinstance(operands[1], Constant):
        return _einsum_by_constant(flat, call, (a, b), right, operands)
    if len(rows) != 1 or len(columns) != 1 or len(summed) != 1 or len(batch) + 2 != len(a) or len(a) != len(b):
        raise Refusal(f"einsum '{equation}'")
    first = operands[0].permuted([a.index(letter) for letter in (*batch, *rows, *summed)])
    second = operands[1].permuted([b.index(letter) for letter in (*batch, *summed, *columns)])
    product = _product(flat, call, first, second)
    found = [*batch, *rows, *columns]
    return product.permuted([found.index(letter) for letter in right])


def _einsum_by_constant(
    flat: FlatGraph, call: Call, terms: tuple[str, str], right: str, operands: tuple[Value, Constant]
) -> Value:
    """(N, G, R, S) by (G, S, K), each of which may be several letters; the batch is a letter of its own."""
    (a, b), (value, constant) = terms, operands
    size = {**dict(zip(b, constant.tensor.shape, strict=True)), **dict(zip(a, value.shape, strict=True))}
    sample = next((letter for letter in a if size[letter] == BATCH and letter not in b), None)
    if sample is None:
        raise Refusal(f"einsum '{call['equation']}'")
    groups = [letter for letter in a if letter in b and letter in right]
    summed = [letter for letter in a if letter in b and letter not in right]
    rest = [letter for letter in a if letter not in b and letter != sample]
    columns = [letter for letter in b if letter not in a]
    turned = value.permuted([a.index(letter) for letter in (sample, *groups, *rest, *summed)])
    sizes = [math.prod(size[letter] for letter in each) for each in (groups, rest, summed, columns)]
    matrix = constant.tensor.detach().permute([b.index(letter) for letter in (*groups, *summed, *columns)])
    matrix = matrix.reshape(sizes[0], sizes[2], sizes[3]).contiguous()
    weight = replace(constant, tensor=nn.Parameter(matrix) if constant.learned else matrix)
    shaping = call.within("reshape")
    product = _by_constant(flat, call, flat.reshaped(shaping, turned, (BATCH, *sizes[:3])), weight)
    found = [sample, *groups, *rest, *columns]
    apart = flat.reshaped(shaping, product, [size[letter] for letter in found])
    return apart.permuted([found.index(letter) for letter in right])


PRODUCTS: Mapping[str, Handler] = {
    "matmul": _matmul,
    "bmm": _matmul,
    "scaled_dot_product_attention": _attention,
    "einsum": _einsum,
}
