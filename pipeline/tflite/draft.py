"""The TFLite file under construction: where each ONNX value is found in it, and in which form.

Builders read values through a ``Draft`` and ask for the form they need (float, int8 with given parameters, an order of
axes); what is not there yet is added as DEQUANTIZE, QUANTIZE, RESHAPE or TRANSPOSE, once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ModelError
from pipeline.graph.params import INT8, QuantParams
from pipeline.tflite import layout, opcodes
from pipeline.tflite.constants import Constant
from pipeline.tflite.flatbuffer import Flatbuffer
from pipeline.tflite.graph import Activation, Graph, Node
from pipeline.tflite.layout import Axes
from pipeline.tflite.opcodes import Opcode
from pipeline.tflite.options import options
from pipeline.tflite.shapes import Shape


@dataclass(frozen=True, kw_only=True, eq=False)
class Stored:
    """An ONNX value in the TFLite file."""

    tensor: int
    name: str
    shape: Shape  # of the ONNX value
    axes: Axes
    params: QuantParams | None  # None: float32
    # of a flattened image (N, F) that was never brought into the order of ONNX: its element j is ONNX's features[j]
    features: NDArray[np.intp] | None = None

    @property
    def dims(self) -> tuple[int, ...]:
        """Shape of the tensor, for a batch of one."""
        return layout.stored_dims(self.shape, self.axes)


class Draft:
    """Flatbuffer, graph and the values stored so far."""

    def __init__(self, graph: Graph, shapes: Mapping[str, Shape]) -> None:
        self.graph = graph
        self.file = Flatbuffer()
        self._shapes = shapes
        self._stored: dict[str, Stored] = {}
        self._floats: dict[int, Stored] = {}
        self._int8: dict[tuple[int, QuantParams], Stored] = {}
        self._arranged: dict[tuple[int, Axes, Axes], Stored] = {}

    # ── values ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def keep(self, value: str, stored: Stored) -> None:
        """Say where an ONNX value is found."""
        self._stored[value] = stored

    def value(self, node: Node, index: int = 0) -> Stored:
        """Return an input of a layer that is computed; raises ModelError when it is a constant."""
        return self.stored(node.input(index), f"{node.where}, input {index}")

    def stored(self, value: str, where: str) -> Stored:
        """Return where a computed value is found; raises ModelError when it is a constant or missing."""
        if value not in self._stored:
            raise ModelError(
                "a constant, or missing", where=where, remedy="use something that is computed from the graph's input"
            )
        return self._stored[value]

    def is_constant(self, node: Node, index: int) -> bool:
        """Whether an input of a layer is a constant."""
        return node.input(index) in self.graph.constants

    def constant_of(self, node: Node, index: int) -> Constant:
        """Return a constant input of a layer; raises ModelError when it is computed or missing."""
        constant = self.graph.constants.get(node.input(index))
        if constant is None:
            raise ModelError(
                f"input {index} is computed in the graph or missing",
                where=node.where,
                remedy="make it a constant of the exported graph",
            )
        return constant

    def shape(self, node: Node) -> Shape:
        """Return the shape of a layer's output; raises ModelError when inference did not find it."""
        return self.shape_of(node.output, node.where)

    def shape_of(self, value: str, where: str) -> Shape:
        """Return the shape of a value; raises ModelError when inference did not find it."""
        if value not in self._shapes:
            raise ModelError("its output shape is not known", where=where, remedy="export with a fixed sample shape")
        return self._shapes[value]

    def goal(self, node: Node) -> QuantParams | None:
        """Return the parameters to which the graph quantizes a layer's output; None: it wants float."""
        return self.graph.goal(node.output)

    # ── forms ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def as_float(self, x: Stored) -> Stored:
        """Return the value in float32."""
        if x.params is None:
            return x
        if x.tensor not in self._floats:
            result = self.like(x, f"{x.name}:float", params=None)
            self.op(opcodes.DEQUANTIZE, [x], result, options("Dequantize"))
            self._floats[x.tensor] = result
        return replace(self._floats[x.tensor], shape=x.shape, axes=x.axes, features=x.features)

    def as_int8(self, x: Stored, params: QuantParams) -> Stored:
        """Return the value in int8 with these parameters."""
        if x.params == params:
            return x
        key = (x.tensor, params)
        if key not in self._int8:
            result = self.like(x, f"{x.name}:int8", params=params)
            if x.params is None:
                self.op(opcodes.QUANTIZE, [x], result, options("Quantize"))
            else:
                self.times_one(x, result, Activation.NONE)
            self._int8[key] = result
        return replace(self._int8[key], shape=x.shape, axes=x.axes, features=x.features)

    def from_bytes(self, x: Stored) -> int:
        """Add a uint8 tensor that becomes this int8 one, by 128 less, and return its index."""
        assert x.params is not None  # noqa: S101
        tensor = self.file.tensor(
            f"{x.name}:bytes",
            layout.stored_dims(x.shape, x.axes),
            "uint8",
            signature=layout.stored_signature(x.shape, x.axes),
            params=QuantParams.of(x.params.scale, x.params.zero_point - INT8.lowest),
        )
        self.file.operator(opcodes.QUANTIZE, [tensor], x.tensor, options("Quantize"))
        return tensor

    def times_one(self, x: Stored, result: Stored, activation: Activation) -> Stored:
        """Bring int8 to another scale, clamped.

        Not by QUANTIZE: LiteRT's (XNNPACK qs8-vcvt) multiplies by the ratio of the scales rounded to 8 binary places,
        and about 10 % of the values come out one step off.  MUL by the constant one is exact in the same time.
        """
        one = self.constant(np.array([1], np.int8), QuantParams.of(1.0, 0, INT8), name="one")
        return self.op(opcodes.MUL, [x, one], result, options("Mul", activation))

    def rescaled(self, x: Stored, result: Stored) -> Stored:
        """Read int8 with the scale of ``result``: the same integers, if both have the same zero point."""
        assert x.params is not None and result.params is not None  # noqa: S101, PT018
        ratio = QuantParams.of(result.params.scale / x.params.scale, 0, INT8)
        one = self.constant(np.array([1], np.int8), ratio, name="ratio")
        return self.op(opcodes.MUL, [x, one], result, options("Mul", Activation.NONE))

    def in_axes(self, x: Stored, axes: Axes) -> Stored:
        """Return the value with its axes in this order."""
        if x.axes == axes:
            return x
        key = (x.tensor, x.axes, axes)  # the same tensor may be read as two values
        cached = self._arranged.get(key)
        if cached is None or cached.shape != x.shape:
            cached = self._arrange(x, axes)
            self._arranged[key] = cached
        return cached

    def _arrange(self, x: Stored, axes: Axes) -> Stored:
        have, want = layout.order(x.shape, x.axes), layout.order(x.shape, axes)
        if have == want:
            return self._reshaped(x, axes)
        full = layout.completed(x.shape, x.axes)
        x = x if x.axes == full else self._reshaped(x, full)
        goal = layout.completed(x.shape, axes)
        permutation = np.array([full.index(axis) for axis in goal], np.int32)
        result = self.new(f"{x.name}:transposed", x.shape, goal, x.params)
        self.op(opcodes.TRANSPOSE, [x, self.constant(permutation)], result, options("Transpose"))
        return result if goal == axes else self._reshaped(result, axes)

    def _reshaped(self, x: Stored, axes: Axes) -> Stored:
        return self.reshape(x, self.new(f"{x.name}:reshaped", x.shape, axes, x.params))

    def reshape(self, x: Stored, result: Stored) -> Stored:
        """Read the elements of ``x``, in the order in which they lie, as ``result``."""
        signature = layout.stored_signature(result.shape, result.axes)
        shape = self.constant(np.array(signature, np.int32))
        return self.op(opcodes.RESHAPE, [x, shape], result, options("Reshape", newShape=list(signature)))

    # ── adding to the file ──────────────────────────────────────────────────────────────────────────────────────────

    def new(self, name: str, shape: Shape, axes: Axes, params: QuantParams | None) -> Stored:
        """Add a tensor, int8 when ``params`` are given, else float32."""
        tensor = self.file.tensor(
            name,
            layout.stored_dims(shape, axes),
            "float32" if params is None else "int8",
            signature=layout.stored_signature(shape, axes),
            params=params,
        )
        return Stored(tensor=tensor, name=name, shape=shape, axes=axes, params=params)

    def like(self, x: Stored, name: str, params: QuantParams | None) -> Stored:
        """Add a tensor of the same shape and order."""
        return replace(self.new(name, x.shape, x.axes, params), features=x.features)

    def result(self, node: Node, axes: Axes, params: QuantParams | None) -> Stored:
        """Add the tensor of a layer's output."""
        return self.new(node.name, self.shape(node), axes, params)

    def constant(
        self, values: NDArray[np.generic], params: QuantParams | None = None, *, name: str = "constant"
    ) -> int:
        """Add a constant."""
        return self.file.constant(name, values, params)

    def op(self, opcode: Opcode, inputs: Sequence[Stored | int], result: Stored, table: object | None = None) -> Stored:
        """Add an operator and return its result; constants are given by index."""
        indices = [each.tensor if isinstance(each, Stored) else each for each in inputs]
        self.file.operator(opcode, indices, result.tensor, table)
        return result
