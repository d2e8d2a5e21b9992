"""Pools, pads and resizes.

Shapes: N batch, C channels, H height, W width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from pipeline.graph import ops
from pipeline.networks.aten.pointwise import scaled
from pipeline.networks.aten.shapes import Handler, gathered, padded
from pipeline.networks.aten.weights import sides
from pipeline.networks.axes import Value
from pipeline.networks.flat import Call, FlatGraph, Refusal


def _max_pool(make: Callable[..., nn.Module], axes: int) -> Handler:
    def convert(flat: FlatGraph, call: Call) -> Any:
        kernel = sides(call["kernel_size"], axes)
        pool = make(
            kernel,
            sides(call["stride"] or kernel, axes),
            sides(call["padding"], axes),
            sides(call["dilation"], axes),
            ceil_mode=call["ceil_mode"],
        )
        value = flat.apply(call, pool, call.value())
        return (value, None) if call.name.endswith("with_indices") else value

    return convert


def _avg_pool(make: Callable[..., nn.Module], axes: int) -> Handler:
    def convert(flat: FlatGraph, call: Call) -> Value:
        value = call.value()
        kernel = sides(call["kernel_size"], axes)
        stride, padding = sides(call["stride"] or kernel, axes), sides(call["padding"], axes)
        include = call["count_include_pad"]
        if call["ceil_mode"] and include and any(padding):  # the windows that hang over count the pads, not the rest
            pads = [side for each in reversed(padding) for side in (each, each)]
            value, padding = padded(flat, call.within("pad"), value, pads, 0.0), (0,) * axes
        pool = make(kernel, stride, padding, ceil_mode=call["ceil_mode"], count_include_pad=include)
        result = flat.apply(call, pool, value)
        divisor = call["divisor_override"]
        if divisor:
            if (any(padding) and not include) or call["ceil_mode"]:
                raise Refusal("pooling with divisor_override and windows that hang over")
            result = scaled(flat, call.within("divisor"), result, math.prod(kernel) / divisor, 0.0)
        return result

    return convert


def _adaptive_avg_pool(make: Callable[..., nn.Module]) -> Handler:
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
    return (flat.apply(call, make(kernel), value), None)


def _pad(flat: FlatGraph, call: Call) -> Value:
    pads, mode = list(call["pad"]), call["mode"] or "constant"
    value = call.value()
    if mode == "constant":
        return padded(flat, call, value, pads, float(call["value"] or 0.0))
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


def _upsample(mode: str) -> Handler:
    def convert(flat: FlatGraph, call: Call) -> Value:
        align = bool(call["align_corners"]) if mode != "nearest" else None
        size = call.shape[2:]
        return flat.apply(
            call, nn.Upsample(size=tuple(size), mode=mode, align_corners=align), call.value(_source(call))
        )

    return convert


def _source(call: Call) -> str:
    return "input" if "input" in call.given else "self"


def _linear_resize(mode: str, *, antialias: bool = False) -> Handler:
    """Resize in a way that no runtime has: it mixes rows, then columns, with weights that are known."""

    def convert(flat: FlatGraph, call: Call) -> Value:
        value = call.value(_source(call))
        options = {} if mode == "nearest-exact" else {"align_corners": bool(call["align_corners"])}
        for axis in (2, 3):
            before, after = value.shape[axis], call.shape[axis]
            if before != after:
                # two columns: torch's own kernel goes wrong on a single one
                rows = torch.eye(before).reshape(before, 1, before, 1).repeat(1, 1, 1, 2)
                mixed = F.interpolate(rows, size=(after, 2), mode=mode, antialias=antialias, **options)
                value = _mixed(flat, call, value, axis, mixed[:, 0, :, 0].T.contiguous())
        return value

    return convert


WINDOWS: Mapping[str, Handler] = {
    "max_pool1d": _max_pool(nn.MaxPool1d, 1),
    "max_pool2d": _max_pool(nn.MaxPool2d, 2),
    "max_pool2d_with_indices": _max_pool(nn.MaxPool2d, 2),
    "avg_pool1d": _avg_pool(nn.AvgPool1d, 1),
    "avg_pool2d": _avg_pool(nn.AvgPool2d, 2),
    "adaptive_avg_pool1d": _adaptive_avg_pool(nn.AvgPool1d),
    "adaptive_avg_pool2d": _adaptive_avg_pool(nn.AvgPool2d),
    "adaptive_max_pool1d": _adaptive_max_pool,
    "adaptive_max_pool2d": _adaptive_max_pool,
    "pad": _pad,
    "constant_pad_nd": _pad,
    "upsample_nearest1d": _upsample("nearest"),
    "upsample_nearest2d": _upsample("nearest"),
    "upsample_bilinear2d": _upsample("bilinear"),
    "upsample_bicubic2d": _linear_resize("bicubic"),
    "_upsample_bicubic2d_aa": _linear_resize("bicubic", antialias=True),
    "_upsample_bilinear2d_aa": _linear_resize("bilinear", antialias=True),
    "_upsample_nearest_exact2d": _linear_resize("nearest-exact"),
}
