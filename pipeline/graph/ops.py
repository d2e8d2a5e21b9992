"""The operations of a traced network that torch has only as functions, as small modules.

Shapes: N batch, C channels, H height, W width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  (the name everybody knows)
from torch import Tensor, nn


class Add(nn.Module):
    """Elementwise sum of two tensors."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Add with broadcasting."""
        return a + b


class Sub(nn.Module):
    """Elementwise difference of two tensors."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Subtract with broadcasting."""
        return a - b


class Mul(nn.Module):
    """Elementwise product of two tensors."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Multiply with broadcasting."""
        return a * b


class Scale(nn.Module):
    """``x * factor + offset`` with two numbers."""

    def __init__(self, factor: float, offset: float) -> None:
        super().__init__()
        self.factor, self.offset = factor, offset

    def forward(self, x: Tensor) -> Tensor:
        """Scale and shift."""
        return x * self.factor + self.offset


class Concat(nn.Module):
    """Join tensors along an axis other than the batch."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, *parts: Tensor) -> Tensor:
        """Concatenate."""
        return torch.cat(parts, self.axis)


class Reshape(nn.Module):
    """Any reshape, flatten or view that leaves the batch alone."""

    def __init__(self, sample_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.sample_shape = sample_shape

    def forward(self, x: Tensor) -> Tensor:
        """(N, …) → (N, *sample_shape)."""
        return x.reshape(x.shape[0], *self.sample_shape)


class GlobalAveragePool(nn.Module):
    """Mean over all positions: (N, C, H, W) → (N, C, 1, 1)."""

    def forward(self, x: Tensor) -> Tensor:
        """Mean over H and W (or over the length of (N, C, L))."""
        return x.mean(tuple(range(2, x.dim())), keepdim=True)


class Pad(nn.Module):
    """Zeros around the last axes; ``pads`` as in ``torch.nn.functional.pad``."""

    def __init__(self, pads: tuple[int, ...]) -> None:
        super().__init__()
        self.pads = pads

    def forward(self, x: Tensor) -> Tensor:
        """Pad with zeros."""
        return F.pad(x, self.pads)
