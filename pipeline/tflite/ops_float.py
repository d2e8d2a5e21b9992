"""Operations that have float kernels alone, or are put together from such.

Shapes: I, J, K rows and columns of matrices.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UnsupportedOpError
from pipeline.tflite import layout, opcodes
from pipeline.tflite.draft import Draft, Stored
from pipeline.tflite.graph import Node
from pipeline.tflite.opcodes import Opcode
from pipeline.tflite.ops_pointwise import Builder, constant_operand
from pipeline.tflite.ops_pool import reduced_axes
from pipeline.tflite.options import options

_SMALL = 1e-30


def function(opcode: Opcode, kind: str | None = None) -> Builder:
    """Return the builder of a function of each element."""

    def build(draft: Draft, node: Node) -> Stored:
        return _unary(draft, opcode, draft.as_float(draft.value(node)), node.name, kind)

    return build


def _unary(draft: Draft, opcode: Opcode, x: Stored, name: str, kind: str | None = None) -> Stored:
    return draft.op(opcode, [x], draft.like(x, name, None), options(kind) if kind else None)


def _times(draft: Draft, x: Stored, number: float, name: str) -> Stored:
    constant = draft.constant(np.array([number], np.float32))
    return draft.op(opcodes.MUL, [x, constant], draft.like(x, name, None), options("Mul"))


def _plus(draft: Draft, x: Stored, number: float, name: str) -> Stored:
    constant = draft.constant(np.array([number], np.float32))
    return draft.op(opcodes.ADD, [x, constant], draft.like(x, name, None), options("Add"))


def reciprocal(draft: Draft, node: Node) -> Stored:
    """1 / x."""
    x = draft.as_float(draft.value(node))
    one = draft.constant(np.array([1], np.float32))
    return draft.op(opcodes.DIV, [one, x], draft.like(x, node.name, None), options("Div"))


def power(draft: Draft, node: Node) -> Stored:
    """X to the power of a number."""
    x = draft.as_float(draft.value(node))
    exponent = draft.constant_of(node, 1).real()
    if exponent.size != 1:
        raise UnsupportedOpError("several exponents", where=node.where, remedy="raise to a single number")
    constant = draft.constant(exponent.reshape(1).astype(np.float32))
    return draft.op(opcodes.POW, [x, constant], draft.like(x, node.name, None), options("Pow"))


_ERF = (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)
_ERF_SLOPE = 0.3275911


def erf(draft: Draft, node: Node) -> Stored:
    """Error function, to 1.5e-7: Abramowitz and Stegun 1964, 7.1.26, of |x|, with the sign of x."""
    x, name = draft.as_float(draft.value(node)), node.name

    def two(opcode: Opcode, kind: str, a: Stored | int, b: Stored | int) -> Stored:
        return draft.op(opcode, [a, b], draft.like(x, f"{name}:{kind}", None), options(kind))

    size = _unary(draft, opcodes.ABS, x, f"{name}:size", "Abs")
    raised = _plus(draft, _times(draft, size, _ERF_SLOPE, f"{name}:slope"), 1, f"{name}:raised")
    t = two(opcodes.DIV, "Div", draft.constant(np.array([1], np.float32)), raised)
    total = _times(draft, t, _ERF[-1], f"{name}:term")
    for factor in reversed(_ERF[:-1]):
        total = two(opcodes.MUL, "Mul", _plus(draft, total, factor, f"{name}:term"), t)
    squared = two(opcodes.MUL, "Mul", size, size)
    bell = _unary(draft, opcodes.EXP, _times(draft, squared, -1, f"{name}:below"), f"{name}:bell", "Exp")
    rest = _times(draft, two(opcodes.MUL, "Mul", total, bell), -1, f"{name}:rest")
    # x / |x| is no number at zero, where the result is as small as x
    near = two(opcodes.DIV, "Div", x, _plus(draft, size, _SMALL, f"{name}:near"))
    return draft.op(
        opcodes.MUL, [_plus(draft, rest, 1, f"{name}:part"), near], draft.like(x, name, None), options("Mul")
    )


def gelu(draft: Draft, node: Node) -> Stored:
    """Gelu, by the error function (``graph.read_graph`` makes one of it) or by the tangent that is near to it."""
    x, approximate = draft.as_float(draft.value(node)), node.text("approximate", "none") == "tanh"
    return draft.op(opcodes.GELU, [x], draft.like(x, node.name, None), options("Gelu", approximate=approximate))


def softplus(draft: Draft, node: Node) -> Stored:
    """log(1 + exp(x)) as max(0, x) + log(1 + exp(-|x|)), which overflows nowhere."""
    x, name = draft.as_float(draft.value(node)), node.name
    size = _unary(draft, opcodes.ABS, x, f"{name}:size", "Abs")
    small = _unary(draft, opcodes.EXP, _times(draft, size, -1, f"{name}:below"), f"{name}:exp", "Exp")
    rest = _unary(draft, opcodes.LOG, _plus(draft, small, 1, f"{name}:sum"), f"{name}:log")
    positive = _unary(draft, opcodes.RELU, x, f"{name}:positive")
    return draft.op(opcodes.ADD, [positive, rest], draft.like(x, name, None), options("Add", node.activation))


def elu(draft: Draft, node: Node) -> Stored:
    """Elu with alpha 1; another one only changes what lies below zero."""
    x, alpha = draft.as_float(draft.value(node)), node.number("alpha", 1.0)
    if alpha == 1.0:
        return _unary(draft, opcodes.ELU, x, node.name)
    bent = _unary(draft, opcodes.ELU, x, f"{node.name}:elu")
    positive = _unary(draft, opcodes.RELU, x, f"{node.name}:positive")
    below = draft.op(opcodes.SUB, [bent, positive], draft.like(x, f"{node.name}:below", None), options("Sub"))
    scaled = _times(draft, below, alpha, f"{node.name}:scaled")
    return draft.op(opcodes.ADD, [positive, scaled], draft.like(x, node.name, None), options("Add"))


def layer_normalization(draft: Draft, node: Node) -> Stored:
    """(x - mean) / sqrt(variance + epsilon) * weight + bias over the last axes."""
    x, name = draft.as_float(draft.value(node)), node.name
    axis = node.integer("axis", -1) % x.shape.rank
    wanted = range(axis, x.shape.rank)
    positions = np.array([place for place, each in enumerate(x.axes) if each in wanted], np.int32)
    mean = _mean(draft, x, positions, f"{name}:mean")
    centred = draft.op(opcodes.SUB, [x, mean], draft.like(x, f"{name}:centred", None), options("Sub"))
    squared = draft.op(opcodes.MUL, [centred, centred], draft.like(x, f"{name}:squared", None), options("Mul"))
    variance = _mean(draft, squared, positions, f"{name}:variance")
    raised = _plus(draft, variance, node.number("epsilon", 1e-5), f"{name}:raised")
    inverse = _unary(draft, opcodes.RSQRT, raised, f"{name}:inverse")
    value = draft.op(opcodes.MUL, [centred, inverse], draft.like(x, f"{name}:normed", None), options("Mul"))
    for index, opcode, kind in ((1, opcodes.MUL, "Mul"), (2, opcodes.ADD, "Add")):
        if node.input(index):
            constant = constant_operand(draft, draft.constant_of(node, index), x.shape.rank, x.axes, as_int8=False)
            value = draft.op(opcode, [value, constant], draft.like(x, f"{name}:{kind}", None), options(kind))
    return value


def _mean(draft: Draft, x: Stored, positions: NDArray[np.int32], name: str) -> Stored:
    dims = {axis: 1 for place in positions if (axis := x.axes[place]) is not None}
    result = draft.new(name, x.shape.with_dims(dims), x.axes, None)
    return draft.op(opcodes.MEAN, [x, draft.constant(positions)], result, options("Reducer", keepDims=True))


def matmul(draft: Draft, node: Node) -> Stored:
    """MatMul of two computed values: (…, I, J), (…, J, K) → (…, I, K)."""
    a, b = (draft.as_float(draft.value(node, index)) for index in (0, 1))
    rank = a.shape.rank
    if b.shape.rank != rank:
        raise UnsupportedOpError(
            f"operands with {rank} and {b.shape.rank} axes",
            where=node.where,
            remedy="give both the same number of axes",
        )
    plain = layout.plain(rank)
    swapped = (*plain[:-2], plain[-1], plain[-2])
    turned = b.axes == swapped  # a transposed matrix is read as it lies
    a, b = draft.in_axes(a, plain), b if turned else draft.in_axes(b, plain)
    table = options("BatchMatMul", adjX=False, adjY=turned, asymmetricQuantizeInputs=False)
    return draft.op(opcodes.BATCH_MATMUL, [a, b], draft.result(node, plain, None), table)


def reduce_max(draft: Draft, node: Node) -> Stored:
    """ReduceMax over any axes but the batch."""
    x, goal = draft.value(node), draft.goal(node)
    if x.params is None or goal != x.params:
        x, goal = draft.as_float(x), None
    reduced = reduced_axes(draft, node, x.shape.rank) or set(range(x.shape.rank))
    if x.shape.batch in reduced or not node.integer("keepdims", 1):
        raise UnsupportedOpError(
            "a maximum over the batch or without keepdims", where=node.where, remedy="keep the axes"
        )
    positions = draft.constant(np.array([place for place, axis in enumerate(x.axes) if axis in reduced], np.int32))
    result = draft.result(node, x.axes, goal)
    return draft.op(opcodes.REDUCE_MAX, [x, positions], result, options("Reducer", keepDims=True))
