"""Overflow of 16-bit pairs, on layers whose weights are written by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from pipeline.quant.saturation import saturation_rows
from tests.onboard.small_models import onnx_bytes, small_net


def layer(folder: Path, op: str, weight: NDArray[np.int8], **attributes: int) -> Path:
    tensors = {"w": weight, "s": np.float32(0.1), "z": np.int8(0)}
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["w_dq"]),
        helper.make_node(op, ["x", "w_dq"], ["y"]),
    ]
    nodes[1].name = "body.layer"
    nodes[1].attribute.extend(helper.make_attribute(*each) for each in attributes.items())
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "y")]
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in tensors.items()]
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:], initializers)), folder / "layer.onnx")
    return folder / "layer.onnx"


@pytest.mark.parametrize(
    ("weights", "pair", "saturates"),
    [
        ([64, 64, 0, 0], 255 * 128, False),  # 32640
        ([64, 65, 0, 0], 255 * 129, True),  # 32895
        ([-64, -65, 0, 0], 255 * 129, True),
        ([127, -127, 127, -127], 0, False),  # opposite signs cancel
        ([0, 127, 0, 127], 0, False),  # never neighbours
        ([0, 127, 127, 0], 255 * 254, True),  # a kernel may start its pairs anywhere
        ([63, 63, 63, 63], 255 * 126, False),  # 7 bits
    ],
)
def test_neighbours_of_a_linear_layer(tmp_path: Path, weights: list[int], pair: int, saturates: bool) -> None:
    (row,) = saturation_rows(layer(tmp_path, "Gemm", np.array([weights, [0] * 4], np.int8), transB=1))
    assert (row.layer, row.largest_pair, row.can_saturate) == ("body.layer", pair, saturates)
    (turned,) = saturation_rows(layer(tmp_path, "MatMul", np.array([weights, [0] * 4], np.int8).T))
    assert turned.largest_pair == pair  # (I, O)


@pytest.mark.parametrize("places", [((0, 0, 0), (1, 0, 0)), ((0, 0, 0), (0, 0, 1))])
def test_a_convolution_is_walked_in_both_orders(
    tmp_path: Path, places: tuple[tuple[int, int, int], tuple[int, int, int]]
) -> None:
    weight = np.zeros((1, 2, 3, 3), np.int8)
    for place in places:  # neighbours in channels, then neighbours in the kernel's row
        weight[(0, *place)] = 100
    (row,) = saturation_rows(layer(tmp_path, "Conv", weight))
    assert row.largest_pair == 255 * 200


def test_a_whole_network_layer_by_layer(tmp_path: Path) -> None:
    (tmp_path / "int8.onnx").write_bytes(onnx_bytes(small_net(), int8=True))
    (tmp_path / "fp32.onnx").write_bytes(onnx_bytes(small_net(), int8=False))
    assert [row.layer for row in saturation_rows(tmp_path / "int8.onnx")] == ["conv_Conv", "gemm_Gemm"]
    assert saturation_rows(tmp_path / "fp32.onnx") == ()
