"""Which quantizer a value of a prepared graph has been through: on whose grid it lies."""

from __future__ import annotations

from torch import fx, nn

from pipeline.graph.kinds import kind_of, module_of, output_node
from pipeline.onboard.arrays import Signature
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


def steps_of(graph: fx.GraphModule, signature: Signature) -> dict[str, float]:
    """Return output → one step of it; outputs that are float all the way are not there."""
    last = output_node(graph)
    several = len(signature.outputs) > 1
    nodes = last.all_input_nodes if several else [last]
    pairs = zip(signature.outputs, nodes, strict=True)
    return {spec.name: quantizer_of(node).params.scale for spec, node in pairs if on_grid(node)}


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


def result_quantizer(node: fx.Node) -> ActivationQuantizer | None:
    """Return the quantizer in which an operation's kernel ends, past the activation function that it takes in."""
    (user, *more) = node.users or (None,)
    if user is None or more or user.op != "call_module":
        return None
    module = module_of(user)
    if isinstance(module, ActivationQuantizer):
        return module
    return result_quantizer(user) if isinstance(module, nn.ReLU | nn.Hardtanh) else None


def clamped_by_quantizer(node: fx.Node) -> bool:
    """Whether a node is a ReLU or a clip that does nothing that the quantizer after it does not do.

    Never of one that reads a grid already: without it, ONNX Runtime would make one of two quantizers in a row.
    """
    module, users = module_of(node), list(node.users)
    if on_grid(node.args[0]):
        return False
    if len(users) != 1 or users[0].op != "call_module" or not isinstance(module, nn.ReLU | nn.Hardtanh):
        return False
    quantizer = module_of(users[0])
    if not isinstance(quantizer, ActivationQuantizer):
        return False
    params = quantizer.params
    low, high = (0.0, float("inf")) if isinstance(module, nn.ReLU) else (module.min_val, module.max_val)
    half_step = params.scale / 2
    return params.lowest > low - half_step and params.highest < high + half_step
