"""The .tflite container: tensors, buffers, operators and a signature, packed into a flatbuffer.

Follows tensorflow/lite/schema/schema.fbs, version 3.  The same calls in the same order always give the same bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from pipeline.graph.params import QuantParams
from pipeline.tflite.opcodes import Opcode

ALIGNMENT = 16  # kernels map constants straight from the file and read them with vector instructions
SCHEMA_VERSION = 3
FILE_IDENTIFIER = b"TFL3"
_ROOM_BYTES = 1 << 16  # for everything but the constants; the builder grows when it is not enough
_LAST_OLD_CODE = 127  # operator codes beyond do not fit the field that runtimes before 2.4 read

_TYPES = {
    "float32": schema.TensorType.FLOAT32,
    "uint8": schema.TensorType.UINT8,
    "int8": schema.TensorType.INT8,
    "int32": schema.TensorType.INT32,
}


@dataclass(frozen=True, kw_only=True)
class Port:
    """A named input or output of the whole graph."""

    name: str
    tensor: int


class _AlignedBuffer(schema.BufferT):  # type: ignore[misc]  # the schema module is untyped
    """A buffer that keeps the schema's ``force_align: 16``, which the generated ``Pack`` drops."""

    def Pack(self, builder: Any) -> Any:  # noqa: N802  (the schema module calls it so)
        vector = None
        if self.data is not None and len(self.data):
            size_bytes = len(self.data)
            builder.StartVector(1, size_bytes, ALIGNMENT)
            builder.head -= size_bytes
            builder.Bytes[builder.head : builder.head + size_bytes] = self.data
            vector = builder.EndVector()
        schema.BufferStart(builder)
        if vector is not None:
            schema.BufferAddData(builder, vector)
        return schema.BufferEnd(builder)


class Flatbuffer:
    """A .tflite file under construction: one subgraph, tensors addressed by index."""

    def __init__(self) -> None:
        self._tensors: list[Any] = []
        self._operators: list[Any] = []
        self._opcodes: list[tuple[int, int]] = []  # code, version
        self._buffers: list[Any] = [_AlignedBuffer()]  # the first one is empty, for tensors without data
        self._constants: dict[tuple[object, ...], int] = {}
        self._named = Counter[str]()

    def tensor(
        self,
        name: str,
        shape: Sequence[int],
        dtype: str,
        *,
        signature: Sequence[int] | None = None,
        params: QuantParams | None = None,
    ) -> int:
        """Add a tensor that is computed and return its index; ``signature`` is its shape with -1 for the batch."""
        tensor = schema.TensorT()
        tensor.name = self._unique(name)
        tensor.shape = list(shape)
        tensor.type = _TYPES[dtype]
        tensor.buffer = 0
        tensor.hasRank = True
        if signature is not None and -1 in signature:
            tensor.shapeSignature = list(signature)
        if params is not None:
            tensor.quantization = _pack_params(params)
        self._tensors.append(tensor)
        return len(self._tensors) - 1

    def _unique(self, name: str) -> str:
        """Return a name that no other tensor has: runtimes do not ask for it, tools that read files do."""
        self._named[name] += 1
        return name if self._named[name] == 1 else self._unique(f"{name}:{self._named[name]}")

    def constant(self, name: str, values: NDArray[np.generic], params: QuantParams | None = None) -> int:
        """Add a constant (float32, int8 or int32) and return its index; equal constants are stored once."""
        data = np.ascontiguousarray(values).tobytes()
        key = (values.dtype.name, values.shape, params, data)
        if key not in self._constants:
            index = self.tensor(name, values.shape, values.dtype.name, params=params)
            buffer = _AlignedBuffer()
            buffer.data = data
            self._tensors[index].buffer = len(self._buffers)
            self._buffers.append(buffer)
            self._constants[key] = index
        return self._constants[key]

    def operator(self, opcode: Opcode, inputs: Sequence[int], output: int, options: object | None = None) -> None:
        """Add an operator; ``options`` is an object of the schema, for example ``Conv2DOptionsT``."""
        is_int8 = self._tensors[output].type == schema.TensorType.INT8
        version = opcode.int8_version if is_int8 else opcode.float_version
        if (opcode.code, version) not in self._opcodes:
            self._opcodes.append((opcode.code, version))
        operator = schema.OperatorT()
        operator.opcodeIndex = self._opcodes.index((opcode.code, version))
        operator.inputs = list(inputs)
        operator.outputs = [output]
        if options is not None:
            operator.builtinOptions = options
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
        self._operators.append(operator)

    def to_bytes(
        self, inputs: Sequence[Port], outputs: Sequence[Port], texts: Mapping[str, bytes] | None = None
    ) -> bytes:
        """Return the file; ``texts`` (name → content) are its metadata, which no runtime looks at."""
        texts = texts or {}
        for port in outputs if len(outputs) > 1 else ():  # runtimes tell them apart by their tensors' names
            tensor = self._tensors[port.tensor]
            holder = next((each for each in self._tensors if each.name == port.name), tensor)
            holder.name, tensor.name = tensor.name, port.name
        graph = schema.SubGraphT()
        graph.name = "main"
        graph.tensors = self._tensors
        graph.operators = self._operators
        graph.inputs = [port.tensor for port in inputs]
        graph.outputs = [port.tensor for port in outputs]
        model = schema.ModelT()
        model.version = SCHEMA_VERSION
        model.description = "karui"
        model.subgraphs = [graph]
        model.buffers = [*self._buffers, *(_packed_text(text) for text in texts.values())]
        model.metadata = [_pack_metadata(name, len(self._buffers) + place) for place, name in enumerate(texts)] or None
        model.operatorCodes = [_pack_opcode(code, version) for code, version in self._opcodes]
        model.signatureDefs = [_pack_signature(inputs, outputs)]
        constants_bytes = sum(len(buffer.data) + ALIGNMENT for buffer in model.buffers if buffer.data)
        builder = flatbuffers.Builder(constants_bytes + _ROOM_BYTES)
        builder.Finish(model.Pack(builder), FILE_IDENTIFIER)
        return bytes(builder.Output())


def _pack_params(params: QuantParams) -> Any:
    packed = schema.QuantizationParametersT()
    packed.scale = np.array(params.scales, np.float32)
    packed.zeroPoint = np.array(params.zero_points, np.int64)
    packed.quantizedDimension = params.axis
    return packed


def _pack_opcode(code: int, version: int) -> Any:
    packed = schema.OperatorCodeT()
    packed.deprecatedBuiltinCode = min(code, _LAST_OLD_CODE)
    packed.builtinCode = code
    packed.version = version
    return packed


def _pack_signature(inputs: Sequence[Port], outputs: Sequence[Port]) -> Any:
    packed = schema.SignatureDefT()
    packed.signatureKey = "serving_default"
    packed.subgraphIndex = 0
    packed.inputs, packed.outputs = ([_pack_port(port) for port in ports] for ports in (inputs, outputs))
    return packed


def _packed_text(text: bytes) -> _AlignedBuffer:
    packed = _AlignedBuffer()
    packed.data = text
    return packed


def _pack_metadata(name: str, buffer: int) -> Any:
    packed = schema.MetadataT()
    packed.name = name
    packed.buffer = buffer
    return packed


def _pack_port(port: Port) -> Any:
    packed = schema.TensorMapT()
    packed.name = port.name
    packed.tensorIndex = port.tensor
    return packed
