"""Arithmetic, activation functions and batch normalization.

int8: sigmoid and softmax give 1/256 and -128, tanh 1/128 and 0; a rescaling follows where the graph asks for other
parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UnsupportedOpError
from pipeline.graph.params import INT8, QuantParams
from pipeline.tflite import layout, opcodes
from pipeline.tflite.constants import Constant
from pipeline.tflite.draft import Draft, Stored
from pipeline.tflite.graph import ACTIVATION_OF_BOUNDS, Activation, Node, clip_bounds
from pipeline.tflite.opcodes import Opcode
from pipeline.tflite.options import options
from pipeline.tflite.shapes import Shape

Builder = Callable[[Draft, Node], Stored]

_HALF_OPEN = QuantParams.of(1 / 256, -128, INT8)  # 0 … 255/256
_SUMS = frozenset({"Add", "Sub"})
_FINEST_ADDEND = 1.001 * 2**-10  # of the sum's scale
_CLAMPS: Mapping[Activation, Opcode] = {Activation.RELU: opcodes.RELU, Activation.RELU6: opcodes.RELU6}
_SOFTMAX_AXES = 4  # kernels take no more
_SYMMETRIC = QuantParams.of(1 / 128, 0, INT8)  # -1 … 127/128


# ── two operands ────────────────────────────────────────────────────────────────────────────────────────────────────


def binary(opcode: Opcode, kind: str, *, has_int8: bool = True) -> Builder:
    """Return the builder of an operator with two operands, either of which may be a constant."""

    def build(draft: Draft, node: Node) -> Stored:
        computed = [draft.value(node, index) for index in (0, 1) if not draft.is_constant(node, index)]
        if not computed:
            raise UnsupportedOpError("both operands are constants", where=node.where, remedy="fold them when exporting")
        goal = draft.goal(node) if has_int8 and _all_int8(draft, node, computed) else None
        shape = draft.shape(node)
        if any(x.shape.rank != shape.rank for x in computed):
            raise UnsupportedOpError(
                f"operands with {', '.join(str(x.shape.rank) for x in computed)} axes give {shape.rank}",
                where=node.where,
                remedy="unsqueeze the smaller one, so that both have the same number of axes",
            )
        axes = max(computed, key=lambda x: np.prod(x.dims)).axes
        if len([axis for axis in axes if axis is not None]) != shape.rank:
            axes = layout.plain(shape.rank)  # an axis that is not stored may grow by broadcasting
        finest = _FINEST_ADDEND * goal.scale if goal is not None and kind in _SUMS else 0.0
        inputs = [_operand(draft, node, index, axes, as_int8=goal is not None, finest=finest) for index in (0, 1)]
        return draft.op(opcode, inputs, draft.result(node, axes, goal), options(kind, node.activation))

    return build


def _all_int8(draft: Draft, node: Node, computed: list[Stored]) -> bool:
    constants = [draft.constant_of(node, index) for index in (0, 1) if draft.is_constant(node, index)]
    return all(x.params is not None for x in computed) and all(each.tensor_params is not None for each in constants)


def _operand(draft: Draft, node: Node, index: int, axes: layout.Axes, *, as_int8: bool, finest: float) -> Stored | int:
    """Return an operand; ``finest``: the smallest scale, as XNNPACK refuses what is much finer than the sum."""
    if draft.is_constant(node, index):
        rank = len([axis for axis in axes if axis is not None])
        constant = _not_finer(draft.constant_of(node, index), finest)
        return constant_operand(draft, constant, rank, axes, as_int8=as_int8)
    x = draft.value(node, index)
    if x.params is not None and x.params.scale < finest:
        x = draft.as_int8(x, replace(x.params, scales=(finest,)))
    return draft.in_axes(x if as_int8 else draft.as_float(x), axes)


def _not_finer(constant: Constant, finest: float) -> Constant:
    params = constant.tensor_params
    if params is None or params.scale >= finest:
        return constant
    coarser = replace(params, scales=(finest,))
    steps = np.rint(constant.real() / finest) + params.zero_point
    return Constant(values=np.clip(steps, *INT8).astype(np.int8), params=coarser)


def constant_operand(draft: Draft, constant: Constant, rank: int, axes: layout.Axes, *, as_int8: bool) -> int:
    """Store a constant that broadcasts against a value of this rank, in this order of axes."""
    params = constant.tensor_params if as_int8 else None
    values = constant.values if params is not None else constant.real().astype(np.float32)
    arranged = layout.arranged(values, rank, axes)
    while arranged.ndim > 1 and arranged.shape[0] == 1:
        arranged = arranged[0]
    return draft.constant(arranged, params)


# ── one operand ─────────────────────────────────────────────────────────────────────────────────────────────────────


def unary(opcode: Opcode, kind: str | None = None, *, fixed: QuantParams | None = None) -> Builder:
    """Return the builder of a function of one value; ``fixed``: the only parameters that its int8 kernel gives."""

    def build(draft: Draft, node: Node) -> Stored:
        x, goal = _int8_or_float(draft, node)
        params = goal if fixed is None or goal is None else fixed
        return draft.op(opcode, [x], draft.result(node, x.axes, params), options(kind) if kind else None)

    return build


sigmoid = unary(opcodes.LOGISTIC, fixed=_HALF_OPEN)
tanh = unary(opcodes.TANH, fixed=_SYMMETRIC)


def softmax(draft: Draft, node: Node) -> Stored:
    """Softmax over one axis, which TFLite wants last."""
    x, goal = _int8_or_float(draft, node)
    axis = node.integer("axis", -1) % x.shape.rank
    if x.axes[-1] != axis:
        x = draft.in_axes(x, (*(each for each in range(x.shape.rank) if each != axis), axis))
    params = None if goal is None else _HALF_OPEN
    if len(x.axes) <= _SOFTMAX_AXES:
        return draft.op(opcodes.SOFTMAX, [x], draft.result(node, x.axes, params), options("Softmax", beta=1.0))
    side = x.shape.dims[axis]
    rows = Shape(dims=(int(np.prod(x.dims)) // side, side), batch=0)
    flat = draft.reshape(x, draft.new(f"{node.name}:rows", rows, layout.plain(2), x.params))
    soft = draft.new(f"{node.name}:softmax", rows, layout.plain(2), params)
    draft.op(opcodes.SOFTMAX, [flat], soft, options("Softmax", beta=1.0))
    return draft.reshape(soft, draft.result(node, x.axes, params))


def leaky_relu(draft: Draft, node: Node) -> Stored:
    """LeakyRelu."""
    x, goal = _int8_or_float(draft, node)
    table = options("LeakyRelu", alpha=node.number("alpha", 0.01))
    return draft.op(opcodes.LEAKY_RELU, [x], draft.result(node, x.axes, goal), table)


def prelu(draft: Draft, node: Node) -> Stored:
    """PRelu, in float."""
    x = draft.as_float(draft.value(node))
    slopes = constant_operand(draft, draft.constant_of(node, 1), x.shape.rank, x.axes, as_int8=False)
    return draft.op(opcodes.PRELU, [x, slopes], draft.result(node, x.axes, None))


def hard_swish(draft: Draft, node: Node) -> Stored:
    """HardSwish, in float: the int8 kernels of the runtimes differ."""
    x = draft.as_float(draft.value(node))
    return draft.op(opcodes.HARD_SWISH, [x], draft.result(node, x.axes, None), options("HardSwish"))


def hard_sigmoid(draft: Draft, node: Node) -> Stored:
    """max(0, min(1, alpha * x + beta)) as relu6(6 * alpha * x + 6 * beta) / 6, in float."""
    x = draft.as_float(draft.value(node))
    slope, offset = 6 * node.number("alpha", 0.2), 6 * node.number("beta", 0.5)
    if not np.isclose(slope, 1.0, rtol=1e-6):  # torch's is 1, but for rounding
        sloped = draft.like(x, f"{node.name}:sloped", None)
        x = draft.op(opcodes.MUL, [x, _scalar(draft, slope, None)], sloped, options("Mul"))
    clamped = draft.like(x, f"{node.name}:clamped", None)
    x = draft.op(opcodes.ADD, [x, _scalar(draft, offset, None)], clamped, options("Add", Activation.RELU6))
    return draft.op(opcodes.MUL, [x, _scalar(draft, 1 / 6, None)], draft.result(node, x.axes, None), options("Mul"))


def clip(draft: Draft, node: Node) -> Stored:
    """Relu and Clip that no layer took in."""
    low, high = clip_bounds(node, draft.graph.constants)
    x, goal = draft.value(node), draft.goal(node)
    if x.params is not None and goal is None and (low, high) == (0.0, np.inf):
        goal = x.params  # zero is on every grid
    if x.params is None or goal is None:
        x, goal = draft.as_float(x), None
    activation = ACTIVATION_OF_BOUNDS.get((low, high), Activation.NONE)
    if activation in _CLAMPS:
        if goal is not None:  # LiteRT's delegate takes no RELU on int8, but MUL with one inside
            return draft.times_one(x, draft.result(node, x.axes, goal), activation)
        return draft.op(_CLAMPS[activation], [x], draft.result(node, x.axes, None))
    return _between(draft, node, x if goal is None else draft.as_int8(x, goal), low, high)


def _between(draft: Draft, node: Node, x: Stored, low: float, high: float) -> Stored:
    """MAXIMUM and MINIMUM; bounds outside an int8 value's range do nothing and are left out."""
    lowest, highest = -np.inf, np.inf
    if x.params is not None:
        lowest, highest = x.params.lowest, x.params.highest
    bounds = ((opcodes.MAXIMUM, low, low > lowest), (opcodes.MINIMUM, high, high < highest))
    for opcode, bound, matters in bounds:
        if matters:
            limited = draft.like(x, node.name, x.params)
            x = draft.op(opcode, [x, _scalar(draft, bound, x.params)], limited, options("MaximumMinimum"))
    return x


