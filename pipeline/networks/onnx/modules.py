"""The network that an ONNX file becomes: a module for each node, called one after the other.

Shapes: n samples; ``s`` is the shape that a value has in the file, for one call of it.  A value with ``s = (1, …)``
lies in memory as (n, …), as it does in the file with n samples; any other as (n, *s).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pipeline.graph.kept import on_its_grid
from pipeline.graph.params import UINT8
from pipeline.onboard.arrays import TensorSpec


@dataclass(frozen=True, kw_only=True)
class Step:
    """One call: of the module with this name, or of a function that only reads a tensor in another shape."""

    name: str
    inputs: tuple[int, ...]  # numbers of values; 0 is the network's input
    output: int
    move: Callable[[Tensor], Tensor] | None = None


class OnnxNetwork(nn.Module):
    """A network read from an ONNX file; takes and gives (n, …): of several inputs or outputs all side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[Step] = []
        self.result = 0
        self.inputs: tuple[TensorSpec, ...] = ()
        self.outputs: tuple[TensorSpec, ...] = ()
        self.order: tuple[int, ...] | None = None  # of the file's axes, where its only input lies otherwise
        self.sample_shape: tuple[int, ...] = ()
        self.result_shape: tuple[int, ...] = ()
        self.said = ""  # what was found when it was compared with its file

    def forward(self, samples: Tensor) -> Tensor:
        """(n, …) → (n, …)."""
        values = {0: samples if self.order is None else samples.permute(self.order)}
        for step, gone in zip(self.steps, self._last_uses(), strict=True):
            taken = [values[number] for number in step.inputs]
            values[step.output] = step.move(*taken) if step.move else self._modules[step.name](*taken)  # type: ignore[misc]
            for number in gone:
                del values[number]
        return values[self.result]

    def _last_uses(self) -> list[list[int]]:
        """Return for each step the values that nobody needs after it."""
        last = {number: place for place, step in enumerate(self.steps) for number in step.inputs}
        gone: list[list[int]] = [[] for _ in self.steps]
        for number, place in last.items():
            if number != self.result:
                gone[place].append(number)
        return gone


class Computed(nn.Module):
    """A function of torch, of tensors and of constants of its own, which are trained."""

    def __init__(self, function: Callable[..., Tensor], constants: Mapping[int, Tensor] | None = None) -> None:
        super().__init__()
        self.function = function
        self.places = tuple(sorted(constants or {}))
        for place in self.places:
            tensor = (constants or {})[place]
            if tensor.is_floating_point():
                self.register_parameter(f"constant_{place}", nn.Parameter(tensor))
            else:
                self.register_buffer(f"constant_{place}", tensor)

    def forward(self, *tensors: Tensor) -> Tensor:
        """Put the constants where they belong among the arguments."""
        arguments = list(tensors)
        for place in self.places:
            arguments.insert(place, getattr(self, f"constant_{place}"))
        return self.function(*arguments)


class Mixed(nn.Module):
    """Mixes the elements along the last axis with weights that are not trained."""

    weights: Tensor

    def __init__(self, weights: Tensor, axis: int) -> None:
        super().__init__()
        self.axis = axis
        self.register_buffer("weights", weights.contiguous())  # (before, after)

    def forward(self, x: Tensor) -> Tensor:
        """(…, before, …) → (…, after, …)."""
        return (x.transpose(self.axis, -1) @ self.weights).transpose(self.axis, -1)


class Quantizer(nn.Module):
    """What a QuantizeLinear node does to real numbers: it clamps them; compared with its file it rounds, too."""

    def __init__(self, scale: float, zero_point: int, low: int, high: int) -> None:
        super().__init__()
        self.scale, self.zero_point, self.low, self.high = scale, zero_point, low, high
        self.rounds = False

    def forward(self, x: Tensor) -> Tensor:
        """Clamp to the range of the integers; those of 8 bits keep their grid."""
        if self.rounds:
            steps = torch.round(x / self.scale) + self.zero_point
            return (steps.clamp(self.low, self.high) - self.zero_point) * self.scale
        if self.high - self.low == UINT8.steps:
            return on_its_grid(x, self.scale, self.zero_point - self.low)
        low, high = (self.scale * (each - self.zero_point) for each in (self.low, self.high))
        return x.clamp(low, high)


class Selected(nn.Module):
    """Elements along an axis, by constant indices."""

    indices: Tensor

    def __init__(self, axis: int, indices: Tensor) -> None:
        super().__init__()
        self.axis = axis
        self.register_buffer("indices", indices)

    def forward(self, x: Tensor) -> Tensor:
        """Select."""
        return x.index_select(self.axis, self.indices)


class Stacked(nn.Module):
    """Matrices of a value, each times a constant one of its own."""

    def __init__(self, matrices: Sequence[Tensor], lead: tuple[int, ...]) -> None:
        super().__init__()
        self.lead = lead
        self.matrices = nn.ParameterList(nn.Parameter(each) for each in matrices)

    def forward(self, x: Tensor) -> Tensor:
        """(n, *lead, I, J) → (n, *lead, I, K)."""
        rows = x.expand(x.shape[0], *self.lead, *x.shape[-2:]).flatten(1, -3)
        products = [rows[:, place] @ matrix for place, matrix in enumerate(self.matrices)]
        return torch.stack(products, 1).reshape(x.shape[0], *self.lead, x.shape[-2], products[0].shape[-1])
