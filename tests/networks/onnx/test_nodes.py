"""Nodes of ONNX files as networks of torch: compared with ONNX Runtime and, as flat graphs, with themselves.

Shapes: N batch, C channels, H height, W width.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from pipeline.errors import UnsupportedOpError
from pipeline.networks.from_onnx import network_from
from tests.networks.onnx.compared import INTS, MAP, W3, ints, kinds
from tests.networks.onnx.written import Array, model, node, random, write

# name → nodes, constants, opset, and what they become
FILES: dict[str, tuple[list[onnx.NodeProto], dict[str, Any], int, list[str]]] = {
    "convolution": ([node("Conv", "x w b", "y", strides=[2, 1])], {"w": W3, "b": random(6)}, 13, ["Conv"]),
    "pads that differ": ([node("Conv", "x w", "y", pads=[0, 1, 1, 2])], {"w": W3}, 13, ["Pad", "Conv"]),
    "same upper": (
        [node("Conv", "x w", "y", auto_pad="SAME_UPPER", strides=[2, 2])], {"w": W3}, 7, ["Pad", "Conv"],
    ),
    "same lower": (
        [node("Conv", "x w", "y", auto_pad="SAME_LOWER", strides=[2, 2])], {"w": W3}, 7, ["Pad", "Conv"],
    ),
    "batch norm": (
        [node("BatchNormalization", "x g b m v", "y", epsilon=0.1)],
        {"g": random(4), "b": random(4, seed=2), "m": random(4, seed=3), "v": np.abs(random(4)) + 0.5},
        9, ["BatchNormalization"],
    ),
    "transposed convolution": (
        [node("ConvTranspose", "x w", "y", strides=[2, 2], output_padding=[1, 1], pads=[1, 1, 1, 1])],
        {"w": random(4, 5, 3, 3)}, 13, ["ConvTranspose"],
    ),
    "its size said": (
        [node("ConvTranspose", "x w", "y", strides=[2, 2], output_shape=[12, 16])],
        {"w": random(4, 5, 3, 3)}, 13, ["ConvTranspose"],
    ),
    "clip of old": ([node("Clip", "x", "y", min=0.0, max=6.0)], {}, 7, ["Clip"]),
    "clip of one side": ([node("Clip", "x - high", "y")], {"high": np.array(0.5, np.float32)}, 13, ["Clip"]),
    "relu": ([node("Relu", "x", "y")], {}, 13, ["Relu"]),
    "slopes": ([node("PRelu", "x s", "y")], {"s": random(4, 1, 1)}, 13, ["PRelu"]),
    "hard swish in parts": (
        [
            node("Add", "x three", "a"), node("Clip", "a low high", "b"),
            node("Mul", "x b", "c"), node("Div", "c high", "y"),
        ],
        {"three": np.float32(3), "low": np.float32(0), "high": np.float32(6)}, 13, ["HardSwish"],
    ),
    "gelu in parts": (
        [
            node("Div", "x root", "a"), node("Erf", "a", "b"), node("Add", "b one", "c"),
            node("Mul", "x c", "d"), node("Mul", "d half", "y"),
        ],
        {"root": np.float32(2**0.5), "one": np.float32(1), "half": np.float32(0.5)}, 13, ["Gelu"],
    ),
    "silu": ([node("Sigmoid", "x", "a"), node("Mul", "x a", "y")], {}, 13, ["Sigmoid", "Mul"]),
    "constant per channel": ([node("Mul", "x c", "y")], {"c": random(1, 4, 1, 1)}, 13, ["Scale"]),
    "division by a number": ([node("Div", "x c", "y")], {"c": np.float32(4)}, 13, ["Scale"]),
    "largest and smallest": (
        [node("Max", "x c", "a"), node("Min", "a d", "y")],
        {"c": np.float32(-0.5), "d": np.float32(0.5)}, 13, ["Clip", "Clip"],
    ),
    "softmax of old": ([node("Softmax", "x", "y")], {}, 11, ["Reshape", "Softmax", "Reshape"]),
    "softmax": ([node("Softmax", "x", "y", axis=1)], {}, 13, ["Softmax"]),
    "layer norm": (
        [node("LayerNormalization", "x g b", "y")], {"g": random(8), "b": random(8, seed=2)}, 17,
        ["LayerNormalization"],
    ),
    "pool": ([node("MaxPool", "x", "y", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])], {}, 13, ["MaxPool"]),
    "pool, same upper": (
        [node("MaxPool", "x", "y", kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER")], {}, 13, ["MaxPool"],
    ),
    "pool, hanging over": (
        [node("MaxPool", "x", "y", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)], {}, 13, ["MaxPool"],
    ),
    "mean, same lower": (
        [node("AveragePool", "x", "y", kernel_shape=[2, 3], auto_pad="SAME_LOWER")], {}, 13,
        ["Pad", "AveragePool", "Scale"],
    ),
    "mean of all": ([node("GlobalAveragePool", "x", "y")], {}, 13, ["GlobalAveragePool"]),
    "mean of axes": ([node("ReduceMean", "x", "y", axes=[2, 3], keepdims=0)], {}, 13, ["GlobalAveragePool", "Reshape"]),
    "flatten": ([node("Flatten", "x", "y")], {}, 13, ["Reshape"]),
    "reshape of one sample": ([node("Reshape", "x s", "y")], {"s": ints(1, 192)}, 13, ["Reshape"]),
    "one sample without its axis": (
        [node("Squeeze", "x a", "b"), node("Transpose", "b", "c", perm=[1, 0, 2]), node("Unsqueeze", "c a", "y")],
        {"a": ints(0)}, 13, ["Transpose"],
    ),
    "sizes computed": (
        [
            node("Shape", "x", "s"), node("Gather", "s zero", "n"), node("Unsqueeze", "n a", "m"),
            node("Concat", "m rest", "t", axis=0), node("Reshape", "x t", "y"),
        ],
        {"zero": np.array(0, INTS), "a": ints(0), "rest": ints(-1, 8)}, 13, ["Reshape"],
    ),
    "channels shuffled": (
        [
            node("Reshape", "x s", "a"), node("Transpose", "a", "b", perm=[0, 2, 1, 3, 4]), node("Reshape", "b t", "y"),
        ],
        {"s": ints(1, 2, 2, 6, 8), "t": ints(1, 4, 6, 8)}, 13, ["Reshape", "Transpose", "Reshape"],
    ),
    "halves joined": (
        [node("Split", "x", "a b", axis=1), node("Concat", "b a", "y", axis=1)], {}, 11, ["Slice", "Slice", "Concat"],
    ),
    "slice": (
        [node("Slice", "x a b c d", "y")], {"a": ints(5), "b": ints(0), "c": ints(-1), "d": ints(-2)}, 13, ["Gather"],
    ),
    "slice of old": ([node("Slice", "x", "y", starts=[1], ends=[3], axes=[2])], {}, 9, ["Slice"]),
    "gather": ([node("Gather", "x i", "y", axis=1)], {"i": ints(2, 0, -1)}, 13, ["Gather"]),
    "pad of old": ([node("Pad", "x", "y", pads=[0, 0, 1, 2, 0, 0, 0, 1], value=0.5)], {}, 9, ["PadFilled"]),
    "depth to space": ([node("DepthToSpace", "x", "y", blocksize=2)], {}, 13, ["Reshape", "Transpose", "Reshape"]),
    "expand": ([node("GlobalMaxPool", "x", "a"), node("Expand", "a s", "y")], {"s": ints(1, 4, 2, 2)}, 13,
               ["ReduceMax", "Gather", "Gather"]),
    "upsample of old": ([node("Upsample", "x", "y", scales=[1.0, 1.0, 2.0, 2.0])], {}, 7, ["ResizeNearest"]),
    "upsample": ([node("Upsample", "x s", "y", mode="linear")], {"s": np.array([1, 1, 2, 2], np.float32)}, 9,
                 ["Transpose", "Projection", "Transpose", "Projection"]),
    "resize": ([node("Resize", "x - - s", "y", mode="linear")], {"s": ints(1, 4, 12, 4)}, 13, ["ResizeLinear"]),
    "resize, corners": (
        [node("Resize", "x - - s", "y", mode="linear", coordinate_transformation_mode="align_corners")],
        {"s": ints(1, 4, 11, 4)}, 13, ["ResizeLinear"],
    ),
    "dropout": ([node("Dropout", "x", "a"), node("Relu", "a", "y")], {}, 13, ["Relu"]),
    "masked attention": (
        [node("Add", "x m", "a"), node("Softmax", "a", "b"), node("MatMul", "b v", "y")],
        {"m": np.triu(np.full((6, 8), -np.inf, np.float32), 1), "v": random(1, 4, 8, 2)}, 13,
        ["Scale", "Softmax", *["Slice", "Reshape", "Projection"] * 4, *["Reshape"] * 4, "Concat"],
    ),
    "constants folded": (
        [node("Mul", "c c", "d"), node("Add", "d c", "e"), node("Add", "x e", "y")], {"c": random(8)}, 13, ["Scale"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_nodes_compute_what_the_file_computes(name: str, tmp_path: Path) -> None:
    nodes, constants, opset, wanted = FILES[name]
    assert kinds(write(model(nodes, MAP, constants, opset=opset), tmp_path)) == wanted


ROWS: dict[str, tuple[list[onnx.NodeProto], dict[str, Any], list[str]]] = {
    "gemm": (
        [node("Gemm", "x w b", "y", alpha=0.5, beta=2.0, transB=1)], {"w": random(4, 6), "b": random(4)}, ["Gemm"],
    ),
    "gemm without a bias": ([node("Gemm", "x w", "y")], {"w": random(6, 4)}, ["Gemm"]),
    "product and sum": (
        [node("MatMul", "x w", "a"), node("Add", "b a", "y")], {"w": random(6, 4), "b": random(4)}, ["Gemm"],
    ),
    "product that is read twice": (
        [node("MatMul", "x w", "a"), node("Add", "a b", "c"), node("Mul", "a c", "y")],
        {"w": random(6, 4), "b": random(4)}, ["Gemm", "Scale", "Mul"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_products_with_weights_are_linear_layers(name: str, tmp_path: Path) -> None:
    nodes, constants, wanted = ROWS[name]
    assert kinds(write(model(nodes, (1, 6), constants), tmp_path)) == wanted


GRID = np.random.default_rng(0).uniform(-1, 1, (1, 5, 3, 2)).astype(np.float32)
MATRICES: dict[str, tuple[list[onnx.NodeProto], dict[str, Any], int, list[str]]] = {
    "grid sample": ([node("GridSample", "x g", "y")], {"g": GRID}, 16, ["Reshape", "Gemm", "Reshape"]),
    "scatter": (
        [node("ScatterElements", "x i u", "y", axis=1)],
        {"i": np.full((1, 1, 6, 8), 2), "u": random(1, 1, 6, 8)}, 13,
        ["Reshape", "Gemm", "Scale", "Reshape"],
    ),
    "elements": (
        [node("GatherElements", "x i", "y", axis=3)], {"i": np.full((1, 4, 6, 2), 3)}, 13,
        ["Reshape", "Gather", "Reshape"],
    ),
    "mean over gaps": (
        [node("AveragePool", "x", "y", kernel_shape=[2, 2], dilations=[2, 2])], {}, 19, ["Reshape", "Gemm", "Reshape"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MATRICES)
def test_small_linear_nodes_are_matrices(name: str, tmp_path: Path) -> None:
    nodes, constants, opset, wanted = MATRICES[name]
    assert kinds(write(model(nodes, MAP, constants, opset=opset), tmp_path)) == wanted


def test_what_only_looks_linear_is_refused(tmp_path: Path) -> None:
    constants = {"r": np.array([[0, 0, 7, 5]], np.float32), "b": ints(0)}
    nodes = [node("RoiAlign", "x r b", "y", mode="max", output_height=2, output_width=2)]
    with pytest.raises(UnsupportedOpError, match="only where it is linear"):
        network_from(write(model(nodes, MAP, constants, opset=16), tmp_path))


POSITIVE = [node("Exp", "x", "p")]  # some powers of negative numbers are none
POWERS: dict[str, Array | float] = {
    **{str(power): float(power) for power in (1, 2, 3, 5, -1, -2, 0.5, 1.5, -0.25)},
    "several": np.array([1, 2, 3, 4, 5, 2, 1, 0], np.float32),
    "broken": np.array([0.5, 1.25, 2, -1, 0.1, 1, 3, -0.5], np.float32),
}


@pytest.mark.parametrize("name", POWERS)
def test_powers(name: str, tmp_path: Path) -> None:
    nodes = [*POSITIVE, node("Pow", "p e", "y")]
    kinds(write(model(nodes, MAP, {"e": np.asarray(POWERS[name], np.float32)}), tmp_path))


@pytest.mark.parametrize("reduction", ["max", "min"])
@pytest.mark.parametrize("op", ["ScatterElements", "ScatterND"])
def test_bounds_that_are_scattered(op: str, reduction: str, tmp_path: Path) -> None:
    elements = op == "ScatterElements"
    places = np.full((1, 1, 6, 8), 2) if elements else np.array([[0, 1], [0, 3]])
    constants = {"i": places, "u": random(1, 1, 6, 8) if elements else random(2, 6, 8)}
    nodes = [node(op, "x i u", "y", reduction=reduction, **({"axis": 1} if elements else {}))]
    assert "Relu" in kinds(write(model(nodes, MAP, constants, opset=18), tmp_path))
