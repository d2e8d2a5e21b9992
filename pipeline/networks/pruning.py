"""Which channels go when a network is pruned, and which single weights.

Which channels hang together is read off the flat graph (``coupling``).  The least important ones of the whole network
go first: by the mean squared weight of all layers that would lose them, relative to the mean of their group (group
magnitude; Fang et al. 2023, arXiv:2301.12900).  A plan is a list of ``Edit``: layer, side, channel indices;
``pipeline.networks.edits`` carries it out.

Shapes: D sets of channels that go together, C channels of a layer in G groups.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd
from torch.utils._pytree import tree_leaves

from pipeline.artifacts.training import Edit
from pipeline.errors import ModelError
from pipeline.graph.costs import layer_costs
from pipeline.graph.ends import is_end
from pipeline.graph.kinds import compute_nodes, module_of
from pipeline.networks.coupling import Coupled, Member, Side, coupled_channels, owner_of
from pipeline.networks.edits import Convolution, apply
from pipeline.networks.from_torch import flat_graph
from pipeline.networks.outputs import auxiliary_outputs

Cost = Callable[[nn.Module], float]

_BISECTIONS = 7  # channel shares are found to 1 %
_MOST_OF_A_LAYER = 0.9  # no layer loses more of its channels than this
_TRIED_SHARE = 0.3  # of the channels, to see whether the network's own code lets them go
_BATCH = 2
_MOST_TRIES = 40
_REASONS = 3


@dataclass(frozen=True, kw_only=True, eq=False)
class Prunable:
    """A network and what can be taken away from it."""

    network: nn.Module
    coupled: tuple[Coupled, ...]
    importance: tuple[Tensor, ...]  # of each of them, (D,)
    uses: Mapping[str, int]  # layer → how often each of its weights is multiplied
    other_macs: int  # of what has no layer's weights

    def macs(self, network: nn.Module) -> float:
        """Return the multiply-accumulates of the network, or of one with fewer channels."""
        return float(self.other_macs + sum(uses * _weights(network, layer) for layer, uses in self.uses.items()))


def prunable(network: nn.Module, sample_shape: tuple[int, ...]) -> Prunable:
    """Find the channels that can be taken away, and see that the network's own code lets them go.

    Raises ModelError where there are none, with the reasons.
    """
    network = copy.deepcopy(network).cpu().eval()
    flat = flat_graph(network, sample_shape, checked=False)
    every, reasons = coupled_channels(network, flat)
    coupled = tuple(each for each in every if each.count > 1)
    uses, other_macs = _uses(network, flat)
    found = Prunable(
        network=network,
        coupled=coupled,
        importance=tuple(_importance(network, each) for each in coupled),
        uses=uses,
        other_macs=other_macs,
    )
    working = _working(found, sample_shape)
    if not working.coupled:
        told = reasons[:_REASONS] if not coupled else ("its own code counts on the number of channels",)
        raise ModelError(
            f"no channels of this network can be taken away: {'; '.join(told) or 'it has no layers with channels'}",
            where="prune",
            remedy="set prune.amount = 0 in the recipe",
        )
    return working


def _weights(network: nn.Module, layer: str) -> int:
    weight = network.get_submodule(layer).weight
    return weight.numel() if isinstance(weight, Tensor) else 0


def _computing(flat: fx.GraphModule) -> list[fx.Node]:
    return [node for node in compute_nodes(flat) if not is_end(node)]


def _uses(network: nn.Module, flat: fx.GraphModule) -> tuple[dict[str, int], int]:
    uses: dict[str, int] = {}
    layers, other_macs = dict(network.named_modules()), 0
    for node, cost in zip(_computing(flat), layer_costs(flat), strict=True):
        owner, weight = owner_of(layers, node), getattr(module_of(node), "weight", None)
        if owner and isinstance(weight, Tensor):
            uses[owner] = uses.get(owner, 0) + cost.macs // weight.numel()
        else:
            other_macs += cost.macs
    return {owner: count for owner, count in uses.items() if count}, other_macs


def plan(network: nn.Module, sample_shape: tuple[int, ...], *, channel_share: float, round_to: int) -> tuple[Edit, ...]:
    """Choose the least important ``channel_share`` (0 … 1) of all channels that can go.

    Channel counts become multiples of ``round_to`` where there are enough channels.  Raises ModelError where the
    network has no channels that can go.
    """
    return chosen(prunable(network, sample_shape), channel_share=channel_share, round_to=round_to)


def chosen(found: Prunable, *, channel_share: float, round_to: int) -> tuple[Edit, ...]:
    """Return the plan for a share of the channels; each layer's side stands in it once."""
    threshold = _threshold(found, channel_share)
    pairs = zip(found.coupled, found.importance, strict=True)
    return _edits(found, [_gone(values, threshold, coupled.of_a_layer, round_to) for coupled, values in pairs])


