"""The table: which modules of the flat graph stand for which ATen function.

Shapes: N batch, C channels, H height, W width, L length, D features; axes count the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.graph import ops
from pipeline.networks.aten_shapes import SHAPES, Handler, gathered
from pipeline.networks.axes import BATCH, Value, plain
from pipeline.networks.flat import Call, Constant, FlatGraph, Refusal, constant_like

# functions that hand their first argument on as it is, in evaluation mode
MEANINGLESS = frozenset(
    {
        "alias", "alpha_dropout", "clone", "contiguous", "detach", "dropout", "feature_dropout", "lift_fresh_copy", "to",
        "type_as", "_assert_tensor_metadata", "_assert_scalar", "_assert_async", "feature_alpha_dropout", "detach_copy",
    }
)  # fmt: skip


# ── layers with weights ─────────────────────────────────────────────────────────────────────────────────────────────


def _weighted(call: Call, make: Callable[..., nn.Module], *sizes: int, **options: Any) -> nn.Module:  # noqa: ANN401
    """Build a layer around the very tensors that the call reads."""
    weight, bias = call.constant("weight"), call.constant("bias")
    if weight is None:
        raise Refusal(f"{call.name} without weights")
    layer = make(*sizes, bias=bias is not None, device="meta", **options)
    layer.weight = _parameter(weight)
    if bias is not None:
        layer.bias = _parameter(bias)
    return layer


def _parameter(constant: Constant) -> nn.Parameter:
    tensor = constant.tensor
    return tensor if isinstance(tensor, nn.Parameter) else nn.Parameter(tensor, requires_grad=False)


def _own_name(call: Call) -> Call:
    """Name a layer after the module that owns its weights: what the user calls it."""
    weight = call.given.get("weight")
    owner = weight.owner if isinstance(weight, Constant) and weight.name.endswith(".weight") else ""
    return replace(call, layer=owner) if owner else call


def _conv(make: Callable[..., nn.Module], axes: int) -> Handler:
    def convert(flat: FlatGraph, call: Call) -> Value:
        call = _own_name(call)
        value, weight = flat.plain(call, call.value("input")), call.tensor("weight")
        if weight is None or len(value.dims) != axes + 2:
            raise Refusal(f"{call.name} of a value with {len(value.dims)} axes")
        kernel = tuple(weight.shape[2:])
        dilation = _sides(call["dilation"], axes)
        value, padding = _symmetric(flat, call, value, kernel, dilation)
        layer = _weighted(
            call,
            make,
            weight.shape[1] * call["groups"],
            weight.shape[0],
            kernel,
            stride=_sides(call["stride"], axes),
            padding=padding,
            dilation=dilation,
            groups=call["groups"],
        )
        return flat.apply(call, layer, value)

    return convert


def _symmetric(
    flat: FlatGraph, call: Call, value: Value, kernel: Sequence[int], dilation: Sequence[int]
) -> tuple[Value, tuple[int, ...]]:
    """Return padding in numbers; what ``"same"`` wants more on one side is padded first."""
    padding = call["padding"]
    if padding == "valid":
        return value, (0,) * len(kernel)
    if padding != "same":
        return value, _sides(padding, len(kernel))
    whole = [step * (side - 1) for side, step in zip(kernel, dilation, strict=True)]
    if all(each % 2 == 0 for each in whole):
        return value, tuple(each // 2 for each in whole)
    pads = [amount for each in reversed(whole) for amount in (each // 2, each - each // 2)]
    return _padded(flat, call.within("pad"), value, pads, 0.0), (0,) * len(kernel)


def _conv_transpose(make: Callable[..., nn.Module], axes: int) -> Handler:
    def convert(flat: FlatGraph, call: Call) -> Value:
        call = _own_name(call)
        weight = call.tensor("weight")
        if weight is None:
            raise Refusal(f"{call.name} without weights")
        layer = _weighted(
            call,
            make,
            weight.shape[0],
            weight.shape[1] * call["groups"],
            tuple(weight.shape[2:]),
            stride=_sides(call["stride"], axes),
            padding=_sides(call["padding"], axes),
            output_padding=_sides(call["output_padding"], axes),
            dilation=_sides(call["dilation"], axes),
            groups=call["groups"],
        )
        return flat.apply(call, layer, call.value("input"))

    return convert


def _linear(flat: FlatGraph, call: Call) -> Value:
    call = _own_name(call)
    weight = call.tensor("weight")
    if weight is None:
        raise Refusal("linear without weights")
    value = flat.arranged(call, call.value("input"))
    make = nn.Linear if len(value.dims) == 2 else ops.Projection
    layer = _weighted(call, make, weight.shape[1], weight.shape[0])
    dims = (*value.dims[:-1], weight.shape[0])
    return value.with_node(flat.add(call, layer, [value.node], dims), dims)


def _addmm(flat: FlatGraph, call: Call) -> Value:
    second, bias = call.constant("mat2"), call.constant("self")
    if second is None or call["beta"] != 1 or call["alpha"] != 1:
        raise Refusal("addmm of two computed matrices")
    weight = replace(second, tensor=_transposed(second))
    return _linear(flat, replace(call, given={"input": call["mat1"], "weight": weight, "bias": bias}))


def _transposed(constant: Constant) -> Tensor:
    turned = constant.tensor.detach().transpose(-1, -2).contiguous()
    return nn.Parameter(turned) if constant.learned else turned


def _batch_norm(flat: FlatGraph, call: Call) -> Value:
    call = _own_name(call)
    value = flat.plain(call, call.value("input"))
    mean, variance = call.tensor("running_mean"), call.tensor("running_var")
    if mean is None or variance is None:
        return _instance_norm(flat, call)
    weight, bias = call.constant("weight"), call.constant("bias")
    make = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d}.get(len(value.dims))
    if make is None:
        raise Refusal(f"batch norm of a value with {len(value.dims)} axes")
    layer = make(mean.numel(), eps=call["eps"], affine=weight is not None, device="meta")
    if weight is not None:
        layer.weight = _parameter(weight)
        layer.bias = _parameter(bias) if bias is not None else nn.Parameter(torch.zeros_like(weight.tensor))
    layer.running_mean, layer.running_var = mean.detach().clone(), variance.detach().clone()
    layer.num_batches_tracked = torch.tensor(0)
    return flat.apply(call, layer, value)


# ── norms over a sample's own values ────────────────────────────────────────────────────────────────────────────────


def _layer_norm(flat: FlatGraph, call: Call) -> Value:
    call = _own_name(call)
    weight, bias = call.constant("weight"), call.constant("bias")
    sizes = tuple(call["normalized_shape"])
    value = flat.arranged(call, call.value("input"))
    if value.axes[-len(sizes) :] != tuple((axis,) for axis in range(len(value.dims) - len(sizes), len(value.dims))):
        raise Refusal("layer norm that mixes the batch with other axes")
    layer = nn.LayerNorm(sizes, eps=call["eps"], elementwise_affine=weight is not None, bias=bias is not None)
    if weight is not None:
        layer.weight = _parameter(weight)
    if bias is not None:
        layer.bias = _parameter(bias)
    return value.with_node(flat.add(call, layer, [value.node], value.dims))


def _group_norm(flat: FlatGraph, call: Call) -> Value:
    call = _own_name(call)
    return _normed(flat, call, call.value("input"), call["num_groups"], call["eps"])


def _instance_norm(flat: FlatGraph, call: Call) -> Value:
    call = _own_name(call)
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


# ── functions of each element ───────────────────────────────────────────────────────────────────────────────────────


def _each(make: Callable[[Call], nn.Module]) -> Handler:
    return lambda flat, call: flat.each(call, make(call), _input(call))


def _input(call: Call) -> Value:
    return call.value("input" if "input" in call.given and "self" not in call.given else "self")


def _silu(flat: FlatGraph, call: Call) -> Value:
    value = call.value()
    gate = flat.each(call.within("gate"), nn.Sigmoid(), value)
    return value.with_node(flat.add(call, ops.Mul(), [value.node, gate.node], value.dims))


def _clamp(flat: FlatGraph, call: Call) -> Value:
    low, high = call["min"], call["max"]
    if isinstance(low, Value | Constant) or isinstance(high, Value | Constant):
        raise Refusal("clamp to computed bounds")
    low = -math.inf if low is None else float(low)
    high = math.inf if high is None else float(high)
    module = nn.ReLU() if (low, high) == (0.0, math.inf) else nn.ReLU6() if (low, high) == (0.0, 6.0) else None
    return flat.each(call, module or nn.Hardtanh(low, high), call.value())


def _hardtanh(flat: FlatGraph, call: Call) -> Value:
    bounds = {"min": call["min_val"], "max": call["max_val"], "self": call["self"]}
    return _clamp(flat, replace(call, given=bounds))


def _prelu(flat: FlatGraph, call: Call) -> Value:
    call = _own_name(call)
    weight = call.constant("weight")
    if weight is None:
        raise Refusal("prelu without slopes")
    layer = nn.PReLU(weight.tensor.numel(), device="meta")
    layer.weight = _parameter(weight)
    value = flat.plain(call, call.value())
    return flat.apply(call, layer, value)


def _softmax(flat: FlatGraph, call: Call) -> Value:
    value = call.value()
    axis = value.stored_axis(call["dim"])
    if axis is None or axis == 0:
        value = flat.arranged(call, value)
        axis = value.stored_axis(call["dim"])
    if not axis:
        raise Refusal(f"{call.name} over the batch")
    value = flat.each(call, nn.Softmax(dim=axis), value)
    return flat.each(call.within("log"), ops.Function("Log"), value) if call.name == "log_softmax" else value


def _gelu(call: Call) -> nn.Module:
    return nn.GELU(approximate=call["approximate"] or "none")


# ── arithmetic ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _two(make: Callable[[], nn.Module]) -> Callable[[FlatGraph, Call, Value, Value], Value]:
    def both(flat: FlatGraph, call: Call, a: Value, b: Value) -> Value:
        if a.axes != b.axes or a.dims != b.dims:
            rank = max(len(a.axes), len(b.axes))
            a, b = (flat.arranged(call, _raised(call, each, rank)) for each in (a, b))
            if a.axes != b.axes:
                a, b = _same_rank(flat, call, a, b)
        dims = tuple(max(pair) for pair in zip(a.dims, b.dims, strict=True))
        return a.with_node(flat.add(call, make(), [a.node, b.node], dims), dims)

    return both


def _raised(call: Call, value: Value, rank: int) -> Value:
    """Give a value further axes of one element in front, as broadcasting does; the batch has to stay where it is."""
    missing = rank - len(value.axes)
    return replace(value, axes=((),) * missing + value.axes) if missing else value


def _same_rank(flat: FlatGraph, call: Call, a: Value, b: Value) -> tuple[Value, Value]:
    """Give both nodes the same axes: where one has none for an axis of one element, it gets one."""
    wanted = [max(one, other, key=len) for one, other in zip(a.axes, b.axes, strict=True)]
    return _stretched(flat, call, a, wanted), _stretched(flat, call, b, wanted)


def _stretched(flat: FlatGraph, call: Call, value: Value, wanted: Sequence[tuple[int, ...]]) -> Value:
    if list(value.axes) == list(wanted):
        return value
    dims = [BATCH] + [1] * max(axis for group in wanted for axis in group)
    for own, group in zip(value.axes, wanted, strict=True):
        sizes = [value.dims[axis] for axis in own]
        if len(own) == len(group):
            for axis, size in zip(group, sizes, strict=True):
                dims[axis] = size
        elif math.prod(sizes) != 1:
            raise Refusal(f"{call.name} that mixes the batch with other axes")
    node = flat.add(call.within("reshape"), ops.Reshape(tuple(dims[1:])), [value.node], dims)
    return Value(node=node, dims=tuple(dims), axes=tuple(wanted))


def _scaled(flat: FlatGraph, call: Call, value: Value, factor: Any, offset: Any) -> Value:  # noqa: ANN401
    """``value * factor + offset`` with numbers or constants."""
    if isinstance(factor, Constant) or isinstance(offset, Constant):
        value = flat.arranged(call, value)
    parts = [constant_like(value, each) if isinstance(each, Constant) else float(each) for each in (factor, offset)]
    return flat.each(call, ops.Scale(*parts), value)


def _negated(constant: Any) -> Any:  # noqa: ANN401
    if isinstance(constant, Constant):
        tensor = -constant.tensor.detach()
        return replace(constant, tensor=nn.Parameter(tensor) if constant.learned else tensor)
    return -constant


def _inverse(constant: Any) -> Any:  # noqa: ANN401
    if isinstance(constant, Constant):
        tensor = 1 / constant.tensor.detach()
        return replace(constant, tensor=nn.Parameter(tensor) if constant.learned else tensor)
    if not constant:
        raise Refusal("division by zero")
    return 1 / constant


def _plain_alpha(call: Call) -> None:
    if call["alpha"] not in (None, 1):
        raise Refusal(f"{call.name} with alpha")


def _add(flat: FlatGraph, call: Call) -> Value:
    _plain_alpha(call)
    a, b = call["self"], call["other"]
    if isinstance(a, Value) and isinstance(b, Value):
        return _two(ops.Add)(flat, call, a, b)
    value, constant = (a, b) if isinstance(a, Value) else (b, a)
    return _scaled(flat, call, value, 1.0, constant)


def _sub(flat: FlatGraph, call: Call) -> Value:
    _plain_alpha(call)
    a, b = call["self"], call["other"]
    if call.name == "rsub":
        a, b = b, a
    if isinstance(a, Value) and isinstance(b, Value):
        return _two(ops.Sub)(flat, call, a, b)
    return _scaled(flat, call, a, 1.0, _negated(b)) if isinstance(a, Value) else _scaled(flat, call, b, -1.0, a)


def _mul(flat: FlatGraph, call: Call) -> Value:
    a, b = call["self"], call["other"]
    if isinstance(a, Value) and isinstance(b, Value):
        return _two(ops.Mul)(flat, call, a, b)
    value, constant = (a, b) if isinstance(a, Value) else (b, a)
    return _scaled(flat, call, value, constant, 0.0)


def _div(flat: FlatGraph, call: Call) -> Value:
    a, b = call["self"], call["other"]
    if call["rounding_mode"] is not None:
        raise Refusal("division with rounding_mode")
    if isinstance(a, Value) and isinstance(b, Value):
        return _two(ops.Div)(flat, call, a, b)
    if isinstance(a, Value):
        return _scaled(flat, call, a, _inverse(b), 0.0)
    inverse = flat.each(call.within("reciprocal"), ops.Function("Reciprocal"), b)
    return _scaled(flat, call, inverse, a, 0.0)


def _pow(flat: FlatGraph, call: Call) -> Value:
    exponent = call["exponent"]
    value = call.value()
    if exponent == 2:
        return _square(flat, call, value)
    if exponent == 0.5:
        return flat.each(call, ops.Function("Sqrt"), value)
    if exponent == -0.5:
        return _rsqrt(flat, replace(call, given={"self": value}))
    if exponent == -1:
        return flat.each(call, ops.Function("Reciprocal"), value)
    if exponent == 3:
        return _two(ops.Mul)(flat, call, _square(flat, call.within("square"), value), value)
    raise Refusal(f"pow with exponent {exponent}")


def _square(flat: FlatGraph, call: Call, value: Value) -> Value:
    return value.with_node(flat.add(call, ops.Mul(), [value.node, value.node], value.dims))


def _rsqrt(flat: FlatGraph, call: Call) -> Value:
    root = flat.each(call.within("sqrt"), ops.Function("Sqrt"), call.value())
    return flat.each(call, ops.Function("Reciprocal"), root)


def _addcmul(flat: FlatGraph, call: Call) -> Value:
    product = replace(call, given={"self": call["tensor1"], "other": call["tensor2"]}).within("product")
    scaled = _mul(flat, product)
    if call["value"] != 1:
        scaled = _scaled(flat, call.within("value"), scaled, call["value"], 0.0)
    return _add(flat, replace(call, given={"self": call["self"], "other": scaled}))


def _function(name: str) -> Handler:
    return _each(lambda _: ops.Function(name))


# ── reductions ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _reduce(name: str) -> Handler:
    def convert(flat: FlatGraph, call: Call) -> Value:
        return _reduced(flat, call, call.value(), call["dim"], name, keep=bool(call["keepdim"]))

    return convert


def _reduced(flat: FlatGraph, call: Call, value: Value, axes: Any, name: str, *, keep: bool) -> Value:  # noqa: ANN401
    rank = len(value.axes)
    wanted = sorted({axis % rank for axis in ([axes] if isinstance(axes, int) else axes or range(rank))})
    if len(value.axes) == len(value.dims) and wanted == list(range(2, rank)) and name == "ReduceMean" and rank > 2:
        value = flat.plain(call, value)
    if any(value.stored_axis(axis) is None and value.axes[axis] for axis in wanted):
        value = flat.arranged(call, value)
    stored = [value.stored_axis(axis) for axis in wanted if value.axes[axis]]
    if any(not axis for axis in stored):
        raise Refusal(f"{call.name} over the batch")
    lying = tuple(sorted(axis for axis in stored if axis))
    dims = tuple(1 if axis in lying else side for axis, side in enumerate(value.dims))
    if lying:
        spatial = value.is_plain and lying == tuple(range(2, len(dims))) and name == "ReduceMean"
        module = ops.GlobalAveragePool() if spatial else ops.Reduce(name, lying)
        value = value.with_node(flat.add(call, module, [value.node], dims), dims)
    if keep:
        return value
    left = tuple(group for axis, group in enumerate(value.axes) if axis not in wanted)
    return replace(value, axes=left, named=call.layer)


def _sum(flat: FlatGraph, call: Call) -> Value:
    value = call.value()
    rank = len(value.axes)
    axes = [call["dim"]] if isinstance(call["dim"], int) else call["dim"] or range(rank)
    count = math.prod(value.shape[axis] for axis in axes)
    mean = _reduced(flat, call.within("mean"), value, call["dim"], "ReduceMean", keep=bool(call["keepdim"]))
    return _scaled(flat, call, mean, count, 0.0)


def _max(flat: FlatGraph, call: Call) -> tuple[Value | None, ...]:
    return (_reduced(flat, call, call.value(), call["dim"], "ReduceMax", keep=bool(call["keepdim"])), None)


def _vector_norm(flat: FlatGraph, call: Call) -> Value:
    if call["ord"] != 2:
        raise Refusal(f"a vector norm of order {call['ord']}")
    squared = _square(flat, call.within("square"), call.value())
    given = {"self": squared, "dim": call["dim"], "keepdim": call["keepdim"]}
    return flat.each(call, ops.Function("Sqrt"), _sum(flat, replace(call, given=given).within("sum")))


def _var(flat: FlatGraph, call: Call) -> Value:
    value = call.value()
    axes = [call["dim"]] if isinstance(call["dim"], int) else list(call["dim"] or range(len(value.axes)))
    count = math.prod(value.shape[axis] for axis in axes)
    correction = 1 if call["correction"] is None else call["correction"]
    mean = _reduced(flat, call.within("mean"), value, axes, "ReduceMean", keep=True)
    centred = _two(ops.Sub)(flat, call.within("centred"), value, mean)
    squared = _square(flat, call.within("square"), centred)
    spread = _reduced(flat, call.within("spread"), squared, axes, "ReduceMean", keep=bool(call["keepdim"]))
    result = _scaled(flat, call, spread, count / (count - correction), 0.0)
    return flat.each(call.within("sqrt"), ops.Function("Sqrt"), result) if call.name == "std" else result


# ── pools and pads ──────────────────────────────────────────────────────────────────────────────────────────────────


def _sides(value: Any, axes: int) -> tuple[int, ...]:  # noqa: ANN401
    sides = (value,) if isinstance(value, int) else tuple(value)
    return sides * axes if len(sides) == 1 else sides


def _max_pool(make: Callable[..., nn.Module], axes: int) -> Handler:
    def convert(flat: FlatGraph, call: Call) -> Any:  # noqa: ANN401
        kernel = _sides(call["kernel_size"], axes)
        pool = make(
            kernel,
            _sides(call["stride"] or kernel, axes),
            _sides(call["padding"], axes),
            _sides(call["dilation"], axes),
            ceil_mode=call["ceil_mode"],
        )
        value = flat.apply(call, pool, call.value())
        return (value, None) if call.name.endswith("with_indices") else value

    return convert


def _avg_pool(make: Callable[..., nn.Module], axes: int) -> Handler:
    def convert(flat: FlatGraph, call: Call) -> Value:
        value = call.value()
        kernel = _sides(call["kernel_size"], axes)
        stride, padding = _sides(call["stride"] or kernel, axes), _sides(call["padding"], axes)
        include = call["count_include_pad"]
        if call["ceil_mode"] and include and any(padding):  # the windows that hang over count the pads, not the rest
            pads = [side for each in reversed(padding) for side in (each, each)]
            value, padding = _padded(flat, call.within("pad"), value, pads, 0.0), (0,) * axes
        pool = make(kernel, stride, padding, ceil_mode=call["ceil_mode"], count_include_pad=include)
        result = flat.apply(call, pool, value)
        divisor = call["divisor_override"]
        if divisor:
            if any(padding) and not include or call["ceil_mode"]:
                raise Refusal("pooling with divisor_override and windows that hang over")
            result = _scaled(flat, call.within("divisor"), result, math.prod(kernel) / divisor, 0.0)
        return result

    return convert


def _adaptive_avg_pool(make: Callable[..., nn.Module], axes: int) -> Handler:
    def convert(flat: FlatGraph, call: Call) -> Value:
        value = flat.plain(call, call.value())
        sizes, wanted = value.dims[2:], call.shape[2:]
        if sizes == wanted:
            return value
        if all(side == 1 for side in wanted):
            return flat.apply(call, ops.GlobalAveragePool(), value)
        if all(before % after == 0 for before, after in zip(sizes, wanted, strict=True)):
            kernel = tuple(before // after for before, after in zip(sizes, wanted, strict=True))
            return flat.apply(call, make(kernel), value)
        for number, (before, after) in enumerate(zip(sizes, wanted, strict=True)):
            value = _mixed(flat, call, value, number + 2, _adaptive_weights(before, after))
        return value

    return convert


def _adaptive_weights(before: int, after: int) -> Tensor:
    """(after, before): row i is the mean over i * before // after … as torch takes it."""
    weights = torch.zeros(after, before)
    for row in range(after):
        start, stop = row * before // after, -(-(row + 1) * before // after)
        weights[row, start:stop] = 1 / (stop - start)
    return weights


