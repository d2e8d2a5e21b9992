"""Grids of 8 bits that a network brings along: it was quantized before, and what a grid leaves out is clamped.

A function of torch's dispatcher stands for one, so that ``torch.export`` hands it on with its scale.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.graph.params import QuantParams

_library = torch.library.Library("karui", "FRAGMENT")  # type: ignore[no-untyped-call]
_library.define("grid(Tensor x, float scale, int zero_point) -> Tensor")  # type: ignore[no-untyped-call]


def _clamped(x: Tensor, scale: float, zero_point: int) -> Tensor:
    params = QuantParams.of(scale, zero_point)
    return x.clamp(params.lowest, params.highest)


_library.impl("grid", _clamped, "CompositeImplicitAutograd")  # type: ignore[no-untyped-call]


def on_its_grid(x: Tensor, scale: float, zero_point: int) -> Tensor:
    """Clamp to the ends of a grid of uint8, and remember it."""
    clamped: Tensor = torch.ops.karui.grid(x, scale, zero_point)
    return clamped


class KeptGrid(nn.Hardtanh):
    """A clamp to the ends of a grid, which the quantizer behind it takes over."""

    def __init__(self, scale: float, zero_point: int) -> None:
        self.params = QuantParams.of(scale, zero_point)
        super().__init__(self.params.lowest, self.params.highest)
