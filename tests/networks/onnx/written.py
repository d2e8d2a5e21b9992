"""Small ONNX files for tests: a few nodes with the constants that they read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Array = NDArray[Any]


def random(*shape: int, seed: int = 0) -> Array:
    """Return numbers around zero."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def node(op: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    """Return a node called after its output; inputs are words, ``-`` stands for one that is left out."""
    names = ["" if each == "-" else each for each in inputs.split()]
    return helper.make_node(op, names, output.split(), name=f"the_{output.split(maxsplit=1)[0]}", **attributes)


def model(
    nodes: Sequence[onnx.NodeProto],
    shape: Sequence[int | str],
    constants: Mapping[str, Any] | None = None,
    *,
    opset: int = 13,
    kind: int = TensorProto.FLOAT,
    outputs: Sequence[str] = ("y",),
    also: Mapping[str, Sequence[int | str]] | None = None,
) -> onnx.ModelProto:
    """Return a model from ``x`` of this shape, and further inputs, to ``y``."""
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info(name, kind, each) for name, each in {"x": shape, **(also or {})}.items()],
        [helper.make_tensor_value_info(each, TensorProto.FLOAT, None) for each in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=7 if opset < 22 else 10)


def two_ends() -> onnx.ModelProto:
    """Return a model of a picture and four numbers that gives a map and three scores."""
    nodes = [
        node("Conv", "x w", "a", pads=[1, 1, 1, 1]), node("Relu", "a", "b"), node("Conv", "b v", "map"),
        node("GlobalAveragePool", "b", "c"), node("Flatten", "c", "d"), node("Concat", "d side", "e", axis=1),
        node("Gemm", "e u", "scores"),
    ]  # fmt: skip
    constants = {"w": random(6, 3, 3, 3), "v": random(2, 6, 1, 1, seed=1), "u": random(10, 3, seed=2)}
    return model(nodes, (1, 3, 8, 8), constants, outputs=("scores", "map"), also={"side": (1, 4)})


def recurrent(*, wide: int = 8) -> onnx.ModelProto:
    """Return a model for one step: of six numbers and a state it makes two numbers and the next state."""
    nodes = [
        node("Concat", "x h", "a", axis=1), node("Gemm", "a w b", "c"), node("Tanh", "c", "hn"),
        node("Gemm", "hn v", "y"),
    ]  # fmt: skip
    constants = {"w": 0.4 * random(6 + wide, wide), "b": 0.1 * random(wide), "v": random(wide, 2, seed=2)}
    return model(nodes, (1, 6), constants, outputs=("y", "hn"), also={"h": (1, wide)})


def write(model: onnx.ModelProto, folder: Path) -> Path:
    """Write a model, without looking at it."""
    path = folder / "net.onnx"
    path.write_bytes(model.SerializeToString())
    return path
