"""Pools, pads and resizes.

Shapes: N batch, C channels, H height, W width.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from pipeline.graph import ops
from pipeline.networks.aten.linear import mixed
from pipeline.networks.aten.pointwise import scaled
from pipeline.networks.aten.shapes import Handler, gathered, padded
from pipeline.networks.aten.weights import sides
from pipeline.networks.axes import Value
from pipeline.networks.edges import edge_indices
from pipeline.networks.flat import Call, FlatGraph


def _max_pool(make: Callable[..., nn.Module], axes: int) -> Handler:
    def convert(flat: FlatGraph, call: Call) -> Any:
        kernel = sides(call["kernel_size"], axes)
        stride, padding = sides(call["stride"] or kernel, axes), sides(call["padding"], axes)
        dilation = sides(call["dilation"] or 1, axes)
        value = flat.plain(call, call.value())
        if any(side != 1 for side in dilation):
            value = _largest(flat, call, value, _windows(call, value, kernel, stride, padding, dilation))
        else:
            value = flat.apply(call, make(kernel, stride, padding, ceil_mode=call["ceil_mode"]), value)
        return (value, None) if call.name.endswith("with_indices") else value

    return convert


def _windows(  # noqa: PLR0917
    call: Call,
    value: Value,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> list[list[list[int]]]:
    """Return for each axis which elements each window reads."""
    found = []
    for axis, (size, step, pad, gap) in enumerate(zip(kernel, stride, padding, dilation, strict=True)):
        side = value.dims[axis + 2]
        starts = [place * step - pad for place in range(call.shape[axis + 2])]
        reads = [[start + each * gap for each in range(size)] for start in starts]
        found.append([[place for place in window if 0 <= place < side] for window in reads])
    return found


def _largest(flat: FlatGraph, call: Call, value: Value, windows: Sequence[Sequence[Sequence[int]]]) -> Value:
    """Take the largest element of each window, along one axis after the other: its elements are laid side by side."""
    for number, own in enumerate(windows):
        width = max(len(window) for window in own)
        filled = [[*window, *itertools.repeat(window[0], width - len(window))] for window in own]
        indices = torch.tensor(filled).flatten()
        if width == 1 and indices.tolist() == list(range(value.dims[number + 2])):
            continue
        value = gathered(flat, call.within("windows"), value, number + 2, indices)
        kernel = [1] * len(windows)
        kernel[number] = width
        make = nn.MaxPool1d if len(kernel) == 1 else nn.MaxPool2d
        shape = (*value.dims[: number + 2], len(own), *value.dims[number + 3 :])
        value = flat.apply(call, make(tuple(kernel)), value, shape=shape)
    return value


def _avg_pool(make: Callable[..., nn.Module], axes: int) -> Handler:
    def convert(flat: FlatGraph, call: Call) -> Value:
        value = flat.plain(call, call.value())
        kernel, divisor = sides(call["kernel_size"], axes), call["divisor_override"]
        stride, padding = sides(call["stride"] or kernel, axes), sides(call["padding"], axes)
        include, ceil = call["count_include_pad"], call["ceil_mode"]
        if divisor:  # sums: whatever hangs over is zero
            value, padding, ceil = _padded_to(flat, call, value, kernel, stride, padding), (0,) * axes, False
        elif ceil and include and any(padding):  # the windows that hang over count the pads, not the rest
            pads = _pads_for_windows(call, value, kernel, stride, padding)
            value, padding = padded(flat, call.within("pad"), value, pads, 0.0), (0,) * axes
        result = flat.apply(call, make(kernel, stride, padding, ceil_mode=ceil, count_include_pad=include), value)
        factor = math.prod(kernel) / (divisor or math.prod(kernel))
        return result if factor == 1 else scaled(flat, call.within("divisor"), result, factor, 0.0)

    return convert


def _pads_for_windows(
    call: Call, value: Value, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int]
) -> list[int]:
    """Return zeros around that leave as many windows as the result has: torch drops one that lies in pads alone."""
    pads = []
    for axis in reversed(range(len(kernel))):
        whole = value.dims[axis + 2] + 2 * padding[axis]
        reach = (call.shape[axis + 2] - 1) * stride[axis] + kernel[axis]
        pads += [padding[axis], min(reach, whole) - whole + padding[axis]]
    return pads


def _padded_to(  # noqa: PLR0917
    flat: FlatGraph, call: Call, value: Value, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int]
) -> Value:
    """Write zeros around, so that no window of the result hangs over."""
    pads = []
    for axis in reversed(range(len(kernel))):
        reach = (call.shape[axis + 2] - 1) * stride[axis] + kernel[axis]
        pads += [padding[axis], max(reach - value.dims[axis + 2] - padding[axis], 0)]
    return padded(flat, call.within("pad"), value, pads, 0.0)


def adaptive_avg_pool(flat: FlatGraph, call: Call, value: Value) -> Value:
    """Average over as many windows as the call's shape says."""
    value = flat.plain(call, value)
    sizes, wanted = value.dims[2:], call.shape[2:]
    if sizes == wanted:
        return value
    if all(side == 1 for side in wanted):
        return flat.apply(call, ops.GlobalAveragePool(), value)
    if all(before % after == 0 for before, after in zip(sizes, wanted, strict=True)):
        kernel = tuple(before // after for before, after in zip(sizes, wanted, strict=True))
        make: Callable[..., nn.Module] = nn.AvgPool1d if len(kernel) == 1 else nn.AvgPool2d
        return flat.apply(call, make(kernel), value)
    for number, (before, after) in enumerate(zip(sizes, wanted, strict=True)):
        if before != after:
            value = mixed(flat, call, value, number + 2, _adaptive_weights(before, after))
    return value


def _bounds(before: int, after: int) -> list[tuple[int, int]]:
    """Return where torch's adaptive windows begin and end."""
    return [(row * before // after, -(-(row + 1) * before // after)) for row in range(after)]


def _adaptive_weights(before: int, after: int) -> Tensor:
    """(after, before): each row is the mean over its window."""
    weights = torch.zeros(after, before)
    for row, (start, stop) in enumerate(_bounds(before, after)):
        weights[row, start:stop] = 1 / (stop - start)
    return weights


def adaptive_max_pool(flat: FlatGraph, call: Call, value: Value) -> Value:
    """Return the largest elements of as many windows as the call's shape says."""
    value = flat.plain(call, value)
    sizes, wanted = value.dims[2:], call.shape[2:]
    if any(before % after for before, after in zip(sizes, wanted, strict=True)):
        windows = [
            [list(range(*bounds)) for bounds in _bounds(before, after)]
            for before, after in zip(sizes, wanted, strict=True)
        ]
        return _largest(flat, call, value, windows)
    kernel = tuple(before // after for before, after in zip(sizes, wanted, strict=True))
    make = nn.MaxPool1d if len(kernel) == 1 else nn.MaxPool2d
    return flat.apply(call, make(kernel), value)


def _fold(flat: FlatGraph, call: Call) -> Value:
    """(N, C * kh * kw, L) → (N, C, H, W), what overlaps added: a transposed convolution that places each element."""
    kernel, stride, padding, dilation = (
        sides(call[name], 2) for name in ("kernel_size", "stride", "padding", "dilation")
    )
    value = flat.plain(call, call.value())
    n, rows, _ = value.dims
    places = [
        (side + 2 * pad - gap * (size - 1) - 1) // step + 1
        for side, size, step, pad, gap in zip(call.shape[2:], kernel, stride, padding, dilation, strict=True)
    ]
    rest = [  # positions at the end that no window reaches
        side - ((count - 1) * step - 2 * pad + gap * (size - 1) + 1)
        for side, count, size, step, pad, gap in zip(
            call.shape[2:], places, kernel, stride, padding, dilation, strict=True
        )
    ]
    count = math.prod(kernel)
    weight = torch.eye(count).reshape(1, count, 1, *kernel).expand(rows // count, -1, -1, -1, -1).flatten(0, 1)
    make: Callable[..., nn.Module] = nn.ConvTranspose2d
    groups, options = rows // count, {"dilation": dilation, "bias": False, "device": "meta"}
    layer = make(rows, groups, kernel, stride, padding, tuple(rest), groups=groups, **options)
    layer.weight = nn.Parameter(weight.contiguous(), requires_grad=False)
    shaped = flat.reshaped(call.within("windows"), value, (n, rows, *places))
    return flat.apply(call, layer, shaped)


def _pad(flat: FlatGraph, call: Call) -> Value:
    pads, mode = list(call["pad"]), call["mode"] or "constant"
    value = call.value()
    if mode == "constant":
        return padded(flat, call, value, pads, float(call["value"] or 0.0))
    rank = len(value.axes)
    for pair in range(len(pads) // 2):
        axis, (before, after) = rank - 1 - pair, pads[2 * pair : 2 * pair + 2]
        side = value.shape[axis]
        indices = edge_indices(side, before, after, mode)
        value = gathered(flat, call, value, axis, torch.tensor(indices))
    return value


def _upsample(mode: str) -> Handler:
    def convert(flat: FlatGraph, call: Call) -> Value:
        value = call.value(source_of(call))
        if not is_whole(call, value):
            picked: Value = linear_resize(mode)(flat, call)
            return picked
        align = bool(call["align_corners"]) if mode != "nearest" else None
        if len(value.axes) > 3 or mode == "nearest":
            return flat.apply(call, nn.Upsample(size=call.shape[2:], mode=mode, align_corners=align), value)
        n, channels, before = flat.plain(call, value).dims
        row = flat.reshaped(call.within("reshape"), flat.plain(call, value), (n, channels, 1, before))
        size = (1, call.shape[2])
        layer = nn.Upsample(size=size, mode=mode, align_corners=align)
        resized = flat.apply(call, layer, row, shape=(n, channels, *size))
        return flat.reshaped(call.within("reshape"), resized, call.shape)

    return convert


def source_of(call: Call) -> str:
    """Return what a resize calls its input."""
    return "input" if "input" in call.given else "self"


def is_whole(call: Call, value: Value) -> bool:
    """Whether sizes say all: a factor that leaves a rest places the samples otherwise."""
    factors = call["scale_factors"] or [after / before for before, after in _sizes(call, value)]
    pairs = zip(_sizes(call, value), factors, strict=True)
    return bool(call["align_corners"]) or all(math.isclose(before * factor, after) for (before, after), factor in pairs)


def _sizes(call: Call, value: Value) -> list[tuple[int, int]]:
    return list(zip(value.shape[2:], call.shape[2:], strict=True))


def linear_resize(mode: str, *, antialias: bool = False) -> Handler:
    """Return how to resize in a way that no runtime has: it mixes, or picks, along each axis, as is known before."""

    def convert(flat: FlatGraph, call: Call) -> Value:
        value = call.value(source_of(call))
        options = {} if mode.startswith("nearest") else {"align_corners": bool(call["align_corners"])}
        factors = call["scale_factors"] or [None] * len(call.shape[2:])
        for number, ((before, after), factor) in enumerate(zip(_sizes(call, value), factors, strict=True)):
            if before == after and factor in (None, 1.0):
                continue
            # two columns: torch's own kernel goes wrong on a single one
            rows = torch.eye(before).reshape(before, 1, before, 1).repeat(1, 1, 1, 2)
            size: dict[str, Any] = {"size": (after, 2)} if factor is None else {"scale_factor": (factor, 1.0)}
            resized = F.interpolate(rows, mode=mode, antialias=antialias, **size, **options)
            weights = resized[:, 0, :, 0].T.contiguous()  # (after, before)
            if mode.startswith("nearest"):
                value = gathered(flat, call, value, number + 2, weights.argmax(1))
            else:
                value = mixed(flat, call, value, number + 2, weights)
        return value

    return convert


WINDOWS: Mapping[str, Handler] = {
    "max_pool1d": _max_pool(nn.MaxPool1d, 1),
    "max_pool2d": _max_pool(nn.MaxPool2d, 2),
    "max_pool2d_with_indices": _max_pool(nn.MaxPool2d, 2),
    "avg_pool1d": _avg_pool(nn.AvgPool1d, 1),
    "avg_pool2d": _avg_pool(nn.AvgPool2d, 2),
    "adaptive_avg_pool1d": lambda flat, call: adaptive_avg_pool(flat, call, call.value()),
    "adaptive_avg_pool2d": lambda flat, call: adaptive_avg_pool(flat, call, call.value()),
    "adaptive_max_pool1d": lambda flat, call: (adaptive_max_pool(flat, call, call.value()), None),
    "adaptive_max_pool2d": lambda flat, call: (adaptive_max_pool(flat, call, call.value()), None),
    "col2im": _fold,
    "pad": _pad,
    "constant_pad_nd": _pad,
    "upsample_nearest1d": _upsample("nearest"),
    "upsample_nearest2d": _upsample("nearest"),
    "upsample_linear1d": _upsample("bilinear"),
    "upsample_bilinear2d": _upsample("bilinear"),
    "upsample_bicubic2d": linear_resize("bicubic"),
    "_upsample_bicubic2d_aa": linear_resize("bicubic", antialias=True),
    "_upsample_bilinear2d_aa": linear_resize("bilinear", antialias=True),
    **dict.fromkeys(("_upsample_nearest_exact1d", "_upsample_nearest_exact2d"), linear_resize("nearest-exact")),
}
