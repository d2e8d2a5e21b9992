"""Functions of each element by itself, and arithmetic."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial, reduce

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from pipeline.networks.onnx.nodes import Array, Handler, Node
from pipeline.networks.onnx.values import Refusal, Value

_SELU = 1.67326319217681884765625, 1.05070102214813232421875
_ELU: Callable[..., Tensor] = F.elu
_OWN_POWERS = frozenset({-1.0, -0.5, 0.5, 2.0, 3.0})  # that flat graphs know
_MOST_FACTORS, _MOST_POWERS = 8, 8
_HIDDEN = 1e9  # stands for infinity where a mask is written with it


def _each(make: Callable[[Node], nn.Module | Callable[[Tensor], Tensor]]) -> Handler:
    return lambda node: node.run(make(node), node.value())


def _function(function: Callable[[Tensor], Tensor]) -> Handler:
    return _each(lambda _: function)


def _alpha(node: Node, default: float) -> float:
    return float(node.attribute("alpha", default))


def _clip(node: Node) -> Value:
    if node.opset < 11:
        low, high = float(node.attribute("min", -math.inf)), float(node.attribute("max", math.inf))
    else:
        low, high = node.number(1, -math.inf), node.number(2, math.inf)
    return node.run(_bounded(low, high), node.value())


def _bounded(low: float, high: float) -> nn.Module | Callable[[Tensor], Tensor]:
    if (low, high) == (0.0, math.inf):
        return nn.ReLU()
    if (low, high) == (0.0, 6.0):
        return nn.ReLU6()
    if low >= high:
        return lambda x: x * 0.0 + high
    if not math.isinf(low) and not math.isinf(high):
        return nn.Hardtanh(low, high)
    return lambda x: x.clamp(low, high)


def _hard_sigmoid(node: Node) -> nn.Module | Callable[[Tensor], Tensor]:
    alpha, beta = float(node.attribute("alpha", 0.2)), float(node.attribute("beta", 0.5))
    if math.isclose(alpha, 1 / 6, rel_tol=1e-6) and beta == 0.5:
        return nn.Hardsigmoid()
    return lambda x: (x * alpha + beta).clamp(0.0, 1.0)


def _elu(node: Node) -> nn.Module:
    return nn.ELU(_alpha(node, 1.0))


def _celu(node: Node) -> Callable[[Tensor], Tensor]:
    alpha = _alpha(node, 1.0)
    return lambda x: _ELU(x / alpha) * alpha


def _selu(node: Node) -> Callable[[Tensor], Tensor]:
    alpha, gamma = float(node.attribute("alpha", _SELU[0])), float(node.attribute("gamma", _SELU[1]))
    return lambda x: _ELU(x, alpha) * gamma


def _shrink(node: Node) -> Callable[[Tensor], Tensor]:
    bias, limit = float(node.attribute("bias", 0.0)), float(node.attribute("lambd", 0.5))
    if bias != limit:
        raise Refusal("jumps at its threshold")
    return lambda x: torch.relu(x - limit) - torch.relu(-x - limit)


def _gelu(node: Node) -> nn.Module:
    return nn.GELU(approximate=node.attribute("approximate", "none"))


def _swish(node: Node) -> Callable[[Tensor], Tensor]:
    alpha = _alpha(node, 1.0)
    return lambda x: x * torch.sigmoid(x * alpha)


def softmax(node: Node) -> Value:
    """Softmax or its logarithm; before opset 13 over all axes from one on."""
    x = node.value()
    rank = len(x.shape)
    axis = node.attribute("axis", -1 if node.opset >= 13 else 1)
    logarithm = node.op == "LogSoftmax"
    place = node.axis(axis, rank)
    beyond = math.prod(x.shape[axis % rank + 1 :])
    if node.opset >= 13 or beyond == 1:
        return node.run(_soft(place, logarithm=logarithm), x)
    shape = x.shape[axis % rank :]
    return node.run(lambda y: _soft(place, logarithm=logarithm)(y.flatten(place)).unflatten(place, shape), x)


def _soft(axis: int, *, logarithm: bool) -> nn.Module:
    return nn.LogSoftmax(dim=axis) if logarithm else nn.Softmax(dim=axis)


def _identity(node: Node) -> Value:
    if node.op == "Dropout" and any(node.wanted[1:]):
        raise Refusal("has a mask that is used")
    if node.op == "Dropout" and node.number(2, 0.0) and node.number(1, 0.5):
        raise Refusal("is in training mode")
    return node.value()


def _cast(node: Node) -> Value:
    kind = node.attribute("to")
    if kind not in (1, 10, 11, 16):  # float, float16, double, bfloat16: all are float here
        raise Refusal("makes whole numbers of computed ones")
    return node.value()


# ── arithmetic ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _two(function: Callable[..., Tensor]) -> Handler:
    def convert(node: Node) -> Value:
        a, b = node.inputs[:2]
        if a is None or b is None:
            raise Refusal("lacks an input")
        return node.broadcast(function, a, b)

    return convert


def _pow(node: Node) -> Value:
    base, exponent = node.inputs[:2]
    if not isinstance(base, Value) or exponent is None:
        raise Refusal("raises a constant to a computed power")
    if isinstance(exponent, Value):
        raise Refusal("raises to a computed power")
    powers = np.unique(exponent.astype(np.float64))
    if len(powers) == 1 and exponent.ndim <= len(base.shape):
        return base if powers[0] == 1 else node.run(partial(_raised, power=float(powers[0])), base)
    if (powers != powers.round()).any():  # no number where the base is negative, here as there
        logarithm = node.run(torch.log, base, part="log")
        return node.run(torch.exp, node.broadcast(torch.mul, logarithm, exponent, part="mul"))
    if len(powers) > _MOST_POWERS or powers[0] < 0:
        raise Refusal("has too many different exponents" if powers[0] >= 0 else "has negative exponents among others")
    shares = [
        node.broadcast(partial(_share, power=float(power)), base, (exponent == power).astype(np.float32), part="power")
        for power in powers
    ]
    return reduce(lambda total, each: node.broadcast(torch.add, total, each), shares)


def _share(base: Tensor, chosen: Tensor, *, power: float) -> Tensor:
    """Raise where this power is asked for; elsewhere 0."""
    return chosen + 0 * base if power == 0 else _raised(base, power=power) * chosen


def _raised(base: Tensor, *, power: float) -> Tensor:
    if power == int(power) and 3 < abs(power) <= _MOST_FACTORS:
        product = reduce(torch.mul, [base] * int(abs(power)))
        return product if power > 0 else 1 / product
    if power in _OWN_POWERS:
        return torch.pow(base, int(power) if power == int(power) else power)
    return torch.exp(torch.log(base) * power)  # no number where the base is negative, here as there


def _many(join: Callable[[Node, Value, Value | Array], Value]) -> Handler:
    return lambda node: _joined(node, join)


def _joined(node: Node, join: Callable[[Node, Value, Value | Array], Value]) -> Value:
    """Join all inputs, the computed ones first."""
    given = [each for each in node.inputs if each is not None]
    first, *rest = [each for each in given if isinstance(each, Value)]
    for each in rest:
        first = join(node, first, each)
    for constant in given:
        if not isinstance(constant, Value):
            first = join(node, first, constant)
    return first


def _greater(node: Node, a: Value, b: Value | Array) -> Value:
    if not isinstance(b, Value) and b.size == 1 and b.ndim <= len(a.shape):
        return node.run(lambda x: x.clamp(min=float(b.ravel()[0])), a)
    return node.broadcast(lambda x, y: torch.relu(x - y) + y, a, b)


def _smaller(node: Node, a: Value, b: Value | Array) -> Value:
    if not isinstance(b, Value) and b.size == 1 and b.ndim <= len(a.shape):
        return node.run(lambda x: x.clamp(max=float(b.ravel()[0])), a)
    return node.broadcast(lambda x, y: y - torch.relu(y - x), a, b)


def _mean(node: Node) -> Value:
    total = _joined(node, lambda each, a, b: each.broadcast(torch.add, a, b))
    return node.broadcast(torch.mul, total, 1 / sum(each is not None for each in node.inputs), part="share")


def _where(node: Node) -> Value:
    """Let constant masks choose by arithmetic."""
    mask = node.needed(0).astype(np.float32)
    parts: list[Value | Array | None] = []
    for place, chosen in ((1, mask), (2, 1 - mask)):
        part = node.inputs[place]
        if isinstance(part, Value):
            parts.append(node.broadcast(torch.mul, part, chosen, part="mask"))
        else:
            parts.append(np.clip(node.needed(place).astype(np.float32), -_HIDDEN, _HIDDEN) * chosen)
    a, b = parts
    if a is None or b is None:
        raise Refusal("lacks an input")
    return node.broadcast(torch.add, a, b)


POINTWISE: Mapping[str, Handler] = {
    "Relu": _each(lambda _: nn.ReLU()),
    "Clip": _clip,
    "LeakyRelu": _each(lambda node: nn.LeakyReLU(_alpha(node, 0.01))),
    "Elu": _each(_elu),
    "Celu": _each(_celu),
    "Selu": _each(_selu),
    "Shrink": _each(_shrink),
    "Sigmoid": _each(lambda _: nn.Sigmoid()),
    "HardSigmoid": _each(_hard_sigmoid),
    "HardSwish": _each(lambda _: nn.Hardswish()),
    "Gelu": _each(_gelu),
    "Mish": _each(lambda _: nn.Mish()),
    "Swish": _each(_swish),
    "Softplus": _each(lambda _: nn.Softplus()),
    "Softsign": _function(lambda x: x / (x.abs() + 1.0)),
    "Tanh": _each(lambda _: nn.Tanh()),
    "Softmax": softmax,
    "LogSoftmax": softmax,
    "Abs": _function(torch.abs),
    "Cos": _function(torch.cos),
    "Erf": _function(torch.erf),
    "Exp": _function(torch.exp),
    "Log": _function(torch.log),
    "Neg": _function(torch.neg),
    "Reciprocal": _function(torch.reciprocal),
    "Sin": _function(torch.sin),
    "Sqrt": _function(torch.sqrt),
    "Cosh": _function(lambda x: (torch.exp(x) + torch.exp(-x)) * 0.5),
    "Sinh": _function(lambda x: (torch.exp(x) - torch.exp(-x)) * 0.5),
    "Identity": _identity,
    "Dropout": _identity,
    "Cast": _cast,
    "CastLike": _identity,
    "Add": _two(torch.add),
    "Sub": _two(torch.sub),
    "Mul": _two(torch.mul),
    "Div": _two(torch.div),
    "Pow": _pow,
    "Sum": _many(lambda node, a, b: node.broadcast(torch.add, a, b)),
    "Mean": _mean,
    "Max": _many(_greater),
    "Min": _many(_smaller),
    "Where": _where,
}
