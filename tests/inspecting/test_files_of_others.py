"""Nodes as other exporters write them, and none at all: what is read off them by hand, and never a crash."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import NodeProto, TensorProto, helper, numpy_helper

from pipeline.estimating.modelled import modelled
from pipeline.inspecting.layers import Inspected
from pipeline.inspecting.onnx_file import inspect_onnx
from pipeline.inspecting.seen import Seen
from pipeline.inspecting.tflite_works import _NAMED, _NO_KERNEL, work_of_operator

Sides = Sequence[int | str]
BATCHES: list[int | str] = ["N", 1, 4]


def constant(name: str, *sides: int, dtype: type = np.float32) -> TensorProto:
    return numpy_helper.from_array(np.ones(sides, dtype), name)


def text_of(name: str, *values: int) -> TensorProto:
    return numpy_helper.from_array(np.array(values, np.int64), name)


def read(folder: Path, nodes: Sequence[NodeProto], shape: Sides, *constants: TensorProto) -> Inspected:
    """Read a graph from "x" to what the last node makes, whose shape the file does not tell."""
    last = nodes[-1].output[0]
    ends = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape), helper.make_empty_tensor_value_info(last)]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], initializer=constants)
    path = folder / "other.onnx"
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13), helper.make_opsetid("own", 1)]), path
    )
    return inspect_onnx(path)


def texts(found: Inspected) -> list[str]:
    return [work.text for layer in found.layers for works in layer.works.values() for work in works]


def rows_of_tokens(batch: int | str) -> tuple[list[NodeProto], Sides, list[TensorProto]]:
    """Return a linear layer on tokens as PyTorch's older exporter writes it: on a matrix of all rows."""
    first = -1 if isinstance(batch, str) else batch
    nodes = [
        helper.make_node("Reshape", ["x", "flat"], ["rows"]),
        helper.make_node("Gemm", ["rows", "w", "b"], ["made"], transB=1),
        helper.make_node("Relu", ["made"], ["bent"]),
        helper.make_node("Reshape", ["bent", "apart"], ["y"]),
    ]
    shapes = [text_of("flat", -1, 16), text_of("apart", first, 7, 5)]
    return nodes, (batch, 7, 16), [constant("w", 5, 16), constant("b", 5), *shapes]


def recurrent(batch: int | str) -> tuple[list[NodeProto], Sides, list[TensorProto]]:
    nodes = [
        helper.make_node("Transpose", ["x"], ["steps"], perm=[1, 0, 2]),
        helper.make_node("LSTM", ["steps", "w", "r"], ["states"], hidden_size=5),
        helper.make_node("Transpose", ["states"], ["y"], perm=[2, 0, 1, 3]),
    ]
    return nodes, (batch, 7, 16), [constant("w", 1, 20, 16), constant("r", 1, 20, 5)]


def convolved(batch: int | str) -> tuple[list[NodeProto], Sides, list[TensorProto]]:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], kernel_shape=[3, 3]),
        helper.make_node("MaxPool", ["c"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["p"], ["y"]),
    ]
    return nodes, (batch, 3, 8, 8), [constant("w", 8, 3, 3, 3)]


@pytest.mark.parametrize("batch", BATCHES)
def test_rows_that_are_joined_with_the_batch_are_counted(tmp_path: Path, batch: int | str) -> None:
    nodes, shape, constants = rows_of_tokens(batch)
    found = read(tmp_path, nodes, shape, *constants)
    assert texts(found) == ["Projection r112 m35 x7 n5 k16 a1"]
    assert found.macs == 7 * 5 * 16
    assert [math.prod(layer.output_shape) for layer in found.layers] == [112, 35, 35, 35]


@pytest.mark.parametrize("batch", BATCHES)
def test_steps_before_the_batch_are_no_work_of_their_own(tmp_path: Path, batch: int | str) -> None:
    nodes, shape, constants = recurrent(batch)
    found = read(tmp_path, nodes, shape, *constants)
    assert texts(found) == ["LSTM r112 m35 x7 n20 k21"]
    assert found.macs == 7 * 20 * 21


