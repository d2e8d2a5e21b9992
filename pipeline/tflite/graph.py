"""Reads an ONNX graph: constants, quantization, layers with the activation function they take in; no dead ends.

Guarantees: ``Identity`` and ``Dropout`` are gone (their users read what is behind them), and so is ``DequantizeLinear``
unless it reads integers with another scale than they were written with, and nodes that compute shapes only; constants
are folded through ``QuantizeLinear`` and ``DequantizeLinear``; a Relu or Clip that alone reads a layer's unquantized
output is an attribute of that layer.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import onnx
from onnx import helper, numpy_helper

from pipeline.errors import ModelError
from pipeline.graph.params import QuantParams
from pipeline.tflite.constants import Array, Constant, activation_params, quantize_constant, quantized_constant

LOWEST_OPSET = 13  # Softmax, Squeeze and per-channel quantization changed there
_FUSING = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "Sub", "Mul", "Div", "BatchNormalization"})
_COMMUTING = frozenset(
    {"Relu", "Clip", "MaxPool", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Gather"}
)
_ALIASES = frozenset({"Identity", "Dropout"})
_DATA_INPUTS = {"Reshape": 1, "Resize": 1}  # the other inputs only say the shape, which is inferred

Attribute = int | float | str | tuple[int, ...] | tuple[float, ...] | tuple[str, ...]


class Activation(enum.Enum):
    """Activation functions that TFLite kernels compute at their end."""

    NONE = "none"
    RELU = "0 …"
    RELU_N1_TO_1 = "-1 … 1"
    RELU6 = "0 … 6"


ACTIVATION_OF_BOUNDS = {
    (0.0, float("inf")): Activation.RELU,
    (-1.0, 1.0): Activation.RELU_N1_TO_1,
    (0.0, 6.0): Activation.RELU6,
}


@dataclass(frozen=True, kw_only=True)
class Node:
    """One layer."""

    op: str
    name: str  # the layer's name in the user's network
    inputs: tuple[str, ...]  # "": left out
    output: str
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    activation: Activation = Activation.NONE
    place: int = 0  # of the output among all that the operation has

    @property
    def where(self) -> str:
        """The place for error messages."""
        return f"layer '{self.name}' ({self.op})"

    def input(self, index: int) -> str:
        """Name of an input; empty when it is left out."""
        return self.inputs[index] if index < len(self.inputs) else ""

    def integer(self, name: str, default: int) -> int:
        """Return an attribute that is a whole number."""
        value = self.attributes.get(name, default)
        return value if isinstance(value, int) else default

    def number(self, name: str, default: float) -> float:
        """Return an attribute that is a real number."""
        value = self.attributes.get(name, default)
        return float(value) if isinstance(value, int | float) else default

    def text(self, name: str, default: str) -> str:
        """Return an attribute that is a word."""
        value = self.attributes.get(name, default)
        return value if isinstance(value, str) else default

    def integers(self, name: str, default: Sequence[int]) -> tuple[int, ...]:
        """Return an attribute that is a list of whole numbers."""
        value = self.attributes.get(name)
        return tuple(int(each) for each in value) if isinstance(value, tuple) else tuple(default)


@dataclass(frozen=True, kw_only=True)
class Graph:
    """Layers in an order in which they can run."""

    nodes: tuple[Node, ...]
    constants: Mapping[str, Constant]
    quantized: Mapping[str, QuantParams]  # outputs of QuantizeLinear
    inputs: tuple[str, ...]
    outputs: Mapping[str, str]  # as the ONNX file calls them → the value that holds them
    readers: Mapping[str, tuple[Node, ...]]

    def goal(self, value: str) -> QuantParams | None:
        """Return the parameters to which all readers quantize this value; None when one of them wants it as it is.

        Rounding to a grid may come before moving and before clamping values as well as after, so this looks through.
        """
        if value in self.outputs.values():
            return None
        goals = {
            self.goal(node.output) if node.op in _COMMUTING else self.quantized.get(node.output)
            for node in self.readers.get(value, ())
        }
        return goals.pop() if len(goals) == 1 else None

    def of(self, nodes: tuple[Node, ...]) -> Graph:
        """Return the graph with other layers in the place of its own."""
        return replace(self, nodes=nodes, readers=_readers(nodes))

    def final_readers(self, value: str) -> list[Node | None]:
        """Return who reads a value, looking through quantizers; None stands for the graph's output."""
        found: list[Node | None] = [None] if value in self.outputs.values() else []
        for node in self.readers.get(value, ()):
            found += self.final_readers(node.output) if node.op == "QuantizeLinear" else [node]
        return found


