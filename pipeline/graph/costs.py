"""What each layer of a folded graph costs: parameters and multiply-accumulates (MACs) per sample."""

from __future__ import annotations

import math

from torch import fx, nn

from pipeline.artifacts.files import LayerCost
from pipeline.graph import ops
from pipeline.graph.ends import is_end
from pipeline.graph.kinds import KINDS, compute_nodes, kind_of, module_of
from pipeline.graph.recurrent import Recurrent


def layer_costs(folded: fx.GraphModule) -> tuple[LayerCost, ...]:
    """Return one row per operation, in order; activation functions and reshapes count no MACs, quantizers no row."""
    nodes = [node for node in compute_nodes(folded) if isinstance(module_of(node), tuple(KINDS)) and not is_end(node)]
    first_calls = {_weights(node): node for node in reversed(nodes)}.values()  # weights that are used again count once
    return tuple(
        LayerCost(
            layer=node.meta["label"],
            op=kind_of(module_of(node)),
            output_shape=tuple(node.meta["shape"][1:]),
            parameters=_parameters(module_of(node)) if node in first_calls else 0,
            macs=_macs(node),
        )
        for node in nodes
    )


def total_macs(folded: fx.GraphModule) -> int:
    """Return the MACs of one sample through the whole graph."""
    return sum(row.macs for row in layer_costs(folded))


def _weights(node: fx.Node) -> object:
    weight = getattr(module_of(node), "weight", None)
    return node.target if weight is None else id(weight)


def _parameters(module: nn.Module) -> int:
    """Count what the files hold; the step sizes of quantization are none of it."""
    if isinstance(module, Recurrent):
        return 0 if module.gives_cells else sum(p.numel() for p in module.parameters())
    return sum(p.numel() for name, p in module.named_parameters() if name in ("weight", "bias"))


def _macs(node: fx.Node) -> int:
    module, source = module_of(node), node.args[0]
    output_shape: tuple[int, ...] = node.meta["shape"][1:]
    input_shape: tuple[int, ...] = source.meta["shape"][1:] if isinstance(source, fx.Node) else ()
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        # every output value sums over its group's input channels and the kernel's positions
        return math.prod(output_shape) * module.weight[0].numel()
    if isinstance(
        module, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d
    ):  # every input value goes to its group's output channels
        return math.prod(input_shape) * module.weight[0].numel()
    if isinstance(module, nn.Linear):
        return math.prod(output_shape[:-1]) * module.weight.numel()
    if isinstance(module, Recurrent):
        return module.macs(input_shape[0])
    if isinstance(module, ops.MatMul):  # every output value sums over the rows' length
        return math.prod(output_shape) * input_shape[-1]
    return 0
