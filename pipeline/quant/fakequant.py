"""Fake-quantization: quantizers for activations, convolutions and linear layers that train with rounding.

Values are rounded to the grid and gradients pass as if they were not, with ranges from a moving average (EMA) or
learned step sizes (LSQ).  Weights, biases and scales are rounded and bounded exactly as in the files (see ``scheme``).

Shapes: N batch, C channels, O output channels, K products per output value; weights (O, …).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from pipeline.graph.ops import Projection
from pipeline.graph.params import INT32, Grid, QuantParams, symmetric
from pipeline.quant.rounding import round_straight_through, round_with_step_gradient
from pipeline.quant.scheme import ACCUMULATOR_LIMIT, ACTIVATIONS, SMALLEST_OF_LAYER, SMALLEST_SCALE

_EMA_MOMENTUM = 0.05
_AS_SETTLED = 1e-5  # relative: float32 knows the logarithm of a scale no better


class ActivationQuantizer(nn.Module):
    """uint8 per tensor.  ``observe``: follow the range while training; ``enabled``: round at all."""

    low: Tensor
    high: Tensor
    smallest_scale: Tensor
    settled: Tensor

    def __init__(self, fixed: QuantParams | None = None) -> None:
        super().__init__()
        self.fixed = fixed
        self.enabled = True
        self.pinned = False
        self.observe = fixed is None
        self.tap: Callable[[Tensor], None] | None = None  # sees the values before they are rounded (calibration)
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))
        self.register_buffer("smallest_scale", torch.full((), SMALLEST_SCALE))  # see ``calibrate.bound_scales``
        self.register_buffer("settled", torch.zeros(()))  # the scale to the last bit; 0: as the range gives it
        self.log_scale: nn.Parameter | None = None  # LSQ only

    def set_range(self, low: float, high: float) -> None:
        """Set the range by hand: the result of calibration."""
        self.low.fill_(min(low, 0.0))
        self.high.fill_(max(high, 0.0))

    def pin(self, params: QuantParams) -> None:
        """Lay the grid where it is known to be; training does not move it."""
        self.set_range(params.lowest, params.highest)
        self.observe, self.pinned = False, True

    @torch.no_grad()
    def settle(self, scale: float) -> None:
        """Take exactly this scale, which is near the present one, in evaluation until training moves the range."""
        own = float(self._own_scale())
        factor = scale / own
        if own == float(self.smallest_scale):
            self.smallest_scale.fill_(scale)
        self.low.mul_(factor)
        self.high.mul_(factor)
        if self.log_scale is not None:
            self.log_scale.add_(math.log(factor))
        self.settled.fill_(scale)

    def learn_step_size(self) -> None:
        """Go over to LSQ, starting from the present range."""
        if self.fixed is None and not self.pinned:
            self.log_scale = nn.Parameter(self.scale_and_zero_point()[0].log())
            self.observe = False

    def scale_and_zero_point(self) -> tuple[Tensor, Tensor]:
        """Return both as float32 scalars where the quantizer lies, the scale with its gradient."""
        if self.fixed is not None:
            return self.low.new_tensor(self.fixed.scale), self.low.new_tensor(float(self.fixed.zero_point))
        zero_point = (ACTIVATIONS.lowest - self.low / self._scale_of_range()).round().clamp(*ACTIVATIONS)
        scale = self._own_scale()
        return scale if self.training else self._as_settled(scale), zero_point

    def _as_settled(self, scale: Tensor) -> Tensor:
        return torch.where((scale - self.settled).abs() <= _AS_SETTLED * scale, self.settled, scale)

    def _scale_of_range(self) -> Tensor:
        return torch.maximum((self.high - self.low) / ACTIVATIONS.steps, self.smallest_scale)

    def _own_scale(self) -> Tensor:
        if self.log_scale is None:
            return self._scale_of_range()
        return torch.maximum(self.log_scale.exp(), self.smallest_scale)

    @property
    def params(self) -> QuantParams:
        """Return scale and zero point as the files hold them."""
        scale, zero_point = self.scale_and_zero_point()
        return QuantParams.of(float(self._as_settled(scale.detach())), int(zero_point), ACTIVATIONS)

    def forward(self, x: Tensor) -> Tensor:
        """Round x to the grid; any shape."""
        if self.tap is not None:
            self.tap(x)
        if self.training and self.observe:
            self._follow(x)
        if not self.enabled:
            return x
        scale, zero_point = self.scale_and_zero_point()
        if self.log_scale is not None:
            return round_with_step_gradient(x, scale, zero_point, ACTIVATIONS)
        return round_straight_through(x, scale, zero_point, ACTIVATIONS)

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

    @property
    def params(self) -> QuantParams:
        """Return the leader's scale and zero point as the files hold them."""
        return self.leader.params

    def forward(self, x: Tensor) -> Tensor:
        """Round x to the leader's grid."""
        if not self.leader.enabled:
            return x
        scale, zero_point = self.leader.scale_and_zero_point()
        return round_straight_through(x, scale.detach(), zero_point, ACTIVATIONS)


@dataclass(frozen=True, kw_only=True)
class IntegerWeights:
    """What the files hold of one layer: weights (O, …) int8, and biases (O,) int32 of scale s_x * s_w."""

    weight: Tensor
    weight_params: QuantParams
    bias: Tensor | None
    bias_params: QuantParams | None


