"""Fake-quantization with straight-through gradients: quantizers for activations, convolutions and linear layers.

While training, values are rounded to the grid and gradients pass as if they were not (straight-through estimator,
Bengio et al. 2013; Jacob et al. 2018), with ranges from a moving average (EMA) or learned step sizes (LSQ, Esser et
al. 2020).  A *frozen* network computes with the very integers that the exported files hold, in float32, where they are
exact up to 2^24; it is the reference that the runtimes are compared with.

Shapes: N batch, C channels, O output channels; weights (O, …).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from pipeline.quant.scheme import ACTIVATION_MAX, ACTIVATION_MIN, BIAS_LIMIT, SMALLEST_SCALE, QuantParams, weight_limit

_EMA_MOMENTUM = 0.05


class _Lsq(torch.autograd.Function):
    """Round to the grid with a gradient for the step size (Esser et al. 2020, equations 1-3)."""

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        x: Tensor,
        scale: Tensor,  # broadcasts against x
        zero_point: Tensor,
        limits: tuple[int, int],
    ) -> Tensor:
        low, high = limits
        steps = x / scale + zero_point
        rounded = steps.round().clamp(low, high)
        ctx.save_for_backward(steps, rounded, zero_point, scale)
        ctx.limits = limits  # type: ignore[attr-defined]
        return (rounded - zero_point) * scale

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        steps, rounded, zero_point, scale = ctx.saved_tensors  # type: ignore[attr-defined]
        low, high = ctx.limits  # type: ignore[attr-defined]
        inside = (steps >= low) & (steps <= high)
        slope = torch.where(inside, rounded - steps, rounded - zero_point)
        gradient_scale = (gradient * slope).sum_to_size(scale.shape)
        return gradient * inside, gradient_scale / (gradient.numel() / scale.numel() * high) ** 0.5, None, None


class _StraightThrough(torch.autograd.Function):
    """Round to the grid; the gradient passes where the rounded value is on it.

    The same as ``torch.fake_quantize_per_tensor_affine``, which keeps a mask and takes half as long again: here the
    clamp's own backward kernel finds the range from x, which the layer before keeps anyway.
    """

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx, x: Tensor, scale: float, lowest: float, highest: float
    ) -> Tensor:
        ctx.save_for_backward(x)
        ctx.passes = lowest - scale / 2, highest + scale / 2  # type: ignore[attr-defined]
        return x.clamp(lowest, highest).mul_(1 / scale).round_().mul_(scale)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (x,) = ctx.saved_tensors  # type: ignore[attr-defined]
        low, high = ctx.passes  # type: ignore[attr-defined]
        passed: Tensor = torch.ops.aten.hardtanh_backward(gradient, x, low, high)
        return passed, None, None, None


def _round_straight_through(x: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    step, zero = float(scale), float(zero_point)
    lowest, highest = (ACTIVATION_MIN - zero) * step, (ACTIVATION_MAX - zero) * step
    rounded: Tensor = _StraightThrough.apply(x, step, lowest, highest)  # type: ignore[no-untyped-call]
    return rounded


def _round_with_step_gradient(x: Tensor, scale: Tensor, zero_point: Tensor, limits: tuple[int, int]) -> Tensor:
    rounded: Tensor = _Lsq.apply(x, scale, zero_point, limits)  # type: ignore[no-untyped-call]
    return rounded


class ActivationQuantizer(nn.Module):
    """uint8 per tensor.  ``observe``: follow the range while training; ``enabled``: round at all."""

    low: Tensor
    high: Tensor

    def __init__(self, fixed: QuantParams | None = None) -> None:
        super().__init__()
        self.fixed = fixed
        self.enabled = True
        self.observe = fixed is None
        self.tap: Callable[[Tensor], None] | None = None  # sees the values before they are rounded (calibration)
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))
        self.log_scale: nn.Parameter | None = None  # LSQ only

    def set_range(self, low: float, high: float) -> None:
        """Set the range by hand: the result of calibration."""
        self.low.fill_(min(low, 0.0))
        self.high.fill_(max(high, 0.0))

    def learn_step_size(self) -> None:
        """Go over to LSQ, starting from the present range."""
        if self.fixed is None:
            self.log_scale = nn.Parameter(self.qparams()[0].log())
            self.observe = False

    def qparams(self) -> tuple[Tensor, Tensor]:
        """Return scale and zero point as float32 scalars."""
        if self.fixed is not None:
            return self.low.new_tensor(self.fixed.scale), self.low.new_tensor(float(self.fixed.zero_point))
        span = (self.high - self.low) / (ACTIVATION_MAX - ACTIVATION_MIN)
        scale = span.clamp(min=SMALLEST_SCALE)
        zero_point = (ACTIVATION_MIN - self.low / scale).round().clamp(ACTIVATION_MIN, ACTIVATION_MAX)
        return (scale if self.log_scale is None else self.log_scale.exp()), zero_point

    def forward(self, x: Tensor) -> Tensor:
        """Round x to the grid; any shape."""
        if self.tap is not None:
            self.tap(x)
        if self.training and self.observe:
            self._follow(x)
        if not self.enabled:
            return x
        scale, zero_point = self.qparams()
        if self.log_scale is not None:
            return _round_with_step_gradient(x, scale, zero_point, (ACTIVATION_MIN, ACTIVATION_MAX))
        return _round_straight_through(x, scale, zero_point)

    @torch.no_grad()
    def _follow(self, x: Tensor) -> None:
        if x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last):
            x = x.permute(0, 2, 3, 1)  # the order in memory; aminmax would copy it otherwise
        low, high = torch.aminmax(x)
        self.low.lerp_(low.clamp(max=0.0), _EMA_MOMENTUM)
        self.high.lerp_(high.clamp(min=0.0), _EMA_MOMENTUM)


class FollowingQuantizer(nn.Module):
    """Rounds to another quantizer's grid: after average pooling and bilinear resizing."""

    def __init__(self, leader: ActivationQuantizer) -> None:
        super().__init__()
        self._leader = (leader,)  # in a tuple, so that its tensors are not registered twice

    @property
    def leader(self) -> ActivationQuantizer:
        """The quantizer whose scale and zero point are used."""
        return self._leader[0]

    def forward(self, x: Tensor) -> Tensor:
        """Round x to the leader's grid."""
        if not self.leader.enabled:
            return x
        scale, zero_point = self.leader.qparams()
        return _round_straight_through(x, scale.detach(), zero_point)


