"""Rounding to a grid with a gradient: straight through, or for a learned step size.

Follows the straight-through estimator (Bengio et al. 2013; Jacob et al. 2018) and LSQ (Esser et al. 2020).
"""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.graph.params import Grid


class _Lsq(torch.autograd.Function):
    """Round to the grid with a gradient for the step size (Esser et al. 2020, equations 1-3)."""

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        x: Tensor,
        scale: Tensor,  # broadcasts against x
        zero_point: Tensor,
        grid: Grid,
    ) -> Tensor:
        low, high = grid
        steps = x / scale + zero_point
        rounded = steps.round().clamp(low, high)
        ctx.save_for_backward(steps, rounded, zero_point, scale)
        ctx.grid = grid  # type: ignore[attr-defined]
        return (rounded - zero_point) * scale

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        steps, rounded, zero_point, scale = ctx.saved_tensors  # type: ignore[attr-defined]
        low, high = ctx.grid  # type: ignore[attr-defined]
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


def round_straight_through(x: Tensor, scale: Tensor, zero_point: Tensor, grid: Grid) -> Tensor:
    """Round x, of any shape, to a grid of one scale and zero point."""
    step, zero = float(scale), float(zero_point)
    lowest, highest = (grid.lowest - zero) * step, (grid.highest - zero) * step
    rounded: Tensor = _StraightThrough.apply(x, step, lowest, highest)  # type: ignore[no-untyped-call]
    return rounded


def round_with_step_gradient(x: Tensor, scale: Tensor, zero_point: Tensor, grid: Grid) -> Tensor:
    """Round x to a grid; ``scale`` broadcasts against it and gets a gradient."""
    rounded: Tensor = _Lsq.apply(x, scale, zero_point, grid)  # type: ignore[no-untyped-call]
    return rounded
