"""Pools and paddings, and what they share with convolutions.

Pads are those of ONNX: one for each axis, all before and then all after.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from pipeline.networks.edges import edge_indices
from pipeline.networks.onnx.modules import Selected
from pipeline.networks.onnx.nodes import Handler, Node
from pipeline.networks.onnx.values import Refusal, Value

_MAX_POOLS = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}
_MEAN_POOLS = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}
_MODES = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}


def sides_of(node: Node, name: str, axes: int) -> tuple[int, ...]:
    """Return an attribute with one number for each axis, 1 where it is left out."""
    found = tuple(node.attribute(name) or (1,) * axes)
    if len(found) != axes or min(found) < 1:
        raise Refusal(f"has {name} {list(found)} for {axes} axes")
    return found


def window_pads(
    node: Node, sizes: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> tuple[int, ...]:
    """Return the pads of a window operation, those of ``auto_pad`` in numbers."""
    mode = node.attribute("auto_pad", "NOTSET")
    if mode == "NOTSET":
        pads: tuple[int, ...] = node.attribute("pads") or (0,) * 2 * len(kernel)
        if len(pads) != 2 * len(kernel) or min(pads) < 0:
            raise Refusal(f"has pads {list(pads)} for {len(kernel)} axes")
        return pads
    if mode == "VALID":
        return (0,) * 2 * len(kernel)
    total = [
        max(0, (math.ceil(size / stride) - 1) * stride + (side - 1) * dilation + 1 - size)
        for size, side, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True)
    ]
    smaller, larger = [each // 2 for each in total], [each - each // 2 for each in total]
    return tuple((*smaller, *larger) if mode == "SAME_UPPER" else (*larger, *smaller))


def evened(node: Node, x: Value, pads: Sequence[int], fill: float) -> tuple[Value, tuple[int, ...]]:
    """Return padding that is the same before and after; where it is not, the value is padded before."""
    axes = len(pads) // 2
    if pads[:axes] == pads[axes:]:
        return x, tuple(pads[:axes])
    return padded(node, x, pads, fill), (0,) * axes


def padded(node: Node, x: Value, pads: Sequence[int], fill: float) -> Value:
    """Pad the last axes with a number."""
    return node.run(lambda y: F.pad(y, _for_torch(pads), value=fill), x, part="pad")


def _for_torch(pads: Sequence[int]) -> list[int]:
    axes = len(pads) // 2
    return [amount for axis in reversed(range(axes)) for amount in (pads[axis], pads[axis + axes])]


def _max_pool(node: Node) -> Value:
    node.only_first_output()
    x, kernel = node.value(), tuple(node.attribute("kernel_shape"))
    strides, dilations = (sides_of(node, name, len(kernel)) for name in ("strides", "dilations"))
    pads = window_pads(node, x.shape[2:], kernel, strides, dilations)
    reach = [(side - 1) * dilation + 1 for side, dilation in zip(kernel, dilations, strict=True)]
    x, padding, ceil = _hanging(node, x, pads, reach, strides, fill=-math.inf)
    return node.layer(_pool_for(node, _MAX_POOLS, len(kernel))(kernel, strides, padding, dilations, ceil_mode=ceil), x)


def _average_pool(node: Node) -> Value:
    x, kernel = node.value(), tuple(node.attribute("kernel_shape"))
    strides, dilations = (sides_of(node, name, len(kernel)) for name in ("strides", "dilations"))
    if any(each != 1 for each in dilations):
        raise Refusal("averages over windows with gaps")
    pads = window_pads(node, x.shape[2:], kernel, strides, dilations)
    make = _pool_for(node, _MEAN_POOLS, len(kernel))
    ceil = bool(node.attribute("ceil_mode", 0))
    if node.attribute("count_include_pad", 0):
        axes, even = len(kernel), _is_even(pads, kernel)
        if ceil and not even:
            pads = _without_windows_in_pads(pads, x.shape[2:], kernel, strides)
        x, padding = (x, pads[:axes]) if even else (padded(node, x, pads, 0.0), (0,) * axes)
        return node.layer(make(kernel, strides, padding, ceil_mode=ceil, count_include_pad=True), x)
    if _is_even(pads, kernel) or _hangs_at_end(pads, x.shape[2:], kernel, strides):
        axes = len(kernel)
        over = ceil or pads[:axes] != pads[axes:]
        return node.layer(make(kernel, strides, pads[:axes], ceil_mode=over, count_include_pad=False), x)
    if ceil:
        raise Refusal("averages over windows that hang over uneven pads")
    # the mean of a window with zeros, times how many of its elements are no padding
    sizes = x.shape[2:]
    x = padded(node, x, pads, 0.0)
    pool = make(kernel, strides)
    share = pool(F.pad(torch.ones(1, 1, *sizes), _for_torch(pads)))[0].detach()
    mean = node.layer(pool, x, part="mean")
    return node.broadcast(torch.mul, mean, (1 / share).numpy())


def _hanging(  # noqa: PLR0917
    node: Node, x: Value, pads: Sequence[int], reach: Sequence[int], strides: Sequence[int], fill: float
) -> tuple[Value, tuple[int, ...], bool]:
    """Return padding and ceil_mode that do what the pads do; where none can, the value is padded before."""
    axes, ceil = len(reach), bool(node.attribute("ceil_mode", 0))
    if _is_even(pads, reach):
        return x, tuple(pads[:axes]), ceil
    if not ceil and _hangs_at_end(pads, x.shape[2:], reach, strides):
        return x, tuple(pads[:axes]), True
    if ceil:
        pads = _without_windows_in_pads(pads, x.shape[2:], reach, strides)
    return padded(node, x, pads, fill), (0,) * axes, ceil


def _without_windows_in_pads(
    pads: Sequence[int], sizes: Sequence[int], reach: Sequence[int], strides: Sequence[int]
) -> tuple[int, ...]:
    """Pad less at the end where a window that hangs over would begin in the pads there: ONNX Runtime has none."""
    axes, ends = len(reach), []
    for before, after, size, side, stride in zip(pads[:axes], pads[axes:], sizes, reach, strides, strict=True):
        last = math.ceil((before + size + after - side) / stride) * stride  # where the last window begins
        ends.append(last - stride + side - size - before if last >= size + before else after)
    return (*pads[:axes], *ends)


def _is_even(pads: Sequence[int], reach: Sequence[int]) -> bool:
    axes = len(reach)
    fits = all(2 * pad <= side for pad, side in zip(pads[:axes], reach, strict=True))
    return fits and pads[:axes] == pads[axes:]


def _hangs_at_end(pads: Sequence[int], sizes: Sequence[int], reach: Sequence[int], strides: Sequence[int]) -> bool:
    """Tell whether torch's ceil_mode does what the larger pads at the end are for: one more window in each axis."""
    axes = len(reach)
    for before, after, size, side, stride in zip(pads[:axes], pads[axes:], sizes, reach, strides, strict=True):
        wanted = (size + before + after - side) // stride + 1
        over = math.ceil((size + 2 * before - side) / stride) + 1
        if (over - 1) * stride >= size + before:
            over -= 1
        if after < before or over != wanted or 2 * before > side:
            return False
    return True


