"""The operators of a TFLite file, as they stand in it: nothing is run."""

from __future__ import annotations

import math
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from pipeline.errors import ModelError
from pipeline.estimating.work import PRODUCTS, RECURRENT, Work
from pipeline.inspecting.layers import Inspected, Layer, Step, peaks
from pipeline.inspecting.seen import Seen
from pipeline.inspecting.tflite_works import work_of_operator
from pipeline.runtimes.executed import why_float_in_tflite

_LARGEST_FILE_BYTES = 2 << 30
_MARK = b"TFL3"
_OPS: dict[int, str] = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
_TYPES = {
    code: np.dtype(name.lower())
    for name, code in vars(schema.TensorType).items()
    if name in ("FLOAT32", "FLOAT16", "FLOAT64", "INT8", "UINT8", "INT16", "INT32", "UINT32", "INT64", "BOOL")
}
_IN_PLACE = frozenset({"RESHAPE", "SQUEEZE", "EXPAND_DIMS"})
_SQUASHING = ("LOGISTIC", "TANH")
_CHANNELS = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 0, "TRANSPOSE_CONV": 0}  # among the weights' axes
_ODD = (struct.error, IndexError, ValueError, TypeError, KeyError, AttributeError, MemoryError, OverflowError)


def inspect_tflite(path: Path) -> Inspected:
    """Return the operators of a TFLite file with shapes, costs and what runs on integers.

    Raises ModelError for what is no TFLite file.
    """
    content = _content(path)
    try:
        return _inspected(content, path.name)
    except _ODD as error:
        raise ModelError(
            f"is no readable TFLite file: {type(error).__name__}", where=str(path), remedy="export or copy it again"
        ) from error


def _content(path: Path) -> bytes:
    try:
        size_bytes = path.stat().st_size
        content = path.read_bytes() if size_bytes <= _LARGEST_FILE_BYTES else b""
    except OSError as error:
        raise ModelError(f"cannot be read: {error.strerror}", where=str(path)) from error
    if content[4:8] != _MARK:
        raise ModelError("is no TFLite file", where=str(path), remedy="give an .onnx or .tflite file")
    return content


def _inspected(content: bytes, subject: str) -> Inspected:
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    graph = model.subgraphs[0]
    constants = {
        index for index, each in enumerate(graph.tensors) if model.buffers[each.buffer].data is not None
    } - set(graph.inputs)
    computed = [each for index, each in enumerate(graph.tensors) if index not in constants]
    integer = any(_type(each) in (np.int8, np.uint8) for each in computed)
    operators, batch = list(graph.operators or ()), _batch_of(graph)
    steps = [
        Step(
            reads=tuple(str(index) for index in op.inputs if index >= 0 and index not in constants),
            makes=tuple(str(index) for index in op.outputs),
            size_bytes=sum(_value_bytes(graph.tensors[index], batch) for index in op.outputs),
            in_place=_op_name(model, op) in _IN_PLACE,
        )
        for op in operators
    ]
    inputs = {str(index): _value_bytes(graph.tensors[index], batch) for index in graph.inputs}
    alive = peaks(inputs, steps, [str(index) for index in graph.outputs])
    counted: set[int] = set()
    layers = []
    for op, peak in zip(operators, alive, strict=True):
        own = {int(index) for index in op.inputs if index in constants} - counted
        counted |= own
        layers.append(_layer(model, op, own, constants, peak, quantized=integer))
    return Inspected(
        subject=subject,
        kind="tflite",
        input_shapes=tuple(_of_one_sample(graph.tensors[index], batch) for index in graph.inputs),
        layers=tuple(layers),
        parameter_bytes=sum(_value_bytes(graph.tensors[index]) for index in constants),
        normalized=None,
    )


