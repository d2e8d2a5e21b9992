"""Shapes for any batch: which axis grows, through whatever moves it, and integers that are computed from shapes.

Shapes: N batch, C channels, H height, W width, L length.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from pipeline.errors import ModelError
from pipeline.tflite.shape_arithmetic import fold_shape_arithmetic
from pipeline.tflite.shapes import Shape, infer_shapes
from tests.tflite.nets import Net

Build = Callable[[Net], str]


def shape_of(net: Net, output: str) -> Shape:
    return infer_shapes(net.model(output))[output]


# ── the batch ───────────────────────────────────────────────────────────────────────────────────────────────────────

MOVES: dict[str, tuple[tuple[int, ...], Build, tuple[int, ...], int | None]] = {
    "convolution": ((3, 8, 6), lambda n: n.conv(n.input, 5, 3, 3, 3), (1, 5, 6, 4), 0),
    "flatten": ((3, 8, 6), lambda n: n.op("Flatten", n.input), (1, 144), 0),
    "transpose to the front": ((4, 9), lambda n: n.op("Transpose", n.input, perm=[2, 1, 0]), (9, 4, 1), 2),
    "transpose to the middle": ((4, 9), lambda n: n.op("Transpose", n.input, perm=[1, 0, 2]), (4, 1, 9), 1),
    "there and back": (
        (4, 9),
        lambda n: n.op("Transpose", n.op("Transpose", n.input, perm=[2, 1, 0]), perm=[2, 1, 0]),
        (1, 4, 9),
        0,
    ),
    "a mean without the axis": ((4, 9), lambda n: n.op("ReduceMean", n.input, axes=[1], keepdims=0), (1, 9), 0),
    "unsqueeze in front": ((4,), lambda n: n.op("Unsqueeze", n.input, n.const([0], np.int64)), (1, 1, 4), 1),
    "reshape": ((4, 6), lambda n: n.op("Reshape", n.input, n.const([0, 2, 12], np.int64)), (1, 2, 12), 0),
    "a constant has none": ((4,), lambda n: n.op("Shape", n.input), (2,), None),
}


@pytest.mark.parametrize("name", MOVES)
def test_the_batch_is_found_wherever_it_goes(name: str) -> None:
    dims, build, found, batch = MOVES[name]
    net = Net(*dims)
    assert shape_of(net, build(net)) == Shape(dims=found, batch=batch)


def test_every_value_has_a_shape() -> None:
    net = Net(3, 8, 8)
    x = net.op("Relu", net.conv(net.input, 4, 3, 3, 3))
    shapes = infer_shapes(net.model(net.gemm(net.op("Flatten", x), 2, 144)))
    assert {"input", *(node.output[0] for node in net.nodes)} <= shapes.keys()


def test_a_fixed_batch_does_not_grow() -> None:
    net = Net(3, 4)
    output = net.op("Relu", net.input)
    assert infer_shapes(net.model(output, batch=5))[output] == Shape(dims=(5, 3, 4), batch=None)


def test_weights_are_not_needed_for_shapes() -> None:
    """Large constants are left out while shapes are inferred: only their own shape matters."""
    net = Net(64)
    output = net.op("MatMul", net.input, net.random(64, 32))
    model = net.model(output)
    assert infer_shapes(model)[output].dims == (1, 32)
    assert len(model.graph.initializer) == 1  # the model itself is as it was


def test_shapes_that_are_written_in_the_file_are_not_believed() -> None:
    net = Net(4)
    output = net.op("Relu", net.input)
    model = net.model(output)
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info(output, TensorProto.FLOAT, [7, 7]))
    model.graph.value_info.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, [7, 7]))
    assert infer_shapes(model)[output].dims == (1, 4)


def test_a_batch_that_becomes_a_feature_is_refused() -> None:
    net = Net(4, 2)
    with pytest.raises(ModelError, match="batch of 2") as caught:
        infer_shapes(net.model(net.gemm(net.op("Reshape", net.input, net.const([1, -1], np.int64)), 3, 8)))
    assert "keep the batch the first axis" in caught.value.remedy


def test_two_axes_that_grow_are_refused() -> None:
    net = Net(3)
    product = net.op("MatMul", net.input, net.op("Transpose", net.input, perm=[1, 0]))  # (N, N)
    with pytest.raises(ModelError, match=r"axes \[0, 1\] both grow with the batch") as caught:
        infer_shapes(net.model(product))
    assert caught.value.where == f"value '{product}'"


def test_a_layer_that_does_not_fit_is_named() -> None:
    net = Net(4)
    output = net.gemm(net.input, 3, 5)
    with pytest.raises(ModelError, match="does not fit together for a batch of 1") as caught:
        infer_shapes(net.model(output))
    assert net.nodes[-1].name in caught.value.where


# ── one shape ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_axis_of_one_element_is_a_unit_unless_it_is_the_batch() -> None:
    shape = Shape(dims=(1, 1, 5), batch=0)
    assert [shape.is_unit(axis) for axis in range(3)] == [False, True, False]
    assert shape.rank == 3


def test_changed_sizes_leave_the_others_and_the_batch() -> None:
    assert Shape(dims=(1, 3, 5), batch=0).with_dims({2: 9}) == Shape(dims=(1, 3, 9), batch=0)


# ── arithmetic with shapes ──────────────────────────────────────────────────────────────────────────────────────────

ARITHMETIC: dict[str, Build] = {
    "gather": lambda n: n.op("Gather", n.op("Shape", n.input), n.const([2, 0], np.int64)),
    "gather from the end": lambda n: n.op("Gather", n.op("Shape", n.input), n.const([-1], np.int64)),
    "add": lambda n: n.op("Add", n.op("Shape", n.input), n.const([1, 2, 3], np.int64)),
    "sub": lambda n: n.op("Sub", n.op("Shape", n.input), n.const([1], np.int64)),
    "mul": lambda n: n.op("Mul", n.op("Shape", n.input), n.const([2], np.int64)),
    "div": lambda n: n.op("Div", n.op("Shape", n.input), n.const([2], np.int64)),
    "concat": lambda n: n.op("Concat", n.op("Shape", n.input), n.const([-1], np.int64), axis=0),
    "cast": lambda n: n.op("Cast", n.op("Shape", n.input), to=TensorProto.INT64),
    "identity": lambda n: n.op("Identity", n.op("Shape", n.input)),
    "reshape": lambda n: n.op("Reshape", n.op("Shape", n.input), n.const([3, 1], np.int64)),
    "squeeze": lambda n: n.op(
        "Squeeze", n.op("Unsqueeze", n.op("Shape", n.input), n.const([0], np.int64)), n.const([0], np.int64)
    ),
    "squeeze all": lambda n: n.op("Squeeze", n.op("Unsqueeze", n.op("Shape", n.input), n.const([1], np.int64))),
    "slice": lambda n: n.op(
        "Slice", n.op("Shape", n.input), *(n.const([each], np.int64) for each in (0, 3, 0, 2))
    ),
    "slice to the end": lambda n: n.op(
        "Slice", n.op("Shape", n.input), *(n.const([each], np.int64) for each in (1, 2**62))
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ARITHMETIC)
def test_integers_from_shapes_are_what_onnx_computes(name: str) -> None:
    net = Net(3, 4, opset=19)
    output = ARITHMETIC[name](net)
    model = net.model(output)
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info(output, TensorProto.INT64, None))
    (wanted,) = ReferenceEvaluator(model).run(None, {"input": np.zeros((5, 3, 4), np.float32)})
    folded = onnx.ModelProto()
    folded.CopyFrom(model)
    assert fold_shape_arithmetic(folded.graph, {"input": (5, 3, 4)}) > 0
    last = folded.graph.node[-1]
    assert last.op_type == "Constant"
    assert np.array_equal(numpy_helper.to_array(last.attribute[0].t), wanted)


def test_a_part_of_a_shape() -> None:
    net = Net(3, 4, opset=19)
    output = net.op("Shape", net.input, start=1, end=-1)
    model = net.model(output)
    fold_shape_arithmetic(model.graph, {"input": (5, 3, 4)})
    assert numpy_helper.to_array(model.graph.node[0].attribute[0].t).tolist() == [3]


def test_what_depends_on_values_is_left_alone() -> None:
    net = Net(3, 4)
    output = net.op("Add", net.op("Relu", net.input), net.const(1.0))
    model = net.model(output)
    assert fold_shape_arithmetic(model.graph, {"input": (5, 3, 4)}) == 0
    assert [node.op_type for node in model.graph.node] == ["Relu", "Add"]


def test_a_shape_that_is_not_known_yet_waits() -> None:
    net = Net(3, 4)
    output = net.op("Shape", net.op("Relu", net.input))
    model = net.model(output)
    relu = net.nodes[0].output[0]
    assert fold_shape_arithmetic(model.graph, {"input": (5, 3, 4)}) == 0
    assert fold_shape_arithmetic(model.graph, {relu: (5, 3, 4)}) == 1
    assert fold_shape_arithmetic(model.graph, {relu: (5, 3, 4)}) == 0  # done


def test_constants_of_floats_are_no_shapes() -> None:
    net = Net(3)
    value = helper.make_tensor("v", TensorProto.FLOAT, [2], [1.0, 2.0])
    model = net.model(net.op("Add", net.op("Constant", value=value), net.const([1.0, 1.0])))
    assert fold_shape_arithmetic(model.graph, {}) == 0
