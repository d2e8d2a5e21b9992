"""The operations of a traced network that torch has only as functions, as small modules.

Shapes: N batch, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

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


class Div(nn.Module):
    """Elementwise quotient of two tensors."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Divide with broadcasting."""
        return a / b


class MatMul(nn.Module):
    """Matrix product over the last two axes of two tensors."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """(…, I, J), (…, J, K) → (…, I, K)."""
        return a @ b


class Projection(nn.Linear):
    """A linear layer on the last of more than two axes: (N, …, F) → (N, …, O)."""


class Scale(nn.Module):
    """``x * factor + offset``: numbers, or tensors that broadcast; those that are parameters are trained."""

    factor: Tensor
    offset: Tensor

    def __init__(self, factor: float | Tensor, offset: float | Tensor) -> None:
        super().__init__()
        for name, value in (("factor", factor), ("offset", offset)):
            if isinstance(value, nn.Parameter):
                self.register_parameter(name, value)
            else:
                self.register_buffer(name, torch.as_tensor(value, dtype=torch.float32))

    @property
    def has_factor(self) -> bool:
        """Whether it multiplies, or may do so once it is trained."""
        return isinstance(self.factor, nn.Parameter) or bool((self.factor != 1).any())

    @property
    def has_offset(self) -> bool:
        """Whether it adds, or may do so once it is trained."""
        return isinstance(self.offset, nn.Parameter) or bool((self.offset != 0).any())

    def forward(self, x: Tensor) -> Tensor:
        """Scale and shift."""
        return x * self.factor + self.offset


FUNCTIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "Abs": torch.abs,
    "Cos": torch.cos,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "Log": torch.log,
    "Positive": lambda x: (x > 0).to(x.dtype),
    "Reciprocal": torch.reciprocal,
    "Round": torch.round,
    "Sin": torch.sin,
    "Sqrt": torch.sqrt,
}


class Function(nn.Module):
    """A function of each element by itself, called as ONNX calls it; Positive is 1 above zero, else 0."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, x: Tensor) -> Tensor:
        """Apply the function."""
        return FUNCTIONS[self.name](x)


class Power(nn.Module):
    """Each element to the power of a number."""

    def __init__(self, exponent: float) -> None:
        super().__init__()
        self.exponent = exponent

    def forward(self, x: Tensor) -> Tensor:
        """Raise."""
        return x.pow(self.exponent)


class Reduce(nn.Module):
    """Mean or largest element over some axes of a sample, which stay with one element."""

    def __init__(self, name: str, axes: tuple[int, ...]) -> None:
        super().__init__()
        self.name, self.axes = name, axes

    def forward(self, x: Tensor) -> Tensor:
        """Reduce, keeping the axes."""
        return x.mean(self.axes, keepdim=True) if self.name == "ReduceMean" else x.amax(self.axes, keepdim=True)


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


class Permute(nn.Module):
    """Another order of a sample's axes; ``order`` counts the batch, which stays first."""

    def __init__(self, order: tuple[int, ...]) -> None:
        super().__init__()
        self.order = order

    def forward(self, x: Tensor) -> Tensor:
        """Permute."""
        return x.permute(self.order)


class Slice(nn.Module):
    """Every ``step``-th element from ``start`` to before ``stop`` along an axis other than the batch."""

    def __init__(self, axis: int, start: int, stop: int, step: int = 1) -> None:
        super().__init__()
        self.axis, self.start, self.stop, self.step = axis, start, stop, step

    def forward(self, x: Tensor) -> Tensor:
        """Slice."""
        return x[(slice(None),) * self.axis + (slice(self.start, self.stop, self.step),)]


class Gather(nn.Module):
    """Elements along an axis other than the batch, by constant indices."""

    indices: Tensor

    def __init__(self, axis: int, indices: Tensor) -> None:
        super().__init__()
        self.axis = axis
        self.register_buffer("indices", indices)

    def forward(self, x: Tensor) -> Tensor:
        """Gather."""
        return x.index_select(self.axis, self.indices)


class Pad(nn.Module):
    """A constant around the last axes; ``pads`` as in ``torch.nn.functional.pad``."""

    def __init__(self, pads: tuple[int, ...], value: float = 0.0) -> None:
        super().__init__()
        self.pads, self.value = pads, value

    def forward(self, x: Tensor) -> Tensor:
        """Pad."""
        return F.pad(x, self.pads, value=self.value)
