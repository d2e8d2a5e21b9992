"""Pools and resizes of volumes: over height and width with the depth among the channels, then over the depth.

Shapes: N batch, C channels, D depth, H height, W width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from pipeline.graph import ops
from pipeline.networks.aten.pointwise import scaled
from pipeline.networks.aten.shapes import Handler
from pipeline.networks.aten.weights import sides
from pipeline.networks.aten.windows import (
    WINDOWS,
    adaptive_avg_pool,
    adaptive_max_pool,
    is_whole,
    linear_resize,
    source_of,
)
from pipeline.networks.axes import Value
from pipeline.networks.flat import Call, FlatGraph

Plane = Callable[[Call, Value, bool], Value]  # the last one says whether it is the depth, over one column


def _separable(flat: FlatGraph, call: Call, value: Value, plane: Plane) -> Value:
    """(N, C, D, H, W) → (N, C * D, H, W) → (N, C, D, H' * W') → (N, C, D', H', W')."""
    n, channels, before, height, width = flat.plain(call, value).dims
    depth, *after = call.shape[2:]
    shaping = call.within("reshape")
    frames = flat.reshaped(shaping, flat.plain(call, value), (n, channels * before, height, width))
    frames = plane(replace(call.within("frames"), shape=(n, channels * before, *after)), frames, False)
    columns = flat.reshaped(shaping, frames, (n, channels, before, after[0] * after[1]))
    columns = plane(replace(call, shape=(n, channels, depth, after[0] * after[1])), columns, True)
    return flat.reshaped(shaping, columns, call.shape)


def _part(numbers: Any, missing: int, *, depth: bool) -> Sequence[int]:
    """Return what belongs to height and width, or to the depth and one column."""
    given = sides(numbers, 3)
    return (given[0], missing) if depth else given[1:]


def _pool(name: str) -> Handler:
    def convert(flat: FlatGraph, call: Call) -> Value:
        kernel, missing = call["kernel_size"], {"kernel_size": 1, "stride": 1, "padding": 0, "dilation": 1}
        given, divisor = {**call.given, "stride": call["stride"] or kernel}, call["divisor_override"]

        def plane(part: Call, value: Value, depth: bool) -> Value:
            own: dict[str, Any] = {
                each: _part(given[each], nothing, depth=depth) for each, nothing in missing.items() if each in given
            }
            if divisor:  # what hangs over counts
                own = {**own, "divisor_override": math.prod(own["kernel_size"])}
            pooled: Value = WINDOWS[name](flat, replace(part, name=name, given={**given, **own, "self": value}))
            return pooled

        result = _separable(flat, call, call.value(), plane)
        if not divisor:
            return result
        return scaled(flat, call.within("divisor"), result, math.prod(sides(kernel, 3)) / divisor, 0.0)

    return convert


def _adaptive(pool: Callable[[FlatGraph, Call, Value], Value], *, tells_places: bool) -> Handler:
    def convert(flat: FlatGraph, call: Call) -> Any:
        value = flat.plain(call, call.value())
        if all(side == 1 for side in call.shape[2:]) and not tells_places:
            n, channels, depth, height, width = value.dims
            plane = flat.reshaped(call.within("reshape"), value, (n, channels, depth * height, width))
            mean = flat.apply(call, ops.GlobalAveragePool(), plane, shape=(n, channels, 1, 1))
            return flat.reshaped(call.within("reshape"), mean, call.shape)
        result = _separable(flat, call, value, lambda part, each, _: pool(flat, part, each))
        return (result, None) if tells_places else result

    return convert


def _upsample(mode: str) -> Handler:
    def convert(flat: FlatGraph, call: Call) -> Value:
        value = call.value(source_of(call))
        align = None if mode == "nearest" else bool(call["align_corners"])
        if not is_whole(call, value):
            resized: Value = linear_resize(mode)(flat, call)
            return resized

        def plane(part: Call, each: Value, depth: bool) -> Value:
            del depth
            return flat.apply(part, nn.Upsample(size=part.shape[2:], mode=mode, align_corners=align), each)

        return _separable(flat, call, value, plane)

    return convert


VOLUMES: Mapping[str, Handler] = {
    "max_pool3d": _pool("max_pool2d"),
    "avg_pool3d": _pool("avg_pool2d"),
    "adaptive_avg_pool3d": _adaptive(adaptive_avg_pool, tells_places=False),
    "adaptive_max_pool3d": _adaptive(adaptive_max_pool, tells_places=True),
    "upsample_nearest3d": _upsample("nearest"),
    "upsample_trilinear3d": _upsample("bilinear"),
    "_upsample_nearest_exact3d": linear_resize("nearest-exact"),
}
