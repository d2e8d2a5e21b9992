"""The file under construction: every form of a value is made once, and the container holds what was asked for.

Shapes: N batch, C channels, H height, W width.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from pipeline.errors import ModelError
from pipeline.graph.params import INT8, INT32, QuantParams
from pipeline.tflite import layout, opcodes, write_tflite
from pipeline.tflite.draft import Draft, Stored
from pipeline.tflite.flatbuffer import Flatbuffer, Port
from pipeline.tflite.graph import Activation, read_graph
from pipeline.tflite.options import options
from pipeline.tflite.shapes import Shape, infer_shapes
from tests.tflite.nets import Net, operators, run_ort, run_tflite

IMAGE = Shape(dims=(1, 3, 4, 5), batch=0)
TENTH, FIFTH = QuantParams.of(0.1, 3, INT8), QuantParams.of(0.2, -4, INT8)


def draft(net: Net | None = None, output: str | None = None) -> Draft:
    net = net or Net(3, 4, 5)
    model = net.model(output or net.op("Relu", net.input))
    return Draft(read_graph(model), infer_shapes(model))


def image(made: Draft, params: QuantParams | None = None) -> Stored:
    return made.new("x", IMAGE, layout.channels_last(4), params)


def parsed(made: Draft, start: Stored, end: Stored) -> Any:
    """Return the file's one subgraph, with the model it stands in."""
    content = made.file.to_bytes([Port(name="x", tensor=start.tensor)], [Port(name="y", tensor=end.tensor)])
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    return model, model.subgraphs[0]


def names(model: Any, graph: Any) -> list[str]:
    known = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
    return [known[model.operatorCodes[each.opcodeIndex].builtinCode] for each in graph.operators]


# ── forms ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_float_is_a_float_already() -> None:
    made = draft()
    x = image(made)
    assert made.as_float(x) is x
    assert names(*parsed(made, x, x)) == []


def test_integers_become_floats_once() -> None:
    made = draft()
    x = image(made, TENTH)
    first, second = made.as_float(x), made.as_float(x)
    assert first.tensor == second.tensor != x.tensor
    assert first.params is None
    model, graph = parsed(made, x, first)
    assert names(model, graph) == ["DEQUANTIZE"]
    assert graph.tensors[first.tensor].type == schema.TensorType.FLOAT32


def test_integers_are_brought_to_other_parameters_once_each() -> None:
    made = draft()
    x = image(made, TENTH)
    assert made.as_int8(x, TENTH) is x
    fifth = made.as_int8(x, FIFTH)
    assert fifth.params == FIFTH
    assert made.as_int8(x, FIFTH).tensor == fifth.tensor
    third = made.as_int8(x, QuantParams.of(0.3, 0, INT8))
    assert third.tensor != fifth.tensor
    # MUL by one, which is exact, in place of QUANTIZE, which is not
    assert names(*parsed(made, x, third)) == ["MUL", "MUL"]


def test_floats_are_quantized_once() -> None:
    made = draft()
    x = image(made)
    quantized = made.as_int8(x, TENTH)
    assert made.as_int8(x, TENTH).tensor == quantized.tensor
    assert names(*parsed(made, x, quantized)) == ["QUANTIZE"]


def test_a_value_is_arranged_once_for_each_order() -> None:
    made = draft()
    x = image(made)
    plain = made.in_axes(x, layout.plain(4))
    assert made.in_axes(x, layout.plain(4)).tensor == plain.tensor
    assert made.in_axes(x, layout.channels_last(4)) is x
    model, graph = parsed(made, x, plain)
    assert names(model, graph) == ["TRANSPOSE"]
    assert list(graph.tensors[plain.tensor].shape) == [1, 3, 4, 5]
    assert list(graph.tensors[plain.tensor].shapeSignature) == [-1, 3, 4, 5]


def test_an_order_that_holds_the_elements_alike_needs_a_reshape_alone() -> None:
    made = draft()
    narrow = made.new("x", Shape(dims=(1, 1, 4, 5), batch=0), layout.channels_last(4), None)
    plain = made.in_axes(narrow, layout.plain(4))
    assert names(*parsed(made, narrow, plain)) == ["RESHAPE"]


def test_what_was_made_of_a_tensor_is_found_under_another_reading() -> None:
    made = draft()
    x = image(made, TENTH)
    floats = made.as_float(x)
    turned = Stored(tensor=x.tensor, name="t", shape=Shape(dims=(1, 4, 5, 3), batch=0), axes=(0, 1, 2, 3), params=TENTH)
    again = made.as_float(turned)
    assert again.tensor == floats.tensor
    assert (again.shape, again.axes) == (turned.shape, turned.axes)


# ── asking the graph ────────────────────────────────────────────────────────────────────────────────────────────────


def test_constants_and_values_are_told_apart() -> None:
    net = Net(3, 4, 5)
    made = draft(net, net.op("Add", net.input, net.const(2.0)))
    add = made.graph.nodes[0]
    made.keep("input", image(made))
    assert [made.is_constant(add, index) for index in (0, 1, 2)] == [False, True, False]
    assert made.constant_of(add, 1).values.tolist() == 2.0
    assert made.value(add).name == "x"
    with pytest.raises(ModelError, match="a constant, or missing") as caught:
        made.value(add, 1)
    assert caught.value.where == f"{add.where}, input 1"
    with pytest.raises(ModelError, match="input 0 is computed") as caught:
        made.constant_of(add, 0)
    assert "make it a constant" in caught.value.remedy


