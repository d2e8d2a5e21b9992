"""What a handler sees of a node of an ONNX file, and how it adds modules to the network.

A value has in the file the shape ``s`` for one call.  Most have ``s = (1, …)``, and n samples are (n, …): such a node
is taken as it stands.  A node that works along the first axis, or on values without such an axis, is *lifted*: its
values are (n, *s) and all its axes lie one further back.  Handlers are written once: ``axis`` and ``run`` know which
it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.networks.onnx.building import Building
from pipeline.networks.onnx.modules import Computed
from pipeline.networks.onnx.values import Refusal, TouchesBatch, Value

Array = NDArray[Any]
_HIDDEN = 1e9


Handler = Callable[["Node"], Value | tuple[Value | None, ...]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Node:
    """One node and what it is given."""

    op: str
    name: str
    opset: int
    inputs: tuple[Value | Array | None, ...]
    attributes: Mapping[str, Any]
    wanted: tuple[bool, ...]  # which outputs anybody reads
    building: Building
    lifted: bool
    bias: Array | None = None  # of an Add that follows and is taken along

    # ── what it is given ──

    def attribute(self, name: str, default: Any = None) -> Any:
        """Return an attribute; text as str, numbers in lists as tuples."""
        value = self.attributes.get(name, default)
        if isinstance(value, bytes):
            return value.decode(errors="replace")
        return tuple(value) if isinstance(value, list) else value

    def given(self, place: int) -> bool:
        """Tell whether an input is there at all."""
        return place < len(self.inputs) and self.inputs[place] is not None

    def value(self, place: int = 0) -> Value:
        """Return an input that is computed."""
        value = self.inputs[place] if place < len(self.inputs) else None
        if not isinstance(value, Value):
            raise Refusal("has a constant where a computed input is expected")
        return value

    def constant(self, place: int) -> Array | None:
        """Return an input that is constant; None where it is left out."""
        value = self.inputs[place] if place < len(self.inputs) else None
        if isinstance(value, Value):
            raise Refusal(f"has a computed input {place + 1} where only a constant can be taken")
        return value

    def needed(self, place: int) -> Array:
        """Return a constant input that has to be there."""
        value = self.constant(place)
        if value is None:
            raise Refusal(f"lacks its input {place + 1}")
        return value

    def number(self, place: int, default: float) -> float:
        """Return a constant input of one element as a number."""
        value = self.constant(place)
        if value is None or value.size == 0:
            return default
        if value.size != 1:
            raise Refusal(f"has {value.size} numbers in input {place + 1} where one can be taken")
        return float(value.ravel()[0])

    def whole_numbers(self, name: str, place: int) -> tuple[int, ...] | None:
        """Return numbers that older opsets have in an attribute and newer ones in an input; None where in neither."""
        if name in self.attributes:
            found = self.attribute(name)
            return found if isinstance(found, tuple) else (found,)
        value = self.constant(place)
        return None if value is None else tuple(int(each) for each in value.ravel())

    # ── what it gives ──

    def axis(self, axis: int, rank: int) -> int:
        """Return where an axis of the file's tensor lies in memory."""
        if not -rank <= axis < max(rank, 1):
            raise Refusal(f"works on axis {axis} of a tensor with {rank} axes")
        axis %= max(rank, 1)
        if not self.lifted and axis == 0:
            raise TouchesBatch
        return axis + self.lifted

    def run(self, function: nn.Module | Callable[..., Tensor], *values: Value, part: str = "") -> Value:
        """Add a module, or a function of tensors, that is given values as they lie in memory."""
        module = function if isinstance(function, nn.Module) else Computed(function)
        return self.building.run(module, values, lifted=self.lifted, name=f"{self.name}_{part}" if part else self.name)

    def layer(self, module: nn.Module | Callable[..., Tensor], value: Value, part: str = "") -> Value:
        """Add a layer of torch, for which the file's first axis counts samples."""
        if not self.lifted:
            return self.run(module, value, part=part)
        first = value.shape[0]
        merged = self.building.moved(value, lambda x: x.flatten(0, 1), (first, *value.shape[1:]), lifted=True)
        name = f"{self.name}_{part}" if part else self.name
        made = module if isinstance(module, nn.Module) else Computed(module)
        result = self.building.run_merged(made, merged, first=first, name=name)
        return self.building.moved(result, lambda x: x.reshape(-1, *result.shape), result.shape, lifted=True)

    def broadcast(self, function: Callable[..., Tensor], *operands: Value | Array | float, part: str = "") -> Value:
        """Add arithmetic of values and constants whose axes count from the last one, as ONNX and numpy broadcast."""
        shapes = [each.shape for each in operands if not isinstance(each, float)]
        rank = max(map(len, shapes))
        values, constants = [], dict[int, Tensor]()
        for place, operand in enumerate(operands):
            if isinstance(operand, Value):
                values.append(self._raised(operand, rank))
            elif isinstance(operand, float) or (operand.size == 1 and operand.ndim < rank):
                number = float(operand) if isinstance(operand, float) else float(operand.ravel()[0])
                constants[place] = torch.tensor(number)
            else:
                if not self.lifted and operand.ndim == rank and operand.shape[0] != 1:
                    raise TouchesBatch
                constants[place] = tensor_of(operand)
        return self.run(_with_numbers(function, constants), *values, part=part)

    def _raised(self, value: Value, rank: int) -> Value:
        missing = rank - len(value.shape)
        if not missing:
            return value
        if not self.lifted:
            raise TouchesBatch
        shape = (*(1,) * missing, *value.shape)
        return self.building.moved(value, lambda x: x.reshape(x.shape[0], *shape), shape, lifted=True)

    def only_first_output(self) -> None:
        """Refuse a node of which somebody reads further outputs."""
        if any(self.wanted[1:]):
            raise Refusal("has a second output that is used")


def _with_numbers(function: Callable[..., Tensor], constants: Mapping[int, Tensor]) -> nn.Module:
    """Return the arithmetic; constants of one element are numbers in it."""
    numbers = {place: float(each) for place, each in constants.items() if each.dim() == 0}
    tensors = {place: each for place, each in constants.items() if each.dim()}

    def called(*arguments: Tensor) -> Tensor:
        filled: list[Tensor | float] = list(arguments)
        for place in sorted(numbers):
            filled.insert(place, numbers[place])
        return function(*filled)

    # tensors are put in first, where they stand among what is no number
    places = {place - sum(number < place for number in numbers): each for place, each in tensors.items()}
    return Computed(called if numbers else function, places)


def tensor_of(array: Array) -> Tensor:
    """Return a constant as float32; infinity, with which masks are written, becomes a large number."""
    if array.dtype.kind not in "fiub":
        raise Refusal(f"has a constant of type {array.dtype}")
    return torch.from_numpy(np.nan_to_num(np.array(array, np.float32), nan=np.nan, posinf=_HIDDEN, neginf=-_HIDDEN))


def filled(layer: nn.Module, weight: Array, bias: Array | Sequence[float] | None = None) -> nn.Module:
    """Give a layer that was made without weights its own."""
    layer.weight = nn.Parameter(tensor_of(np.asarray(weight)))
    if bias is not None:
        layer.bias = nn.Parameter(tensor_of(np.asarray(bias)).flatten())
    return layer
