"""Operations that move or join values without computing: int8 stays what it is.

Squeeze, Unsqueeze, Transpose and a Flatten of 1x1 maps add nothing to the file: the tensor is only read another way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UnsupportedOpError
from pipeline.graph.params import QuantParams
from pipeline.tflite import layout, opcodes
from pipeline.tflite.draft import Draft, Stored
from pipeline.tflite.graph import Node
from pipeline.tflite.options import options
from pipeline.tflite.windows import pad

_WEIGHTED = frozenset({"Gemm", "MatMul"})


def quantize(draft: Draft, node: Node) -> Stored:
    """QuantizeLinear: nothing when the layer before it has these parameters already."""
    return draft.as_int8(draft.value(node), draft.graph.quantized[node.output])


def dequantize(draft: Draft, node: Node) -> Stored:
    """DequantizeLinear that stays: the same integers with another scale."""
    x, params = draft.value(node), draft.graph.quantized[node.output]
    return draft.rescaled(x, draft.like(x, node.name, params))


def reshape(draft: Draft, node: Node) -> Stored:
    """Reshape, Flatten, Squeeze and Unsqueeze: all that counts is the shape before and after."""
    x, shape = draft.value(node), draft.shape(node)
    same = layout.without_units(x.shape, shape, x.axes)
    if same is not None:
        return replace(x, shape=shape, axes=same)
    lies_last = x.axes == layout.channels_last(x.shape.rank) and x.shape.rank > 2
    if lies_last and shape.rank > 2 and shape.dims[:2] == x.shape.dims[:2] and shape.batch == 0:
        return draft.reshape(x, draft.new(node.name, shape, layout.channels_last(shape.rank), x.params))
    whole = shape.batch == x.shape.batch == 0 and shape.dims[0] == x.shape.dims[0]
    if shape.rank == 2 and whole and x.axes[0] == 0 and _feeds_weights_only(draft, node):
        flat = draft.reshape(x, draft.new(node.name, shape, layout.plain(2), x.params))
        return replace(flat, features=_features(x))
    x = draft.in_axes(x, layout.plain(x.shape.rank))
    return draft.reshape(x, draft.new(node.name, shape, layout.plain(shape.rank), x.params))


def transpose(draft: Draft, node: Node) -> Stored:
    """Transpose."""
    x = draft.value(node)
    order = node.integers("perm", range(x.shape.rank - 1, -1, -1))
    return replace(x, shape=draft.shape(node), axes=layout.relabelled(x.axes, order.index))


def concat(draft: Draft, node: Node) -> Stored:
    """Concat; int8 inputs are brought to the output's parameters first."""
    parts = [draft.value(node, index) for index in range(len(node.inputs))]
    params = _joined_params([part.params for part in parts], draft.goal(node))
    axis = node.integer("axis", 0) % draft.shape(node).rank
    axes = parts[0].axes
    if axis not in axes:  # one element there so far: it is not stored
        axes = layout.plain(draft.shape(node).rank)
    parts = [draft.as_float(part) if params is None else draft.as_int8(part, params) for part in parts]
    parts = [draft.in_axes(part, axes) for part in parts]
    result = draft.result(node, axes, params)
    return draft.op(opcodes.CONCATENATION, parts, result, options("Concatenation", axis=axes.index(axis)))


def pad_constant(draft: Draft, node: Node) -> Stored:
    """Pad with a constant."""
    mode = node.text("mode", "constant")
    if mode != "constant":
        raise UnsupportedOpError(f"mode '{mode}'", where=node.where, remedy="pad with a constant")
    x = draft.value(node)
    fill = float(draft.constant_of(node, 2).real().reshape(())) if node.input(2) else 0.0
    if fill != 0.0 and draft.goal(node) != x.params:
        x = draft.as_float(x)  # the fill need not lie on the input's steps
    axes = list(range(x.shape.rank))
    if node.input(3):  # from opset 18 on
        axes = [int(axis) % x.shape.rank for axis in draft.constant_of(node, 3).values.ravel()]
    amounts = [int(each) for each in draft.constant_of(node, 1).values.ravel()]
    if min(amounts) < 0:
        raise UnsupportedOpError("negative pads", where=node.where, remedy="crop with a convolution or a pool instead")
    before, after = amounts[: len(axes)], amounts[len(axes) :]
    pads = {axis: (first, last) for axis, first, last in zip(axes, before, after, strict=True) if first or last}
    if not set(pads) <= set(x.axes):
        x = draft.in_axes(x, layout.plain(x.shape.rank))
    return pad(draft, x, pads, fill=fill if fill != 0.0 else None, name=node.name)


def _feeds_weights_only(draft: Draft, node: Node) -> bool:
    """Whether the flattened value is multiplied with constant weights and nothing else."""
    readers = draft.graph.final_readers(node.output)
    return bool(readers) and all(
        reader is not None and reader.op in _WEIGHTED and draft.is_constant(reader, 1) for reader in readers
    )


def _features(x: Stored) -> NDArray[np.intp] | None:
    """Return ONNX's index of each element of a flattened sample; None when the order is the same."""
    sample = x.shape.dims[1:]
    indices = np.arange(np.prod(sample)).reshape(1, *sample)
    stored = layout.arranged(indices, x.shape.rank, x.axes).ravel().astype(np.intp)
    return None if np.array_equal(stored, np.arange(stored.size)) else stored


def _joined_params(found: Sequence[QuantParams | None], goal: QuantParams | None) -> QuantParams | None:
    if None in found:
        return None
    return goal if goal is not None else found[0] if len(set(found)) == 1 else None
