"""Folds what exporters compute from shapes: ``x.view(x.shape[0], -1)`` becomes Shape, Gather, Concat, Reshape.

ONNX's own inference follows only some of it, so these nodes are computed here once the shapes they read are known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

_Integers = NDArray[np.int64]


def fold_shape_arithmetic(graph: onnx.GraphProto, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Replace nodes that compute integers from known shapes by constants, in place; return how many."""
    known = {each.name: numpy_helper.to_array(each) for each in graph.initializer if _is_integer(each.data_type)}
    folded = 0
    for node in graph.node:
        value = _evaluate(node, known, shapes)
        if value is None:
            continue
        known[node.output[0]] = value
        if node.op_type != "Constant":
            constant = helper.make_node("Constant", [], node.output[:1], value=numpy_helper.from_array(value))
            node.CopyFrom(constant)
            folded += 1
    return folded


def _evaluate(
    node: onnx.NodeProto, known: Mapping[str, _Integers], shapes: Mapping[str, tuple[int, ...]]
) -> _Integers | None:
    attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    if node.op_type == "Constant":
        tensor = attributes.get("value")
        if not isinstance(tensor, onnx.TensorProto) or not _is_integer(tensor.data_type):
            return None
        return numpy_helper.to_array(tensor)
    if node.op_type == "Shape":
        if node.input[0] not in shapes:
            return None
        shape = shapes[node.input[0]][attributes.get("start", 0) : attributes.get("end")]
        return np.array(shape, np.int64)
    function = _FUNCTIONS.get(node.op_type)
    if function is None or not all(name in known for name in node.input):
        return None
    axis = attributes.get("axis", 0)
    return np.asarray(function([known[name] for name in node.input], axis), np.int64)


def _is_integer(data_type: int) -> bool:
    return data_type in (onnx.TensorProto.INT64, onnx.TensorProto.INT32)


def _squeeze(inputs: list[_Integers], _: int) -> _Integers:
    return np.squeeze(inputs[0], tuple(inputs[1].ravel()) if len(inputs) > 1 else None)


def _slice(inputs: list[_Integers], _: int) -> _Integers:
    data, starts, ends = inputs[:3]
    steps = inputs[4].ravel() if len(inputs) > 4 else [1]
    return data[int(starts.ravel()[0]) : int(ends.ravel()[0]) : int(steps[0])]  # shapes have one axis


_FUNCTIONS: Mapping[str, Callable[[list[_Integers], int], _Integers]] = {
    "Add": lambda inputs, _: inputs[0] + inputs[1],
    "Cast": lambda inputs, _: inputs[0],
    "Concat": np.concatenate,
    "Div": lambda inputs, _: inputs[0] // inputs[1],
    "Gather": lambda inputs, axis: np.take(inputs[0], inputs[1], axis),
    "Identity": lambda inputs, _: inputs[0],
    "Mul": lambda inputs, _: inputs[0] * inputs[1],
    "Reshape": lambda inputs, _: inputs[0].reshape(inputs[1]),
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Sub": lambda inputs, _: inputs[0] - inputs[1],
    "Unsqueeze": lambda inputs, _: np.expand_dims(inputs[0], tuple(inputs[1].ravel())),
}
