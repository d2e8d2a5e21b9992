"""The ends of a network with several inputs or outputs, which is given and gives one tensor: all of them side by side.

Whatever trains, prunes and quantizes deals with one tensor; the files have the inputs and outputs apart.  Two functions
of torch's dispatcher stand for cutting and joining, so that ``torch.export`` hands them on as what they are.

Shapes: n samples, W values of all inputs or outputs of a sample.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from pipeline.onboard.arrays import Arrays, TensorSpec

_library = torch.library.Library("karui", "DEF")  # type: ignore[no-untyped-call]
_SCHEMAS = (
    "input(Tensor whole, int start, int[] shape, str name) -> Tensor",
    "outputs(Tensor[] values, str[] names) -> Tensor",
)


def _input(whole: Tensor, start: int, shape: Sequence[int], name: str) -> Tensor:
    del name
    return whole[:, start : start + math.prod(shape)].reshape(-1, *shape)


def _outputs(values: Sequence[Tensor], names: Sequence[str]) -> Tensor:
    del names
    return torch.cat([each.reshape(each.shape[0], -1) for each in values], 1)


for _schema, _function in zip(_SCHEMAS, (_input, _outputs), strict=True):
    _library.define(_schema)  # type: ignore[no-untyped-call]
    _library.impl(_schema.partition("(")[0], _function, "CompositeImplicitAutograd")  # type: ignore[no-untyped-call]


class Input(nn.Module):
    """One of several inputs: (n, W) → (n, *shape)."""

    def __init__(self, name: str, start: int, shape: Sequence[int]) -> None:
        super().__init__()
        self.name, self.start, self.shape = name, start, tuple(shape)

    def forward(self, whole: Tensor) -> Tensor:
        """Cut it out."""
        cut: Tensor = torch.ops.karui.input(whole, self.start, self.shape, self.name)
        return cut


class Outputs(nn.Module):
    """All outputs side by side: (n, …) each → (n, W)."""

    def __init__(self, names: Sequence[str], shapes: Sequence[tuple[int, ...]]) -> None:
        super().__init__()
        self.names, self.shapes = tuple(names), tuple(shapes)

    def forward(self, *values: Tensor) -> Tensor:
        """Join them."""
        joined: Tensor = torch.ops.karui.outputs(values, self.names)
        return joined


def is_end(node: fx.Node) -> bool:
    """Tell whether a node of a flat graph computes nothing: an end of the network, or one of several."""
    if node.op != "call_module":
        return True
    return isinstance(node.graph.owning_module.get_submodule(str(node.target)), Input | Outputs)  # type: ignore[union-attr]


def takes_joined(network: object) -> bool:
    """Tell whether a network is given and gives several tensors as one."""
    return isinstance(network, nn.Module) and any(isinstance(each, Input | Outputs) for each in network.modules())


def joined(tensors: Tensor | Mapping[str, Tensor]) -> Tensor:
    """Return tensors (n, …), in their order, as a network takes them: the only one as it is, several as (n, W)."""
    found = [tensors] if isinstance(tensors, Tensor) else list(tensors.values())
    return found[0] if len(found) == 1 else torch.cat([each.flatten(1).float() for each in found], 1)


def joined_arrays(arrays: Arrays) -> NDArray[np.float32]:
    """Return arrays (n, …), in their order, as a network takes them."""
    found = [np.asarray(each, np.float32) for each in arrays.values()]
    return found[0] if len(found) == 1 else np.concatenate([each.reshape(len(each), -1) for each in found], 1)


def apart(specs: Sequence[TensorSpec], whole: Any) -> dict[str, Any]:
    """Return what a network takes or gives, (…, n, W) as Tensor or array, by name: (…, n, *shape) each."""
    if len(specs) == 1:
        return {specs[0].name: whole}
    sizes = [math.prod(spec.shape) for spec in specs]
    starts = itertools.accumulate(sizes, initial=0)
    return {
        spec.name: whole[..., start : start + size].reshape(*whole.shape[:-1], *spec.shape)
        for spec, start, size in zip(specs, starts, sizes, strict=False)
    }


def joined_shape(specs: Sequence[TensorSpec]) -> tuple[int, ...]:
    """Return the shape of one sample as a network takes or gives it."""
    return specs[0].shape if len(specs) == 1 else (sum(math.prod(spec.shape) for spec in specs),)
