"""Reductions, norms and matrix products: axes in attributes and inputs, left out or empty; weights for some."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import UnsupportedOpError
from pipeline.networks.from_onnx import network_from
from tests.networks.onnx.compared import Case, case, each_opset, ints, kinds
from tests.networks.onnx.written import node, random

F32 = np.float32
NONE = np.zeros(0, np.int64)
ROW = (1, 6)
REDUCTIONS = (
    *("ReduceL1", "ReduceL2", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum"),
    "ReduceSumSquare",
)

REDUCED: dict[str, Case] = {
    **{f"{op} by an attribute": case(op, opsets=(7, 11), axes=[-1, 1], keepdims=0) for op in REDUCTIONS},
    **{f"{op} by an input": case(op, "x a", {"a": ints(-1, 1)}, opsets=(18,), keepdims=0) for op in REDUCTIONS},
    **{f"{op} of everything": case(op, opsets=(11, 18)) for op in REDUCTIONS},
    **{f"{op} of nothing": case(op, "x a", {"a": NONE}, (18,), noop_with_empty_axes=1) for op in REDUCTIONS},
    **{f"{op} of no axes": case(op, "x a", {"a": NONE}, opsets=(18,)) for op in REDUCTIONS},
    "ReduceSum by an input before the others": case("ReduceSum", "x a", {"a": ints(-2)}),
    "ReduceLogSum": Case(
        nodes=[node("Exp", "x", "p"), node("ReduceLogSum", "p", "y", axes=[1])], constants={}, opsets=(7, 13)
    ),
}  # fmt: skip

NORMED: dict[str, Case] = {
    "near by": case("LRN", opsets=(7, 13), size=3),
    "near by, half": case("LRN", size=5, alpha=0.5, beta=0.5, bias=2.0),
    "near by, whole": case("LRN", size=3, beta=1.0),
    "first norm": case("LpNormalization", p=1, axis=1, opsets=(7, 22)),
    "second norm": case("LpNormalization"),
    "mean and variance": case("MeanVarianceNormalization", opsets=(9, 13), axes=[2, 3]),
    "mean and variance of old": case("MeanVarianceNormalization", opsets=(9, 13)),
    "groups": case(
        "GroupNormalization", "x s b", {"s": random(4), "b": random(4, seed=1)}, opsets=(21,), num_groups=2, epsilon=0.1
    ),
    "each map": case("InstanceNormalization", "x s b", {"s": random(4), "b": random(4)}, opsets=(7, 22), epsilon=0.1),
    "each row": case("InstanceNormalization", "x s b", {"s": random(4), "b": random(4)}, shape=(1, 4, 7)),
    "layer": case("LayerNormalization", "x s", {"s": random(4, 6, 8)}, opsets=(17,), axis=1),
    "layer from the end": case(
        "LayerNormalization", "x s b", {"s": random(6, 8), "b": random(6, 8, seed=1)}, opsets=(17,), axis=-2
    ),
    "layer with one factor": case("LayerNormalization", "x s", {"s": random(8)}, opsets=(17,), axis=1),
    "layer of all": case("LayerNormalization", "x s", {"s": random(1, 4, 6, 8)}, opsets=(17,), axis=0),
    "root of squares": case("RMSNormalization", "x s", {"s": random(6, 8)}, opsets=(23,), axis=-2),
    "batch": case(
        "BatchNormalization", "x s b m v",
        {"s": random(4), "b": random(4, seed=1), "m": random(4, seed=2), "v": np.abs(random(4)) + 0.1}, (7, 9, 15),
    ),
    "batch of rows": case(
        "BatchNormalization", "x s b m v",
        {"s": random(6), "b": random(6, seed=1), "m": random(6, seed=2), "v": np.abs(random(6)) + 0.1}, shape=ROW,
    ),
}  # fmt: skip

PRODUCTS: dict[str, Case] = {
    "Gemm with a number": case("Gemm", "x w c", {"w": random(6, 4), "c": F32(2)}, (11, 13), ROW, beta=0.5),
    "Gemm with one of one": case("Gemm", "x w c", {"w": random(6, 4), "c": random(1, 1)}, shape=ROW),
    "Gemm with a row": case("Gemm", "x w c", {"w": random(6, 4), "c": random(4)}, (7, 9), ROW, alpha=0.5),
    "Gemm turned": case("Gemm", "x w", {"w": random(1, 4)}, shape=ROW, transA=1),
    "Gemm from the left": case("Gemm", "w x", {"w": random(3, 6)}, shape=ROW, transB=1, alpha=2.0),
    "MatMul by a vector": case("MatMul", "x w", {"w": random(8)}),
    "MatMul from the left": case("MatMul", "w x", {"w": random(3, 6)}),
    "MatMul by a vector from the left": case("MatMul", "w x", {"w": random(6)}),
    "MatMul by a matrix each": case("MatMul", "x w", {"w": random(4, 8, 3)}),
    "MatMul by a matrix each from the left": case("MatMul", "w x", {"w": random(4, 3, 6)}),
    "MatMul by more axes": case("MatMul", "x w", {"w": random(2, 1, 4, 8, 3)}),
    "MatMul by itself": Case(
        nodes=[node("Transpose", "x", "t", perm=[0, 1, 3, 2]), node("MatMul", "x t", "y")], constants={}
    ),
}  # fmt: skip

REFUSED: dict[str, tuple[Case, str]] = {
    "power": (case("LRN", size=3, beta=0.6), r"node 'the_y' \(LRN\) has beta 0\.6"),
    "product": (case("ReduceProd", axes=[1]), r"node 'the_y' \(ReduceProd\) is not supported"),
    "axis": (case("ReduceMean", axes=[4]), r"is no valid ONNX file|works on axis 4 of a tensor with 4 axes"),
}


@pytest.mark.parametrize(("name", "opset"), each_opset(REDUCED))
def test_reductions(name: str, opset: int, tmp_path: Path) -> None:
    kinds(REDUCED[name].at(opset, tmp_path))


@pytest.mark.parametrize(("name", "opset"), each_opset(NORMED))
def test_norms(name: str, opset: int, tmp_path: Path) -> None:
    kinds(NORMED[name].at(opset, tmp_path))


@pytest.mark.parametrize(("name", "opset"), each_opset(PRODUCTS))
def test_products(name: str, opset: int, tmp_path: Path) -> None:
    kinds(PRODUCTS[name].at(opset, tmp_path))


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_name_the_node(name: str, tmp_path: Path) -> None:
    refused, words = REFUSED[name]
    with pytest.raises(UnsupportedOpError, match=words):
        network_from(refused.at(13, tmp_path))