def read_graph(model: onnx.ModelProto) -> Graph:
    """Read a float or QDQ model.

    Raises ModelError for an opset before 13, for inputs that are not float32, for activations that are not quantized
    to 8 bits with one scale, and for a DequantizeLinear that does not undo its QuantizeLinear.
    """
    _check_opset(model)
    reading = _Reading(model.graph)
    for proto in model.graph.node:
        reading.node(proto)
    outputs = {each.name: reading.source(each.name) for each in model.graph.output}
    ends = set(outputs.values())
    alive = _gelus(_alive(reading.nodes, ends), reading.constants, ends)
    nodes = _fused(alive, reading.constants, ends)
    return Graph(
        nodes=tuple(nodes),
        constants=reading.constants,
        quantized=reading.quantized,
        inputs=tuple(each.name for each in model.graph.input if each.name not in reading.constants),
        outputs=outputs,
        readers=_readers(nodes),
    )


class _Reading:
    """What is known so far, node after node."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.constants = {each.name: Constant(values=numpy_helper.to_array(each)) for each in graph.initializer}
        self.quantized: dict[str, QuantParams] = {}
        self.sources: dict[str, str] = {}
        self.nodes: list[Node] = []
        for each in graph.input:
            elem_type = each.type.tensor_type.elem_type
            if each.name not in self.constants and elem_type != onnx.TensorProto.FLOAT:
                kind = onnx.TensorProto.DataType.Name(elem_type).lower()
                raise ModelError(f"{kind} input", where=f"input '{each.name}'", remedy="make the input float32")

    def source(self, name: str) -> str:
        """Return the value that an alias stands for."""
        return self.sources.get(name, name)

    def node(self, proto: onnx.NodeProto) -> None:
        """Take in the next node."""
        if proto.op_type == "Constant":
            self.constants[proto.output[0]] = Constant(values=_constant_value(proto))
        elif proto.op_type in _ALIASES:
            self._alias(proto.output[0], proto.input[0])
        elif proto.op_type == "QuantizeLinear":
            self._quantize(proto)
        elif proto.op_type == "DequantizeLinear":
            self._dequantize(proto)
        else:
            self._append(proto)

    def _append(self, proto: onnx.NodeProto, inputs: Iterable[str] | None = None) -> None:
        attributes = {each.name: _attribute(each) for each in proto.attribute}
        place = next(number for number, name in enumerate(proto.output) if name)
        self.nodes.append(
            Node(
                op=proto.op_type,
                name=proto.name or proto.output[place],
                inputs=tuple(self.source(name) for name in (proto.input if inputs is None else inputs)),
                output=proto.output[place],
                place=place,
                attributes={name: value for name, value in attributes.items() if value is not None},
            )
        )

    def _alias(self, name: str, target: str) -> None:
        source = self.source(target)
        self.sources[name] = source
        if source in self.constants:
            self.constants[name] = self.constants[source]

    def _quantize(self, proto: onnx.NodeProto) -> None:
        value, scale, zero_point, axis = self._quantization(proto)
        if value in self.constants:
            integers = quantize_constant(self.constants[value].values, scale, zero_point, axis)
            self.constants[proto.output[0]] = Constant(values=integers)
            return
        where = f"quantizer of '{value}'"
        self.quantized[proto.output[0]] = activation_params(scale, zero_point, where=where)
        self._append(proto, [value])

    def _dequantize(self, proto: onnx.NodeProto) -> None:
        value, scale, zero_point, axis = self._quantization(proto)
        if value in self.constants:
            integers = self.constants[value].values
            self.constants[proto.output[0]] = quantized_constant(integers, scale, zero_point, axis)
            return
        params = activation_params(scale, zero_point, where=f"dequantizer of '{value}'")
        written = self.quantized.get(value, params)
        if written != params and written.zero_points == params.zero_points:
            self.quantized[proto.output[0]] = params
            self._append(proto, [value])
            return
        if written != params:
            raise ModelError(
                "DequantizeLinear has another zero point than the QuantizeLinear before it",
                where=f"value '{value}'",
                remedy="give both the same",
            )
        self._alias(proto.output[0], value)

    def _quantization(self, proto: onnx.NodeProto) -> tuple[str, Array, Array | None, int]:
        value, scale, zero_point = (self.source(name) for name in [*proto.input, ""][:3])
        if scale not in self.constants or (zero_point and zero_point not in self.constants):
            raise ModelError(
                "its scale or zero point is computed in the graph",
                where=f"layer '{proto.name or proto.output[0]}' ({proto.op_type})",
                remedy="quantize with constant ranges (static, not dynamic quantization)",
            )
        axis = next((each.i for each in proto.attribute if each.name == "axis"), 1)
        zeros = self.constants[zero_point].values if zero_point else None
        return value, self.constants[scale].values, zeros, axis


def clip_bounds(node: Node, constants: Mapping[str, Constant]) -> tuple[float, float]:
    """Return the bounds of a Relu or Clip; infinite where there is none.

    Raises ModelError when a bound is computed in the graph.
    """
    if node.op == "Relu":
        return 0.0, float("inf")
    bounds = [-float("inf"), float("inf")]
    for index, name in enumerate((node.input(1), node.input(2))):
        if name and name not in constants:
            raise ModelError("a bound is computed in the graph", where=node.where, remedy="clip to constant bounds")
        if name:
            bounds[index] = float(constants[name].real().reshape(()))
    return bounds[0], bounds[1]


def _check_opset(model: onnx.ModelProto) -> None:
    opset = next((each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), 0)
    if opset < LOWEST_OPSET:
        raise ModelError(
            f"opset {opset} is too old",
            where=f"graph '{model.graph.name}'",
            remedy=f"export with opset {LOWEST_OPSET} or later, or run onnx.version_converter",
        )


def _constant_value(proto: onnx.NodeProto) -> Array:
    value = helper.get_attribute_value(proto.attribute[0])
    array: Array = numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.asarray(value)
    return array


def _attribute(proto: onnx.AttributeProto) -> Attribute | None:
    value = helper.get_attribute_value(proto)
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, int | float):
        return value
    if isinstance(value, onnx.TensorProto | onnx.GraphProto):
        return None
    return tuple(each.decode() if isinstance(each, bytes) else each for each in value)


def _alive(nodes: Sequence[Node], ends: Iterable[str]) -> list[Node]:
    """Drop nodes that nothing reads, or only for its shape."""
    wanted = set(ends)
    alive = []
    for node in reversed(nodes):
        if node.output in wanted:
            alive.append(node)
            wanted.update(node.inputs[: _DATA_INPUTS.get(node.op)])
    return alive[::-1]


def _readers(nodes: Sequence[Node]) -> dict[str, tuple[Node, ...]]:
    readers: dict[str, tuple[Node, ...]] = {}
    for node in nodes:
        for name in dict.fromkeys(node.inputs[: _DATA_INPUTS.get(node.op)]):
            readers[name] = (*readers.get(name, ()), node)
    return readers


def _fused(nodes: Sequence[Node], constants: Mapping[str, Constant], ends: set[str]) -> list[Node]:
    """Give layers the activation function that alone reads their output."""
    readers = _readers(nodes)
    fused: dict[str, Node] = {}
    taken = set()
    for node in nodes:
        after = readers.get(node.output, ())
        if not _takes_in(node, constants) or node.output in ends or len(after) != 1:
            continue
        if after[0].op not in ("Relu", "Clip"):
            continue
        activation = ACTIVATION_OF_BOUNDS.get(clip_bounds(after[0], constants))
        if activation is not None:
            taken.add(after[0].output)
            fused[node.output] = replace(node, output=after[0].output, activation=activation)
    return [fused.get(node.output, node) for node in nodes if node.output not in taken]


def _takes_in(node: Node, constants: Mapping[str, Constant]) -> bool:
    """Whether its operator can end in an activation function: BATCH_MATMUL, for two computed values, cannot."""
    return node.op in _FUSING and (node.op != "MatMul" or node.input(1) in constants)


def _gelus(nodes: Sequence[Node], constants: Mapping[str, Constant], ends: set[str]) -> list[Node]:
    """Read x / 2 * (1 + erf(x / sqrt 2)), in whatever order it is multiplied, as one Gelu: there is no Erf."""
    readers, makers = _readers(nodes), {node.output: node for node in nodes}
    replaced: dict[str, Node] = {}
    gone: set[str] = set()
    for node in nodes:
        found = _gelu(node, readers, makers, constants) if node.op == "Erf" else None
        if found is not None and not ends & {each.output for each in found[:-1]}:
            last = found[-1]
            x = found[0].inputs[0] if found[0].inputs[0] not in constants else found[0].inputs[1]
            replaced[last.output] = Node(op="Gelu", name=last.name, inputs=(x,), output=last.output)
            gone |= {each.output for each in found[:-1]}
    return [replaced.get(node.output, node) for node in nodes if node.output not in gone]


def _gelu(
    erf: Node, readers: Mapping[str, tuple[Node, ...]], makers: Mapping[str, Node], constants: Mapping[str, Constant]
) -> list[Node] | None:
    """Return the nodes of a Gelu around its Erf, the division first, the result last; None where it is none."""
    narrow = makers.get(erf.inputs[0])
    if narrow is None or narrow.op not in ("Div", "Mul"):
        return None
    x = next((name for name in narrow.inputs if name not in constants), "")
    factors = _numbers(narrow, constants)
    if narrow.op == "Div":
        factors = [1 / each for each in factors]
    found, value = [narrow, erf], erf.output
    halves = {node.output for node in readers.get(x, ()) if node.op == "Mul" and _numbers(node, constants) == [0.5]}
    raised = _only_reader(readers, value)
    if (
        raised is None
        or raised.op != "Add"
        or _numbers(raised, constants) != [1.0]
        or not np.allclose(factors, 0.5**0.5)
    ):
        return None
    found.append(raised)
    value, halved, weighted = raised.output, False, False
    while not (halved and weighted):
        node = _only_reader(readers, value)
        if node is None or node.op != "Mul":
            return None
        other = next((name for name in node.inputs if name != value), value)
        if other in halves:
            found.insert(1, makers[other])
            halved = weighted = True
        elif other == x and not weighted:
            weighted = True
        elif _numbers(node, constants) == [0.5] and not halved:
            halved = True
        else:
            return None
        found.append(node)
        value = node.output
    return found


def _only_reader(readers: Mapping[str, tuple[Node, ...]], value: str) -> Node | None:
    after = readers.get(value, ())
    return after[0] if len(after) == 1 else None


def _numbers(node: Node, constants: Mapping[str, Constant]) -> list[float]:
    """Return the constants of one element that a node reads."""
    values = [constants[name].real() for name in node.inputs if name in constants]
    return [float(each.reshape(())) for each in values if each.size == 1]
