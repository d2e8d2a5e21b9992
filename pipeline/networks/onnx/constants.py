"""What follows from constants alone is computed once, while the file is read, by the runtime that the file is for."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from pipeline.networks.onnx.values import Refusal
from pipeline.onboard.onnx_session import options

Array = NDArray[Any]
_PROVIDERS = ["CPUExecutionProvider"]
MOST_ELEMENTS = 1 << 26  # of one tensor


def array_of(tensor: onnx.TensorProto) -> Array:
    """Return a constant of the file.  Raises Refusal where it is larger than can be, or not what it says."""
    if math.prod(tensor.dims) > MOST_ELEMENTS * 16 or any(side < 0 for side in tensor.dims):
        raise Refusal("has a constant of impossible size")
    try:
        return np.asarray(numpy_helper.to_array(tensor))
    except (LookupError, TypeError, ValueError) as error:
        raise Refusal(f"has a constant that is broken: {error}") from error


def constant_node(node: onnx.NodeProto) -> Array:
    """Return what a Constant node gives."""
    for attribute in node.attribute:
        value = helper.get_attribute_value(attribute)
        if attribute.name == "value":
            return array_of(value)
        if attribute.name.startswith("value_"):
            dtype = np.float32 if "float" in attribute.name else np.int64
            return np.array(value, None if "string" in attribute.name else dtype)
    raise Refusal("is a constant of a kind that karui does not know")


def folded(node: onnx.NodeProto, inputs: Sequence[Array | None], opset: int) -> list[Array]:
    """Compute a node of constants.  Raises Refusal where it cannot be computed, or would grow beyond all bounds."""
    if node.op_type == "DequantizeLinear":
        return [_dequantized(node, inputs)]
    if _grown(node.op_type, inputs) > MOST_ELEMENTS:
        raise Refusal("makes a constant of impossible size")
    arrays = [each for each in inputs if each is not None]
    named = {name: each for name, each in zip(node.input, inputs, strict=False) if each is not None}
    model = _alone(node, named, opset)
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), _quiet(), providers=_PROVIDERS)
        results = session.run(None, named)
    except Exception:  # noqa: BLE001  what ONNX Runtime has no kernel for, the reference may know
        try:
            results = ReferenceEvaluator(model).run(None, named)
        except Exception as error:
            raise Refusal(f"of {len(arrays)} constants cannot be computed") from error
    return [np.asarray(each) for each in results]


def _quiet() -> onnxruntime.SessionOptions:
    """Return options for a node that may be refused: that is told elsewhere, and need not be printed."""
    made = options(1)
    made.log_severity_level = 4
    return made


def evaluator(node: onnx.NodeProto, inputs: Sequence[Array | None], place: int, opset: int) -> Callable[[Array], Array]:
    """Return a node as a function of one of its inputs, the others being constants.  Raises Refusal."""
    given = onnx.NodeProto()
    given.CopyFrom(node)
    given.input[place] = "computed"  # it may be read in several places
    named = {name: each for name, each in zip(given.input, inputs, strict=False) if each is not None}
    sessions: dict[tuple[int, ...], onnxruntime.InferenceSession] = {}

    def compute(array: Array) -> Array:
        try:
            if array.shape not in sessions:
                model = _alone(given, {**named, "computed": array}, opset)
                content = model.SerializeToString()
                sessions[array.shape] = onnxruntime.InferenceSession(content, _quiet(), providers=_PROVIDERS)
            result = sessions[array.shape].run([given.output[0]], {**named, "computed": array})[0]
        except Exception as error:  # the library's own classes come straight from it
            raise Refusal("is not supported") from error
        return np.asarray(result)

    return compute


def _alone(node: onnx.NodeProto, named: Mapping[str, Array], opset: int) -> onnx.ModelProto:
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in named.items()
    ]
    outputs = [helper.make_empty_tensor_value_info(name) for name in node.output if name]
    graph = helper.make_graph([node], "constant", inputs, outputs)
    domains = {"", node.domain}
    imports = [helper.make_opsetid(domain, opset if not domain else 1) for domain in sorted(domains)]
    ir = min(helper.find_min_ir_version_for(imports[:1]), 10)
    return helper.make_model(graph, opset_imports=imports, ir_version=ir)


def _grown(op: str, inputs: Sequence[Array | None]) -> int:
    """Return at most how many elements a node gives, as far as that is more than it is given."""
    arrays = [each for each in inputs if each is not None]
    growth = _GROWTH.get(op)
    if growth is not None:
        return int(growth(arrays)) if arrays else 0
    try:
        return math.prod(np.broadcast_shapes(*(each.shape for each in arrays)))
    except ValueError:
        return sum(each.size for each in arrays)


def _product(numbers: Array) -> float:
    return math.prod(max(1.0, abs(float(each))) for each in numbers.ravel())


def _of_range(arrays: Sequence[Array]) -> float:
    start, stop, step = (float(each.ravel()[0]) for each in arrays[:3])
    return abs((stop - start) / step) if step else 0.0


def _of_resize(arrays: Sequence[Array]) -> float:
    sizes = arrays[-1].dtype == np.int64
    return _product(arrays[-1]) * (1 if sizes else arrays[0].size)


def _of_pad(arrays: Sequence[Array]) -> float:
    pads = float(np.abs(arrays[1]).sum()) if len(arrays) > 1 else 0.0
    return float(math.prod(side + pads for side in arrays[0].shape))


def _summed(arrays: Sequence[Array]) -> float:
    return sum(each.size for each in arrays)


def _multiplied(arrays: Sequence[Array]) -> float:
    return math.prod(each.size for each in arrays[:2])


# operation → at most how many elements it gives, where that is not what broadcasting makes of its inputs
_GROWTH: Mapping[str, Callable[[Sequence[Array]], float]] = {
    **dict.fromkeys(("ConstantOfShape", "Expand", "Tile"), lambda arrays: arrays[0].size * _product(arrays[-1])),
    **dict.fromkeys(("Resize", "Upsample"), _of_resize),
    **dict.fromkeys(("MatMul", "Gemm", "Einsum", "Conv", "Gather"), _multiplied),
    **dict.fromkeys(("Shape", "Size", "Identity", "Squeeze", "Unsqueeze", "Concat", "Slice", "Reshape"), _summed),
    "Range": _of_range,
    "Pad": _of_pad,
    "OneHot": lambda arrays: arrays[0].size * _product(arrays[1]),
    "EyeLike": _summed,
}


def _dequantized(node: onnx.NodeProto, inputs: Sequence[Array | None]) -> Array:
    """(q - zero point) * scale, per tensor or along an axis."""
    quantized, scale, zero_point = (*inputs, None)[:3]
    if quantized is None or scale is None:
        raise Refusal("has no scale")
    axis = next((helper.get_attribute_value(each) for each in node.attribute if each.name == "axis"), 1)
    shape = [-1 if place == axis % max(quantized.ndim, 1) else 1 for place in range(quantized.ndim)]
    if scale.ndim > 1:
        raise Refusal("has one scale per block")
    scales = scale.astype(np.float32).reshape(shape) if scale.size > 1 else scale.astype(np.float32).ravel()[0]
    shifted = quantized.astype(np.float32)
    if zero_point is not None:
        offset = zero_point.astype(np.float32)
        shifted = shifted - (offset.reshape(shape) if offset.size > 1 else offset.ravel()[0])
    return np.asarray(shifted * scales, np.float32).reshape(quantized.shape)
