"""The container: alignment, versions, shape signatures, the same bytes every time."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from pipeline.tflite import opcodes, write_tflite
from pipeline.tflite.flatbuffer import ALIGNMENT, Flatbuffer, Port
from pipeline.tflite.opcodes import Opcode
from tests.tflite.cases import CASES
from tests.tflite.nets import Net

# the highest versions that tflite-runtime 2.14 registers, by operator
_KNOWN_TO_2_14 = {
    "ABS": 5, "BATCH_MATMUL": 4, "COS": 1, "ELU": 1, "EXP": 2, "GATHER": 5, "GELU": 2, "LOG": 2, "RSQRT": 3, "SIN": 1,
    "SQRT": 1, "STRIDED_SLICE": 8, "FLOOR": 1, "POW": 1, "ROUND": 1,
    "ADD": 5, "AVERAGE_POOL_2D": 3, "CONCATENATION": 4, "CONV_2D": 7, "DEPTHWISE_CONV_2D": 7, "DEPTH_TO_SPACE": 2,
    "DEQUANTIZE": 5, "DIV": 2, "FULLY_CONNECTED": 10, "HARD_SWISH": 1, "LEAKY_RELU": 2, "LOGISTIC": 3, "MAXIMUM": 4,
    "MAX_POOL_2D": 3, "MEAN": 3, "MINIMUM": 4, "MUL": 7, "PAD": 4, "PADV2": 4, "PRELU": 1, "QUANTIZE": 3,
    "REDUCE_MAX": 3, "RELU": 3, "RELU6": 3, "RESHAPE": 1, "RESIZE_BILINEAR": 4, "RESIZE_NEAREST_NEIGHBOR": 4,
    "SLICE": 6, "SOFTMAX": 3, "SUB": 3, "TANH": 3, "TRANSPOSE": 6,
}  # fmt: skip
_NAMES = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}


@pytest.mark.parametrize("name", [name for name, value in vars(opcodes).items() if isinstance(value, Opcode)])
def test_versions_are_known_to_the_old_runtime(name: str) -> None:
    opcode = getattr(opcodes, name)
    assert max(opcode.float_version, opcode.int8_version) <= _KNOWN_TO_2_14[_NAMES[opcode.code]]


@pytest.mark.parametrize("int8", [False, True])
def test_same_model_same_bytes(*, int8: bool) -> None:
    for shape, case in CASES.values():
        net = Net(*shape, int8=int8)
        model = net.model(case(net))
        assert write_tflite(model) == write_tflite(model)


def test_same_bytes_in_another_process() -> None:
    """Nothing depends on the order of sets, which changes from process to process."""
    code = (
        "import hashlib; from pipeline.tflite import write_tflite; from tests.tflite.nets import Net;"
        "from tests.tflite.test_tflite_networks import resnet_like;"
        "net = Net(3, 16, 16, int8=True);"
        "print(hashlib.sha256(write_tflite(net.model(resnet_like(net)))).hexdigest())"
    )
    digests = {
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
        for _ in range(2)
    }
    assert len(digests) == 1


def test_constants_are_aligned() -> None:
    file = Flatbuffer()
    start = file.tensor("x", (1, 3), "float32", signature=(-1, 3))
    end = start
    for size in (1, 3, 5, 17):  # odd sizes push the next buffer off its place
        end = file.tensor("y", (1, 3), "float32", signature=(-1, 3))
        one = file.constant("one", np.ones(size, np.int8))
        file.operator(opcodes.PRELU, [start, one], end)
    data = file.to_bytes([Port(name="x", tensor=start)], [Port(name="y", tensor=end)])
    model = schema.Model.GetRootAs(data)
    assert data[4:8] == b"TFL3"
    found = 0
    for index in range(model.BuffersLength()):
        buffer = model.Buffers(index)
        if buffer.DataLength():
            vector = buffer._tab.Vector(buffer._tab.Offset(4))
            assert vector % ALIGNMENT == 0
            found += 1
    assert found == 4


def test_equal_constants_are_stored_once() -> None:
    file = Flatbuffer()
    first = file.constant("a", np.arange(3, dtype=np.int32))
    assert file.constant("b", np.arange(3, dtype=np.int32)) == first
    assert file.constant("c", np.arange(3, dtype=np.float32)) != first
    assert file.constant("d", np.arange(3, dtype=np.int32).reshape(1, 3)) != first


@pytest.mark.parametrize("int8", [False, True])
def test_no_two_tensors_have_one_name(*, int8: bool) -> None:
    """Tools that read files, as ai-edge-quantizer, tell tensors apart by their names."""
    for shape, case in CASES.values():
        net = Net(*shape, int8=int8)
        model = schema.ModelT.InitFromPackedBuf(bytearray(write_tflite(net.model(case(net)))))
        names = [tensor.name for tensor in model.subgraphs[0].tensors]
        assert len(set(names)) == len(names)


def test_the_batch_is_marked_in_the_signature() -> None:
    net = Net(3, 6, 5)
    data = write_tflite(net.model(net.op("Relu", net.conv(net.input, 4, 3, 3, 3))))
    graph = schema.Model.GetRootAs(data).Subgraphs(0)
    for index, shape in ((graph.Inputs(0), [6, 5, 3]), (graph.Outputs(0), [4, 3, 4])):
        tensor = graph.Tensors(index)
        assert tensor.ShapeAsNumpy().tolist() == [1, *shape]
        assert tensor.ShapeSignatureAsNumpy().tolist() == [-1, *shape]