def _pool_for(node: Node, makers: Mapping[int, type[nn.Module]], axes: int) -> type[nn.Module]:
    if axes not in makers or len(node.value().shape) != axes + 2:
        raise Refusal(f"is a pool over {axes} axes")
    return makers[axes]


def _global_average(node: Node) -> Value:
    x = node.value()
    axes = tuple(node.axis(axis, len(x.shape)) for axis in range(2, len(x.shape)))
    return node.run(lambda y: y.mean(axes, keepdim=True), x)


def _global_max(node: Node) -> Value:
    x = node.value()
    axes = tuple(node.axis(axis, len(x.shape)) for axis in range(2, len(x.shape)))
    return node.run(lambda y: y.amax(axes, keepdim=True), x)


def _pad(node: Node) -> Value:
    x = node.value()
    rank = len(x.shape)
    pads = node.whole_numbers("pads", 1) or node.whole_numbers("paddings", 1)
    if pads is None:
        raise Refusal("does not say how much")
    axes = node.whole_numbers("axes", 3) or tuple(range(rank))
    pairs = {axis % rank: (pads[at], pads[at + len(axes)]) for at, axis in enumerate(axes)}
    pairs = {axis: pair for axis, pair in pairs.items() if any(pair)}
    if not pairs:
        return x
    mode = _MODES.get(node.attribute("mode", "constant"))
    fill = float(node.attribute("value", 0.0)) if node.opset < 11 else node.number(2, 0.0)
    if mode is None:
        raise Refusal(f"pads in the mode '{node.attribute('mode')}'")
    first = node.axis(min(pairs), rank)
    last = rank + node.lifted
    flat = [amount for axis in reversed(range(first, last)) for amount in pairs.get(axis - node.lifted, (0, 0))]
    if mode == "constant":
        return node.run(lambda y: F.pad(y, flat, value=fill), x)
    for axis, (before, after) in pairs.items():
        indices = edge_indices(x.shape[axis], before, after, mode)
        at = node.axis(axis, rank)
        x = node.run(Selected(at, torch.tensor(indices)), x)
    return x


WINDOWS: Mapping[str, Handler] = {
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "GlobalAveragePool": _global_average,
    "GlobalMaxPool": _global_max,
    "Pad": _pad,
}
