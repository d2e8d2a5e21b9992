"""Structured pruning in three steps: plan which channels go, apply the plan, replay it on a fresh network.

torch-pruning finds which channels hang together (residual sums, depthwise convolutions, flattened maps) and which
matter least over the whole network (group magnitude; Fang et al. 2023, arXiv:2301.12900).  A plan is a list of
``Edit``: layer, side, channel indices.  Applying it needs nothing but these, so a checkpoint stays readable without
torch-pruning.

Shapes: O output channels, I input channels; weights (O, I, …).
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

from pipeline.artifacts import Edit
from pipeline.errors import ModelError
from pipeline.network import head_name

_BISECTIONS = 7  # channel shares are found to 1 %
_MOST_OF_A_LAYER = 0.9  # no layer loses more of its channels than this
_SIZES = {"out": ("out_channels", "out_features", "num_features"), "in": ("in_channels", "in_features")}
_Convolution = nn.Conv1d | nn.Conv2d | nn.ConvTranspose2d


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
    kinds = [*get_args(_Convolution), nn.Linear]
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
    return layer.groups if isinstance(layer, _Convolution) and not _is_depthwise(layer) else 1


def _is_depthwise(layer: nn.Module) -> bool:
    return isinstance(layer, _Convolution) and layer.groups == layer.in_channels == layer.out_channels > 1


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


def apply(network: nn.Module, edits: Sequence[Edit]) -> nn.Module:
    """Take the channels away, in place, and return the network; raises ModelError when a plan is another network's."""
    for edit in edits:
        try:
            layer = network.get_submodule(edit.layer)
        except AttributeError as error:
            raise ModelError(
                f"the pruning plan names '{edit.layer}', which this network has not",
                where="network",
                remedy="it was made for another network: use the network file and options that it was made with",
            ) from error
        _take_away(layer, edit)
    return network


def _take_away(layer: nn.Module, edit: Edit) -> None:
    size_name = next((name for name in _SIZES[edit.side] if hasattr(layer, name)), None)
    size = getattr(layer, size_name) if size_name else 0
    gone = set(edit.indices)
    keep = torch.tensor([index for index in range(size) if index not in gone])
    if size_name is None or not gone <= set(range(size)) or not len(keep):
        raise _misfit(edit)
    transposed = isinstance(layer, nn.ConvTranspose2d)  # its weights are (I, O, …)
    groups = layer.groups if isinstance(layer, _Convolution) else 1
    setattr(layer, size_name, len(keep))
    if groups > 1 and groups == size:  # depthwise: every channel is a group of its own
        for name in ("groups", "in_channels", "out_channels"):
            setattr(layer, name, len(keep))
        _select(layer, "weight", keep, axis=0)
        _select(layer, "bias", keep, axis=0)
    elif edit.side == "in":
        _select(layer, "weight", _in_each_group(keep, size, groups, edit), axis=0 if transposed else 1)
    else:
        _in_each_group(keep, size, groups, edit)
        _select(layer, "weight", keep, axis=1 if transposed else 0)
        for name in ("bias", "running_mean", "running_var"):
            _select(layer, name, keep, axis=0)


def _in_each_group(keep: Tensor, size: int, groups: int, edit: Edit) -> Tensor:
    """Return what is kept of one group's channels; a grouped convolution has to lose equally many in each.

    Its weights hold one group's input channels only, so of these the very same have to go.
    """
    kept = [keep[keep // (size // groups) == group] % (size // groups) for group in range(groups)]
    if any(len(each) != len(kept[0]) for each in kept):
        raise _misfit(edit)
    if edit.side == "in" and not all(torch.equal(each, kept[0]) for each in kept):
        raise _misfit(edit)
    return kept[0]


def _misfit(edit: Edit) -> ModelError:
    return ModelError(
        "the pruning plan does not fit this layer",
        where=f"layer '{edit.layer}'",
        remedy="it was made for another network: use the network file and options that it was made with",
    )


def _select(layer: nn.Module, name: str, keep: Tensor, *, axis: int) -> None:
    tensor = getattr(layer, name, None)
    if tensor is None:
        return
    selected = tensor.detach().index_select(axis, keep.to(tensor.device)).clone()
    setattr(layer, name, nn.Parameter(selected) if isinstance(tensor, nn.Parameter) else selected)


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
