"""The ONNX graph under construction: nodes, constants, and under which name each value of the flat graph is found."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from torch import Tensor, fx, nn

from pipeline.graph.params import QuantParams

INPUT, OUTPUT = "input", "output"
LOWEST_OPSET = 13  # the first with one scale per channel
_OPSET_OF = {"HardSwish": 14, "LayerNormalization": 17}


class Draft:
    """Nodes and constants; ``values`` says under which name each value of the flat graph is found."""

    def __init__(self, ends: Collection[str] = (INPUT, OUTPUT)) -> None:
        self.ends = frozenset(ends)  # what the graph's inputs and outputs are called
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.values: dict[fx.Node, str] = {}
        self.opset = LOWEST_OPSET

    def constant(self, name: str, value: NDArray[np.generic]) -> str:
        """Add a constant and return its name."""
        self.initializers.append(numpy_helper.from_array(np.asarray(value, order="C"), name))
        return name

    def op(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Add a node and return the name of its output."""
        return self.nth(0, kind, inputs, output, **attributes)

    def nth(self, place: int, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Add a node of whose outputs the one at this place counts, and return its name."""
        self.opset = max(self.opset, _OPSET_OF.get(kind, LOWEST_OPSET))
        name = "" if kind in ("QuantizeLinear", "DequantizeLinear") else output  # a layer's name, and bytes saved
        if output in self.ends:  # a layer may be called like one of the graph's ends
            output = f"{output}:layer"
        self.nodes.append(helper.make_node(kind, inputs, [""] * place + [output], name=name, **attributes))
        return output

    def quantize(self, value: str, label: str, params: QuantParams, *, read_as: QuantParams | None = None) -> str:
        """Add a pair of QuantizeLinear and DequantizeLinear behind a value; ``read_as``: the latter has its own."""
        parameters = self._parameters(label, params)
        quantized = self.op("QuantizeLinear", (value, *parameters), f"{label}:q")
        if read_as is not None:
            parameters = self._parameters(f"{label}:d", read_as)
        return self.op("DequantizeLinear", (quantized, *parameters), f"{label}:d")

    def dequantized(self, name: str, value: NDArray[np.generic], params: QuantParams) -> str:
        """Add a constant that is stored as integers of one scale and return the name of the real numbers."""
        stored = self.constant(f"{name}:q", value)
        return self.op("DequantizeLinear", (stored, *self._parameters(name, params)), name)

    def _parameters(self, name: str, params: QuantParams) -> tuple[str, str]:
        scale = self.constant(f"{name}:s", np.array(params.scale, np.float32))
        return scale, self.constant(f"{name}:z", np.array(params.zero_point, np.uint8))


Emitter = Callable[[Draft, fx.Node, nn.Module], str]


def plain(kind: str) -> Emitter:
    """Return the emitter of an operation without constants and attributes."""
    return lambda out, node, _: out.op(kind, inputs_of(out, node), node.meta["label"])


def inputs_of(out: Draft, node: fx.Node) -> list[str]:
    """Return the names of what a node computes with."""
    return [out.values[value] for value in node.args if isinstance(value, fx.Node)]


def source_of(node: fx.Node) -> fx.Node:
    """Return the node that a node reads first."""
    source = node.args[0]
    assert isinstance(source, fx.Node)  # noqa: S101  (every operation but the input reads a node)
    return source


def array_of(tensor: Tensor) -> NDArray[np.generic]:
    """Return a tensor's values."""
    array: NDArray[np.generic] = tensor.detach().cpu().numpy()
    return array
