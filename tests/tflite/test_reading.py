"""An ONNX graph as the writer reads it: aliases gone, dead ends gone, activation functions taken in, goals found."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

from pipeline.errors import ModelError
from pipeline.graph.params import INT8, QuantParams
from pipeline.tflite.graph import Activation, Graph, Node, clip_bounds, read_graph
from tests.tflite.nets import Net

INF = float("inf")


def read(net: Net, output: str) -> Graph:
    return read_graph(net.model(output))


def kinds(graph: Graph) -> list[str]:
    return [node.op for node in graph.nodes]


# ── what goes ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_aliases_are_read_through() -> None:
    net = Net(4)
    x = net.op("Relu", net.op("Identity", net.op("Dropout", net.input)))
    graph = read(net, net.op("Identity", x))
    assert kinds(graph) == ["Relu"]
    assert graph.nodes[0].inputs == ("input",)
    (value,) = graph.outputs.values()
    assert value == graph.nodes[0].output


def test_an_alias_of_a_constant_is_that_constant() -> None:
    net = Net(4)
    offset = net.op("Identity", net.const([1, 2, 3, 4]))
    graph = read(net, net.op("Add", net.input, offset))
    assert graph.constants[graph.nodes[0].inputs[1]].values.tolist() == [1, 2, 3, 4]


def test_dead_ends_are_left_out() -> None:
    net = Net(4)
    used = net.op("Relu", net.input)
    net.op("Tanh", net.op("Sigmoid", net.input))  # nobody reads it
    assert kinds(read(net, used)) == ["Relu"]


def test_what_only_says_a_shape_is_left_out() -> None:
    net = Net(3, 4, 4)
    rows = net.op("Gather", net.op("Shape", net.input), net.const([0], np.int64))
    shape = net.op("Concat", rows, net.const([-1], np.int64), axis=0)
    assert kinds(read(net, net.op("Reshape", net.input, shape))) == ["Reshape"]


def test_constant_nodes_become_constants() -> None:
    net = Net(2)
    tensor = helper.make_tensor("v", TensorProto.FLOAT, [2], [5.0, 6.0])
    value = net.op("Constant", value=tensor)
    numbers = net.op("Constant", value_floats=[1.0, 2.0])
    graph = read(net, net.op("Add", net.op("Add", net.input, value), numbers))
    assert kinds(graph) == ["Add", "Add"]
    assert [graph.constants[node.inputs[1]].values.tolist() for node in graph.nodes] == [[5, 6], [1, 2]]


def test_a_left_out_input_is_empty() -> None:
    net = Net(1, 4, 4)
    graph = read(net, net.op("Resize", net.input, "", net.const([1, 1, 2, 2]), mode="nearest"))
    assert graph.nodes[0].input(1) == graph.nodes[0].input(7) == ""


# ── quantization ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_quantized_weights_are_folded_and_keep_their_scales() -> None:
    net = Net(3, 4, 4, int8=True)
    graph = read(net, net.conv(net.input, 5, 3, 1, 1))
    assert kinds(graph) == ["QuantizeLinear", "Conv"]
    weights, bias = (graph.constants[name] for name in graph.nodes[1].inputs[1:])
    assert weights.params is not None
    assert len(weights.params.scales) == 5
    assert [str(each.values.dtype) for each in (weights, bias)] == ["int8", "int32"]


def test_a_dequantizer_of_activations_is_an_alias() -> None:
    net = Net(4, int8=True)
    graph = read(net, net.op("Relu", net.input))
    quantizer, relu = graph.nodes
    assert relu.inputs == (quantizer.output,)
    scale, zero_point = net.input_params
    assert graph.quantized[quantizer.output] == QuantParams.of(float(np.float32(scale)), zero_point - 128, INT8)


def test_the_goal_is_where_all_readers_quantize_to() -> None:
    net = Net(4, int8=True)
    x = net.op("Relu", net.input)
    graph = read(net, net.op("Add", net.q(x, 0.1, 3), net.q(x, 0.1, 3)))
    assert graph.goal(x) == QuantParams.of(float(np.float32(0.1)), 3 - 128, INT8)


def test_there_is_no_goal_where_readers_differ_or_want_floats() -> None:
    net = Net(4, int8=True)
    x = net.op("Relu", net.input)
    differing = read(net, net.op("Add", net.q(x, 0.1, 3), net.q(x, 0.2, 3)))
    assert differing.goal(x) is None
    net = Net(4, int8=True)
    x = net.op("Relu", net.input)
    assert read(net, net.op("Add", net.q(x, 0.1, 3), x)).goal(x) is None
    assert read(net, x).goal(x) is None  # the graph's own output


def test_goals_are_found_through_what_only_moves_values() -> None:
    net = Net(3, 4, 4, int8=True)
    x = net.op("Sigmoid", net.input)
    moved = net.op("Flatten", net.op("MaxPool", x, kernel_shape=[2, 2]))
    graph = read(net, net.q(moved, 0.1, 3))
    assert graph.goal(x) == graph.goal(moved) == QuantParams.of(float(np.float32(0.1)), 3 - 128, INT8)


def test_goals_are_not_found_through_arithmetic() -> None:
    net = Net(4, int8=True)
    x = net.op("Sigmoid", net.input)
    assert read(net, net.q(net.op("Tanh", x), 0.1, 3)).goal(x) is None


def test_final_readers_are_behind_quantizers() -> None:
    net = Net(4, int8=True)
    x = net.op("Relu", net.input)
    last = net.op("Tanh", net.q(x, 0.1, 3))
    graph = read(net, last)
    assert [node and node.op for node in graph.final_readers(x)] == ["Tanh"]
    assert graph.final_readers(graph.outputs[last]) == [None]


def test_weights_may_be_quantized_in_the_graph() -> None:
    net = Net(2)
    quantized = net.op("QuantizeLinear", net.const([[1.0, -1.0]]), net.const(0.5), net.const(0, np.int8))
    graph = read(net, net.op("MatMul", net.input, net.op("DequantizeLinear", quantized, net.const(0.5))))
    assert kinds(graph) == ["MatMul"]
    assert graph.constants[graph.nodes[0].inputs[1]].values.tolist() == [[2, -2]]


# ── activation functions ────────────────────────────────────────────────────────────────────────────────────────────


def clip(net: Net, x: str, low: float | None, high: float | None) -> str:
    return net.op("Clip", x, *("" if bound is None else net.const(bound) for bound in (low, high)))


@pytest.mark.parametrize(
    ("low", "high", "activation"),
    [
        (0.0, None, Activation.RELU),
        (0.0, 6.0, Activation.RELU6),
        (-1.0, 1.0, Activation.RELU_N1_TO_1),
        (0.0, 4.0, Activation.NONE),
        (None, 6.0, Activation.NONE),
    ],
)
def test_clips_that_kernels_know_are_taken_in(low: float | None, high: float | None, activation: Activation) -> None:
    net = Net(3, 4, 4)
    graph = read(net, clip(net, net.conv(net.input, 4, 3, 1, 1), low, high))
    taken = activation is not Activation.NONE
    assert kinds(graph) == (["Conv"] if taken else ["Conv", "Clip"])
    assert graph.nodes[0].activation is activation
    assert graph.nodes[-1].output in graph.outputs.values()


def test_an_activation_is_not_taken_in_where_others_read_the_sum() -> None:
    net = Net(4)
    x = net.op("Add", net.input, net.input)
    assert kinds(read(net, net.op("Add", net.op("Relu", x), x))) == ["Add", "Relu", "Add"]


def test_an_activation_is_not_taken_in_past_the_graphs_output() -> None:
    net = Net(4)
    x = net.op("Add", net.input, net.input)
    model = net.model(net.op("Relu", x))
    model.graph.output.append(helper.make_tensor_value_info(x, TensorProto.FLOAT, None))
    assert kinds(read_graph(model)) == ["Add", "Relu"]


def test_pools_take_nothing_in() -> None:
    net = Net(3, 4, 4)
    pooled = net.op("MaxPool", net.input, kernel_shape=[2, 2])
    assert kinds(read(net, net.op("Relu", pooled))) == ["MaxPool", "Relu"]


@pytest.mark.parametrize(("low", "high"), [(None, None), (-2.0, None), (None, 3.0), (-1.5, 2.5)])
def test_bounds_of_a_clip(low: float | None, high: float | None) -> None:
    net = Net(4)
    graph = read(net, clip(net, net.input, low, high))
    found = clip_bounds(graph.nodes[0], graph.constants)
    assert found == (-INF if low is None else low, INF if high is None else high)


def test_bounds_that_are_computed_are_refused() -> None:
    net = Net(4)
    bound = net.op("ReduceMean", net.input, keepdims=0)
    graph = read(net, net.op("Clip", net.input, bound))
    with pytest.raises(ModelError, match="a bound is computed in the graph") as caught:
        clip_bounds(graph.nodes[-1], graph.constants)
    assert graph.nodes[-1].name in caught.value.where


# ── attributes ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_attributes_are_given_as_what_is_asked_for() -> None:
    node = Node(
        op="Any",
        name="features.any",
        inputs=("x",),
        output="y",
        attributes={"axis": 2, "alpha": 0.5, "mode": "linear", "pads": (1, 2)},
    )
    assert node.integer("axis", 0) == 2
    assert node.integer("alpha", 7) == 7  # not a whole number
    assert node.number("alpha", 0.0) == 0.5
    assert node.number("axis", 0.0) == 2.0
    assert node.text("mode", "") == "linear"
    assert node.text("axis", "none") == "none"
    assert node.integers("pads", ()) == (1, 2)
    assert node.integers("missing", [3]) == (3,)
    assert node.where == "layer 'features.any' (Any)"


def test_attributes_are_read_from_the_file() -> None:
    net = Net(3, 8, 8)
    graph = read(net, net.op("MaxPool", net.input, kernel_shape=[2, 3], strides=[1, 2], auto_pad="SAME_UPPER"))
    node = graph.nodes[0]
    assert node.integers("kernel_shape", ()) == (2, 3)
    assert node.integers("strides", ()) == (1, 2)
    assert node.text("auto_pad", "") == "SAME_UPPER"


def test_readers_come_in_order_and_once() -> None:
    net = Net(4)
    first, second = net.op("Relu", net.input), net.op("Tanh", net.input)
    graph = read(net, net.op("Mul", net.op("Add", first, second), net.op("Mul", first, first)))
    assert [node.op for node in graph.readers["input"]] == ["Relu", "Tanh"]
    assert [node.op for node in graph.readers[graph.nodes[0].output]] == ["Add", "Mul"]
