"""Where a design breaks rules that small networks usually follow: each with the layer and what to do.

They are rules of thumb, and hold for networks of convolutions and dense layers: a network may have its reasons.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from pipeline.inspecting.layers import Advice, Inspected, Layer

# a stage is a row of layers whose pictures have one size: halve the size, double the channels, and all cost alike
_JUMP = 8.0
_COSTLY_STAGE = 0.25  # share of all MACs, below which nobody minds a jump
_MOST_MACS, _MOST_PARAMETERS = 0.4, 0.6  # shares that one layer may take
_FEW_LAYERS = 4  # with weights; in smaller networks one layer dominates as a matter of course
_DEEP_FOR_SQUASHING, _DEEP_FOR_NORMS = 8, 10  # layers with weights
_MULTIPLE = 8  # what vector instructions work on at a time
_NAMED = 4


@dataclass(frozen=True, kw_only=True)
class _Stage:
    """A row of layers whose outputs have the same height and width."""

    first: Layer
    size: tuple[int, ...]
    macs: int


def advised(inspected: Inspected) -> Inspected:
    """Return the same with its advice."""
    weighted = [layer for layer in inspected.layers if layer.channels is not None]
    advice = (
        *_dominant(inspected, weighted),
        *_jumps(inspected),
        *_odd_channels(weighted),
        *_squashing(inspected, weighted),
        *_no_norms(inspected, weighted),
    )
    return replace(inspected, advice=tuple(advice))


def _dominant(inspected: Inspected, weighted: Sequence[Layer]) -> Iterator[Advice]:
    if len(weighted) < _FEW_LAYERS:
        return
    costly = max(weighted, key=lambda layer: layer.macs)
    if costly.macs > _MOST_MACS * inspected.macs:
        yield Advice(
            layer=costly.name,
            what=f"takes {costly.macs / inspected.macs:.0%} of all multiply-accumulates",
            remedy="give it fewer channels, or make its picture smaller before it (stride 2, pooling)",
        )
    large = max(weighted, key=lambda layer: layer.parameters)
    if large.parameters > _MOST_PARAMETERS * inspected.parameters:
        remedy = "split its convolution into depthwise and 1x1, or give it fewer channels"
        if len(large.output_shape) == 1:
            remedy = "pool the picture to one value per channel before it, or give it fewer inputs"
        yield Advice(
            layer=large.name,
            what=f"holds {large.parameters / inspected.parameters:.0%} of all parameters",
            remedy=remedy,
        )


def _jumps(inspected: Inspected) -> Iterator[Advice]:
    for before, after in itertools.pairwise(_stages(inspected.layers)):
        less, more = sorted((before.macs, after.macs))
        if less and more > _JUMP * less and more > _COSTLY_STAGE * inspected.macs:
            way = "more" if after.macs > before.macs else "less"
            old, new = (" x ".join(map(str, stage.size)) for stage in (before, after))
            yield Advice(
                layer=after.first.name,
                what=f"from here on ({new}) layers cost {more / less:.0f} times {way} than those before ({old})",
                remedy="let cost go on level: where height and width halve, channels double",
            )


def _stages(layers: Sequence[Layer]) -> list[_Stage]:
    """Return the stages of pictures, without the first layer: it reads the input and has a cost of its own."""
    pictures = [layer for layer in layers if len(layer.output_shape) == 3 and layer.macs]
    stages = []
    for size, group in itertools.groupby(pictures[1:], key=_size):
        members = list(group)
        stages.append(_Stage(first=members[0], size=size, macs=sum(layer.macs for layer in members)))
    return [stage for stage in stages if max(stage.size) > 1]


def _size(layer: Layer) -> tuple[int, ...]:
    """Return height and width; channels come first in networks and ONNX files, last in TFLite files."""
    channels_last = layer.channels is not None and layer.output_shape[0] != layer.channels
    return layer.output_shape[:2] if channels_last else layer.output_shape[1:]


def _odd_channels(weighted: Sequence[Layer]) -> Iterator[Advice]:
    odd = [layer for layer in weighted[:-1] if layer.channels and layer.channels % _MULTIPLE]
    if odd:
        names = ", ".join(f"{layer.name} ({layer.channels})" for layer in odd[:_NAMED])
        more = f" and {len(odd) - _NAMED} more" if len(odd) > _NAMED else ""
        yield Advice(
            layer=odd[0].name,
            what=f"channels are no multiple of {_MULTIPLE}: {names}{more}",
            remedy=f"take the next multiple of {_MULTIPLE}: kernels work on so many at a time, and the rest is padding",
        )


def _squashing(inspected: Inspected, weighted: Sequence[Layer]) -> Iterator[Advice]:
    found = [layer for layer in inspected.layers if layer.squashes]
    if found and len(weighted) >= _DEEP_FOR_SQUASHING:
        more = f", and so do {len(found) - 1} more" if len(found) > 1 else ""
        yield Advice(
            layer=found[0].name,
            what=f"{found[0].op.lower()} saturates in a network of {len(weighted)} layers{more}: gradients vanish",
            remedy="use ReLU there; it also runs inside the integer kernel of the layer before it",
        )


def _no_norms(inspected: Inspected, weighted: Sequence[Layer]) -> Iterator[Advice]:
    if inspected.normalized is False and len(weighted) >= _DEEP_FOR_NORMS:
        yield Advice(
            layer="",
            what=f"no layer normalizes in a network of {len(weighted)} layers with weights",
            remedy="put a batch norm after each convolution: it trains faster, and costs nothing in the files",
        )