@pytest.mark.parametrize("batch", BATCHES)
def test_samples_at_once_do_not_change_what_one_takes(tmp_path: Path, batch: int | str) -> None:
    nodes, shape, constants = convolved(batch)
    found = read(tmp_path, nodes, shape, *constants)
    assert texts(found) == ["Conv r192 m288 x36 n8 k27 w9 l6", "MaxPool r288 m72 g8 w4 l3"]
    assert found.layers[-1].output_shape == (72,)


def test_a_transpose_that_moves_more_than_the_batch_is_work(tmp_path: Path) -> None:
    nodes, _, constants = recurrent("N")
    nodes[0] = helper.make_node("Transpose", ["x"], ["steps"], perm=[2, 0, 1])  # (N, 16, 7): channels before steps
    found = read(tmp_path, nodes, ("N", 16, 7), *constants)
    assert texts(found) == ["Transpose r112 m112", "LSTM r112 m35 x7 n20 k21"]


@pytest.mark.parametrize(
    ("weight", "order", "shape", "text"),
    [
        ((16, 5), ["x", "w"], ("N", 7, 16), "Projection r112 m35 x7 n5 k16"),
        ((5, 7), ["w", "x"], ("N", 7, 16), "Projection r112 m80 x16 n5 k7"),  # 16 columns, each of 7 values
        ((2, 16, 5), ["x", "w"], ("N", 2, 7, 16), "Projection r224 m70 x7 n5 k16 g2"),
    ],
)
def test_products_with_constants(
    tmp_path: Path, weight: tuple[int, ...], order: list[str], shape: Sides, text: str
) -> None:
    found = read(tmp_path, [helper.make_node("MatMul", order, ["y"])], shape, constant("w", *weight))
    assert texts(found) == [text]


def test_a_bias_is_part_of_a_product_and_positions_are_not(tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Add", ["m", "b"], ["y"])]
    whole = read(tmp_path, nodes, ("N", 7, 16), constant("w", 16, 5), constant("b", 5))
    assert texts(whole) == ["Projection r112 m35 x7 n5 k16"]
    apart = read(tmp_path, nodes, ("N", 7, 16), constant("w", 16, 5), constant("b", 7, 5))
    assert texts(apart) == ["Projection r112 m35 x7 n5 k16", "Scale r35 m35"]


def test_a_relu_is_part_of_sums_of_two_values_alone(tmp_path: Path) -> None:
    relu = helper.make_node("Relu", ["s"], ["y"])
    two = read(tmp_path, [helper.make_node("Add", ["x", "x"], ["s"]), relu], ("N", 6))
    assert texts(two) == ["Add r12 m6 a1"]
    one = read(tmp_path, [helper.make_node("Add", ["x", "c"], ["s"]), relu], ("N", 6), constant("c"))
    assert texts(one) == ["Scale r6 m6", "Relu r6 m6"]


def test_all_parts_of_a_split_are_made(tmp_path: Path) -> None:
    nodes = [helper.make_node("Split", ["x"], ["a", "b"], axis=1), helper.make_node("Add", ["a", "b"], ["y"])]
    assert texts(read(tmp_path, nodes, ("N", 6, 4))) == ["Slice r24 m24", "Add r24 m12"]


@pytest.mark.parametrize(("fill", "kernel"), [(0.0, "Pad"), (0.5, "PadFilled")])
def test_a_pad_may_name_the_zero_that_it_writes(tmp_path: Path, fill: float, kernel: str) -> None:
    node = helper.make_node("Pad", ["x", "pads", "fill"], ["y"])
    filled = numpy_helper.from_array(np.array(fill, np.float32), "fill")
    found = read(tmp_path, [node], ("N", 6), text_of("pads", 0, 1, 0, 1), filled)
    assert texts(found) == [f"{kernel} r6 m8"]


def test_integer_operators_have_their_weights_behind_their_scales(tmp_path: Path) -> None:
    """Scales may have one element each, as some converters write them."""
    scale, zero = constant("s", 1), constant("z", 1, dtype=np.uint8)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s0", "z0"], ["q"]),
        helper.make_node("QLinearConv", ["q", "s", "z", "w", "s", "wz", "s", "z"], ["c"], kernel_shape=[3, 3]),
        helper.make_node("DequantizeLinear", ["c", "s0", "z0"], ["y"]),
    ]
    scalars = [constant("s0"), numpy_helper.from_array(np.array(0, np.uint8), "z0")]
    weights = [constant("w", 8, 3, 3, 3, dtype=np.int8), constant("wz", 1, dtype=np.int8)]
    found = read(tmp_path, nodes, ("N", 3, 8, 8), scale, zero, *weights, *scalars)
    assert texts(found) == ["QuantizeEnd8 r192 m192", "Conv8 r192 m288 x36 n8 k27 w9 l6", "DequantizeEnd8 r288 m288"]


