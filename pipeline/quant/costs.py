"""What each layer of a folded graph costs: parameters and multiply-accumulates (MACs) per sample."""

from __future__ import annotations

import math

from torch import fx, nn

from pipeline.artifacts import LayerCost
from pipeline.quant.trace import compute_nodes, kind_of, module_of


def layer_costs(folded: fx.GraphModule) -> tuple[LayerCost, ...]:
    """Return one row per operation, in order; activation functions and reshapes count no MACs."""
    return tuple(
        LayerCost(
            layer=node.meta["label"],
            op=kind_of(module_of(node)),
            output_shape=tuple(node.meta["shape"][1:]),
            parameters=sum(parameter.numel() for parameter in module_of(node).parameters()),
            macs=_macs(module_of(node), node.meta["shape"][1:]),
        )
        for node in compute_nodes(folded)
    )


def total_macs(folded: fx.GraphModule) -> int:
    """Return the MACs of one sample through the whole graph."""
    return sum(row.macs for row in layer_costs(folded))


def _macs(module: nn.Module, output_shape: tuple[int, ...]) -> int:
    if isinstance(module, nn.Conv1d | nn.Conv2d):
        # every output value sums over its group's input channels and the kernel's positions
        return math.prod(output_shape) * module.weight[0].numel()
    if isinstance(module, nn.ConvTranspose2d):
        positions = math.prod(output_shape) // module.out_channels
        return positions * module.weight.numel() // math.prod(int(side) for side in module.stride)
    if isinstance(module, nn.Linear):
        return math.prod(output_shape[:-1]) * module.weight.numel()
    return 0
