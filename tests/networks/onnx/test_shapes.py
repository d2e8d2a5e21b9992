"""Nodes that move elements: axes from the end, numbers in attributes and in inputs, parts that are empty."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import UnsupportedOpError
from pipeline.networks.from_onnx import network_from
from tests.networks.onnx.compared import Case, case, each_opset, ints, kinds
from tests.networks.onnx.written import node, random

FAR = 2**63 - 1

MOVED: dict[str, Case] = {
    "Reshape with 0 and -1": case("Reshape", "x s", {"s": ints(0, -1)}, opsets=(7, 13)),
    "Reshape of the first axis": case("Reshape", "x s", {"s": ints(4, 48)}),
    "Flatten of all": case("Flatten", axis=0, opsets=(7, 13)),
    "Flatten from the end": case("Flatten", axis=-1, opsets=(11, 13)),
    "Flatten of none": case("Flatten", axis=4),
    "Squeeze of every one": Case(
        nodes=[node("ReduceMean", "x", "a", axes=[2]), node("Squeeze", "a", "y")], constants={}, opsets=(7, 11, 13)
    ),
    "Squeeze from the end": Case(
        nodes=[node("ReduceMean", "x", "a", axes=[2]), node("Squeeze", "a axes", "y")], constants={"axes": ints(-2)}
    ),
    "Unsqueeze of old": case("Unsqueeze", axes=[0, 3], opsets=(7, 11)),
    "Unsqueeze from the end": case("Unsqueeze", "x a", {"a": ints(-1, 1)}),
    "Transpose of all": case("Transpose"),
    "Transpose of none": case("Transpose", perm=[0, 1, 2, 3]),
    "Transpose of the first": case("Transpose", perm=[1, 0, 2, 3], opsets=(7, 13)),
    "Concat behind a constant": case("Concat", "c x", {"c": random(1, 2, 6, 8)}, axis=1),
    "Concat of one": case("Concat", axis=1),
    "Concat with nothing": case("Concat", "x c", {"c": random(1, 0, 6, 8)}, axis=1),
    "Concat of the first axis": Case(
        nodes=[node("Relu", "x", "r"), node("Concat", "r x", "y", axis=0)], constants={}
    ),
    "Concat of several and a constant": Case(
        nodes=[node("Relu", "x", "r"), node("Concat", "r x c", "y", axis=-1)], constants={"c": random(1, 4, 6, 1)}
    ),
    "Split in halves": Case(
        nodes=[node("Split", "x", "a b", axis=-1), node("Sub", "a b", "y")], constants={}, opsets=(7, 11, 13)
    ),
    "Split by an attribute": Case(
        nodes=[node("Split", "x", "a b", axis=1, split=[1, 3]), node("Mul", "a b", "y")], constants={}, opsets=(7, 11)
    ),
    "Split by an input": Case(
        nodes=[node("Split", "x s", "a b", axis=1), node("Mul", "a b", "y")], constants={"s": ints(3, 1)}
    ),
    "Split with a smaller rest": Case(
        nodes=[node("Split", "x", "a b c", axis=3, num_outputs=3), node("Concat", "c a", "y", axis=3)],
        constants={}, opsets=(18,),
    ),
    "Split with an empty part": Case(
        nodes=[node("Split", "x s", "a b c", axis=3), node("Concat", "c b a", "y", axis=3)],
        constants={"s": ints(3, 0, 5)}, opsets=(18,),
    ),
    "Slice to beyond the end": case("Slice", "x s e a", {"s": ints(-3), "e": ints(FAR), "a": ints(-1)}),
    "Slice without axes": case("Slice", "x s e", {"s": ints(0, 1, 2, 3), "e": ints(1, 9, 9, -1)}, opsets=(10, 13)),
    "Slice backwards to the first": case(
        "Slice", "x s e a p", {"s": ints(-1), "e": ints(-FAR), "a": ints(2), "p": ints(-1)}
    ),
    "Slice of old from the end": case("Slice", starts=[1, -3], ends=[100, -1], axes=[1, 3], opsets=(7,)),
    "Slice of everything": case("Slice", "x s e a", {"s": ints(0), "e": ints(6), "a": ints(2)}),
    "Slice by narrow numbers": case(
        "Slice", "x s e", {"s": np.array([0, 1], np.int32), "e": np.array([1, 3], np.int32)}
    ),
    "Gather of one from the end": case("Gather", "x i", {"i": np.int64(-2)}, opsets=(11, 13), axis=-1),
    "Gather by a table": case("Gather", "x i", {"i": np.array([[0, 1], [5, -1]])}, axis=2),
    "Gather of the one sample": case("Gather", "x i", {"i": ints(0)}, axis=0),
    "Expand of a mean": Case(
        nodes=[node("ReduceMean", "x", "a", axes=[1]), node("Expand", "a s", "y")], constants={"s": ints(3, 1, 1)}
    ),
    "Expand to more axes": case("Expand", "x s", {"s": ints(2, 1, 4, 1, 1)}),
    "Expand to the same": case("Expand", "x s", {"s": ints(1)}),
    "Tile": case("Tile", "x r", {"r": ints(1, 2, 1, 3)}, opsets=(7, 13)),
    "Tile of the first axis": case("Tile", "x r", {"r": ints(2, 1, 1, 1)}),
    "DepthToSpace of old": case("DepthToSpace", blocksize=2, opsets=(7,)),
    "DepthToSpace, columns first": case("DepthToSpace", blocksize=2, mode="CRD", opsets=(11, 13)),
    "SpaceToDepth": case("SpaceToDepth", blocksize=2, opsets=(7, 13)),
    "Trilu": case("Trilu", opsets=(14,)),
    "Trilu below": case("Trilu", "x k", {"k": np.int64(-1)}, opsets=(14, 22), upper=0),
}  # fmt: skip

REFUSED: dict[str, tuple[Case, str]] = {
    "nothing taken": (
        case("Slice", "x s e a", {"s": ints(3), "e": ints(3), "a": ints(2)}), r"node 'the_y' \(Slice\) takes nothing",
    ),
    "computed shape": (
        Case(nodes=[node("ArgMax", "x", "i", axis=1), node("Gather", "c i", "y")], constants={"c": random(8)}),
        r"node 'the_i' \(ArgMax\) is not supported",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("name", "opset"), each_opset(MOVED))
def test_elements_are_moved(name: str, opset: int, tmp_path: Path) -> None:
    kinds(MOVED[name].at(opset, tmp_path))


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_name_the_node(name: str, tmp_path: Path) -> None:
    refused, words = REFUSED[name]
    with pytest.raises(UnsupportedOpError, match=words):
        network_from(refused.at(13, tmp_path))
