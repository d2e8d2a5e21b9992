"""Which nodes of an executed graph run on 8-bit integers, read off the types of the tensors between them."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import DTypeLike
from onnx import TensorProto, numpy_helper

from pipeline.artifacts.evidence import ExecutedOp
from pipeline.declare.words import RuntimeName
from pipeline.onboard import onnx_session
from pipeline.onboard.tflite_session import ListedOp, listed_ops
from pipeline.runtimes.boundary import model_errors
from pipeline.runtimes.child import Child

_BYTES = (TensorProto.INT8, TensorProto.UINT8)
# what comes out has the type of what went in
_TYPE_KEEPING = frozenset(
    [
        "Clip",
        "Concat",
        "DepthToSpace",
        "Expand",
        "Flatten",
        "Gather",
        "Identity",
        "Max",
        "MaxPool",
        "Min",
        "NhwcMaxPool",
        "Pad",
        "ReduceMax",
        "Relu",
        "Reshape",
        "Resize",
        "Slice",
        "SpaceToDepth",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
    ]
)
# position of the output's zero point among the inputs of the fused integer kernels; its type is the output's type
_OUTPUT_ZERO_POINT = {
    "QuantizeLinear": 2,
    "QLinearConv": 7,
    "QLinearMatMul": 7,
    "QGemm": 8,
    "QLinearAdd": 7,
    "QLinearMul": 7,
    "QLinearAveragePool": 4,
    "QLinearGlobalAveragePool": 4,
    "QLinearReduceMean": 4,
    "QLinearSigmoid": 4,
    "QLinearLeakyRelu": 4,
    "QLinearSoftmax": 4,
    "QLinearConcat": 1,
}


@dataclass(frozen=True, kw_only=True)
class _Graph:
    inputs: frozenset[str]
    outputs: frozenset[str]
    types: dict[str, int]  # value → TensorProto.DataType, as far as known


def executed(path: Path, runtime: RuntimeName) -> tuple[ExecutedOp, ...]:
    """List the nodes that a runtime really executes of a file, after its own optimisation, in order.

    For TFLite files the parts that a delegate took over as a whole stand at the end.  Raises ModelError.
    """
    with model_errors():
        if runtime == "onnxruntime":
            with tempfile.TemporaryDirectory() as folder:
                optimised = Path(folder) / "optimised.onnx"
                onnx_session.write_optimised(path, optimised)
                return executed_in_onnx(onnx.load(optimised))
        ops = _listed(path, runtime)
    reasons = [why_float_in_tflite(op.op, op.reads, op.writes, at_end=op.at_end) for op in ops]
    return tuple(
        ExecutedOp(name=op.name, op=op.op, integer=not reason, reason=reason)
        for op, reason in zip(ops, reasons, strict=True)
    )


def _listed(path: Path, runtime: RuntimeName) -> list[ListedOp]:
    if runtime != "tflite-runtime":
        return listed_ops(path, runtime)
    with contextlib.closing(Child(runtime)) as child:
        words = {"path": str(path.resolve()), "runtime": runtime}
        return [ListedOp(**{**op, "reads": tuple(op["reads"])}) for op in child.ask("ops", words).header["ops"]]


def steps_in_onnx(path: Path) -> tuple[float, ...]:
    """Return the scale of the DequantizeLinear that makes each output, in the file's order; 0 where there is none."""
    graph = onnx.load(path, load_external_data=False).graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    scales = {
        node.output[0]: float(numpy_helper.to_array(tensors[node.input[1]]).item())
        for node in graph.node
        if node.op_type == "DequantizeLinear" and node.input[1] in tensors and not tensors[node.input[1]].dims
    }
    return tuple(scales.get(output.name, 0.0) for output in graph.output)


def executed_in_onnx(model: onnx.ModelProto) -> tuple[ExecutedOp, ...]:
    """List the nodes of an optimised ONNX graph, each with whether it computes on 8-bit integers.

    Quantizing the graph's inputs and dequantizing its outputs counts as integer: a boundary that must be.
    """
    graph = model.graph
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    types |= {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.value_info)}
    known = _Graph(
        inputs=frozenset(value.name for value in graph.input),
        outputs=frozenset(value.name for value in graph.output),
        types=types,
    )
    users = {name: node.op_type for node in graph.node for name in node.input}
    rows = []
    for node in graph.node:
        types.update(dict.fromkeys(node.output, _output_type(node, types)))
        reason = _why_float(node, known, users)
        rows.append(ExecutedOp(name=node.name or node.output[0], op=node.op_type, integer=not reason, reason=reason))
    return tuple(rows)


def _output_type(node: onnx.NodeProto, types: dict[str, int]) -> int:
    if node.op_type in _OUTPUT_ZERO_POINT:
        position = _OUTPUT_ZERO_POINT[node.op_type]
        if len(node.input) > position and node.input[position]:
            return types.get(node.input[position], TensorProto.UINT8)
        # without output parameters QGemm writes float; QuantizeLinear without a zero point writes uint8
        return TensorProto.UINT8 if node.op_type == "QuantizeLinear" else TensorProto.FLOAT
    if node.op_type in _TYPE_KEEPING:
        return types.get(node.input[0], TensorProto.FLOAT)
    return TensorProto.FLOAT


def _why_float(node: onnx.NodeProto, graph: _Graph, users: dict[str, str]) -> str:
    """Say why a node is not an integer kernel; empty when it is one."""
    made = node.output[0]
    if node.op_type == "QuantizeLinear":
        at_end = node.input[0] in graph.inputs
        return "" if at_end else f"converts from float for {users.get(made, 'the output')}"
    if node.op_type == "DequantizeLinear":
        return "" if made in graph.outputs else f"converts to float for {users.get(made, 'nothing')}"
    data = node.input[2 if node.op_type == "QLinearConcat" else 0]  # its inputs begin with the output's parameters
    if graph.types.get(data) not in _BYTES:
        return "computes in float: its input is not quantized"
    at_end = node.op_type in _OUTPUT_ZERO_POINT and made in graph.outputs  # its own dequantizing, fused
    return "" if at_end or graph.types[made] in _BYTES else "writes float"


def why_float_in_tflite(op: str, reads: Sequence[DTypeLike], writes: DTypeLike, *, at_end: bool) -> str:
    """Say why a TFLite node with these input types and this output type is no integer kernel; empty when it is one.

    ``at_end``: it reads a graph input or writes a graph output, where (de)quantizing must be.
    """
    float_in = any(np.dtype(each).kind == "f" for each in reads)
    float_out = np.dtype(writes).kind == "f"
    if op in ("QUANTIZE", "DEQUANTIZE") and (float_in or float_out):
        return "" if at_end else "converts from float" if float_in else "converts to float"
    if float_in:
        return "computes in float: an input is not quantized"
    return "writes float" if float_out else ""
