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
) -> onnx.ModelProto:
    """Return a model from ``x`` of this shape to ``y``."""
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info(each, TensorProto.FLOAT, None) for each in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=7)


def write(model: onnx.ModelProto, folder: Path) -> Path:
    """Write a model, without looking at it."""
    path = folder / "net.onnx"
    path.write_bytes(model.SerializeToString())
    return path
