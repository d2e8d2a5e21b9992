"""Which quantizer a value of a prepared graph has been through: on whose grid it lies."""

from __future__ import annotations

from torch import fx

from pipeline.graph.kinds import kind_of, module_of
from pipeline.quant.fakequant import ActivationQuantizer, FollowingQuantizer, QConv1d, QConv2d, QConv3d, QLinear
from pipeline.quant.scheme import RULES, Output

QUANTIZERS = (ActivationQuantizer, FollowingQuantizer)
WEIGHTED = (QConv3d, QConv2d, QConv1d, QLinear)


def on_grid(value: object) -> bool:
    """Whether a value lies on a quantizer's grid: it comes out of one, or out of an operation that keeps grids."""
    if not isinstance(value, fx.Node) or value.op != "call_module":
        return False
    module = module_of(value)
    if isinstance(module, QUANTIZERS):
        return True
    return RULES[kind_of(module)].output is Output.SAME and on_grid(value.args[0])


def quantizer_of(node: fx.Node) -> ActivationQuantizer:
    """Return the quantizer whose grid a node's value lies on, back through operations that keep it."""
    while True:
        module = module_of(node)
        if isinstance(module, ActivationQuantizer):
            return module
        if isinstance(module, FollowingQuantizer):
            return module.leader
        node = node.args[0]  # type: ignore[assignment]


def input_quantizer(node: fx.Node) -> ActivationQuantizer:
    """Return the quantizer of a node's first input."""
    return quantizer_of(node.args[0])  # type: ignore[arg-type]


def runs_inside(node: fx.Node) -> bool:
    """Whether an activation function is computed at the end of the integer kernel of the operation before it."""
    before = node.args[0]
    if not isinstance(before, fx.Node) or before.op != "call_module" or isinstance(module_of(before), QUANTIZERS):
        return False
    return kind_of(module_of(node)) in RULES[kind_of(module_of(before))].takes_in
