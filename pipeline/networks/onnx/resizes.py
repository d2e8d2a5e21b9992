"""Resizes: each axis by itself, with the weights that the runtime itself uses.

What torch has as a layer becomes that layer where its weights are the same; any other resize mixes the elements along
an axis with a matrix.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from onnx import helper
from torch import nn

from pipeline.networks.onnx.constants import MOST_ELEMENTS, folded
from pipeline.networks.onnx.modules import Mixed, Selected
from pipeline.networks.onnx.nodes import Array, Handler, Node
from pipeline.networks.onnx.values import Doubtful, Refusal, Value

_WHOLE = 1e-3  # of an element
_SAME_WEIGHTS = 1e-5
_MODES = {"nearest": "nearest", "linear": "bilinear"}  # of Resize → of torch


def _resize(node: Node) -> Value:
    x = node.value()
    rank = len(x.shape)
    scales, sizes = _wanted(node, x.shape)
    matrices: dict[int, Array] = {}
    for axis, side in enumerate(x.shape):
        scale = scales[axis] if scales else None
        size = sizes[axis] if sizes else None
        if scale == 1.0 or size == side:
            continue
        matrices[axis] = _matrix(node, side, scale, size)
    if not matrices:
        return x
    layer = _layer(node, x.shape, matrices)
    if layer is not None:
        return node.layer(layer, x)
    for axis, matrix in matrices.items():
        lying = node.axis(axis, rank)
        picked = matrix.argmax(1)
        if np.array_equal(matrix, np.eye(matrix.shape[1], dtype=np.float32)[picked]):
            x = node.run(Selected(lying, torch.from_numpy(picked.astype(np.int64))), x)
        else:
            x = node.run(Mixed(torch.from_numpy(matrix.T.copy()), lying), x)
    return x


def _wanted(node: Node, shape: Sequence[int]) -> tuple[list[float] | None, list[int] | None]:
    """Return a factor or a size for each axis, whichever the node gives."""
    if node.attribute("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise Refusal("keeps the aspect ratio")
    place = 2 if node.opset >= 11 and node.op == "Resize" else 1
    scales = node.attribute("scales") or (node.constant(place) if node.given(place) else None)
    sizes = node.constant(3) if node.given(3) else None
    axes = [axis % len(shape) for axis in node.attribute("axes") or range(len(shape))]
    if sizes is not None and sizes.size == len(axes):
        every = list(shape)
        for axis, size in zip(axes, sizes.ravel(), strict=True):
            every[axis] = int(size)
        if min(every) < 1:
            raise Refusal(f"resizes to {every}")
        return None, every
    if scales is None or len(scales) != len(axes):
        raise Refusal("does not say to which size")
    factors = [1.0] * len(shape)
    for axis, scale in zip(axes, scales, strict=True):
        factors[axis] = float(scale)
    return factors, None


def _matrix(node: Node, side: int, scale: float | None, size: int | None) -> Array:
    """Return the weights (after, before) with which the runtime resizes one axis: what it makes of unit vectors."""
    after = size if size is not None else int(side * (scale or 0.0))
    if not 0 < after * side <= MOST_ELEMENTS // 4:
        raise Refusal(f"resizes {side} elements to {after}")
    mode = node.attribute("coordinate_transformation_mode")
    if mode == "tf_crop_and_resize":
        raise Refusal("crops before it resizes")
    if mode == "align_corners" and scale is not None and abs(side * scale - after) > _WHOLE:
        raise Doubtful(f"resizes {side} elements by {scale:g}, which runtimes do in different ways")
    kept = {
        name: value
        for name, value in node.attributes.items()
        if name not in ("scales", "axes", "keep_aspect_ratio_policy")
    }
    given: list[Array | None] = [np.eye(side, dtype=np.float32)[None, None]]
    factors = np.array([1, 1, 1, scale or 1.0], np.float32)
    if node.op == "Upsample" and node.opset < 9:
        kept["scales"] = factors.tolist()
        names = ["x"]
    elif node.opset < 11:
        given, names = [*given, factors], ["x", "scales"]
    elif size is not None:
        sizes = np.array([1, 1, side, size], np.int64)
        given, names = [*given, None, None, sizes], ["x", "", "", "sizes"]
    else:
        given, names = [*given, None, factors], ["x", "", "scales"]
    if node.opset in (11, 12) and len(given) > 2:
        given[1], names[1] = np.zeros(0, np.float32), "roi"
        if size is not None:
            given[2], names[2] = np.zeros(0, np.float32), "scales"
    alone = helper.make_node(node.op, names, ["y"], **kept)
    (rows,) = folded(alone, given, node.opset)
    return np.asarray(rows[0, 0].T, np.float32)


def _layer(node: Node, shape: Sequence[int], matrices: Mapping[int, Array]) -> nn.Module | None:
    """Return torch's own layer where it resizes with the same weights."""
    mode = _MODES.get(node.attribute("mode", "nearest"))
    if mode is None or len(shape) != 4 or not matrices.keys() <= {2, 3}:
        return None
    size = tuple(matrices[axis].shape[0] if axis in matrices else shape[axis] for axis in (2, 3))
    for align in (None,) if mode == "nearest" else (False, True):
        if all(
            np.abs(_of_torch(matrix.shape[1], matrix.shape[0], mode, align) - matrix).max() < _SAME_WEIGHTS
            for matrix in matrices.values()
        ):
            return nn.Upsample(size=size, mode=mode, align_corners=align)
    return None


def _of_torch(before: int, after: int, mode: str, align: bool | None) -> Array:
    rows = torch.eye(before).reshape(before, 1, before, 1).repeat(1, 1, 1, 2)
    resized = F.interpolate(rows, size=(after, 2), mode=mode, align_corners=align)
    return resized[:, 0, :, 0].T.numpy()


RESIZES: Mapping[str, Handler] = {"Resize": _resize, "Upsample": _resize}
