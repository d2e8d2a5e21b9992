"""LSTM, GRU and RNN layers, step after step, in float.

TFLite's own UNIDIRECTIONAL_SEQUENCE_LSTM keeps its state from one call to the next unless whoever runs it resets it,
has a state of one fixed batch, and starts from zeros only.  So the steps are written out.  What inputs are multiplied
with is one FULLY_CONNECTED for all of them.

Shapes: N batch, T steps, F features, D directions, H hidden features, G gates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UnsupportedOpError
from pipeline.tflite import layout, opcodes
from pipeline.tflite.draft import Draft, Stored
from pipeline.tflite.graph import Activation, Node
from pipeline.tflite.opcodes import Opcode
from pipeline.tflite.ops_pointwise import Builder
from pipeline.tflite.options import options
from pipeline.tflite.shapes import Shape

_MOST_STEPS = 512  # of 15 operators each
_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


class _Writer:
    """Writes small operators on rows (N, features)."""

    def __init__(self, draft: Draft, node: Node) -> None:
        self.draft, self.node = draft, node

    def row(self, width: int) -> Stored:
        """Add a tensor (N, width)."""
        return self.draft.new(self.node.name, Shape(dims=(1, width), batch=0), layout.plain(2), None)

    def cut(self, x: Stored, start: int, width: int) -> Stored:
        """Take some columns."""
        bounds = [self.draft.constant(np.array(each, np.int32)) for each in ([0, start], [-1, width])]
        return self.draft.op(opcodes.SLICE, [x, *bounds], self.row(width), options("Slice"))

    def two(self, opcode: Opcode, kind: str, a: Stored, b: Stored | int) -> Stored:
        """Join two rows element by element."""
        return self.draft.op(opcode, [a, b], self.row(a.shape.dims[1]), options(kind, Activation.NONE))

    def add(self, a: Stored, b: Stored) -> Stored:
        """Return a + b."""
        return self.two(opcodes.ADD, "Add", a, b)

    def mul(self, a: Stored, b: Stored | int) -> Stored:
        """Return a * b."""
        return self.two(opcodes.MUL, "Mul", a, b)

    def sub(self, a: Stored, b: Stored) -> Stored:
        """Return a - b."""
        return self.two(opcodes.SUB, "Sub", a, b)

    def each(self, opcode: Opcode, x: Stored) -> Stored:
        """Apply a function to each element."""
        return self.draft.op(opcode, [x], self.row(x.shape.dims[1]))

    def product(self, x: Stored, weights: list[int], width: int) -> Stored:
        """Multiply a row with weights and add a bias."""
        return self.draft.op(opcodes.FULLY_CONNECTED, [x, *weights], self.row(width), options("FullyConnected"))

    def zeros(self, like: Stored, width: int) -> Stored:
        """Return a row of zeros with the batch of another one."""
        return self.mul(self.cut(like, 0, width), self.draft.constant(np.zeros(1, np.float32)))

    def joined(self, rows: list[Stored], result: Stored) -> Stored:
        """Put rows side by side, read as ``result``."""
        if len(rows) > 1:
            width = sum(each.shape.dims[1] for each in rows)
            table = options("Concatenation", Activation.NONE, axis=1)
            rows = [self.draft.op(opcodes.CONCATENATION, rows, self.row(width), table)]
        return self.draft.reshape(rows[0], result)


@dataclass(frozen=True, kw_only=True)
class _Direction:
    """What one direction computes with."""

    inputs: Stored  # (N, T * G * H): of all steps, multiplied with their weights
    width: int  # G * H
    weights: list[int]  # of the states
    hidden: int
    relu: bool

    def step(self, write: _Writer, number: int, gates: int, start: int = 0) -> Stored:
        """Return some gates' columns of one step."""
        return write.cut(self.inputs, number * self.width + start * self.hidden, gates * self.hidden)


@dataclass(frozen=True, kw_only=True)
class _State:
    hidden: Stored
    cell: Stored


Step = Callable[[_Writer, _Direction, int, _State], _State]


def _lstm_step(write: _Writer, own: _Direction, number: int, state: _State) -> _State:
    """Gates lie as ONNX has them: input, output, forget, cell."""
    size = own.hidden
    total = write.add(own.step(write, number, 4), write.product(state.hidden, own.weights, 4 * size))
    opened = write.each(opcodes.LOGISTIC, write.cut(total, 0, 3 * size))
    new = write.mul(write.cut(opened, 0, size), write.each(opcodes.TANH, write.cut(total, 3 * size, size)))
    cell = write.add(write.mul(write.cut(opened, 2 * size, size), state.cell), new)
    hidden = write.mul(write.cut(opened, size, size), write.each(opcodes.TANH, cell))
    return _State(hidden=hidden, cell=cell)


