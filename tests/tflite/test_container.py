"""What stands in a .tflite file, read back with the schema's own classes: operators, options, ports, texts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from pipeline.graph.params import INT8, QuantParams
from pipeline.tflite import opcodes
from pipeline.tflite.builders import BUILDERS
from pipeline.tflite.flatbuffer import Flatbuffer, Port
from pipeline.tflite.graph import ACTIVATION_OF_BOUNDS, Activation
from pipeline.tflite.opcodes import Opcode
from pipeline.tflite.options import options

GRID = QuantParams.of(0.5, -128, INT8)


def read(file: Flatbuffer, inputs: dict[str, int], outputs: dict[str, int], **texts: bytes) -> Any:
    starts, ends = ([Port(name=name, tensor=at) for name, at in each.items()] for each in (inputs, outputs))
    return schema.ModelT.InitFromPackedBuf(file.to_bytes(starts, ends, texts), 0)


def unary(opcode: Opcode, *, int8: bool) -> Any:
    """Return the code of the only operator of a file."""
    file = Flatbuffer()
    start, end = (file.tensor(name, (1, 2), "int8" if int8 else "float32") for name in "xy")
    file.operator(opcode, [start], end)
    (code,) = read(file, {"x": start}, {"y": end}).operatorCodes
    return code


@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize("opcode", [opcodes.RELU, opcodes.CONV_2D, opcodes.GROUPED_CONV_2D, opcodes.GELU])
def test_the_version_is_that_of_the_outputs_type(opcode: Opcode, *, int8: bool) -> None:
    code = unary(opcode, int8=int8)
    assert code.version == (opcode.int8_version if int8 else opcode.float_version)
    assert code.builtinCode == opcode.code
    assert code.deprecatedBuiltinCode == min(opcode.code, 127)


def test_codes_beyond_the_old_field_say_so_in_it() -> None:
    """Runtimes before 2.4 read the old field alone, where 127 stands for all that do not fit."""
    assert opcodes.GELU.code > 127
    assert unary(opcodes.GELU, int8=False).deprecatedBuiltinCode == 127


def test_the_same_operator_is_listed_once_for_each_version() -> None:
    file = Flatbuffer()
    x, y, z = (file.tensor(name, (1, 2), kind) for name, kind in [("x", "float32"), ("y", "float32"), ("z", "int8")])
    for end in (y, y, z):
        file.operator(opcodes.TANH, [x], end)
    model = read(file, {"x": x}, {"z": z})
    assert [(code.builtinCode, code.version) for code in model.operatorCodes] == [
        (opcodes.TANH.code, 1), (opcodes.TANH.code, 2),
    ]  # fmt: skip
    assert [operator.opcodeIndex for operator in model.subgraphs[0].operators] == [0, 0, 1]
    assert [operator.outputs.tolist() for operator in model.subgraphs[0].operators] == [[y], [y], [z]]


@pytest.mark.parametrize(
    ("activation", "wanted"),
    [
        (Activation.NONE, schema.ActivationFunctionType.NONE),
        (Activation.RELU, schema.ActivationFunctionType.RELU),
        (Activation.RELU6, schema.ActivationFunctionType.RELU6),
        (Activation.RELU_N1_TO_1, schema.ActivationFunctionType.RELU_N1_TO_1),
    ],
)
def test_options_have_their_activation_and_fields(activation: Activation, wanted: int) -> None:
    table: Any = options("Conv2D", activation, strideH=2, dilationWFactor=3)
    assert type(table) is schema.Conv2DOptionsT
    assert (table.fusedActivationFunction, table.strideH, table.dilationWFactor) == (wanted, 2, 3)
    file = Flatbuffer()
    x = file.tensor("x", (1, 2), "float32")
    file.operator(opcodes.CONV_2D, [x], x, table)
    (written,) = read(file, {"x": x}, {"x": x}).subgraphs[0].operators
    assert written.builtinOptionsType == schema.BuiltinOptions.Conv2DOptions
    assert (written.builtinOptions.fusedActivationFunction, written.builtinOptions.strideH) == (wanted, 2)


def test_a_field_that_the_schema_has_not_is_an_error() -> None:
    with pytest.raises(AttributeError, match="Conv2DOptions has no field strideX"):
        options("Conv2D", strideX=1)
    with pytest.raises(AttributeError, match="fusedActivationFunction"):
        options("Pad", Activation.RELU)


def test_bounds_name_every_activation_that_kernels_take_in() -> None:
    assert set(ACTIVATION_OF_BOUNDS.values()) | {Activation.NONE} == set(Activation)


def test_several_outputs_are_told_apart_by_the_names_of_their_tensors() -> None:
    file = Flatbuffer()
    x, y, z = (file.tensor(name, (1, 2), "float32", signature=(-1, 2)) for name in ("in", "layer1", "layer2"))
    model = read(file, {"a": x}, {"scores": z, "boxes": y})
    graph = model.subgraphs[0]
    assert [tensor.name for tensor in graph.tensors] == [b"in", b"boxes", b"scores"]
    assert (graph.inputs.tolist(), graph.outputs.tolist()) == ([x], [z, y])
    (signature,) = model.signatureDefs
    assert [(each.name, each.tensorIndex) for each in signature.outputs] == [(b"scores", z), (b"boxes", y)]
    assert [(each.name, each.tensorIndex) for each in signature.inputs] == [(b"a", x)]
    assert signature.signatureKey == b"serving_default"


def test_a_single_output_keeps_its_layers_name() -> None:
    file = Flatbuffer()
    x = file.tensor("layer", (1, 2), "float32")
    assert read(file, {"a": x}, {"b": x}).subgraphs[0].tensors[0].name == b"layer"


def test_texts_stand_behind_the_constants() -> None:
    file = Flatbuffer()
    x = file.tensor("x", (1, 2), "float32")
    file.constant("one", np.ones(2, np.float32))
    model = read(file, {"x": x}, {"x": x}, first=b"abc", second=b"")
    first, second = (model.buffers[each.buffer].data for each in model.metadata)
    assert [each.name for each in model.metadata] == [b"first", b"second"]
    assert bytes(first) == b"abc"
    assert second is None
    assert [each.buffer for each in model.metadata] == [2, 3]  # 0 is empty, 1 holds the constant
    assert not read(file, {"x": x}, {"x": x}).metadata


@pytest.mark.parametrize("kind", [np.float32, np.int8, np.int32])
@pytest.mark.parametrize("shape", [(), (0,), (1,), (2, 3)])
def test_constants_come_back(kind: type, shape: tuple[int, ...]) -> None:
    file = Flatbuffer()
    x = file.tensor("x", (1, 2), "float32")
    values: NDArray[Any] = np.arange(np.prod(shape), dtype=kind).reshape(shape)
    index = file.constant("c", values)
    model = read(file, {"x": x}, {"x": x})
    tensor = model.subgraphs[0].tensors[index]
    data = model.buffers[tensor.buffer].data
    assert tuple([] if tensor.shape is None else tensor.shape) == shape
    assert np.array_equal(np.frombuffer(b"" if data is None else bytes(data), kind), values.ravel())


def test_a_signature_is_written_where_a_batch_is_free() -> None:
    file = Flatbuffer()
    fixed = file.tensor("x", (1, 2), "int8", signature=(1, 2), params=GRID)
    free = file.tensor("y", (1, 2), "float32", signature=(-1, 2))
    tensors = read(file, {"x": fixed}, {"y": free}).subgraphs[0].tensors
    assert tensors[fixed].shapeSignature is None
    assert tensors[free].shapeSignature.tolist() == [-1, 2]
    assert tensors[free].quantization is None
    assert tensors[fixed].quantization.zeroPoint.tolist() == [-128]
    assert [tensor.hasRank for tensor in tensors] == [True, True]


def test_the_table_lists_every_operation_once_in_order() -> None:
    assert list(BUILDERS) == sorted(BUILDERS)
    assert BUILDERS["Flatten"] is BUILDERS["Squeeze"] is BUILDERS["Unsqueeze"] is BUILDERS["Reshape"]
    assert BUILDERS["LSTM"] is not BUILDERS["GRU"]