def _edits(found: Prunable, gone: Sequence[Tensor]) -> tuple[Edit, ...]:
    """Write down which channels of which layers go with these sets; ``gone``: of each group of layers."""
    lost: dict[tuple[str, Side], set[int]] = {}
    for coupled, sets in zip(found.coupled, gone, strict=True):
        for member in coupled.members:
            places = member.places[np.isin(member.sets, sets.numpy())]
            lost.setdefault((member.layer, member.side), set()).update(map(int, places))
    return tuple(
        Edit(layer=layer, side=side, indices=tuple(sorted(places))) for (layer, side), places in lost.items() if places
    )


def plan_for(
    network: nn.Module, sample_shape: tuple[int, ...], *, share_left: float, round_to: int, cost: Cost | None = None
) -> tuple[Edit, ...]:
    """Return the smallest plan that brings ``cost`` (MACs unless it says otherwise) to ``share_left`` of what it is.

    Empty where no plan does.  Raises ModelError as ``prunable`` does.
    """
    found = prunable(network, sample_shape)
    if cost is None:
        network, cost = copy.deepcopy(found.network).to("meta"), found.macs  # which ask for shapes alone
    whole = cost(network)
    low, high = 0.0, 1.0
    best: tuple[Edit, ...] = ()
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        edits = chosen(found, channel_share=middle, round_to=round_to)
        if edits and cost(apply(copy.deepcopy(network), edits)) <= share_left * whole:
            best, high = edits, middle
        else:
            low = middle
    return best


def most_gone(network: nn.Module, sample_shape: tuple[int, ...], *, round_to: int) -> float:
    """Return which share of the multiply-accumulates can go at most; raises ModelError as ``prunable`` does."""
    found = prunable(network, sample_shape)
    bare = copy.deepcopy(found.network).to("meta")
    return 1 - found.macs(apply(bare, chosen(found, channel_share=1.0, round_to=round_to))) / found.macs(network)


# ── importance ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _importance(network: nn.Module, coupled: Coupled) -> Tensor:
    rows = (_squares(network, member, coupled.count) for member in coupled.members)
    mean = torch.stack([row for row in rows if row is not None]).mean(0)  # (D,)
    return mean / mean.mean().clamp(min=torch.finfo(mean.dtype).tiny)


@torch.no_grad()
def _squares(network: nn.Module, member: Member, count: int) -> Tensor | None:
    """Return the sum of squared weights that a layer would lose with each set (D,); None where it has no weights."""
    layer = network.get_submodule(member.layer)
    weight = getattr(layer, "weight", None)
    if not isinstance(weight, Tensor):
        return None
    squares = weight.detach().float().pow(2)
    if isinstance(layer, nn.ConvTranspose2d):
        squares = squares.transpose(0, 1)  # (O, I, …)
    groups = layer.groups if isinstance(layer, Convolution) else 1
    if member.side == "out":
        values = squares.flatten(1).sum(1) if squares.dim() > 1 else squares
    else:  # weights hold one group's inputs
        values = squares.flatten(2).sum(2) if squares.dim() > 2 else squares  # (O, I / G)
        values = values.reshape(groups, -1, values.shape[1]).sum(1).flatten()  # (I,)
    places, sets = torch.from_numpy(member.places), torch.from_numpy(member.sets)
    return torch.zeros(count).index_add(0, sets, values[places])