@pytest.mark.parametrize(
    "shape", [("N", 3, "H", "W"), (), ("N",), (0, 3, 8, 8), (5,), ("A", "B", "C", "D", "E")], ids=str
)
def test_whatever_is_unknown_of_a_shape_the_nodes_are_listed(tmp_path: Path, shape: Sides) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"]),
        helper.make_node("Softmax", ["a"], ["b"], axis=7),
        helper.make_node("LayerNormalization", ["b", "b"], ["c"], axis=-9),
        helper.make_node("MatMul", ["c", "x"], ["d"]),
        helper.make_node("LSTM", ["d"], ["e"]),
        helper.make_node("Resize", ["e"], ["f"]),
        helper.make_node("MaxPool", ["f"], ["g"]),
        helper.make_node("Concat", ["g"], ["y"]),
    ]
    found = read(tmp_path, nodes, shape, constant("w", 8, 3, 3, 3))
    assert [layer.op for layer in found.layers] == [node.op_type for node in nodes]
    assert all(layer.macs >= 0 for layer in found.layers)


def test_operators_that_nobody_knows_are_counted_by_what_they_read_and_make(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Fourier", ["x"], ["a"], domain="own"),
        helper.make_node("Tanh", ["x"], ["y"]),
    ]
    found = read(tmp_path, nodes, ("N", 6000))
    assert texts(found) == ["Fourier r6000 m1", "Tanh r6000 m6000"]  # nobody tells what it makes
    known = modelled(
        [layer.works["fp32"] for layer in found.layers],
        runtime="onnxruntime",
        precision="fp32",
        cpu="cortex-a72",
        clock_mhz=1500,
    )
    assert known is not None
    assert min(known.layers_ms) > 0


# ── operators of TFLite ─────────────────────────────────────────────────────────────────────────────────────────────

SHAPES = st.lists(st.integers(0, 9), max_size=4).map(tuple)


@given(
    name=st.sampled_from([*_NAMED, *_NO_KERNEL, "CUMSUM", "OPERATOR 250", "my own op"]),
    reads=st.lists(SHAPES, max_size=3),
    weight=SHAPES,
    made=SHAPES,
    window=SHAPES,
)
def test_whatever_stands_in_a_tflite_file_is_read(
    name: str, reads: list[tuple[int, ...]], weight: tuple[int, ...], made: tuple[int, ...], window: tuple[int, ...]
) -> None:
    seen = Seen(reads=reads, weight=weight, made=made, sizes={"filter": window} if window else {})
    works = work_of_operator(name, seen, integer=True, activated=True, strided=False)
    assert len(works) == (name not in _NO_KERNEL)
    for work in works:
        assert (work.reads, work.makes) == (sum(map(math.prod, reads)), math.prod(made))
        assert work.macs >= 0


def test_a_fused_lstm_of_tflite_has_four_gates() -> None:
    seen = Seen(reads=[(7, 16), (5,), (5,)], weight=(5, 16), made=(7, 5))
    (work,) = work_of_operator("UNIDIRECTIONAL_SEQUENCE_LSTM", seen, integer=False, activated=True, strided=False)
    assert (work.rows, work.columns, work.depth, work.macs) == (7, 20, 21, 7 * 20 * 21)
