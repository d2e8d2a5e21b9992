"""Pools, pads and resizes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import fx, nn

from pipeline.graph import ops
from pipeline.quant.emitters.draft import Draft, Emitter, inputs_of, source_of


def _max_pool(out: Draft, node: fx.Node, pool: nn.Module) -> str:
    assert isinstance(pool, nn.MaxPool1d | nn.MaxPool2d)  # noqa: S101
    window = _window(node, pool)
    return out.op("MaxPool", inputs_of(out, node), node.meta["label"], **window)


def _average_pool(out: Draft, node: fx.Node, pool: nn.Module) -> str:
    assert isinstance(pool, nn.AvgPool1d | nn.AvgPool2d)  # noqa: S101
    padded = any(_per_axis(pool.padding, 1))
    # what hangs over the edge in ceil mode counts in no window
    include = int(pool.count_include_pad and (padded or not pool.ceil_mode))
    return out.op(
        "AveragePool", inputs_of(out, node), node.meta["label"], count_include_pad=include, **_window(node, pool)
    )


def _window(
    node: fx.Node, pool: nn.MaxPool1d | nn.MaxPool2d | nn.AvgPool1d | nn.AvgPool2d
) -> Mapping[str, tuple[int, ...]]:
    """Return a pool's attributes; in ceil mode as pads after the edge, which every runtime takes alike."""
    before, after = (shape[2:] for shape in (source_of(node).meta["shape"], node.meta["shape"]))
    axes = len(after)
    kernel, stride, padding = (_per_axis(value, axes) for value in (pool.kernel_size, pool.stride, pool.padding))
    dilation = _per_axis(getattr(pool, "dilation", 1), axes)
    ends = []
    for axis in range(axes):
        reach = (after[axis] - 1) * stride[axis] + (kernel[axis] - 1) * dilation[axis] + 1
        hangs_over = max(0, reach - before[axis] - 2 * padding[axis])
        ends.append(padding[axis] + hangs_over)
    window = {"kernel_shape": kernel, "strides": stride, "pads": (*padding, *ends)}
    return window if all(side == 1 for side in dilation) else {**window, "dilations": dilation}


def _per_axis(value: int | tuple[int, ...], axes: int) -> tuple[int, ...]:
    return (value,) * axes if isinstance(value, int) else tuple(value)


def _pad(out: Draft, node: fx.Node, layer: nn.Module) -> str:
    assert isinstance(layer, ops.Pad)  # noqa: S101
    rank = len(node.meta["shape"])
    pairs = [layer.pads[i : i + 2] for i in range(0, len(layer.pads), 2)]  # last axis first, as torch wants them
    before, after = [0] * rank, [0] * rank
    for axis, (left, right) in zip(range(rank - 1, -1, -1), pairs, strict=False):
        before[axis], after[axis] = left, right
    label = node.meta["label"]
    inputs = [*inputs_of(out, node), out.constant(f"{label}.pads", np.array(before + after, np.int64))]
    if layer.value:
        inputs.append(out.constant(f"{label}.fill", np.array(layer.value, np.float32)))
    return out.op("Pad", inputs, label, mode="constant")


def _resize(out: Draft, node: fx.Node, layer: nn.Module) -> str:
    assert isinstance(layer, nn.Upsample)  # noqa: S101
    label = node.meta["label"]
    sizes = zip(source_of(node).meta["shape"], node.meta["shape"], strict=True)
    factors = [_resize_factor(before, after) for before, after in sizes]
    scales = out.constant(f"{label}.scales", np.array(factors, np.float32))
    nearest = layer.mode == "nearest"
    transformation = "asymmetric" if nearest else "align_corners" if layer.align_corners else "pytorch_half_pixel"
    extra = {"nearest_mode": "floor"} if nearest else {}
    return out.op(
        "Resize",
        (*inputs_of(out, node), "", scales),
        label,
        mode="nearest" if nearest else "linear",
        coordinate_transformation_mode=transformation,
        **extra,
    )


def _resize_factor(before: int, after: int) -> np.float32:
    """Return the factor with which ONNX, which multiplies and cuts off, comes to the size ``after``."""
    factor = np.float32(after / before)
    while int(before * float(factor)) < after:
        factor = np.nextafter(factor, np.float32(np.inf))
    return factor


WINDOWS: Mapping[str, Emitter] = {
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "Pad": _pad,
    "PadFilled": _pad,
    "ResizeNearest": _resize,
    "ResizeLinear": _resize,
}
