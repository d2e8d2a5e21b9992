"""Layers built around the very tensors that a call reads, under the name of the module that owns them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from pipeline.networks.flat import Call, Constant, Refusal


def weighted(call: Call, make: Callable[..., nn.Module], *sizes: Any, **options: Any) -> nn.Module:
    """Build a layer around the very tensors that the call reads."""
    weight, bias = call.constant("weight"), call.constant("bias")
    if weight is None:
        raise Refusal(f"{call.name} without weights")
    layer = make(*sizes, bias=bias is not None, device="meta", **options)
    layer.weight = parameter(weight)
    if bias is not None:
        layer.bias = parameter(bias)
    return layer


def parameter(constant: Constant) -> nn.Parameter:
    """Return the tensor itself where it is a parameter, else one that is not trained."""
    tensor = constant.tensor
    return tensor if isinstance(tensor, nn.Parameter) else nn.Parameter(tensor, requires_grad=False)


def own_name(call: Call) -> Call:
    """Name a layer after the module that owns its weights: what the user calls it."""
    weight, mean = call.given.get("weight"), call.given.get("running_mean")
    owner = weight.owner if isinstance(weight, Constant) and weight.name.endswith(".weight") else ""
    if weight is None and isinstance(mean, Constant) and mean.name.endswith(".running_mean"):
        return replace(call, owner=mean.owner)
    return replace(call, layer=owner, owner=owner) if owner else call


def transposed(constant: Constant) -> Tensor:
    """Return its last two axes exchanged; it is still trained if it was."""
    turned = constant.tensor.detach().transpose(-1, -2).contiguous()
    return nn.Parameter(turned) if constant.learned else turned


def sides(value: int | Sequence[int], axes: int) -> tuple[int, ...]:
    """Return one number per axis."""
    given = (value,) if isinstance(value, int) else tuple(value)
    return given * axes if len(given) == 1 else given
