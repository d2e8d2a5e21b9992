"""Linear layers and pools: factors, axes and ties by hand; which operators are written; what is refused.

Shapes: N batch, C channels, H height, W width, F input features, O output features.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pipeline.errors import ModelError, UnsupportedOpError
from pipeline.graph.params import INT8, QuantParams
from pipeline.tflite import write_tflite
from pipeline.tflite.constants import Constant
from pipeline.tflite.ops_dense import _times, _turned
from tests.tflite.nets import Net, check, operators, run_tflite

PER_ROW = QuantParams(scales=(0.5, 2.0), zero_points=(0, 0), grid=INT8)


# ── linear layers ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({}, [14, 25]),  # 1 * 1 + 2 * 2 + 9, 1 * 3 + 2 * 4 + 14
        ({"alpha": 2.0}, [19, 36]),
        ({"beta": 0.5}, [9.5, 18]),
        ({"beta": 0.0}, [5, 11]),
        ({"alpha": 0.5, "beta": 2.0}, [20.5, 33.5]),
        ({"alpha": -1.0}, [4, 3]),
    ],
)
def test_factors_of_a_linear_layer(options: dict[str, float], wanted: list[float]) -> None:
    net = Net(2)
    output = net.op("Gemm", net.input, net.const([[1, 3], [2, 4]]), net.const([9, 14]), **options)
    data = write_tflite(net.model(output))
    assert operators(data) == ["FULLY_CONNECTED"]
    assert run_tflite(data, np.array([[1, 2]], np.float32)).values.tolist() == [wanted]


@pytest.mark.parametrize(("bias", "wanted"), [([7.0], [12, 18]), ([[7.0]], [12, 18]), ([[7.0, 8.0]], [12, 19])])
def test_a_bias_may_be_one_number_for_all(bias: object, wanted: list[float]) -> None:
    net = Net(2)
    output = net.op("Gemm", net.input, net.const([[1, 3], [2, 4]]), net.const(bias))
    assert run_tflite(write_tflite(net.model(output)), np.array([[1, 2]], np.float32)).values.tolist() == [wanted]


def test_turned_weights_take_their_scales_along() -> None:
    weights = Constant(values=np.array([[1, 2, 3], [4, 5, 6]], np.int8), params=PER_ROW)
    turned = _turned(weights)
    assert turned.values.tolist() == [[1, 4], [2, 5], [3, 6]]
    assert turned.params is not None
    assert turned.params.axis == 1
    assert turned.real().tolist() == weights.real().T.tolist() == [[0.5, 8], [1, 10], [1.5, 12]]
    assert turned.is_symmetric_int8(1)
    assert not turned.is_symmetric_int8(0)


def test_a_factor_goes_into_the_scales() -> None:
    weights = Constant(values=np.array([[2], [3]], np.int8), params=PER_ROW)
    assert _times(weights, 1.0) is weights
    scaled = _times(weights, 3.0)
    assert scaled.values is weights.values
    assert scaled.params is not None
    assert scaled.params.scales == (1.5, 6.0)
    assert _times(Constant(values=np.array([2.0])), 3.0).values.tolist() == [6]


@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize("shape", [(1,), (3, 4), (2, 3, 4), (1, 1, 4)])
def test_linear_layers_over_any_number_of_axes(shape: tuple[int, ...], *, int8: bool) -> None:
    net = Net(*shape, int8=int8)
    output = net.qop("MatMul", net.input, net.weights(shape[-1], 3, axis=1))
    ends = {2: [], 3: [], 4: ["TRANSPOSE"]}[len(shape) + 1]
    written = [*ends, "FULLY_CONNECTED", *ends] if shape != (1, 1, 4) else None
    check(net, output, written, batches=(1, 3))


@pytest.mark.parametrize("int8", [False, True])
def test_columns_follow_an_image_that_is_flattened(*, int8: bool) -> None:
    """The image lies channels last, ONNX counts its channels first."""
    net = Net(2, 1, 2, int8=int8)
    net.samples[0] = np.array([[[1, 2]], [[3, 4]]])
    weights = net.weights(1, 4)
    output = net.q(net.op("Gemm", net.op("Flatten", net.input), weights, transB=1), 0.02, 128)
    check(net, output, ["RESHAPE", "FULLY_CONNECTED"], batches=(1, 3))


def test_weights_of_three_axes_are_refused() -> None:
    net = Net(3, 4)
    output = net.op("MatMul", net.input, net.random(1, 4, 2))
    with pytest.raises(UnsupportedOpError, match="weights with 3 axes") as caught:
        write_tflite(net.model(output))
    assert caught.value.where == f"layer 'features.{output}' (MatMul)"
    assert caught.value.remedy == "use weights (features in, features out)"


def test_a_transposed_input_is_refused() -> None:
    net = Net(4)
    output = net.op("Gemm", net.input, net.random(1, 3), transA=1)
    with pytest.raises(UnsupportedOpError, match="transA=1") as caught:
        write_tflite(net.model(output, batch=1))
    assert caught.value.remedy == "transpose the input before this layer"


# ── pools ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("kind", "options", "wanted"),
    [
        ("MaxPool", {"kernel_shape": [2]}, [2, 3, 4]),
        ("MaxPool", {"kernel_shape": [2], "pads": [1, 1]}, [1, 2, 3, 4, 4]),
        ("AveragePool", {"kernel_shape": [2], "strides": [2]}, [1.5, 3.5]),
        ("AveragePool", {"kernel_shape": [3], "pads": [1, 1]}, [1.5, 2, 3, 3.5]),
        ("AveragePool", {"kernel_shape": [3], "pads": [1, 1], "count_include_pad": 1}, [1, 2, 3, 7 / 3]),
        ("AveragePool", {"kernel_shape": [3], "pads": [2, 0], "strides": [3]}, [1, 3]),
        ("AveragePool", {"kernel_shape": [3], "pads": [0, 1], "strides": [2]}, [2, 3.5]),
        ("AveragePool", {"kernel_shape": [1]}, [1, 2, 3, 4]),
        ("AveragePool", {"kernel_shape": [4]}, [2.5]),
    ],
)
def test_pools_of_one_to_four(kind: str, options: dict[str, Any], wanted: list[float]) -> None:
    net = Net(1, 4)
    net.samples[0] = [[1, 2, 3, 4]]
    found = run_tflite(write_tflite(net.model(net.op(kind, net.input, **options))), net.samples[:1])
    assert found.values.ravel().tolist() == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("pads", "counted", "written"),
    [
        ([0, 0, 0, 0], 0, ["AVERAGE_POOL_2D"]),
        ([1, 1, 1, 1], 0, ["AVERAGE_POOL_2D"]),  # what SAME leaves out
        ([1, 1, 1, 1], 1, ["PAD", "AVERAGE_POOL_2D"]),
        ([2, 0, 0, 2], 0, ["PAD", "AVERAGE_POOL_2D", "MUL"]),  # as many as lie inside
    ],
)
def test_means_are_corrected_where_no_padding_counts_so(pads: list[int], counted: int, written: list[str]) -> None:
    net = Net(2, 5, 6)
    output = net.op("AveragePool", net.input, kernel_shape=[3, 3], pads=pads, count_include_pad=counted)
    check(net, output, written, batches=(1, 3))


def test_a_mean_that_must_be_corrected_is_float() -> None:
    net = Net(2, 5, 6, int8=True)
    value = net.op("AveragePool", net.input, kernel_shape=[3, 3], pads=[2, 0, 0, 2])
    check(net, net.q(value, *net.input_params), ["DEQUANTIZE", "PAD", "AVERAGE_POOL_2D", "MUL", "QUANTIZE"])


@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize("keeps", [0, 1])
@pytest.mark.parametrize("axes", [[1], [-1], [1, 3], [1, 2, 3]])
def test_means_over_axes(axes: list[int], keeps: int, *, int8: bool) -> None:
    net = Net(3, 2, 4, int8=int8)
    value = net.op("ReduceMean", net.input, axes=axes, keepdims=keeps)
    check(net, net.q(value, 0.02, 128), batches=(1, 3))


def test_the_largest_of_each_channel() -> None:
    net = Net(2, 1, 3)
    net.samples[0] = [[[1, 9, 2]], [[-5, -4, -6]]]
    found = run_tflite(write_tflite(net.model(net.op("GlobalMaxPool", net.input))), net.samples[:1])
    assert found.values.tolist() == [[[[9]], [[-4]]]]


@pytest.mark.parametrize(
    ("shape", "options", "error", "words", "remedy"),
    [
        ((1, 5), {"kernel_shape": [2], "strides": [2], "ceil_mode": 1}, ModelError, "ceil_mode adds a position", "pad"),
        ((1, 5), {"kernel_shape": [2], "dilations": [2]}, UnsupportedOpError, "a dilated pool", "use dilation 1"),
    ],
)
def test_other_pools_are_refused(
    shape: tuple[int, ...], options: dict[str, Any], error: type[ModelError], words: str, remedy: str
) -> None:
    net = Net(*shape)
    output = net.op("MaxPool", net.input, **options)
    with pytest.raises(error, match=words) as caught:
        write_tflite(net.model(output))
    assert caught.value.where == f"layer 'features.{output}' (MaxPool)"
    assert remedy in caught.value.remedy


@pytest.mark.parametrize("options", [{}, {"axes": [0]}, {"axes": [-3, 1]}])
def test_means_over_the_batch_are_refused(options: dict[str, Any]) -> None:
    net = Net(2, 3)
    with pytest.raises(UnsupportedOpError, match="a mean over the batch") as caught:
        write_tflite(net.model(net.op("ReduceMean", net.input, **options)))
    assert caught.value.remedy == "reduce over other axes"
