"""Convolutions, linear layers and batch norms: layers with weights of their own.

Shapes: N batch, F input features, O output features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import nn

from pipeline.networks.aten.linear import linear
from pipeline.networks.aten.norms import instance_norm
from pipeline.networks.aten.shapes import Handler, padded
from pipeline.networks.aten.weights import own_name, parameter, sides, transposed, weighted
from pipeline.networks.axes import Value
from pipeline.networks.flat import Call, FlatGraph, Refusal


def _conv(make: Callable[..., nn.Module], axes: int) -> Handler:
    def convert(flat: FlatGraph, call: Call) -> Value:
        call = own_name(call)
        value, weight = flat.plain(call, call.value("input")), call.tensor("weight")
        if weight is None or len(value.dims) != axes + 2:
            raise Refusal(f"{call.name} of a value with {len(value.dims)} axes")
        kernel = tuple(weight.shape[2:])
        dilation = sides(call["dilation"], axes)
        value, padding = _symmetric(flat, call, value, kernel, dilation)
        layer = weighted(
            call,
            make,
            weight.shape[1] * call["groups"],
            weight.shape[0],
            kernel,
            stride=sides(call["stride"], axes),
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
        return value, sides(padding, len(kernel))
    whole = [step * (side - 1) for side, step in zip(kernel, dilation, strict=True)]
    if all(each % 2 == 0 for each in whole):
        return value, tuple(each // 2 for each in whole)
    pads = [amount for each in reversed(whole) for amount in (each // 2, each - each // 2)]
    return padded(flat, call.within("pad"), value, pads, 0.0), (0,) * len(kernel)


def _conv_transpose(make: Callable[..., nn.Module], axes: int) -> Handler:
    def convert(flat: FlatGraph, call: Call) -> Value:
        call = own_name(call)
        weight = call.tensor("weight")
        if weight is None:
            raise Refusal(f"{call.name} without weights")
        layer = weighted(
            call,
            make,
            weight.shape[0],
            weight.shape[1] * call["groups"],
            tuple(weight.shape[2:]),
            stride=sides(call["stride"], axes),
            padding=sides(call["padding"], axes),
            output_padding=sides(call["output_padding"], axes),
            dilation=sides(call["dilation"], axes),
            groups=call["groups"],
        )
        return flat.apply(call, layer, call.value("input"))

    return convert


def _mm(flat: FlatGraph, call: Call) -> Value:
    return _addmm(flat, replace(call, given={**call.given, "mat1": call["self"], "self": None, "beta": 1, "alpha": 1}))


def _addmm(flat: FlatGraph, call: Call) -> Value:
    second, bias = call.constant("mat2"), call.constant("self")
    if second is None or call["beta"] != 1 or call["alpha"] != 1:
        raise Refusal("addmm of two computed matrices")
    weight = replace(second, tensor=transposed(second))
    return linear(flat, replace(call, given={"input": call["mat1"], "weight": weight, "bias": bias}))


def _batch_norm(flat: FlatGraph, call: Call) -> Value:
    call = own_name(call)
    value = flat.plain(call, call.value("input"))
    mean, variance = call.tensor("running_mean"), call.tensor("running_var")
    if mean is None or variance is None:
        return instance_norm(flat, call)
    weight, bias = call.constant("weight"), call.constant("bias")
    make = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}.get(len(value.dims))
    if make is None:
        raise Refusal(f"batch norm of a value with {len(value.dims)} axes")
    layer = make(mean.numel(), eps=call["eps"], affine=weight is not None, device="meta")
    if weight is not None:
        layer.weight = parameter(weight)
        layer.bias = parameter(bias) if bias is not None else nn.Parameter(torch.zeros_like(weight.tensor))
    layer.running_mean, layer.running_var = mean.detach().clone(), variance.detach().clone()
    layer.num_batches_tracked = torch.tensor(0)
    return flat.apply(call, layer, value)


def _instance_norm(flat: FlatGraph, call: Call) -> Value:
    """Each channel of a sample by itself, or by what was seen in training."""
    return instance_norm(flat, call) if call["use_input_stats"] else _batch_norm(flat, call)


LAYERS: Mapping[str, Handler] = {
    "conv1d": _conv(nn.Conv1d, 1),
    "conv2d": _conv(nn.Conv2d, 2),
    "conv3d": _conv(nn.Conv3d, 3),
    "conv_transpose1d": _conv_transpose(nn.ConvTranspose1d, 1),
    "conv_transpose2d": _conv_transpose(nn.ConvTranspose2d, 2),
    "conv_transpose3d": _conv_transpose(nn.ConvTranspose3d, 3),
    "linear": linear,
    "addmm": _addmm,
    "mm": _mm,
    "batch_norm": _batch_norm,
    "instance_norm": _instance_norm,
}