@dataclass(frozen=True, kw_only=True)
class IntegerWeights:
    """What the files hold of one layer: int8 weights (O, …), scales (O,), int32 biases (O,) of scale s_x * s_w."""

    weight: Tensor
    weight_scale: Tensor
    bias: Tensor | None
    bias_scale: Tensor | None


class _QuantizedWeights:
    """Shared by the weighted layers below: per-channel scales, rounding, freezing."""

    weight: Tensor
    limit: int
    enabled: bool
    log_weight_scale: nn.Parameter | None

    def quantize_to(self, bits: int) -> None:
        """Begin to fake-quantize to so many bits."""
        self.limit = weight_limit(bits)
        self.enabled = True
        self.log_weight_scale = None

    def learn_step_size(self) -> None:
        """Go over to LSQ, starting from the present scales."""
        self.log_weight_scale = nn.Parameter(self.weight_scale().log())

    def weight_scale(self) -> Tensor:
        """Return the scale of every output channel, (O,)."""
        if self.log_weight_scale is not None:
            return self.log_weight_scale.exp()
        return self.weight.detach().flatten(1).abs().amax(1).clamp(min=SMALLEST_SCALE) / self.limit

    def fake_weight(self) -> Tensor:
        """Return the weights rounded to their grid."""
        if not self.enabled:
            return self.weight
        scale = self.weight_scale()
        if self.log_weight_scale is not None:
            shape = (-1,) + (1,) * (self.weight.dim() - 1)
            zero = torch.zeros((), device=scale.device)
            return _round_with_step_gradient(self.weight, scale.view(shape), zero, (-self.limit, self.limit))
        zeros = torch.zeros_like(scale, dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(self.weight, scale, zeros, 0, -self.limit, self.limit)

    @torch.no_grad()
    def freeze(self, input_scale: float) -> IntegerWeights:
        """Return the integers for an input of this scale."""
        scale = self.weight_scale()
        shape = (-1,) + (1,) * (self.weight.dim() - 1)
        weight = (self.weight / scale.view(shape)).round().clamp(-self.limit, self.limit).to(torch.int8)
        layer_bias: Tensor | None = self.bias  # type: ignore[attr-defined]
        if layer_bias is None:
            return IntegerWeights(weight=weight, weight_scale=scale, bias=None, bias_scale=None)
        bias_scale = scale * input_scale
        bias = (layer_bias.double() / bias_scale.double()).round().clamp(-BIAS_LIMIT - 1, BIAS_LIMIT).to(torch.int32)
        return IntegerWeights(weight=weight, weight_scale=scale, bias=bias, bias_scale=bias_scale)


class QConv2d(_QuantizedWeights, nn.Conv2d):
    """Conv2d with fake-quantized weights."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (torch's own name)
        """(N, C, H, W) → (N, O, H', W')."""
        result: Tensor = self._conv_forward(input, self.fake_weight(), self.bias)
        return result


class QConv1d(_QuantizedWeights, nn.Conv1d):
    """Conv1d with fake-quantized weights."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """(N, C, L) → (N, O, L')."""
        result: Tensor = self._conv_forward(input, self.fake_weight(), self.bias)
        return result


class QLinear(_QuantizedWeights, nn.Linear):
    """Linear with fake-quantized weights."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """(N, …, C) → (N, …, O)."""
        return F.linear(input, self.fake_weight(), self.bias)


QWeighted = QConv2d | QConv1d | QLinear
QUANTIZED_CLASS: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv2d: QConv2d,
    nn.Conv1d: QConv1d,
    nn.Linear: QLinear,
}


# ── frozen: the integers themselves ─────────────────────────────────────────────────────────────────────────────────


class FrozenQuantizer(nn.Module):
    """Rounds to a constant grid, half to even as the runtimes do."""

    def __init__(self, scale: float, zero_point: int) -> None:
        super().__init__()
        self.scale, self.zero_point = scale, zero_point

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        steps = (x / self.scale).round() + self.zero_point
        return (steps.clamp(ACTIVATION_MIN, ACTIVATION_MAX) - self.zero_point) * self.scale


class FrozenWeighted(nn.Module):
    """A weighted layer on integers: the accumulator is exact, then one multiplication by s_x * s_w."""

    def __init__(self, layer: QWeighted, input_scale: float) -> None:
        super().__init__()
        integers = layer.freeze(input_scale)
        self.layer = layer
        self.input_scale = input_scale
        self.weight = integers.weight.float()
        self.bias = None if integers.bias is None else integers.bias.float()
        shape = (1, -1) + (1,) * (self.weight.dim() - 2)
        self.scale = (integers.weight_scale * input_scale).view(shape)

    def forward(self, x: Tensor) -> Tensor:
        """As the layer it stands for."""
        steps = (x / self.input_scale).round()
        if isinstance(self.layer, nn.Linear):
            return F.linear(steps, self.weight, self.bias) * self.scale
        accumulator: Tensor = self.layer._conv_forward(steps, self.weight, self.bias)
        return accumulator * self.scale


class FrozenPool(nn.Module):
    """An averaging operation on integers, so that sums are exact and ties stay ties; rounded to its input's grid."""

    def __init__(self, pool: nn.Module, scale: float, *, round_result: bool) -> None:
        super().__init__()
        self.pool, self.scale, self.round_result = pool, scale, round_result

    def forward(self, x: Tensor) -> Tensor:
        """As the pooling it stands for."""
        mean: Tensor = self.pool((x / self.scale).round())
        return (mean.round() if self.round_result else mean) * self.scale