def _mixed(flat: FlatGraph, call: Call, value: Value, axis: int, weights: Tensor) -> Value:
    """Mix the elements along an axis with constant weights."""
    last = len(value.axes) - 1
    order = [*(each for each in range(last + 1) if each != axis), axis]
    turned = flat.arranged(call, value.permuted(order))
    layer = ops.Projection(weights.shape[1], weights.shape[0], bias=False)
    layer.weight = nn.Parameter(weights, requires_grad=False)
    dims = (*turned.dims[:-1], weights.shape[0])
    mixed = turned.with_node(flat.add(call, layer, [turned.node], dims), dims)
    back = [order.index(each) for each in range(last + 1)]
    return mixed.permuted(back)


def _adaptive_max_pool(flat: FlatGraph, call: Call) -> tuple[Value | None, ...]:
    value = flat.plain(call, call.value())
    sizes, wanted = value.dims[2:], call.shape[2:]
    if any(before % after for before, after in zip(sizes, wanted, strict=True)):
        raise Refusal(f"adaptive max pooling of {sizes} to {wanted}")
    kernel = tuple(before // after for before, after in zip(sizes, wanted, strict=True))
    make = nn.MaxPool1d if len(kernel) == 1 else nn.MaxPool2d
    return (flat.apply(call, make(kernel), value), None)  # type: ignore[arg-type]


def _pad(flat: FlatGraph, call: Call) -> Value:
    pads, mode = list(call["pad"]), call["mode"] or "constant"
    value = call.value()
    if mode == "constant":
        return _padded(flat, call, value, pads, float(call["value"] or 0.0))
    rank = len(value.axes)
    for pair in range(len(pads) // 2):
        axis, (before, after) = rank - 1 - pair, pads[2 * pair : 2 * pair + 2]
        side = value.shape[axis]
        indices = _edge_indices(side, before, after, mode)
        value = gathered(flat, call, value, axis, torch.tensor(indices))
    return value


def _edge_indices(side: int, before: int, after: int, mode: str) -> list[int]:
    places = range(-before, side + after)
    if mode == "replicate":
        return [min(max(place, 0), side - 1) for place in places]
    if mode == "circular":
        return [place % side for place in places]
    return [side - 1 - abs(side - 1 - abs(place)) for place in places]  # reflect


def _padded(flat: FlatGraph, call: Call, value: Value, pads: Sequence[int], fill: float) -> Value:
    value = flat.plain(call, value)
    rank = len(value.dims)
    dims = list(value.dims)
    for pair in range(len(pads) // 2):
        dims[rank - 1 - pair] += pads[2 * pair] + pads[2 * pair + 1]
    if len(pads) // 2 >= rank and any(pads[2 * (rank - 1) :]):
        raise Refusal("padding of the batch")
    pads = tuple(pads[: 2 * (rank - 1)])
    if min(pads, default=0) < 0:
        for pair in range(len(pads) // 2):
            axis, (before, after) = rank - 1 - pair, pads[2 * pair : 2 * pair + 2]
            if before < 0 or after < 0:
                start, stop = max(-before, 0), value.dims[axis] - max(-after, 0)
                cut = tuple(stop - start if place == axis else side for place, side in enumerate(value.dims))
                value = plain(flat.add(call.within("crop"), ops.Slice(axis, start, stop), [value.node], cut), cut)
        pads = tuple(max(each, 0) for each in pads)
        if not any(pads):
            return value
    return plain(flat.add(call, ops.Pad(pads, fill), [value.node], dims), dims)


def _upsample(mode: str) -> Handler:
    def convert(flat: FlatGraph, call: Call) -> Value:
        align = bool(call["align_corners"]) if mode != "nearest" else None
        size = call.shape[2:]
        return flat.apply(call, nn.Upsample(size=tuple(size), mode=mode, align_corners=align), call.value(_source(call)))

    return convert


def _source(call: Call) -> str:
    return "input" if "input" in call.given else "self"


# ── products of two computed values ─────────────────────────────────────────────────────────────────────────────────


def _matmul(flat: FlatGraph, call: Call) -> Value:
    a, b = call["self"], call["other"] if call["mat2"] is None else call["mat2"]
    if isinstance(a, Value) and isinstance(b, Constant):
        if b.tensor.dim() != 2:
            raise Refusal("matmul with a constant of more than two axes")
        weight = replace(b, tensor=_transposed(b))
        return _linear(flat, replace(call, given={"input": a, "weight": weight, "bias": None}))
    if isinstance(a, Constant):
        if a.tensor.dim() != 2 or not isinstance(b, Value):
            raise Refusal("matmul of a constant with more than two axes")
        # (A b) = (b^T A^T)^T
        given = {"input": _swapped(b), "weight": a, "bias": None}
        return _swapped(_linear(flat, replace(call, given=given)))
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
    query = _scaled(flat, call.within("query"), query, scale, 0.0)
    weights = _product(flat, call.within("weights"), query, _swapped(key))
    mask = call["attn_mask"]
    if isinstance(mask, Value):
        weights = _two(ops.Add)(flat, call.within("mask"), weights, mask)
    elif mask is not None:
        if mask.tensor.dtype == torch.bool:
            hidden = torch.zeros(mask.tensor.shape).masked_fill(~mask.tensor, -1e9)
            mask = replace(mask, tensor=hidden, learned=False)
        weights = _scaled(flat, call.within("mask"), weights, 1.0, mask)
    softmax = replace(call, given={"self": weights, "dim": -1}).within("softmax")
    return _product(flat, call, _softmax(flat, replace(softmax, name="softmax")), value)


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


ATEN: Mapping[str, Handler] = {
    "conv1d": _conv(nn.Conv1d, 1),
    "conv2d": _conv(nn.Conv2d, 2),
    "conv_transpose1d": _conv_transpose(nn.ConvTranspose1d, 1),
    "conv_transpose2d": _conv_transpose(nn.ConvTranspose2d, 2),
    "linear": _linear,
    "addmm": _addmm,
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "group_norm": _group_norm,
    "instance_norm": _instance_norm,
    "relu": _each(lambda _: nn.ReLU()),
    "relu6": _each(lambda _: nn.ReLU6()),
    "hardtanh": _hardtanh,
    "clamp": _clamp,
    "clamp_min": _clamp,
    "clamp_max": _clamp,
    "leaky_relu": _each(lambda call: nn.LeakyReLU(call["negative_slope"])),
    "prelu": _prelu,
    "elu": _each(lambda call: nn.ELU(call["alpha"])),
    "silu": _silu,
    "gelu": _each(_gelu),
    "mish": _each(lambda _: nn.Mish()),
    "softplus": _each(lambda call: nn.Softplus(call["beta"], call["threshold"])),
    "hardswish": _each(lambda _: nn.Hardswish()),
    "hardsigmoid": _each(lambda _: nn.Hardsigmoid()),
    "sigmoid": _each(lambda _: nn.Sigmoid()),
    "tanh": _each(lambda _: nn.Tanh()),
    "softmax": _softmax,
    "log_softmax": _softmax,
    "add": _add,
    "sub": _sub,
    "rsub": _sub,
    "mul": _mul,
    "div": _div,
    "neg": lambda flat, call: _scaled(flat, call, call.value(), -1.0, 0.0),
    "pow": _pow,
    "square": lambda flat, call: _square(flat, call, call.value()),
    "rsqrt": _rsqrt,
    "addcmul": _addcmul,
    "abs": _function("Abs"),
    "cos": _function("Cos"),
    "exp": _function("Exp"),
    "log": _function("Log"),
    "reciprocal": _function("Reciprocal"),
    "sin": _function("Sin"),
    "sqrt": _function("Sqrt"),
    "mean": _reduce("ReduceMean"),
    "amax": _reduce("ReduceMax"),
    "max": _max,
    "sum": _sum,
    "linalg_vector_norm": _vector_norm,
    "var": _var,
    "std": _var,
    "max_pool1d": _max_pool(nn.MaxPool1d, 1),
    "max_pool2d": _max_pool(nn.MaxPool2d, 2),
    "max_pool2d_with_indices": _max_pool(nn.MaxPool2d, 2),
    "avg_pool1d": _avg_pool(nn.AvgPool1d, 1),
    "avg_pool2d": _avg_pool(nn.AvgPool2d, 2),
    "adaptive_avg_pool1d": _adaptive_avg_pool(nn.AvgPool1d, 1),
    "adaptive_avg_pool2d": _adaptive_avg_pool(nn.AvgPool2d, 2),
    "adaptive_max_pool1d": _adaptive_max_pool,
    "adaptive_max_pool2d": _adaptive_max_pool,
    "pad": _pad,
    "constant_pad_nd": _pad,
    "upsample_nearest1d": _upsample("nearest"),
    "upsample_nearest2d": _upsample("nearest"),
    "upsample_bilinear2d": _upsample("bilinear"),
    "matmul": _matmul,
    "bmm": _matmul,
    "scaled_dot_product_attention": _attention,
    "einsum": _einsum,
    **SHAPES,
}  # fmt: skip