class _QuantizedWeights:
    """Shared by the weighted layers below: scales per channel, rounding, integers."""

    weight: Tensor
    grid: Grid
    enabled: bool
    log_weight_scale: nn.Parameter | None
    _input: tuple[ActivationQuantizer, ...]

    def quantize_to(self, bits: int) -> None:
        """Begin to fake-quantize to so many bits."""
        self.grid = symmetric(bits)
        self.enabled = True
        self.log_weight_scale = None
        self._input = ()

    def read_from(self, quantizer: ActivationQuantizer) -> None:
        """Say on whose grid the layer's input lies."""
        self._input = (quantizer,)  # in a tuple, so that its tensors are not registered twice

    @property
    def _bias(self) -> Tensor | None:
        bias: Tensor | None = self.bias  # type: ignore[attr-defined]  # the layer's own
        return bias

    @property
    def input_quantizer(self) -> ActivationQuantizer:
        """Return the quantizer on whose grid the layer's input lies."""
        (quantizer,) = self._input
        return quantizer

    def learn_step_size(self) -> None:
        """Go over to LSQ, starting from the present scales."""
        self.log_weight_scale = nn.Parameter(self.weight_scale().log())

    def weight_scale(self) -> Tensor:
        """Return the scale of every output channel, (O,): never so small that a bias or a sum leaves int32."""
        return self._scale(self._input_scale())

    def _input_scale(self) -> Tensor:
        return self.input_quantizer.scale_and_zero_point()[0].detach()

    def _scale(self, input_scale: Tensor) -> Tensor:
        magnitudes = self.weight.detach().flatten(1).abs()  # (O, K)
        own = magnitudes.amax(1) / self.grid.highest if self.log_weight_scale is None else self.log_weight_scale.exp()
        return torch.maximum(own, self._smallest_scale(magnitudes, input_scale))

    def _smallest_scale(self, magnitudes: Tensor, input_scale: Tensor) -> Tensor:
        needed = self._reach(magnitudes, input_scale) / ACCUMULATOR_LIMIT
        largest = needed.amax()
        of_layer = torch.where(largest > 0, largest * SMALLEST_OF_LAYER, 1 / self.grid.highest)  # all zero: any will do
        return torch.maximum(needed, of_layer).clamp(min=SMALLEST_SCALE)

    def _reach(self, magnitudes: Tensor, input_scale: Tensor) -> Tensor:
        """Return what no sum of an output channel exceeds, (O,), in units of the input's scale."""
        reach = ACTIVATIONS.steps * magnitudes.sum(1)
        return reach if self._bias is None else reach + self._bias.detach().abs() / input_scale

    def reach(self) -> float:
        """Return what no sum of the layer exceeds, whatever it reads."""
        scale = self._input_scale()
        return float(self._reach(self.weight.detach().flatten(1).abs(), scale).max() * scale)

    def fake_parameters(self) -> tuple[Tensor, Tensor | None]:
        """Return weights and biases rounded to their grids."""
        if not self.enabled:
            return self.weight, self._bias
        input_scale = self._input_scale()
        scale = self._scale(input_scale)
        if self.log_weight_scale is not None:
            shape = (-1,) + (1,) * (self.weight.dim() - 1)
            zero = torch.zeros((), device=scale.device)
            weight = round_with_step_gradient(self.weight, scale.view(shape), zero, self.grid)
        else:
            zeros = torch.zeros_like(scale, dtype=torch.int32)
            weight = torch.fake_quantize_per_channel_affine(self.weight, scale, zeros, 0, *self.grid)
        return weight, self._fake_bias(scale.detach() * input_scale)

    def _fake_bias(self, scale: Tensor) -> Tensor | None:
        if self._bias is None:
            return None
        bias = self._bias.detach()
        return self._bias + ((bias / scale).round() * scale - bias)  # straight through

    @torch.no_grad()
    def freeze(self) -> IntegerWeights:
        """Return the integers of the layer."""
        input_scale = self._input_scale()
        scale = self._scale(input_scale)
        shape = (-1,) + (1,) * (self.weight.dim() - 1)
        weight = (self.weight / scale.view(shape)).round().clamp(*self.grid).to(torch.int8)
        params = _per_channel(scale, self.grid)
        if self._bias is None:
            return IntegerWeights(weight=weight, weight_params=params, bias=None, bias_params=None)
        bias_scale = scale * input_scale
        bias = (self._bias.double() / bias_scale.double()).round().clamp(*INT32).to(torch.int32)
        return IntegerWeights(
            weight=weight, weight_params=params, bias=bias, bias_params=_per_channel(bias_scale, INT32)
        )


def _per_channel(scale: Tensor, grid: Grid) -> QuantParams:
    return QuantParams(scales=tuple(scale.tolist()), zero_points=(0,) * len(scale), grid=grid)


class QConv2d(_QuantizedWeights, nn.Conv2d):
    """Conv2d with fake-quantized weights."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (torch's own name)
        """(N, C, H, W) → (N, O, H', W')."""
        result: Tensor = self._conv_forward(input, *self.fake_parameters())
        return result


class QConv1d(_QuantizedWeights, nn.Conv1d):
    """Conv1d with fake-quantized weights."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """(N, C, L) → (N, O, L')."""
        result: Tensor = self._conv_forward(input, *self.fake_parameters())
        return result


class QConv3d(_QuantizedWeights, nn.Conv3d):
    """Conv3d with fake-quantized weights."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """(N, C, D, H, W) → (N, O, D', H', W')."""
        result: Tensor = self._conv_forward(input, *self.fake_parameters())
        return result


class QLinear(_QuantizedWeights, nn.Linear):
    """Linear with fake-quantized weights."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """(N, …, C) → (N, …, O)."""
        return F.linear(input, *self.fake_parameters())


class QProjection(QLinear, Projection):
    """Projection with fake-quantized weights."""


QWeighted = QConv3d | QConv2d | QConv1d | QLinear
QUANTIZED_CLASS: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv3d: QConv3d,
    nn.Conv2d: QConv2d,
    nn.Conv1d: QConv1d,
    nn.Linear: QLinear,
    Projection: QProjection,
}
