"""The layers of a network: what its files would hold, which of them run on integers, what each costs."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import fx, nn

from pipeline.graph.costs import layer_costs
from pipeline.graph.ends import is_end
from pipeline.graph.fold import fold
from pipeline.graph.kinds import compute_nodes, kind_of, module_of, output_node
from pipeline.inspecting.layers import Inspected, Layer, Step, peaks
from pipeline.inspecting.works import runs_on_integers, works_of
from pipeline.networks.from_torch import flat_graph
from pipeline.quant.grids import QUANTIZERS, on_grid, runs_inside
from pipeline.quant.prepare import BESIDE_FLOAT, prepare
from pipeline.quant.scheme import RULES, Output

_FLOAT_BYTES = 4
_WEIGHT_BITS = 8
_SQUASHING = ("Sigmoid", "Tanh")
_NORMS = ("BatchNormalization", "LayerNormalization")
_MOVING = ("Reshape", "Transpose", "Concat", "Slice")
_MOVED = "it moves values that are float"


def inspect_network(network: nn.Module, sample_shape: tuple[int, ...], *, subject: str) -> Inspected:
    """Return the layers of the files that the network becomes; raises as ``flat_graph`` does.

    Nothing is computed: weights may be any.
    """
    flat = flat_graph(network, sample_shape, checked=False)
    normalized = any(kind_of(module_of(node)) in _NORMS for node in compute_nodes(flat)) or _has_norms(network)
    folded = fold(flat)
    layers = _layers(folded)
    integers = {layer.name for layer in layers if layer.integer}
    return Inspected(
        subject=subject,
        kind="network",
        input_shapes=(sample_shape,),
        layers=layers,
        parameter_bytes=sum(_stored_bytes(node, integers) for node in compute_nodes(folded)),
        normalized=normalized,
    )


def _has_norms(network: nn.Module) -> bool:
    """Whether it normalizes in a way that the flat graph writes as arithmetic."""
    return any("Norm" in type(module).__name__ for module in network.modules())


def _stored_bytes(node: fx.Node, integers: set[str]) -> int:
    module, integer = module_of(node), node.meta["label"] in integers
    weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
    weights = weight.numel() * (1 if integer else _FLOAT_BYTES) if isinstance(weight, nn.Parameter) else 0
    return weights + (bias.numel() * _FLOAT_BYTES if isinstance(bias, nn.Parameter) else 0)


def _layers(folded: fx.GraphModule) -> tuple[Layer, ...]:
    prepared = prepare(folded, weight_bits=_WEIGHT_BITS)
    twins = {node.meta["label"]: node for node in compute_nodes(prepared)}
    nodes, costs = [node for node in compute_nodes(folded) if not is_end(node)], layer_costs(folded)
    labels = [node.meta["label"] for node in nodes]
    bytes_of = {label: _value_bytes(twins[label]) for label in labels}
    alive, works = _peaks(folded, bytes_of), works_of(folded, prepared)
    found = []
    for node, cost, peak in zip(nodes, costs, alive, strict=True):
        why = _why_float(twins[cost.layer])
        found.append(
            Layer(
                name=cost.layer,
                op=cost.op,
                output_shape=cost.output_shape,
                parameters=cost.parameters,
                macs=cost.macs,
                activation_bytes=bytes_of[cost.layer],
                peak_bytes=peak,
                integer=not why,
                why_float=why,
                channels=_channels(module_of(node)),
                squashes=cost.op in _SQUASHING and not _ends_or_gates(node, output_node(folded)),
                works=works[cost.layer],
            )
        )
    return tuple(found)


def _why_float(node: fx.Node) -> str:
    """Say why a node of a prepared graph has no integer kernel; empty where it has one."""
    rule = RULES[kind_of(module_of(node))]
    if rule.output is Output.FLOAT:
        return rule.note
    if node.meta.get("beside_float") and not runs_on_integers(node):
        return BESIDE_FLOAT
    return _MOVED if rule.output is Output.SAME and not on_grid(node.args[0]) else ""


def _value_bytes(node: fx.Node) -> int:
    """Return the size of a value of a prepared graph: a byte per element where it lies on a grid."""
    quantized = on_grid(node) or any(
        user.op == "call_module" and isinstance(module_of(user), QUANTIZERS) for user in node.users
    )
    inside = any(user.op == "call_module" and not _is_quantizer(user) and runs_inside(user) for user in node.users)
    elements: int = math.prod(node.meta["shape"][1:])
    return elements * (1 if quantized or inside else _FLOAT_BYTES)


def _is_quantizer(node: fx.Node) -> bool:
    return isinstance(module_of(node), QUANTIZERS)


def _peaks(folded: fx.GraphModule, bytes_of: Mapping[str, int]) -> tuple[int, ...]:
    inputs = {
        node.name: math.prod(node.meta["shape"][1:]) * _FLOAT_BYTES
        for node in folded.graph.nodes
        if node.op != "output" and is_end(node) and not any(map(is_end, node.users))
    }
    steps = [
        Step(
            reads=tuple(each.name for each in node.all_input_nodes),
            makes=(node.name,),
            size_bytes=bytes_of[node.meta["label"]],
            in_place=kind_of(module_of(node)) == "Reshape" or runs_inside(node),
        )
        for node in compute_nodes(folded)
        if not is_end(node)
    ]
    last = output_node(folded)
    results = last.all_input_nodes if is_end(last) else [last]
    return peaks(inputs, steps, [node.name for node in results])


def _channels(module: nn.Module) -> int | None:
    if isinstance(module, nn.Linear):
        return module.out_features
    return module.out_channels if isinstance(module, nn.modules.conv._ConvNd) else None


def _ends_or_gates(node: fx.Node, last: fx.Node) -> bool:
    """Whether a function is the network's end, or makes factors for another value (a gate)."""
    if node is last:
        return True
    readers = [user for user in node.users if user.op == "call_module"]
    return bool(readers) and all(
        kind_of(module_of(user)) == "Mul" or (kind_of(module_of(user)) in _MOVING and _ends_or_gates(user, last))
        for user in readers
    )
