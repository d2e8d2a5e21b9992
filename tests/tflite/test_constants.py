"""Quantized constants and activation parameters, against ONNX's own reference of QuantizeLinear and DequantizeLinear.

Shapes: O output channels.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from pipeline.errors import ModelError
from pipeline.graph.params import INT8, INT32, UINT8, QuantParams
from pipeline.tflite.constants import Constant, activation_params, quantize_constant, quantized_constant

RNG = np.random.default_rng(0)
Integer = type[np.int8] | type[np.uint8]


def f32(value: object) -> NDArray[np.float32]:
    return np.asarray(value, np.float32)


def evaluated(
    kind: str, values: NDArray[np.generic], *parameters: NDArray[np.generic], axis: int
) -> NDArray[np.generic]:
    """Compute one node as the ONNX specification says."""
    names = ("x", "s", "z")[: 1 + len(parameters)]
    inputs = dict(zip(names, (values, *parameters), strict=True))
    infos = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in inputs.items()
    ]
    node = helper.make_node(kind, names, ["y"], axis=axis)
    graph = helper.make_graph([node], "one", infos, [helper.make_tensor_value_info("y", TensorProto.UNDEFINED, None)])
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)])
    (found,) = cast("list[NDArray[np.generic]]", ReferenceEvaluator(model).run(None, inputs))
    return found


# ── what a constant stands for ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("axis", [0, 1, 3, -1])
@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_per_channel_constants_are_what_onnx_says(axis: int, dtype: Integer) -> None:
    limits = np.iinfo(dtype)
    values = RNG.integers(limits.min, limits.max, (4, 3, 2, 5), endpoint=True).astype(dtype)
    channels = values.shape[axis]
    scale = f32(RNG.uniform(0.01, 0.1, channels))
    zero_point = RNG.integers(-5, 5, channels).astype(np.int64)
    zeros = np.asarray(zero_point + (128 if dtype is np.uint8 else 0), dtype)
    constant = quantized_constant(values, scale, zeros, axis)
    wanted = evaluated("DequantizeLinear", values, scale, zeros, axis=axis)
    assert np.allclose(constant.real(), wanted, rtol=1e-6)
    assert constant.values.dtype == np.int8


def test_uint8_becomes_int8_with_the_same_real_numbers() -> None:
    constant = quantized_constant(np.array([0, 128, 255], np.uint8), f32(0.5), np.asarray(128, np.uint8), 0)
    assert constant.values.tolist() == [-128, 0, 127]
    assert constant.params == QuantParams.of(0.5, 0, INT8)
    assert constant.real().tolist() == [-64.0, 0.0, 63.5]


def test_biases_stay_int32() -> None:
    constant = quantized_constant(np.array([100_000, -3], np.int32), np.array([0.1, 0.2], np.float32), None, 0)
    assert constant.values.dtype == np.int32
    assert constant.params is not None
    assert constant.params.grid == INT32
    assert constant.real() == pytest.approx([10_000, -0.6])


def test_a_zero_point_holds_for_all_channels() -> None:
    scale = np.array([0.1, 0.2], np.float32)
    constant = quantized_constant(np.array([1, 2], np.int8), scale, np.array(1, np.int8), 0)
    assert constant.params is not None
    assert constant.params.zero_points == (1, 1)


def test_plain_numbers_stand_for_themselves() -> None:
    constant = Constant(values=np.array([1, 2], np.int64))
    assert constant.real().tolist() == [1.0, 2.0]
    assert constant.real().dtype == np.float64
    assert constant.tensor_params is None


def test_a_scale_alone_lies_along_no_axis() -> None:
    """Flatbuffers refuse a quantized axis that the tensor does not have."""
    constant = quantized_constant(np.zeros((3, 1, 1), np.int8), f32(0.1), np.asarray(0, np.int8), 1)
    assert constant.params is not None
    assert constant.params.axis == 0


# ── who takes it as weights ─────────────────────────────────────────────────────────────────────────────────────────


def weights(scale: object, zero_point: object, axis: int, dtype: Integer = np.int8) -> Constant:
    values = np.ones((2, 2, 1, 1)).astype(dtype)
    zeros = np.asarray(zero_point, np.int8 if dtype is np.int8 else np.uint8)
    return quantized_constant(values, np.asarray(scale, np.float32), zeros, axis)


@pytest.mark.parametrize(
    ("constant", "symmetric"),
    [
        (weights([0.1, 0.2], [0, 0], 0), True),
        (weights([0.1, 0.2], [0, 0], 1), False),  # along another axis
        (weights(0.1, 0, 1), True),  # one scale lies along any axis
        (weights([0.1, 0.2], [0, 1], 0), False),  # not symmetric
        (weights(0.1, 3, 0), False),
        (weights([0.1, 0.2], [128, 128], 0, np.uint8), True),  # the same numbers as int8
        (Constant(values=np.ones((2, 2), np.int8)), False),  # not quantized
        (Constant(values=np.ones((2, 2), np.float32)), False),
        (quantized_constant(np.ones(2, np.int32), f32(0.1), None, 0), False),
    ],
)
def test_symmetric_weights(constant: Constant, symmetric: bool) -> None:
    assert constant.is_symmetric_int8(0) is symmetric


def test_only_int8_with_one_scale_takes_part_in_arithmetic() -> None:
    assert weights(0.1, 3, 0).tensor_params == QuantParams.of(float(np.float32(0.1)), 3, INT8)
    assert weights([0.1, 0.2], [0, 0], 0).tensor_params is None
    assert quantized_constant(np.ones(2, np.int32), f32(0.1), None, 0).tensor_params is None


# ── rounding ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
@pytest.mark.parametrize("axis", [0, 1])
def test_floats_are_quantized_as_onnx_says(dtype: Integer, axis: int) -> None:
    values = RNG.normal(0, 3, (3, 4)).astype(np.float32)
    scale = f32(RNG.uniform(0.01, 0.1, values.shape[axis]))
    zeros = np.asarray(RNG.integers(0, 100, values.shape[axis]), dtype)
    found = quantize_constant(values, scale, zeros, axis)
    assert found.dtype == dtype
    assert np.array_equal(found, evaluated("QuantizeLinear", values, scale, zeros, axis=axis))


def test_without_a_zero_point_it_is_uint8() -> None:
    found = quantize_constant(np.array([-1.0, 0.24, 0.26, 1e9], np.float32), f32(0.5), None, 0)
    assert found.dtype == np.uint8
    assert found.tolist() == [0, 0, 1, 255]


@given(st.floats(2**-10, 8, width=32), st.integers(-128, 127), st.integers(-128, 127))
def test_quantizing_undoes_dequantizing(scale: float, zero_point: int, steps: int) -> None:
    values, zeros = np.array([steps], np.int8), np.array(zero_point, np.int8)
    real = np.asarray(quantized_constant(values, f32(scale), zeros, 0).real())
    assert quantize_constant(real, f32(scale), zeros, 0).tolist() == [steps]


# ── activations ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("zero_point", "found"), [(np.asarray(128, np.uint8), 0), (np.uint8(0), -128), (np.int8(5), 5), (None, -128)]
)
def test_activations_are_on_the_int8_grid(zero_point: NDArray[np.generic] | None, found: int) -> None:
    zeros = None if zero_point is None else np.asarray(zero_point)
    params = activation_params(np.array(0.1, np.float32), zeros, where="here")
    assert params == QuantParams.of(float(np.float32(0.1)), found, INT8)
    assert params.as_int8() == params


def test_a_scale_is_the_float32_that_the_file_holds() -> None:
    params = activation_params(np.array(0.1, np.float64), None, where="here")
    assert params.scale == float(np.float32(0.1)) != 0.1


@pytest.mark.parametrize(
    ("scale", "zero_point"),
    [
        ([0.1, 0.2], np.zeros(2, np.uint8)),
        (0.1, np.zeros((), np.int32)),
        (0.1, np.zeros((), np.uint16)),
    ],
)
def test_other_activations_are_refused(scale: object, zero_point: NDArray[np.generic]) -> None:
    with pytest.raises(ModelError, match=r"activations quantized to \w+ with \d scales") as caught:
        activation_params(np.asarray(scale, np.float32), zero_point, where="quantizer of 'x'")
    assert caught.value.where == "quantizer of 'x'"
    assert "one scale per tensor" in caught.value.remedy


def test_uint8_and_int8_of_the_same_numbers_are_one() -> None:
    unsigned = activation_params(np.array(0.1, np.float32), np.array(130, np.uint8), where="")
    signed = activation_params(np.array(0.1, np.float32), np.array(2, np.int8), where="")
    assert unsigned == signed
    assert QuantParams.of(unsigned.scale, 130, UINT8).as_int8() == signed