def test_a_shape_that_is_not_known_is_an_error() -> None:
    made = draft()
    with pytest.raises(ModelError, match="shape is not known"):
        made.shape_of("nowhere", "layer 'x'")
    assert made.shape(made.graph.nodes[0]) == IMAGE


def test_the_goal_of_a_layer_is_that_of_its_output() -> None:
    net = Net(3, 4, 5, int8=True)
    made = draft(net, net.q(net.op("Relu", net.input), 0.1, 131))
    relu = next(node for node in made.graph.nodes if node.op == "Relu")
    assert made.goal(relu) == QuantParams.of(float(np.float32(0.1)), 3, INT8)


# ── the container ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_parameters_stand_in_the_file_as_given() -> None:
    file = Flatbuffer()
    per_channel = QuantParams(scales=(0.1, 0.2), zero_points=(0, 0), grid=INT8, axis=1)
    start = file.tensor("x", (1, 2), "int8", signature=(-1, 2), params=TENTH)
    weights = file.constant("w", np.ones((3, 2), np.int8), per_channel)
    bias = file.constant("b", np.ones(3, np.int32), QuantParams.of(0.01, 0, INT32))
    content = file.to_bytes([Port(name="x", tensor=start)], [Port(name="x", tensor=start)])
    tensors = schema.ModelT.InitFromPackedBuf(content, 0).subgraphs[0].tensors
    found = [tensors[index].quantization for index in (start, weights, bias)]
    assert [each.scale.tolist() for each in found] == [
        [np.float32(0.1)], [np.float32(0.1), np.float32(0.2)], [np.float32(0.01)],
    ]  # fmt: skip
    assert [each.zeroPoint.tolist() for each in found] == [[3], [0, 0], [0]]
    assert [each.quantizedDimension for each in found] == [0, 1, 0]


def test_the_same_values_with_other_parameters_are_another_constant() -> None:
    file = Flatbuffer()
    values = np.ones(3, np.int8)
    first = file.constant("a", values, TENTH)
    assert file.constant("b", values, TENTH) == first
    assert file.constant("c", values, FIFTH) != first
    assert file.constant("d", values) != first


def test_an_operator_has_the_version_of_its_result() -> None:
    made = draft()
    x, q = image(made), image(made, TENTH)
    y, z = image(made), image(made, FIFTH)
    made.op(opcodes.MAX_POOL_2D, [x], y)
    made.op(opcodes.MAX_POOL_2D, [q], z)
    made.op(opcodes.MAX_POOL_2D, [y], x)
    model, graph = parsed(made, x, z)
    versions = [model.operatorCodes[each.opcodeIndex].version for each in graph.operators]
    assert versions == [opcodes.MAX_POOL_2D.float_version, opcodes.MAX_POOL_2D.int8_version, 1]
    assert len(model.operatorCodes) == 2  # each version is listed once


def test_options_are_those_of_the_schema() -> None:
    table: Any = options("Conv2D", Activation.RELU6, strideH=2, strideW=3)
    assert (table.strideH, table.strideW) == (2, 3)
    assert table.fusedActivationFunction == schema.ActivationFunctionType.RELU6
    with pytest.raises(AttributeError, match="Conv2DOptions has no field stride"):
        options("Conv2D", None, stride=2)


def test_the_file_says_who_wrote_it_and_how_it_is_called() -> None:
    net = Net(3, 4, 5)
    model = schema.ModelT.InitFromPackedBuf(write_tflite(net.model(net.op("Relu", net.input))), 0)
    assert model.description == b"karui"
    assert model.version == 3
    signature = model.signatureDefs[0]
    assert signature.signatureKey == b"serving_default"
    assert [each.name for each in signature.inputs] == [b"input"]


# ── ends ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("shape", "stored"),
    [((7,), [7]), ((4, 9), [4, 9]), ((3, 4, 5), [4, 5, 3])],
    ids=["features", "sequence", "picture"],
)
def test_pictures_come_channels_last_and_others_as_in_onnx(shape: tuple[int, ...], stored: list[int]) -> None:
    net = Net(*shape)
    interpreter = Interpreter(model_content=write_tflite(net.model(net.op("Relu", net.input))))
    for details in (interpreter.get_input_details()[0], interpreter.get_output_details()[0]):
        assert details["shape"].tolist() == [1, *stored]
        assert details["shape_signature"].tolist() == [-1, *stored]


@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_a_map_per_class_goes_out_channels_last(mode: str, *, int8: bool) -> None:
    """As a U-Net ends: doubled, joined with what came across, a 1x1 convolution."""
    net = Net(2, 6, 4, int8=int8)
    down = net.q(net.op("MaxPool", net.input, kernel_shape=[2, 2], strides=[2, 2]), *net.input_params)
    how = "asymmetric" if mode == "nearest" else "half_pixel"
    nearest = {"nearest_mode": "floor"} if mode == "nearest" else {}
    up = net.op("Resize", down, "", net.const([1, 1, 2, 2]), mode=mode, coordinate_transformation_mode=how, **nearest)
    joined = net.op("Concat", net.input, net.q(up, *net.input_params), axis=1)
    model = net.model(net.q(net.conv(net.q(joined, *net.input_params), 3, 4, 1, 1)))
    data = write_tflite(model)
    got, wanted = run_tflite(data, net.samples), run_ort(model, net.samples)
    assert got.values.shape == wanted.shape == (8, 3, 6, 4)
    assert "TRANSPOSE" not in operators(data)
    step = got.step or float(np.abs(wanted).max()) * 2e-5
    # ONNX Runtime cuts integers of a linear resize off where TFLite rounds them: one inner step, seen at the output
    assert np.abs(got.values - wanted).max() <= (3.01 if int8 and mode == "linear" else 1.01) * step
