"""Whole networks: residual blocks, float layers among int8 ones, branches, several ends, int8 activations."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import onnx
import pytest
from ai_edge_litert.interpreter import Interpreter
from onnx import helper, numpy_helper

from pipeline.tflite import write_tflite
from tests.tflite.nets import (
    STEPS_LITERT,
    STEPS_OLD,
    Net,
    assert_close,
    assert_steps,
    operators,
    run_ort,
    run_tflite,
)
from tests.tflite.old import run_in_old_runtime

WRITING_TIME_LIMIT_S = 1.0  # 0.06 s for MobileNet-sized weights when the machine is idle


def resnet_like(net: Net) -> str:
    """Three stages of residual blocks like ResNet-8, a mean and a linear layer: (3, 16, 16) → 10."""
    x = net.qop("Relu", net.conv(net.input, 16, 3, 3, 3, pads=[1] * 4))
    inputs = 16
    for channels, stride in ((16, 1), (32, 2), (64, 2)):
        y = net.qop("Relu", net.conv(x, channels, inputs, 3, 3, pads=[1] * 4, strides=[stride] * 2))
        y = net.q(net.conv(y, channels, channels, 3, 3, pads=[1] * 4))
        shortcut = net.q(net.conv(x, channels, inputs, 1, 1, strides=[stride] * 2)) if channels != inputs else x
        x = net.qop("Relu", net.op("Add", y, shortcut))
        inputs = channels
    features = net.q(net.op("Flatten", net.qop("GlobalAveragePool", x)))
    return net.q(net.gemm(features, 10, 64))


def fresh_samples(net: Net, count: int = 64) -> np.ndarray:
    return np.random.default_rng(9).normal(0, 1, (count, *net.samples.shape[1:])).astype(np.float32)


def test_residual_network_float() -> None:
    net = Net(3, 16, 16)
    model = net.model(resnet_like(net))
    x = fresh_samples(net)
    data = write_tflite(model)
    assert_close(run_tflite(data, x), run_ort(model, x))
    assert set(operators(data)) == {"CONV_2D", "PAD", "ADD", "MEAN", "RESHAPE", "FULLY_CONNECTED"}


def test_residual_network_int8() -> None:
    net = Net(3, 16, 16, int8=True)
    model = net.model(resnet_like(net))
    x = fresh_samples(net)
    data = write_tflite(model)
    wanted, got = run_ort(model, x), run_tflite(data, x)
    assert_steps(got, wanted, steps=STEPS_LITERT)
    assert np.array_equal(got.values.argmax(1), wanted.argmax(1))
    assert set(operators(data)) == {"CONV_2D", "PAD", "ADD", "MEAN", "RESHAPE", "FULLY_CONNECTED"}
    assert got.operators.count("DELEGATE") == 1  # one delegate took all: no operator was left aside


def test_residual_network_int8_in_the_old_runtime() -> None:
    net = Net(3, 16, 16, int8=True)
    model = net.model(resnet_like(net))
    x = fresh_samples(net)
    got = run_in_old_runtime({"residual": (write_tflite(model), x)})["residual"]
    assert_steps(got, run_ort(model, x), steps=STEPS_OLD)


def test_int8_numbers_are_the_uint8_ones_minus_128() -> None:
    net = Net(3, int8=True)
    output = net.q(net.gemm(net.input, 4, 3), 0.05, 100)
    interpreter = Interpreter(model_content=write_tflite(net.model(output)))
    start, end = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    scale, zero_point = net.input_params
    assert start["dtype"] is end["dtype"] is np.int8
    assert start["quantization"] == (pytest.approx(scale), zero_point - 128)
    assert end["quantization"] == (pytest.approx(0.05), -28)


def test_int8_activations_give_the_same_file_as_uint8() -> None:
    net = Net(3, 16, 16, int8=True)
    model = net.model(resnet_like(net))
    signed = onnx.ModelProto()
    signed.CopyFrom(model)
    for each in signed.graph.initializer:
        if each.data_type == onnx.TensorProto.UINT8:
            shifted = (numpy_helper.to_array(each).astype(np.int16) - 128).astype(np.int8)
            each.CopyFrom(numpy_helper.from_array(shifted, each.name))
    assert write_tflite(signed) == write_tflite(model)


def test_a_float_layer_among_int8_ones_is_wrapped() -> None:
    net = Net(3, 8, 8, int8=True)
    x = net.qop("Relu", net.conv(net.input, 8, 3, 3, 3))
    middle = net.qop("Conv", x, net.random(8, 8, 1, 1))  # float weights
    model = net.model(net.q(net.conv(middle, 4, 8, 3, 3)))
    data = write_tflite(model)
    assert operators(data) == ["CONV_2D", "DEQUANTIZE", "CONV_2D", "QUANTIZE", "CONV_2D"]
    assert_steps(run_tflite(data, net.samples), run_ort(model, net.samples), steps=STEPS_LITERT)


def test_a_float_end_stays_float() -> None:
    net = Net(3, 8, 8, int8=True)
    x = net.qop("Relu", net.conv(net.input, 8, 3, 3, 3))
    model = net.model(net.op("HardSigmoid", net.op("LeakyRelu", x, alpha=0.2)))
    assert_close(run_tflite(write_tflite(model), net.samples), run_ort(model, net.samples))


def test_an_input_that_is_also_read_as_float_stays_float() -> None:
    net = Net(3, 8, 8, int8=True)
    model = net.model(net.op("Add", net.conv(net.input, 3, 3, 1, 1), "input"))
    data = write_tflite(model)
    assert Interpreter(model_content=data).get_input_details()[0]["dtype"] is np.float32
    assert_close(run_tflite(data, net.samples), run_ort(model, net.samples))


def test_relu_that_the_quantizer_makes_superfluous_may_be_missing() -> None:
    net = Net(3, 8, 8, int8=True)
    model = net.model(net.q(net.conv(net.input, 8, 3, 3, 3), 0.02, 0))  # zero point 0: nothing below zero
    got = run_tflite(write_tflite(model), net.samples)
    assert got.values.min() == 0
    assert_steps(got, run_ort(model, net.samples), steps=STEPS_LITERT)


def test_quantized_constants_take_part_as_int8() -> None:
    net = Net(3, 6, 6, int8=True)
    values, parameters = net.const([[[10]], [[200]], [[120]]], np.uint8), (net.const(0.01), net.const(128, np.uint8))
    offset = net.op("DequantizeLinear", values, *parameters)
    model = net.model(net.qop("Add", net.input, offset))
    data = write_tflite(model)
    assert operators(data) == ["ADD"]
    assert_steps(run_tflite(data, net.samples), run_ort(model, net.samples), steps=STEPS_LITERT)


def test_weights_may_be_quantized_in_the_graph() -> None:
    """QuantizeLinear of float weights, as quantize_static leaves it with QuantizeWeights in QDQ form."""
    net = Net(3, 6, 6, int8=True)
    weights = net.rng.normal(0, 0.3, (4, 3, 3, 3)).astype(np.float32)
    scale = np.abs(weights).max((1, 2, 3)) / 127
    parameters = (net.const(scale), net.const(np.zeros(4), np.int8))
    quantized = net.op("QuantizeLinear", net.const(weights), *parameters, axis=0)
    model = net.model(net.qop("Conv", net.input, net.op("DequantizeLinear", quantized, *parameters, axis=0)))
    data = write_tflite(model)
    assert operators(data) == ["CONV_2D"]
    assert_steps(run_tflite(data, net.samples), run_ort(model, net.samples), steps=STEPS_LITERT)


def test_flatten_of_a_map_costs_no_transpose_before_gemm() -> None:
    net = Net(3, 4, 5, int8=True)
    x = net.qop("Relu", net.conv(net.input, 6, 3, 1, 1))
    model = net.model(net.q(net.gemm(net.q(net.op("Flatten", x)), 10, 120)))
    data = write_tflite(model)
    assert operators(data) == ["CONV_2D", "RESHAPE", "FULLY_CONNECTED"]
    assert_steps(run_tflite(data, net.samples), run_ort(model, net.samples), steps=STEPS_LITERT)


def test_layers_keep_their_names() -> None:
    net = Net(3, 6, 6)
    model = net.model(net.op("Relu", net.conv(net.input, 4, 3, 3, 3)))
    names = {each["name"] for each in Interpreter(model_content=write_tflite(model)).get_tensor_details()}
    assert {"input", "features.conv0", "features.conv0.weight", "features.conv0.bias"} <= names


def test_two_outputs() -> None:
    net = Net(3, 6, 6)
    features = net.op("Relu", net.conv(net.input, 4, 3, 3, 3))
    scores = net.op("Softmax", net.gemm(net.op("Flatten", features), 5, 64))
    model = net.model(scores)
    model.graph.output.append(helper.make_tensor_value_info(features, onnx.TensorProto.FLOAT, None))
    run = Interpreter(model_content=write_tflite(model)).get_signature_runner()
    found = run(input=net.samples[:1].transpose(0, 2, 3, 1))
    assert np.allclose(found[scores], run_ort(model, net.samples[:1]), atol=1e-5)
    assert np.allclose(found[features].transpose(0, 3, 1, 2), run_ort(net.model(features), net.samples[:1]), atol=1e-5)


def test_a_fixed_batch_is_kept() -> None:
    net = Net(3, 6, 6)
    output = net.op("Reshape", net.conv(net.input, 4, 3, 3, 3), net.const([1, -1], np.int64))
    model = net.model(output, batch=1)
    assert_close(run_tflite(write_tflite(model), net.samples[:1]), run_ort(model, net.samples[:1]))


def test_shapes_computed_in_the_graph_are_not_needed() -> None:
    """x.view(x.shape[0], x.shape[1] * 16) as exporters write it."""
    net = Net(3, 4, 4)
    count = net.op("Gather", net.op("Shape", net.input), net.const([0], np.int64))
    rows = net.op("Slice", net.op("Shape", net.input), *(net.const([each], np.int64) for each in (1, 2, 0)))
    shape = net.op("Concat", count, net.op("Mul", rows, net.const([16], np.int64)), axis=0)
    model = net.model(net.gemm(net.op("Reshape", net.input, shape), 5, 48))
    data = write_tflite(model)
    assert operators(data) == ["RESHAPE", "FULLY_CONNECTED"]
    assert_close(run_tflite(data, net.samples), run_ort(model, net.samples))


def test_writing_is_quick() -> None:
    net = Net(256, 8, 8, int8=True)
    net.samples = net.samples[:1]
    x = net.input
    for _ in range(8):
        x = net.qop("Relu", net.conv(x, 256, 256, 3, 3, pads=[1] * 4))  # 0.6 million weights each
    model = net.model(x)
    start = time.perf_counter()
    data = write_tflite(model)
    assert time.perf_counter() - start < WRITING_TIME_LIMIT_S
    assert len(data) < 1.05 * 8 * 256 * 256 * 9


def test_steps_are_counted() -> None:
    """One output step too many is a failure."""
    net = Net(4, int8=True)
    model = net.model(net.q(net.gemm(net.input, 3, 4)))
    got = run_tflite(write_tflite(model), net.samples)
    assert got.step is not None
    wanted = run_ort(model, net.samples)
    with pytest.raises(AssertionError):
        assert_steps(replace(got, values=wanted + np.float32(1.5 * got.step)), wanted, steps=STEPS_LITERT)


@pytest.mark.parametrize(("after", "reshapes"), [((-1, 4, 5), 0), ((-1, 2, 10), 2), ((-1, 20), 2)])
def test_a_linear_layer_between_reshapes(after: tuple[int, ...], reshapes: int) -> None:
    net = Net(4, 6)
    rows = net.op("Reshape", net.input, net.const([-1, 6], np.int64))
    model = net.model(net.op("Reshape", net.gemm(rows, 5, 6), net.const(after, np.int64)))
    data = write_tflite(model)
    assert operators(data).count("RESHAPE") == reshapes
    assert_close(run_tflite(data, net.samples), run_ort(model, net.samples))


def test_integers_that_are_read_with_another_scale() -> None:
    net = Net(4)
    zero = net.const(3, np.uint8)
    quantized = net.op("QuantizeLinear", net.input, net.const(0.03), zero)
    model = net.model(net.op("DequantizeLinear", quantized, net.const(0.005), zero))
    got = run_tflite(write_tflite(model), net.samples)
    assert got.step == pytest.approx(0.005)
    assert_steps(got, run_ort(model, net.samples), steps=0)