def _layer(model: Any, op: Any, own: set[int], constants: set[int], peak_bytes: int, *, quantized: bool) -> Layer:
    graph = model.subgraphs[0]
    name, made = _op_name(model, op), graph.tensors[op.outputs[0]]
    reads = [graph.tensors[index] for index in op.inputs if index >= 0 and index not in constants]
    ends = {int(index) for index in (*graph.inputs, *graph.outputs)}
    at_end = not ends.isdisjoint([*map(int, op.inputs), *map(int, op.outputs)])
    why = why_float_in_tflite(name, [_type(each) for each in reads], _type(made), at_end=at_end) if quantized else ""
    weights = [
        graph.tensors[index] for index in op.inputs if index in constants and len(_sides(graph.tensors[index])) > 1
    ]
    weight = _sides(weights[0]) if weights else ()
    works = _works(model, op, reads, weight, integer=quantized and not why)
    return Layer(
        name=_name(made),
        op=name,
        output_shape=_of_one_sample(made, _batch_of(graph)),
        parameters=sum(math.prod(_sides(graph.tensors[index])) for index in own if _is_weight(graph.tensors[index])),
        macs=sum(work.macs for work in works if work.kernel in PRODUCTS | RECURRENT),
        activation_bytes=_value_bytes(made, _batch_of(graph)),
        peak_bytes=peak_bytes,
        integer=quantized and not why,
        why_float=why,
        channels=weight[_CHANNELS[name]] if weight and name in _CHANNELS else None,
        squashes=name in _SQUASHING and not _ends_or_gates(model, op),
        works={"int8" if quantized else "fp32": works},
    )


def _works(model: Any, op: Any, reads: list[Any], weight: tuple[int, ...], *, integer: bool) -> tuple[Work, ...]:
    graph, name = model.subgraphs[0], _op_name(model, op)
    batch, window = _batch_of(graph), (_option(op, "filterHeight"), _option(op, "filterWidth"))
    parts = [_of_one_sample(graph.tensors[index], batch) for index in op.outputs]
    seen = Seen(
        reads=[_of_one_sample(each, batch) for each in reads],
        weight=weight,
        made=parts[0],
        sizes={"filter": window} if all(window) else {},
    )
    works = work_of_operator(
        name,
        seen,
        integer=integer,
        activated=bool(_option(op, "fusedActivationFunction")),
        strided=max(_option(op, "strideW"), _option(op, "strideH")) > 1,
    )
    return tuple(replace(work, makes=sum(map(math.prod, parts))) for work in works)


def _option(op: Any, name: str) -> int:
    return int(getattr(op.builtinOptions, name, 0) or 0)


def _ends_or_gates(model: Any, op: Any) -> bool:
    made, graph = int(op.outputs[0]), model.subgraphs[0]
    readers = [each for each in graph.operators if made in map(int, each.inputs)]
    return all(_op_name(model, each) in ("MUL", "DEQUANTIZE") for each in readers)


# ── tensors ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _op_name(model: Any, op: Any) -> str:
    code = model.operatorCodes[op.opcodeIndex]
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    name: str = _OPS.get(number, f"OPERATOR {number}")
    if name != "CUSTOM":
        return name
    custom = code.customCode
    return str(custom.decode(errors="replace") if isinstance(custom, bytes) else custom)


def _name(tensor: Any) -> str:
    return str(tensor.name.decode(errors="replace") if isinstance(tensor.name, bytes) else tensor.name)


def _sides(tensor: Any) -> tuple[int, ...]:
    return () if tensor.shape is None else tuple(int(side) for side in tensor.shape)


def _batch_of(graph: Any) -> int:
    """Return how many samples the file takes at once."""
    sides = _sides(graph.tensors[graph.inputs[0]]) if len(graph.inputs) else ()
    return sides[0] if len(sides) > 1 and sides[0] > 0 else 1


def _of_one_sample(tensor: Any, batch: int) -> tuple[int, ...]:
    """Return its shape without the batch; rows that it was joined with stay."""
    first, *rest = _sides(tensor) or (1,)
    samples = batch if first % batch == 0 else 1
    return tuple(rest) if first == samples else (first // samples, *rest)


def _type(tensor: Any) -> np.dtype[Any]:
    found: np.dtype[Any] = _TYPES.get(tensor.type, np.dtype("uint8"))
    return found


def _is_weight(tensor: Any) -> bool:
    """Whether a constant is learned, and no shape or list of axes: those are whole numbers without a scale."""
    params = tensor.quantization
    return _type(tensor).kind == "f" or (params is not None and params.scale is not None and len(params.scale) > 0)


def _value_bytes(tensor: Any, batch: int = 1) -> int:
    return math.prod(_of_one_sample(tensor, batch)) * _type(tensor).itemsize
