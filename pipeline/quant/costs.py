"""What each layer of a folded graph costs: parameters and multiply-accumulates (MACs) per sample."""

from __future__ import annotations

import math

from torch import fx, nn

from pipeline.artifacts import LayerCost
from pipeline.quant.trace import compute_nodes, kind_of, module_of


def layer_costs(folded: fx.GraphModule) -> tuple[LayerCost, ...]:
    """Return one row per operation, in order; activation functions and reshapes count no MACs."""
    nodes = compute_nodes(folded)
    first_calls = {node.target: node for node in reversed(nodes)}.values()  # weights that are used again count once
    return tuple(
        LayerCost(
            layer=node.meta["label"],
            op=kind_of(module_of(node)),
            output_shape=tuple(node.meta["shape"][1:]),
            parameters=sum(p.numel() for p in module_of(node).parameters()) if node in first_calls else 0,
            macs=_macs(node),
        )
        for node in nodes
    )


def total_macs(folded: fx.GraphModule) -> int:
    """Return the MACs of one sample through the whole graph."""
    return sum(row.macs for row in layer_costs(folded))


def _macs(node: fx.Node) -> int:
    module, source = module_of(node), node.args[0]
    output_shape: tuple[int, ...] = node.meta["shape"][1:]
    input_shape: tuple[int, ...] = source.meta["shape"][1:] if isinstance(source, fx.Node) else ()
    if isinstance(module, nn.Conv1d | nn.Conv2d):
        # every output value sums over its group's input channels and the kernel's positions
        return math.prod(output_shape) * module.weight[0].numel()
    if isinstance(module, nn.ConvTranspose2d):  # every input value goes to its group's output channels
        return math.prod(input_shape) * module.weight[0].numel()
    if isinstance(module, nn.Linear):
        return math.prod(output_shape[:-1]) * module.weight.numel()
    return 0
