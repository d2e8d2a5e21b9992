"""The ends of a model file as they stand in it: names, layout, types and integers of what goes in and comes out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import onnx
from ai_edge_litert import schema_py_generated as schema

from pipeline.artifacts.files import FileFormat
from pipeline.onboard.about import PROBABILITIES, SCORES, Stored

_LAYOUTS = {1: "N", 2: "NF", 3: "NCT"}
_PASSING = frozenset({"QuantizeLinear", "DequantizeLinear", "Reshape", "Flatten", "Squeeze", "Identity"})
_MAKES_PROBABILITIES = frozenset({"Softmax", "Sigmoid"})
_DTYPES = {
    schema.TensorType.FLOAT32: "float32",
    schema.TensorType.INT8: "int8",
    schema.TensorType.UINT8: "uint8",
    schema.TensorType.INT32: "int32",
}


@dataclass(frozen=True, kw_only=True)
class Ends:
    """Inputs and outputs of one file, and what each output holds."""

    inputs: tuple[Stored, ...]
    outputs: tuple[Stored, ...]
    holds: tuple[str, ...]  # one per output: PROBABILITIES where the network itself ends with them, else SCORES


def ends_of(model: onnx.ModelProto, contents: Mapping[FileFormat, bytes]) -> dict[FileFormat, Ends]:
    """Return the ends of the files that were written from a model."""
    makers = {node.output[0]: node for node in model.graph.node}
    holds = tuple(_holds(makers, each.name) for each in model.graph.output)
    tflite = schema.ModelT.InitFromPackedBuf(contents["tflite"], 0).subgraphs[0]
    return {
        "onnx": Ends(
            inputs=tuple(map(_onnx_tensor, model.graph.input)),
            outputs=tuple(map(_onnx_tensor, model.graph.output)),
            holds=holds,
        ),
        "tflite": Ends(
            inputs=tuple(_tflite_tensor(tflite.tensors[index]) for index in tflite.inputs),
            outputs=tuple(_tflite_tensor(tflite.tensors[index]) for index in tflite.outputs),
            holds=holds,
        ),
    }


def _holds(makers: Mapping[str, onnx.NodeProto], name: str) -> str:
    while name in makers and makers[name].op_type in _PASSING:
        name = makers[name].input[0]
    return PROBABILITIES if name in makers and makers[name].op_type in _MAKES_PROBABILITIES else SCORES


def _onnx_tensor(value: onnx.ValueInfoProto) -> Stored:
    tensor = value.type.tensor_type
    shape = tuple(int(size.dim_value) for size in tensor.shape.dim[1:])
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
    return Stored(name=value.name, layout=_LAYOUTS.get(len(shape) + 1, "NCHW"), dtype=dtype, shape=shape)


def _tflite_tensor(tensor: Any) -> Stored:  # the schema module is untyped
    shape = tuple(int(size) for size in tensor.shape[1:])
    params = tensor.quantization
    known = params is not None and params.scale is not None and len(params.scale) == 1
    integer = known and tensor.type != schema.TensorType.UINT8  # bytes go in as they are
    return Stored(
        name=tensor.name.decode() if isinstance(tensor.name, bytes) else str(tensor.name),
        layout=_LAYOUTS.get(len(shape) + 1, "NHWC"),
        dtype=_DTYPES[tensor.type],
        shape=shape,
        scale=float(params.scale[0]) if integer else 0.0,
        zero_point=int(params.zeroPoint[0]) if integer else 0,
    )
