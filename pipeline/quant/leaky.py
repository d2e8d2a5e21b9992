"""A LeakyReLU that every kernel computes alike: its two factors are 256ths.

XNNPACK multiplies steps by m / 256 above zero and by n / 256 below, with whole m and n, and rounds halves up
(``xnn_qs8_vlrelu_ukernel``); others multiply in float32 and round halves to even.  So the ratio of scales is
(m + e) / 256 and the slope (n - e) / (m + e) with a small e, which lifts what would be a tie on both sides.
"""

from __future__ import annotations

import math

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from pipeline.quant.fakequant import ActivationQuantizer

_PARTS = 256
_LIFT = 2.0**-10  # e: of a 256th; half of it is lost on no step, and is more than float32 loses
_LARGEST = 2**15 - 1  # m and n are int16


def leaky_scale(scale: float, *, source: float) -> float:
    """Return the result's scale next above ``scale`` whose kernels agree, to 1 in 256; ``source``: its input's."""
    parts = max(1, min(_LARGEST, math.floor(_PARTS * source / scale)))
    return source * _PARTS / (parts + _LIFT)


def leaky_source(source: float, *, scale: float) -> float:
    """Return the input's scale next above ``source`` whose kernels agree, to 1 in 256; ``scale``: its result's."""
    parts = max(1, min(_LARGEST, math.ceil(_PARTS * source / scale - 2 * _LIFT)))
    return scale * (parts + _LIFT) / _PARTS


def leaky_slope(slope: float, *, source: float, scale: float) -> float:
    """Return the slope next to ``slope`` whose kernels agree; the same where the scales are none that do.

    One below half a 256th stays, too: no kernel but the exact ones takes it.
    """
    above = _PARTS * source / scale
    parts = round(above)
    below = round(slope * above)
    if abs(above - parts - _LIFT) > _LIFT / 2 or not below:
        return slope
    return (below - _LIFT) / (parts + _LIFT)


class QLeakyReLU(nn.LeakyReLU):
    """LeakyReLU as the files compute it."""

    _ends: tuple[ActivationQuantizer, ...] = ()

    def stand_between(self, source: ActivationQuantizer, result: ActivationQuantizer) -> None:
        """Say on whose grids the value and the result lie."""
        self._ends = (source, result)  # in a tuple, so that its tensors are not registered twice

    @property
    def slope(self) -> float:
        """Return the slope as the files hold it."""
        if not self._ends:
            return float(self.negative_slope)
        source, scale = (each.params.scale for each in self._ends)
        return leaky_slope(self.negative_slope, source=source, scale=scale)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (torch's own name)
        """Any shape."""
        if self.training or not self._ends or not self._ends[1].enabled:
            return super().forward(input)
        return F.leaky_relu(input, self.slope)
