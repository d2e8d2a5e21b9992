"""Files that ask more of a session than one float input and one output: several of them, integers, fixed batches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from ai_edge_litert import schema_py_generated as schema
from onnx import TensorProto, helper, numpy_helper

from tests.onboard.small_models import Flat


def _onnx(
    nodes: Sequence[onnx.NodeProto],
    inputs: dict[str, tuple[int, list[int | str]]],
    outputs: dict[str, tuple[int, list[int | str]]],
    tensors: Sequence[onnx.TensorProto] = (),
) -> bytes:
    x, y = (
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in side.items()]
        for side in (inputs, outputs)
    )
    graph = helper.make_graph(list(nodes), "odd", x, y, list(tensors))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def two_by_two_onnx(batch: int | str = "n") -> bytes:
    """(picture (n, 3, 4, 5), offset (n, 3, 1, 1)) → (shifted (n, 3, 4, 5), mean (n, 3)) of picture + offset."""
    nodes = [
        helper.make_node("Add", ["picture", "offset"], ["shifted"]),
        helper.make_node("ReduceMean", ["shifted"], ["mean"], axes=[2, 3], keepdims=0),
    ]
    kind = TensorProto.FLOAT
    return _onnx(
        nodes,
        {"picture": (kind, [batch, 3, 4, 5]), "offset": (kind, [batch, 3, 1, 1])},
        {"shifted": (kind, [batch, 3, 4, 5]), "mean": (kind, [batch, 3])},
    )


def two_by_two_tflite() -> bytes:
    """Write the same network with the names of a converter; tensors of four axes are (n, H, W, C)."""
    flat = Flat()
    picture = flat.tensor("serving_default_picture:0", (1, 4, 5, 3), np.float32)
    offset = flat.tensor("serving_default_offset:0", (1, 1, 1, 3), np.float32)
    shifted = flat.tensor("StatefulPartitionedCall:0", (1, 4, 5, 3), np.float32)
    mean = flat.tensor("StatefulPartitionedCall:1", (1, 3), np.float32)
    axes = flat.tensor("axes", (2,), np.int32, data=np.array([1, 2], np.int32))
    flat.op("ADD", 1, [picture, offset], shifted, schema.AddOptionsT())
    flat.op("MEAN", 1, [shifted, axes], mean, schema.ReducerOptionsT())
    return flat.dump([picture, offset], [shifted, mean])


TABLE = np.arange(12, dtype=np.float32).reshape(4, 3)  # four words, three numbers each


def words_onnx() -> bytes:
    """Words (n, 2) int64 → (numbers (n, 2, 3), words again)."""
    nodes = [
        helper.make_node("Gather", ["table", "words"], ["numbers"]),
        helper.make_node("Identity", ["words"], ["again"]),
    ]
    return _onnx(
        nodes,
        {"words": (TensorProto.INT64, ["n", 2])},
        {"numbers": (TensorProto.FLOAT, ["n", 2, 3]), "again": (TensorProto.INT64, ["n", 2])},
        [numpy_helper.from_array(TABLE, "table")],
    )


def words_tflite() -> bytes:
    """Words (n, 2) int32 → numbers (n, 2, 3)."""
    flat = Flat()
    words = flat.tensor("words", (1, 2), np.int32)
    table = flat.tensor("table", TABLE.shape, np.float32, data=TABLE)
    numbers = flat.tensor("numbers", (1, 2, 3), np.float32)
    options = schema.GatherOptionsT()
    options.axis = 0
    flat.op("GATHER", 1, [table, words], numbers, options)
    return flat.dump([words], [numbers])


def mixing_tflite() -> bytes:
    """X (n, 4) → 3 x minus the mean over all samples at once: 2 x of one sample, something else of many."""
    flat = Flat()
    x = flat.tensor("x", (1, 4), np.float32)
    axis = flat.tensor("axis", (1,), np.int32, data=np.array([0], np.int32))
    three = flat.tensor("three", (1,), np.float32, data=np.array([3], np.float32))
    mean = flat.tensor("mean", (1, 4), np.float32)
    tripled = flat.tensor("tripled", (1, 4), np.float32)
    y = flat.tensor("y", (1, 4), np.float32)
    keep = schema.ReducerOptionsT()
    keep.keepDims = True
    flat.op("MEAN", 1, [x, axis], mean, keep)
    flat.op("MUL", 1, [x, three], tripled, schema.MulOptionsT())
    flat.op("SUB", 1, [tripled, mean], y, schema.SubOptionsT())
    return flat.dump([x], [y])


def rigid_tflite() -> bytes:
    """X (n, 4) → 2 x as (n, 2, 2), by a reshape that has the batch of 1 written in: cannot be resized."""
    flat = Flat()
    x = flat.tensor("x", (1, 4), np.float32)
    shape = flat.tensor("shape", (3,), np.int32, data=np.array([1, 2, 2], np.int32))
    reshaped = flat.tensor("reshaped", (1, 2, 2), np.float32)
    y = flat.tensor("y", (1, 2, 2), np.float32)
    options = schema.ReshapeOptionsT()
    options.newShape = [1, 2, 2]
    flat.op("RESHAPE", 1, [x, shape], reshaped, options)
    flat.op("ADD", 1, [reshaped, reshaped], y, schema.AddOptionsT())
    return flat.dump([x], [y])


def overflowing_onnx() -> bytes:
    """Write a layer of x (n, 64), in steps of 1 from 0 to 255 → 127 times its sum and twice that (n, 2).

    The weights are int8: pairs of products do not fit into 16 bits.
    """
    tensors = [
        numpy_helper.from_array(np.array(1, np.float32), "s"),
        numpy_helper.from_array(np.array(0, np.uint8), "z"),
        numpy_helper.from_array(np.array([1, 2], np.float32), "w_s"),
        numpy_helper.from_array(np.zeros(2, np.int8), "w_z"),
        numpy_helper.from_array(np.full((64, 2), 127, np.int8), "w"),
    ]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["dq"]),
        helper.make_node("DequantizeLinear", ["w", "w_s", "w_z"], ["w_dq"], axis=1),
        helper.make_node("MatMul", ["dq", "w_dq"], ["y"]),
    ]
    return _onnx(nodes, {"x": (TensorProto.FLOAT, ["n", 64])}, {"y": (TensorProto.FLOAT, ["n", 2])}, tensors)


def whole_onnx() -> bytes:
    """X (n, 4) → the sum of everything, a scalar: not one output per sample."""
    nodes = [helper.make_node("ReduceSum", ["x"], ["y"], keepdims=0)]
    return _onnx(nodes, {"x": (TensorProto.FLOAT, ["n", 4])}, {"y": (TensorProto.FLOAT, [])})


def cast_tflite(kind: type[np.generic]) -> bytes:
    """X (n, 3) of an integer type, not quantized → the same as float."""
    flat = Flat()
    x = flat.tensor("x", (1, 3), kind)
    y = flat.tensor("y", (1, 3), np.float32)
    flat.op("CAST", 1, [x], y, schema.CastOptionsT())
    return flat.dump([x], [y])


def deadly_tflite() -> bytes:
    """Write an int8 addition without scales: the interpreter divides by zero and takes its process with it."""
    flat = Flat()
    x = flat.tensor("x", (1, 3), np.int8)
    y = flat.tensor("y", (1, 3), np.int8)
    flat.op("ADD", 1, [x, x], y, schema.AddOptionsT())
    return flat.dump([x], [y])