def _gru_step(write: _Writer, own: _Direction, number: int, state: _State) -> _State:
    """Gates lie as ONNX has them: update, reset, hidden; h' = n + z (h - n)."""
    size, before = own.hidden, state.hidden
    product = write.product(before, own.weights, 3 * size)
    opened = write.each(opcodes.LOGISTIC, write.add(own.step(write, number, 2), write.cut(product, 0, 2 * size)))
    kept = write.mul(write.cut(opened, size, size), write.cut(product, 2 * size, size))
    new = write.each(opcodes.TANH, write.add(own.step(write, number, 1, 2), kept))
    hidden = write.add(new, write.mul(write.cut(opened, 0, size), write.sub(before, new)))
    return _State(hidden=hidden, cell=hidden)


def _rnn_step(write: _Writer, own: _Direction, number: int, state: _State) -> _State:
    total = write.add(own.step(write, number, 1), write.product(state.hidden, own.weights, own.hidden))
    hidden = write.each(opcodes.RELU if own.relu else opcodes.TANH, total)
    return _State(hidden=hidden, cell=hidden)


def _unrolled(step: Step) -> Builder:
    def build(draft: Draft, node: Node) -> Stored:
        x = draft.as_float(draft.value(node))
        x = draft.in_axes(x, (1, 0, 2))  # (N, T, F)
        steps, write = x.shape.dims[0], _Writer(draft, node)
        _refuse(node, steps)
        directions = _directions(draft, node, x, steps)
        rows: dict[tuple[int, int], Stored] = {}
        ends = []
        for number, own in enumerate(directions):
            hidden, cell = (_first(write, own, number, len(directions), index) for index in (5, 6))
            state = _State(hidden=hidden, cell=cell)
            for place in range(steps) if number == 0 else reversed(range(steps)):
                state = step(write, own, place, state)
                rows[place, number] = state.hidden
            ends.append(state.cell)
        if node.place:  # the last cells (D, N, H)
            return write.joined(ends, draft.result(node, (1, 0, 2), None))
        every = [rows[place, number] for place in range(steps) for number in range(len(directions))]
        return write.joined(every, draft.result(node, (2, 0, 1, 3), None))

    return build


def _refuse(node: Node, steps: int) -> None:
    if steps > _MOST_STEPS:
        raise UnsupportedOpError(
            f"{node.op} over {steps} steps, each of which takes 15 operators",
            where=node.where,
            remedy=f"cut the sequence to {_MOST_STEPS} steps, or use a convolution with a stride before it",
        )
    reset_first = node.op == "GRU" and not node.integer("linear_before_reset", 0)
    if reset_first or node.text("direction", "forward") == "reverse" or node.input(4):
        raise UnsupportedOpError("a form that torch does not have", where=node.where, remedy="export it from torch")


def _directions(draft: Draft, node: Node, x: Stored, steps: int) -> list[_Direction]:
    """Multiply the inputs of all steps with their weights, once for each direction."""
    inputs, hidden = (draft.constant_of(node, index).real() for index in (1, 2))
    gates = _GATES[node.op] * hidden.shape[2]
    biases = draft.constant_of(node, 3).real() if node.input(3) else np.zeros((len(inputs), 2 * gates))
    flat = replace(x, shape=Shape(dims=(1, *(x.shape.dims[axis] for axis in (0, 2))), batch=0), axes=layout.plain(3))
    table = options("FullyConnected", keepNumDims=True)
    found = []
    for weights, again, bias in zip(inputs, hidden, biases, strict=True):
        constants = [_constant(draft, weights), _constant(draft, bias[:gates])]
        shape = Shape(dims=(1, steps, gates), batch=0)
        product = draft.new(f"{node.name}:inputs", shape, layout.plain(3), None)
        draft.op(opcodes.FULLY_CONNECTED_ND, [flat, *constants], product, table)
        row = draft.new(f"{node.name}:inputs", Shape(dims=(1, steps * gates), batch=0), layout.plain(2), None)
        found.append(
            _Direction(
                inputs=draft.reshape(product, row),
                width=gates,
                weights=[_constant(draft, again), _constant(draft, bias[gates:])],
                hidden=hidden.shape[2],
                relu="Relu" in str(node.attributes.get("activations", "")),
            )
        )
    return found


def _constant(draft: Draft, values: NDArray[np.float64]) -> int:
    return draft.constant(values.astype(np.float32))


def _first(write: _Writer, own: _Direction, number: int, directions: int, index: int) -> Stored:
    """Return the state (N, H) that a direction starts from."""
    if not write.node.input(index):
        return write.zeros(own.inputs, own.hidden)
    states = write.draft.as_float(write.draft.value(write.node, index))  # (D, N, H)
    states = write.draft.in_axes(states, (1, 0, 2))
    row = write.draft.reshape(states, write.row(directions * own.hidden))
    return row if directions == 1 else write.cut(row, number * own.hidden, own.hidden)


lstm, gru, rnn = _unrolled(_lstm_step), _unrolled(_gru_step), _unrolled(_rnn_step)