def _threshold(found: Prunable, share: float) -> float:
    """Return the importance that so many of all channels do not exceed."""
    every = [values.repeat(coupled.of_a_layer) for coupled, values in zip(found.coupled, found.importance, strict=True)]
    together = torch.cat(every or [torch.zeros(0)])
    count = int(share * len(together))
    return float(together.kthvalue(count).values) if count else -math.inf


def _gone(importance: Tensor, threshold: float, of_a_layer: int, round_to: int) -> Tensor:
    """Return the sets that go: the least important ones, as many as leave a multiple of ``round_to`` channels."""
    sets = len(importance)
    step = math.lcm(round_to, of_a_layer) // of_a_layer
    least = max(1, math.ceil(sets * (1 - _MOST_OF_A_LAYER)))
    left = max(int((importance > threshold).sum()), least)
    rounded = max(math.floor(left / step + 0.5), math.ceil(least / step)) * step
    return importance.argsort(stable=True)[: max(0, sets - rounded)]


# ── the network's own code ──────────────────────────────────────────────────────────────────────────────────────────


def _working(found: Prunable, sample_shape: tuple[int, ...]) -> Prunable:
    """Leave out what the network's code does not let go: a size that it spells out, a cut, an auxiliary head."""
    network, example = copy.deepcopy(found.network), torch.zeros(_BATCH, *sample_shape)
    with contextlib.suppress(Exception):  # its code needs numbers
        shapes_alone = copy.deepcopy(network).to("meta")
        _shapes(shapes_alone, example.to("meta"))
        network, example = shapes_alone, example.to("meta")
    wanted = _shapes(network, example)

    tries = itertools.count()

    def works(numbers: Sequence[int]) -> bool:
        if next(tries) >= _MOST_TRIES:
            return False  # what was not tried stays
        few = _only(found, numbers)
        gone = [values.argsort()[: max(1, int(_TRIED_SHARE * len(values)))] for values in few.importance]
        try:
            return _shapes(apply(copy.deepcopy(network), _edits(few, gone)), example) == wanted
        except Exception:  # noqa: BLE001  (whatever the network's code raises)
            return False

    return _only(found, _largest(range(len(found.coupled)), works))


def _largest(numbers: Sequence[int], works: Callable[[Sequence[int]], bool]) -> Sequence[int]:
    """Return as many of the numbers as work together, found by halving."""
    if not numbers or works(numbers):
        return numbers
    if len(numbers) == 1:
        return ()
    halves = [_largest(numbers[: len(numbers) // 2], works), _largest(numbers[len(numbers) // 2 :], works)]
    together = (*halves[0], *halves[1])
    if not all(halves) or works(together):
        return together
    return max(halves, key=len)


def _only(found: Prunable, numbers: Sequence[int]) -> Prunable:
    return replace(
        found,
        coupled=tuple(found.coupled[number] for number in numbers),
        importance=tuple(found.importance[number] for number in numbers),
    )


@torch.no_grad()
def _shapes(network: nn.Module, example: Tensor) -> list[tuple[int, ...] | None]:
    """Return the shapes of all outputs, in use and as it is trained (None where it cannot be)."""
    found = [tuple(output.shape) for output in tree_leaves(network.eval()(example))]
    for module in network.modules():  # what the code does in training, and no layer
        module.training = not isinstance(module, _NormBase | _DropoutNd)
    trained: list[tuple[int, ...] | None] = [None]
    with contextlib.suppress(Exception), auxiliary_outputs() as others:
        outputs = tree_leaves(network(example))
        trained = [tuple(output.shape) for output in (*outputs, *others)]
    network.eval()
    return [*found, *trained]


# ── single weights ──────────────────────────────────────────────────────────────────────────────────────────────────


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
