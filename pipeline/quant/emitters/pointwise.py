"""Functions of each element by itself, and arithmetic."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from torch import fx, nn

from pipeline.graph import ops
from pipeline.graph.params import QuantParams
from pipeline.quant.constants import QScale
from pipeline.quant.emitters.draft import Draft, Emitter, array_of, inputs_of, plain
from pipeline.quant.grids import input_quantizer
from pipeline.quant.leaky import QLeakyReLU
from pipeline.quant.spelled import Gate


def _clip(out: Draft, node: fx.Node, layer: nn.Module) -> str:
    assert isinstance(layer, nn.Hardtanh)  # noqa: S101  (ReLU6 is one)
    label = node.meta["label"]
    low = out.constant(f"{label}.low", np.array(layer.min_val, np.float32))
    high = out.constant(f"{label}.high", np.array(layer.max_val, np.float32))
    return out.op("Clip", (*inputs_of(out, node), low, high), label)


def _leaky_relu(out: Draft, node: fx.Node, layer: nn.Module) -> str:
    slope = layer.slope if isinstance(layer, QLeakyReLU) else layer.negative_slope
    return out.op("LeakyRelu", inputs_of(out, node), node.meta["label"], alpha=slope)


def _hard_sigmoid(out: Draft, node: fx.Node, layer: nn.Module) -> str:
    shift = 0.0
    if isinstance(layer, Gate):
        scale = input_quantizer(node).params.scale
        if layer.is_sum(scale):
            return _gate(out, node, layer.addend(scale))
        shift = Gate.shift
    return out.op("HardSigmoid", inputs_of(out, node), node.meta["label"], alpha=1 / 6, beta=0.5 + shift / 6)


def _gate(out: Draft, node: fx.Node, addend: QuantParams) -> str:
    """Add a constant, let the quantizer clamp the sum to 0 ... 6, and read its integers as 0 ... 1."""
    label = node.meta["label"]
    shift = out.dequantized(f"{label}.shift", np.array([Gate.constant], np.uint8), addend)
    total = out.op("Add", (*inputs_of(out, node), shift), label)
    return out.quantize(total, label, Gate.summed, read_as=Gate.params)


def _scale(out: Draft, node: fx.Node, layer: nn.Module) -> str:
    assert isinstance(layer, ops.Scale)  # noqa: S101
    label, value = node.meta["label"], inputs_of(out, node)[0]
    if isinstance(layer, QScale):
        kind, name = ("Mul", "factor") if layer.has_factor else ("Add", "offset")
        constant = out.dequantized(f"{label}.{name}", array_of(layer.integers()), layer.params)
        return out.op(kind, (value, constant), label)
    factor, offset = array_of(layer.factor), array_of(layer.offset)
    scales, shifts = bool(np.any(factor != 1)), bool(np.any(offset != 0))
    if scales or not shifts:
        name = f"{label}:scaled" if shifts else label
        value = out.op("Mul", (value, out.constant(f"{label}.factor", factor)), name)
    return out.op("Add", (value, out.constant(f"{label}.offset", offset)), label) if shifts else value


def _gelu(out: Draft, node: fx.Node, layer: nn.Module) -> str:
    """X / 2 * (1 + erf(x / sqrt 2)), or with the hyperbolic tangent that approximates it."""
    assert isinstance(layer, nn.GELU)  # noqa: S101
    label, x = node.meta["label"], inputs_of(out, node)[0]

    def number(name: str, value: float) -> str:
        return out.constant(f"{label}.{name}", np.array(value, np.float32))

    if layer.approximate == "none":
        inner = out.op("Erf", (out.op("Div", (x, number("root", math.sqrt(2))), f"{label}:narrow"),), f"{label}:erf")
    else:
        squared = out.op("Mul", (x, x), f"{label}:squared")
        cubed = out.op("Mul", (squared, number("cubic", 0.044715)), f"{label}:cubic")
        slope = out.op("Add", (cubed, number("one", 1.0)), f"{label}:slope")
        bent = out.op("Mul", (x, slope), f"{label}:bent")
        narrow = out.op("Mul", (bent, number("root", math.sqrt(2 / math.pi))), f"{label}:narrow")
        inner = out.op("Tanh", (narrow,), f"{label}:tanh")
    raised = out.op("Add", (inner, number("shift", 1.0)), f"{label}:raised")
    weighted = out.op("Mul", (x, raised), f"{label}:weighted")
    return out.op("Mul", (weighted, number("half", 0.5)), label)


def _mish(out: Draft, node: fx.Node, _: nn.Module) -> str:
    label, x = node.meta["label"], inputs_of(out, node)[0]
    softened = out.op("Softplus", (x,), f"{label}:softplus")
    return out.op("Mul", (x, out.op("Tanh", (softened,), f"{label}:tanh")), label)


def _power(out: Draft, node: fx.Node, layer: nn.Module) -> str:
    assert isinstance(layer, ops.Power)  # noqa: S101
    label = node.meta["label"]
    exponent = out.constant(f"{label}.exponent", np.array(layer.exponent, np.float32))
    return out.op("Pow", (*inputs_of(out, node), exponent), label)


def _positive(out: Draft, node: fx.Node, _: nn.Module) -> str:
    """Enlarge whatever is above zero beyond one, then clip: no comparison, whose result would be no number."""
    label = node.meta["label"]
    huge, low, high = (
        out.constant(f"{label}.{name}", np.array(value, np.float32))
        for name, value in (("huge", np.finfo(np.float32).max), ("low", 0), ("high", 1))
    )
    return out.op("Clip", (out.op("Mul", (*inputs_of(out, node), huge), f"{label}:huge"), low, high), label)


def _elu(out: Draft, node: fx.Node, layer: nn.Module) -> str:
    return out.op("Elu", inputs_of(out, node), node.meta["label"], alpha=layer.alpha)


def _prelu(out: Draft, node: fx.Node, layer: nn.Module) -> str:
    assert isinstance(layer, nn.PReLU)  # noqa: S101
    label, rank = node.meta["label"], len(node.meta["shape"])
    slopes = array_of(layer.weight).reshape(-1, *(1,) * (rank - 2))  # (C, 1, …)
    return out.op("PRelu", (*inputs_of(out, node), out.constant(f"{label}.slopes", slopes)), label)


POINTWISE: Mapping[str, Emitter] = {
    **{name: plain(name) for name in ("Add", "Sub", "Mul", "Div", "MatMul")},
    **{name: plain(name) for name in ("Relu", "HardSwish", "Tanh", "Sigmoid", "Softplus")},
    **{name: plain(name) for name in ops.FUNCTIONS},
    "Pow": _power,
    "Positive": _positive,
    "Scale": _scale,
    "Clip": _clip,
    "LeakyRelu": _leaky_relu,
    "HardSigmoid": _hard_sigmoid,
    "Gelu": _gelu,
    "Mish": _mish,
    "Elu": _elu,
    "PRelu": _prelu,
}
