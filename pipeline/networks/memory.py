"""How a network's weights lie in memory: channels last, which halves the time, where its forward() runs that way.

``x.view(len(x), -1)`` after a convolution asks for maps that lie channel after channel.  Such a network is given its
inputs, and keeps its weights, as they lie by default.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["lie_channels_last", "settle"]


def settle(network: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Find out which way the network runs; ``inputs`` (N, …) are such that it runs as things lie by default."""
    if not _has_maps(network) or _runs(network, inputs):
        return
    network.register_forward_pre_hook(_contiguous)


def lie_channels_last(network: nn.Module) -> nn.Module:
    """Lay out the weights channels last, in place, where there are maps and the network runs that way; return it."""
    if _has_maps(network) and _contiguous not in network._forward_pre_hooks.values():
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def _has_maps(network: nn.Module) -> bool:
    return any(isinstance(module, nn.Conv2d) for module in network.modules())


@torch.no_grad()
def _runs(network: nn.Module, inputs: tuple[Tensor, ...]) -> bool:
    probe = copy.deepcopy(network).eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    try:
        probe(*(x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x for x in inputs))
    except RuntimeError:  # it runs as things lie by default, so this is the reason
        return False
    return True


def _contiguous(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(x.contiguous() if isinstance(x, Tensor) else x for x in inputs)
