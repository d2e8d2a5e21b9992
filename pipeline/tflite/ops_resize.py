"""Resize (Upsample) of images: nearest and linear.

TFLite has three ways to place the samples, ONNX more; a way that gives the same positions is looked for, by numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UnsupportedOpError
from pipeline.tflite import layout, opcodes
from pipeline.tflite.draft import Draft, Stored
from pipeline.tflite.graph import Node
from pipeline.tflite.options import options
from pipeline.tflite.windows import image_size

_PLACEMENTS = ("asymmetric", "half_pixel", "align_corners")
_TOLERANCE = 1e-4  # of a pixel; the runtimes compute positions in float32
_REMEDY = "use nn.Upsample with mode 'nearest' or 'bilinear' and a whole scale factor"


def resize(draft: Draft, node: Node) -> Stored:
    """Resize H and W (or L)."""
    mode, x, goal = node.text("mode", "nearest"), draft.value(node), draft.goal(node)
    if mode not in ("nearest", "linear"):
        raise UnsupportedOpError(f"mode '{mode}'", where=node.where, remedy=_REMEDY)
    if mode == "linear" and goal is None:
        x = draft.as_float(x)  # its values lie between the steps of int8
    x = draft.in_axes(x, layout.image(x.shape.rank))
    shape = draft.shape(node)
    samples_stay = shape.dims[:2] == x.shape.dims[:2] and shape.batch == x.shape.batch
    if not samples_stay or node.integer("antialias", 0):
        raise UnsupportedOpError("a resize of batch or channels, or antialias", where=node.where, remedy=_REMEDY)
    placement = _placement(node, mode, _axes(draft, node, x))
    table = {"alignCorners": placement == "align_corners", "halfPixelCenters": placement == "half_pixel"}
    result = draft.result(node, x.axes, x.params)
    inputs: list[Stored | int] = [x, draft.constant(np.array(image_size(shape), np.int32))]
    if mode == "linear":
        return draft.op(opcodes.RESIZE_BILINEAR, inputs, result, options("ResizeBilinear", None, **table))
    return draft.op(opcodes.RESIZE_NEAREST_NEIGHBOR, inputs, result, options("ResizeNearestNeighbor", None, **table))


@dataclass(frozen=True, kw_only=True)
class _Axis:
    """Resizing of one axis; ``scale`` as ONNX gives it, which need not be after / before."""

    before: int
    after: int
    scale: float


def _axes(draft: Draft, node: Node, x: Stored) -> list[_Axis]:
    before, after = image_size(x.shape), image_size(draft.shape(node))
    scales = [wanted / size for size, wanted in zip(before, after, strict=True)]
    if draft.is_constant(node, 2) and draft.constant_of(node, 2).values.size:
        resized = node.integers("axes", range(x.shape.rank))  # from opset 18 on
        for axis, scale in zip(resized, draft.constant_of(node, 2).values.ravel(), strict=True):
            if axis % x.shape.rank >= 2:
                scales[axis % x.shape.rank - x.shape.rank] = float(scale)
    return [
        _Axis(before=size, after=wanted, scale=scale) for size, wanted, scale in zip(before, after, scales, strict=True)
    ]


def _placement(node: Node, mode: str, axes: Sequence[_Axis]) -> str:
    """Return TFLite's placement that reads the same pixels as ONNX's on all axes."""
    how = node.text("coordinate_transformation_mode", "half_pixel")
    for placement in _PLACEMENTS:
        if mode == "linear" and all(_same_positions(axis, placement, how) for axis in axes):
            return placement
        rounding = node.text("nearest_mode", "round_prefer_floor")
        if mode == "nearest" and all(_same_pixels(axis, placement, how, rounding) for axis in axes):
            return placement
    sizes = ", ".join(f"{axis.before} to {axis.after}" for axis in axes)
    raise UnsupportedOpError(f"mode '{mode}' with '{how}' from {sizes}", where=node.where, remedy=_REMEDY)


def _same_positions(axis: _Axis, placement: str, how: str) -> bool:
    theirs, ours = (np.clip(each, 0, axis.before - 1) for each in _both(axis, placement, how))
    return np.allclose(theirs, ours, atol=_TOLERANCE, rtol=0)


def _same_pixels(axis: _Axis, placement: str, how: str, rounding: str) -> bool:
    theirs, ours = _both(axis, placement, how)
    picked = np.floor(ours if placement == "asymmetric" else ours + np.float32(0.5))  # as TFLite's kernel does
    wanted = _ROUNDING[rounding](theirs)
    return np.array_equal(np.clip(wanted, 0, axis.before - 1), np.clip(picked, 0, axis.before - 1))


def _both(axis: _Axis, placement: str, how: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return where each output position reads: in ONNX, in TFLite."""
    return _positions(how, axis, axis.scale), _positions(placement, axis, axis.after / axis.before)


def _positions(how: str, axis: _Axis, scale: float) -> NDArray[np.float32]:
    """Return places on the input's axis (ONNX operator Resize, version 13); NaN for a way that TFLite has not."""
    x = np.arange(axis.after, dtype=np.float32)
    if how == "asymmetric":
        return x / np.float32(scale)
    if how == "align_corners":
        return x * np.float32((axis.before - 1) / max(axis.after - 1, 1))
    if how == "half_pixel" or (how == "pytorch_half_pixel" and axis.after > 1):
        return (x + np.float32(0.5)) / np.float32(scale) - np.float32(0.5)
    return np.zeros_like(x) if how == "pytorch_half_pixel" else np.full_like(x, np.nan)


_ROUNDING: Mapping[str, Callable[[NDArray[np.float32]], NDArray[np.float32]]] = {
    "floor": np.floor,
    "ceil": np.ceil,
    "round_prefer_floor": lambda x: np.ceil(x - np.float32(0.5)),
    "round_prefer_ceil": lambda x: np.floor(x + np.float32(0.5)),
}