def batch_normalization(draft: Draft, node: Node) -> Stored:
    """(x - mean) / sqrt(variance + epsilon) * scale + shift as MUL and ADD, in float."""
    x = draft.as_float(draft.value(node))
    scale, shift, mean, variance = (draft.constant_of(node, index).real() for index in range(1, 5))
    factor = scale / np.sqrt(variance + node.number("epsilon", 1e-5))
    multiply, add = (_per_channel(draft, x, each) for each in (factor, shift - mean * factor))
    scaled = draft.op(opcodes.MUL, [x, multiply], draft.like(x, f"{node.name}:scaled", None), options("Mul"))
    return draft.op(opcodes.ADD, [scaled, add], draft.result(node, x.axes, None), options("Add", node.activation))


def _per_channel(draft: Draft, x: Stored, values: NDArray[np.float64]) -> int:
    constant = Constant(values=values.reshape(-1, *(1,) * (x.shape.rank - 2)))  # (C, 1, …)
    return constant_operand(draft, constant, x.shape.rank, x.axes, as_int8=False)


def _int8_or_float(draft: Draft, node: Node) -> tuple[Stored, QuantParams | None]:
    x, goal = draft.value(node), draft.goal(node)
    return (x, goal) if x.params is not None and goal is not None else (draft.as_float(x), None)


def _scalar(draft: Draft, value: float, params: QuantParams | None) -> int:
    if params is None:
        return draft.constant(np.array([value], np.float32))
    return draft.constant(np.array([params.quantize(value)], np.int8), params)
