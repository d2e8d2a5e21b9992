"""Constant factors and offsets, fake-quantized."""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.graph.ops import Scale
from pipeline.graph.params import QuantParams
from pipeline.quant.fakequant import ActivationQuantizer
from pipeline.quant.scheme import ACTIVATIONS, SANE_SCALE, SMALLEST_SCALE
from pipeline.quant.sums import exact_scale


class QScale(Scale):
    """A factor or an offset, rounded to 8 bits with one scale."""

    enabled = True
    _ends: tuple[ActivationQuantizer, ...] = ()

    def stand_between(self, source: ActivationQuantizer, result: ActivationQuantizer) -> None:
        """Say on whose grids the value and the result lie."""
        self._ends = (source, result)  # in a tuple, so that its tensors are not registered twice

    @property
    def constant(self) -> Tensor:
        """Return what is multiplied with or, if that is nothing, added."""
        return self.factor if self.has_factor else self.offset

    @property
    def params(self) -> QuantParams:
        """Return scale and zero point of the constant; what is one number lies on an end of the grid."""
        lowest, highest = (float(each) for each in self.constant.detach().aminmax())
        low, high = min(lowest, 0.0), max(highest, 0.0)
        scale = max((high - low) / ACTIVATIONS.steps, SMALLEST_SCALE) if high > low else SANE_SCALE
        zero_point = round(-low / scale)
        if self._ends and not self.has_factor:
            source, total = (each.params.scale for each in self._ends)
            scale = exact_scale(scale, total=total, largest=max(source, scale))
        return QuantParams.of(scale, zero_point)

    def integers(self) -> Tensor:
        """Return the constant as the files hold it, uint8."""
        params = self.params
        steps = self.constant.detach().double() / params.scale + params.zero_point
        return steps.round().clamp(*params.grid).to(torch.uint8)

    def forward(self, x: Tensor) -> Tensor:
        """Scale or shift by the rounded constant."""
        if not self.enabled:
            return super().forward(x)
        real = (self.integers().float() - self.params.zero_point) * self.params.scale
        constant = self.constant + (real - self.constant).detach()  # straight through
        return x * constant if self.has_factor else x + constant
