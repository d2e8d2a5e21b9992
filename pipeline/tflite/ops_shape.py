"""Operations that move or join values without computing: int8 stays what it is.

Squeeze, Unsqueeze, Transpose and a Flatten of 1x1 maps add nothing to the file: the tensor is only read another way.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UnsupportedOpError
from pipeline.tflite import layout, opcodes
from pipeline.tflite.constants import Int8Params
from pipeline.tflite.draft import Draft, Stored
from pipeline.tflite.graph import Node
from pipeline.tflite.ops_pointwise import constant_operand
from pipeline.tflite.options import options
from pipeline.tflite.shapes import Shape
from pipeline.tflite.windows import pad

_WEIGHTED = frozenset({"Gemm", "MatMul"})


def quantize(draft: Draft, node: Node) -> Stored:
    """QuantizeLinear: nothing when the layer before it has these parameters already."""
    return draft.as_int8(draft.value(node), draft.graph.quantized[node.output])


def reshape(draft: Draft, node: Node) -> Stored:
    """Reshape, Flatten, Squeeze and Unsqueeze: all that counts is the shape before and after."""
    x, shape = draft.value(node), draft.shape(node)
    same = layout.without_units(x.shape, shape, x.axes)
    if same is not None:
        return replace(x, shape=shape, axes=same)
    lies_last = x.axes == layout.channels_last(x.shape.rank) and x.shape.rank > 2
    if lies_last and shape.rank > 2 and shape.dims[:2] == x.shape.dims[:2] and shape.batch == 0:
        return draft.reshape(x, draft.new(node.name, shape, layout.channels_last(shape.rank), x.params))
    if shape.rank == 2 and shape.batch == x.shape.batch == 0 and x.axes[0] == 0 and _feeds_weights_only(draft, node):
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
    shape = draft.shape(node)
    params = _joined_params(draft, node)
    computed = [draft.value(node, i) for i in range(len(node.inputs)) if not draft.is_constant(node, i)]
    axes = computed[0].axes if computed else layout.plain(shape.rank)
    axis = node.integer("axis", 0) % shape.rank
    if axis not in axes or shape.batch == axis:
        axes = layout.plain(shape.rank)
    parts: list[Stored | int] = []
    for index in range(len(node.inputs)):
        if draft.is_constant(node, index):
            parts.append(_constant_part(draft, node, index, axes, params))
        else:
            part = draft.value(node, index)
            part = draft.as_float(part) if params is None else draft.as_int8(part, params)
            parts.append(draft.in_axes(part, axes))
    result = draft.result(node, axes, params)
    return draft.op(opcodes.CONCATENATION, parts, result, options("Concatenation", axis=axes.index(axis)))


def pad_constant(draft: Draft, node: Node) -> Stored:
    """Pad with a constant."""
    mode = node.text("mode", "constant")
    if mode != "constant":
        raise UnsupportedOpError(f"mode '{mode}'", where=node.where, remedy="pad with a constant")
    x = draft.value(node)
    fill = float(draft.constant_of(node, 2).real().reshape(())) if node.input(2) else 0.0
    if fill != 0.0 and draft.goal(node) is None:
        x = draft.as_float(x)  # the fill may lie between two steps
    axes = range(x.shape.rank)
    if node.input(3):  # from opset 18 on
        axes = [int(axis) % x.shape.rank for axis in draft.constant_of(node, 3).values.ravel()]  # type: ignore[assignment]
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
    sample: Shape = x.shape
    indices = np.arange(np.prod(sample.dims[1:])).reshape(1, *sample.dims[1:])
    stored = layout.arranged(indices, sample.rank, x.axes).ravel().astype(np.intp)
    return None if np.array_equal(stored, np.arange(stored.size)) else stored


def _joined_params(draft: Draft, node: Node) -> Int8Params | None:
    found = [
        draft.constant_of(node, index).params if draft.is_constant(node, index) else draft.value(node, index).params
        for index in range(len(node.inputs))
    ]
    if any(params is None for params in found):
        return None
    goal = draft.goal(node)
    return goal if goal is not None else found[0] if len(set(found)) == 1 else None


def _constant_part(draft: Draft, node: Node, index: int, axes: layout.Axes, params: Int8Params | None) -> Stored | int:
    constant = draft.constant_of(node, index)
    if draft.shape(node).dims[0] != 1 or draft.shape(node).batch is not None:
        raise UnsupportedOpError(
            f"input {index} is a constant: it does not grow with the batch",
            where=node.where,
            remedy="join values that are computed from the input",
        )
    return constant_operand(draft, constant, draft.shape(node).rank, axes, as_int8=params == constant.params)
