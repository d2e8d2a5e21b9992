"""Which channels go when a network is pruned, and which single weights.

torch-pruning finds which channels hang together (residual sums, depthwise convolutions, flattened maps) and which
matter least over the whole network (group magnitude; Fang et al. 2023, arXiv:2301.12900).  A plan is a list of
``Edit``: layer, side, channel indices; ``pipeline.networks.edits`` carries it out.

Shapes: C channels of a layer in G groups of D.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch_pruning as tp
from torch import Tensor, nn

from pipeline.artifacts.training import Edit
from pipeline.errors import ModelError
from pipeline.networks.build import head_name
from pipeline.networks.edits import Convolution, apply

_BISECTIONS = 7  # channel shares are found to 1 %
_MOST_OF_A_LAYER = 0.9  # no layer loses more of its channels than this


def plan(network: nn.Module, sample_shape: tuple[int, ...], *, channel_share: float, round_to: int) -> tuple[Edit, ...]:
    """Choose the least important ``channel_share`` (0 … 1) of all channels; the last layer's outputs stay.

    Channel counts become multiples of ``round_to`` where there are enough channels.  Raises ModelError where the
    network has layers whose channels cannot be followed.
    """
    pruned = copy.deepcopy(network).cpu().train(mode=False)
    head = pruned.get_submodule(head_name(pruned, sample_shape))
    example = torch.zeros(1, *sample_shape)
    outputs = pruned(example).shape
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch-pruning warns of every parameter that it leaves alone
            graph = tp.DependencyGraph().build_dependency(pruned, example)
            coupled = _coupled(graph, head)
            threshold = _threshold(coupled, channel_share)
            edits = [edit for one in coupled for edit in _prune(pruned, graph, one, _gone(one, threshold, round_to))]
        kept = pruned(example).shape == outputs
    except (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise _not_followed(str(error)) from error
    if not kept:
        raise _not_followed("its outputs would become fewer")
    return tuple(edits)


def _not_followed(reason: str) -> ModelError:
    return ModelError(
        f"the channels of this network cannot be followed: {reason}",
        where="prune",
        remedy="set prune.amount = 0 in the recipe",
    )


@dataclass(frozen=True, kw_only=True)
class _Coupled:
    """Layers whose channels can only go together."""

    layer: nn.Module
    take_out: object  # torch-pruning's function for it
    importance: Tensor  # (D,); of a convolution in G groups, channels d, D + d, 2 D + d … go together
    groups: int  # C = G * D


def _coupled(graph: tp.DependencyGraph, head: nn.Module) -> list[_Coupled]:
    importance = tp.importance.GroupMagnitudeImportance(p=2)
    kinds = [*get_args(Convolution), nn.Linear]
    found = []
    for group in graph.get_all_groups(ignored_layers=[head], root_module_types=kinds):
        makers = [one for one, _ in group if graph.is_out_channel_pruning_fn(one.handler)]
        roots = [one for one in makers if type(one.target.module) in kinds and not _is_depthwise(one.target.module)]
        if not roots:  # depthwise filters of the network's own input
            continue
        layer, take_out = roots[0].target.module, roots[0].handler
        channels = graph.get_out_channels(layer)
        # asked again from this layer on: from a depthwise one, torch-pruning loses its way through a flatten
        values = importance(graph.get_pruning_group(layer, take_out, list(range(channels))))
        groups = max(_groups(one.target.module) for one, _ in group)
        if values is not None and len(values) == channels:
            mean = values.view(groups, -1).mean(0)  # (D,)
            found.append(_Coupled(layer=layer, take_out=take_out, importance=mean, groups=groups))
    return found


def _groups(layer: nn.Module) -> int:
    return layer.groups if isinstance(layer, Convolution) and not _is_depthwise(layer) else 1


def _is_depthwise(layer: nn.Module) -> bool:
    return isinstance(layer, Convolution) and layer.groups == layer.in_channels == layer.out_channels > 1


def _threshold(coupled: Sequence[_Coupled], share: float) -> float:
    """Return the importance that so many of all channels do not exceed."""
    every = torch.cat([one.importance.repeat(one.groups) for one in coupled] or [torch.zeros(0)])
    count = int(share * len(every))
    return float(every.kthvalue(count).values) if count else -math.inf


def _gone(one: _Coupled, threshold: float, round_to: int) -> Tensor:
    """Return the channels that go: the least important ones, as many as leave a multiple of ``round_to``."""
    channels = len(one.importance)
    step = math.lcm(round_to, one.groups) // one.groups
    least = max(1, math.ceil(channels * (1 - _MOST_OF_A_LAYER)))
    left = max(int((one.importance > threshold).sum()), least)
    rounded = max(math.floor(left / step + 0.5), math.ceil(least / step)) * step
    gone = one.importance.argsort(stable=True)[: max(0, channels - rounded)]  # (D - rounded,)
    return (gone[None] + channels * torch.arange(one.groups)[:, None]).flatten()


def _prune(network: nn.Module, graph: tp.DependencyGraph, one: _Coupled, gone: Tensor) -> list[Edit]:
    if not len(gone):
        return []
    group = graph.get_pruning_group(one.layer, one.take_out, gone.tolist())
    names = {module: name for name, module in network.named_modules()}
    edits = []
    for dependency, indices in group:
        layer = dependency.target.module
        if layer in names and indices:  # not the sums and reshapes in between
            side: Literal["out", "in"] = "out" if graph.is_out_channel_pruning_fn(dependency.handler) else "in"
            edits.append(Edit(layer=names[layer], side=side, indices=tuple(sorted(int(i) for i in set(indices)))))
    group.prune()
    return edits


def plan_for(
    network: nn.Module,
    sample_shape: tuple[int, ...],
    *,
    share_left: float,
    cost: Callable[[nn.Module], float],
    round_to: int,
) -> tuple[Edit, ...]:
    """Return the smallest plan that brings ``cost`` (MACs or a latency) to ``share_left`` of what it is."""
    whole = cost(network)
    low, high = 0.0, 1.0
    best: tuple[Edit, ...] = ()
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        edits = plan(network, sample_shape, channel_share=middle, round_to=round_to)
        if edits and cost(apply(copy.deepcopy(network), edits)) <= share_left * whole:
            best, high = edits, middle
        else:
            low = middle
    return best


def sparsify(network: nn.Module, share: float) -> nn.Module:
    """Set the smallest ``share`` of all convolution and linear weights to zero, in place; return the network."""
    weights = [m.weight for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    magnitudes = torch.cat([weight.detach().abs().flatten() for weight in weights])
    count = round(share * len(magnitudes))
    if not count:
        return network
    threshold = magnitudes.kthvalue(count).values
    with torch.no_grad():
        for weight in weights:
            weight.mul_(weight.abs() > threshold)
    return network
