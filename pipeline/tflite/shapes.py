"""Shapes of all values of an ONNX graph, and which axis of each grows with the batch.

The batch axis is found by inferring shapes for two batch sizes and comparing, so any reshape or transpose may move it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import onnx
from onnx import shape_inference

from pipeline.errors import ModelError
from pipeline.tflite.shape_arithmetic import fold_shape_arithmetic

_SMALL = 1024  # elements; larger constants are weights, of which inference needs the shape only
_BATCHES = (1, 2)


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Dimensions for a batch of one, in ONNX order, and the axis that grows with the batch (None: no axis does)."""

    dims: tuple[int, ...]
    batch: int | None

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.dims)

    def is_unit(self, axis: int) -> bool:
        """Whether this axis always has one element."""
        return self.dims[axis] == 1 and axis != self.batch

    def with_dims(self, changed: Mapping[int, int]) -> Shape:
        """Return this shape with other sizes for some axes."""
        return Shape(dims=tuple(changed.get(axis, dim) for axis, dim in enumerate(self.dims)), batch=self.batch)


def infer_shapes(model: onnx.ModelProto) -> dict[str, Shape]:
    """Return the shape of every value.

    The first dimension of the inputs is the batch when it is not a number.  Raises ModelError when any other dimension
    is not a number, and when the graph mixes the batch with other axes or works for one batch size only.
    """
    skeleton = _skeleton(model)
    single, double = (_inferred(skeleton, batch) for batch in _BATCHES)
    return {name: _compare(name, dims, double.get(name)) for name, dims in single.items()}


def _skeleton(model: onnx.ModelProto) -> onnx.ModelProto:
    """Copy the graph without the weights' data and without the shapes that are written in it."""
    graph = onnx.GraphProto(name="skeleton")
    graph.node.extend(model.graph.node)
    initializers = {each.name for each in model.graph.initializer}
    for each in model.graph.initializer:
        size = 1
        for dim in each.dims:
            size *= dim
        if size <= _SMALL:
            graph.initializer.append(each)
        else:
            graph.input.append(onnx.helper.make_tensor_value_info(each.name, each.data_type, each.dims))
    graph.input.extend(each for each in model.graph.input if each.name not in initializers)
    for output in model.graph.output:
        graph.output.append(onnx.helper.make_empty_tensor_value_info(output.name))
    return onnx.helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)


def _inferred(skeleton: onnx.ModelProto, batch: int) -> dict[str, tuple[int, ...]]:
    fixed = onnx.ModelProto()
    fixed.CopyFrom(skeleton)
    for each in fixed.graph.input:
        _fix_input(each, batch)
    while True:
        try:
            inferred = shape_inference.infer_shapes(fixed, strict_mode=True, data_prop=True).graph
        except shape_inference.InferenceError as error:
            raise _does_not_fit(batch, str(error)) from error
        values = [*inferred.input, *inferred.value_info, *inferred.output]
        shapes = {each.name: dims for each in values if (dims := _dims(each)) is not None}
        if not fold_shape_arithmetic(fixed.graph, shapes):
            return shapes


def _does_not_fit(batch: int, error: str) -> ModelError:
    layer = re.search(r"op_type:(\w+), node name: ([^)]+)\)", error)
    return ModelError(
        f"the graph does not fit together for a batch of {batch}: {error.rpartition(']')[2].strip() or error}",
        where=f"layer '{layer[2]}' ({layer[1]})" if layer else "",
        remedy="keep the batch the first axis: write x.flatten(1) or x.reshape(x.shape[0], …)",
    )


def _fix_input(value: onnx.ValueInfoProto, batch: int) -> None:
    for axis, dim in enumerate(value.type.tensor_type.shape.dim):
        if dim.WhichOneof("value") == "dim_value" and dim.dim_value > 0:
            continue
        if axis != 0:
            raise ModelError(
                f"axis {axis} of the input is not a number ({dim.dim_param or '?'})",
                where=f"input '{value.name}'",
                remedy="only the batch, axis 0, may be dynamic: export with a fixed sample shape",
            )
        dim.dim_value = batch


def _dims(value: onnx.ValueInfoProto) -> tuple[int, ...] | None:
    tensor = value.type.tensor_type
    if not tensor.HasField("shape") or any(dim.WhichOneof("value") != "dim_value" for dim in tensor.shape.dim):
        return None
    return tuple(dim.dim_value for dim in tensor.shape.dim)


def _compare(name: str, single: tuple[int, ...], double: tuple[int, ...] | None) -> Shape:
    if double is None or len(double) != len(single):
        raise ModelError("its shape depends on the batch in a way that cannot be written", where=f"value '{name}'")
    grown = [axis for axis, pair in enumerate(zip(single, double, strict=True)) if pair[0] != pair[1]]
    if len(grown) > 1:
        raise ModelError(
            f"axes {grown} both grow with the batch",
            where=f"value '{name}'",
            remedy="keep the batch apart from other axes",
        )
    return Shape(dims=single, batch=grown[0] if grown else None)
