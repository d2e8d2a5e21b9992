"""Spread a network's ranges evenly over its channels before it is quantized; the function it computes stays the same.

An activation has one scale for all its channels, so that a channel with small values keeps few steps.  Where a layer's
outputs reach the next layer through functions with f(s x) = s f(x) alone, each channel may be divided by a factor here
and multiplied by it in the next layer's weights.

Follows cross-layer equalisation (Nagel et al. 2019, arXiv:1906.04721, section 4.1), with the activations' measured
ranges in the place of the first layer's weights', as SmoothQuant (Xiao et al. 2022, arXiv:2211.10438) has it: weights
have a scale per output channel of their own.

Shapes: N samples, C channels, O output channels, G groups.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from pipeline.graph import ops
from pipeline.graph.kinds import compute_nodes, kind_of, module_of

_MOST_SAMPLES = 128
_LARGEST_FACTOR = 64.0  # of a channel, against the geometric mean of all
# functions with f(s x) = s f(x) for s > 0 that keep channels apart
_HOMOGENEOUS = frozenset({"Relu", "MaxPool", "AveragePool", "GlobalAveragePool", "ResizeNearest", "ResizeLinear"})
_Layer = nn.Conv1d | nn.Conv2d | nn.Linear


@dataclass(frozen=True, kw_only=True)
class _Pair:
    """Two layers with nothing between that would tell a channel's scale."""

    first: fx.Node
    value: fx.Node  # what the second layer's input follows from: the first one's result after its activation function
    second: fx.Node
    repeats: int  # inputs of the second layer per channel: height times width behind a flattened map


@torch.no_grad()
def equalized(folded: fx.GraphModule, inputs: Tensor) -> fx.GraphModule | None:
    """Return an equalised copy of a folded graph, by its activations on ``inputs`` (N, …); None without any pair."""
    graph = copy.deepcopy(folded)
    pairs = _pairs(graph)
    if not pairs:
        return None
    watch = _Largest(graph, {pair.value for pair in pairs})
    watch.run(inputs[:_MOST_SAMPLES])
    for pair in pairs:
        _equalize(pair, watch.largest)
    return graph


def _pairs(graph: fx.GraphModule) -> list[_Pair]:
    found = (_pair_from(node) for node in compute_nodes(graph) if _scales_channels(node))
    return [pair for pair in found if pair is not None]


def _scales_channels(node: fx.Node) -> bool:
    return isinstance(module_of(node), _Layer) and not isinstance(module_of(node), ops.Projection)


def _pair_from(first: fx.Node) -> _Pair | None:
    value = node = first
    repeats = 1
    while len(node.users) == 1:
        (user,) = node.users
        if user.op != "call_module":
            return None
        if _scales_channels(user):
            fits = repeats == 1 or isinstance(module_of(user), nn.Linear)
            return _Pair(first=first, value=value, second=user, repeats=repeats) if fits else None
        kind = kind_of(module_of(user))
        if kind == "Relu" and node is first:
            value = user
        elif kind == "Reshape":
            before, after = node.meta["shape"], user.meta["shape"]
            if len(after) != 2 or after[0] != before[0]:
                return None
            repeats *= after[1] // before[1]
        elif kind not in _HOMOGENEOUS:
            return None
        node = user
    return None


class _Largest(fx.Interpreter):
    """Remembers the largest magnitude in every channel of some values."""

    def __init__(self, graph: fx.GraphModule, watched: set[fx.Node]) -> None:
        super().__init__(graph)
        self.watched, self.largest = watched, dict[fx.Node, Tensor]()

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n in self.watched:
            self.largest[n] = result.abs().transpose(0, 1).flatten(1).amax(1)  # (C,)
        return result


def _equalize(pair: _Pair, largest: Mapping[fx.Node, Tensor]) -> None:
    first, second = module_of(pair.first), module_of(pair.second)
    assert isinstance(first, _Layer)  # noqa: S101  (_pair_from saw to it)
    assert isinstance(second, _Layer)  # noqa: S101
    factors = _factors(largest[pair.value], _of_inputs(second, pair.repeats))  # (O,)
    first.weight.div_(factors.view(-1, *(1,) * (first.weight.dim() - 1)))
    if first.bias is not None:
        first.bias.div_(factors)
    second.weight.mul_(_beside_weights(second, factors.repeat_interleave(pair.repeats)))


def _factors(activations: Tensor, weights: Tensor) -> Tensor:
    """Return what each channel (C,) is divided by: then its values and its weights reach equally far."""
    used = (activations > 0) & (weights > 0)
    if not used.any():
        return torch.ones_like(activations)
    logs = 0.5 * (activations.clamp(min=1e-30).log() - weights.clamp(min=1e-30).log())
    factors = (logs - logs[used].mean()).exp().clamp(1 / _LARGEST_FACTOR, _LARGEST_FACTOR)
    return torch.where(used, factors, 1.0)


def _of_inputs(layer: _Layer, repeats: int) -> Tensor:
    """Return the largest weight that multiplies each channel, (C,)."""
    if isinstance(layer, nn.Linear):
        return layer.weight.abs().amax(0).view(-1, repeats).amax(1)
    grouped = layer.weight.view(layer.groups, -1, *layer.weight.shape[1:])  # (G, O/G, C/G, …)
    return grouped.abs().flatten(3).amax(3).amax(1).flatten()


def _beside_weights(layer: _Layer, factors: Tensor) -> Tensor:
    """Return factors of the inputs (C,) so that they broadcast against a layer's weights."""
    if isinstance(layer, nn.Linear):
        return factors
    of_groups = factors.view(layer.groups, 1, -1).expand(-1, layer.out_channels // layer.groups, -1)  # (G, O/G, C/G)
    return of_groups.reshape(layer.out_channels, -1, *(1,) * (layer.weight.dim() - 2))
