"""Turn a network into its fake-quantized twin and back into integers.

``fold``     traced float graph with batch norms folded: what the float files hold.
``prepare``  the same graph with quantizers where ``scheme.RULES`` wants them and fake-quantized weights.
``freeze``   the prepared graph computing with the integers of the files.

A layer can be left float by its label: its weights stay float, and its output is quantized only if an int8 layer
reads it.
"""

from __future__ import annotations

import copy
from collections.abc import Collection

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from pipeline.errors import UnsupportedOpError
from pipeline.quant.fakequant import (
    QUANTIZED_CLASS,
    ActivationQuantizer,
    FollowingQuantizer,
    FrozenPool,
    FrozenQuantizer,
    FrozenWeighted,
    QConv1d,
    QConv2d,
    QLinear,
)
from pipeline.quant.scheme import RULES, Output
from pipeline.quant.trace import compute_nodes, kind_of, module_of, trace

QUANTIZERS = (ActivationQuantizer, FollowingQuantizer)
WEIGHTED = (QConv2d, QConv1d, QLinear)
_KEEPS_GRID = (Output.SAME, Output.SAME_ROUNDED)


def fold(network: nn.Module, sample_shape: tuple[int, ...]) -> fx.GraphModule:
    """Trace a copy of ``network`` and fold its batch norms into the layers before them."""
    traced = trace(copy.deepcopy(network).cpu(), sample_shape)
    for node in compute_nodes(traced):
        if kind_of(module_of(node)) == "BatchNormalization":
            _fold_batch_norm(traced, node)
    traced.delete_all_unused_submodules()
    traced.graph.lint()
    traced.recompile()
    return traced


def _fold_batch_norm(traced: fx.GraphModule, node: fx.Node) -> None:
    before, norm = node.args[0], module_of(node)
    assert isinstance(before, fx.Node)  # noqa: S101  (trace guarantees it)
    layer = module_of(before) if before.op == "call_module" else None
    if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Linear) and len(before.users) == 1 and _called_once(before):
        fuse = fuse_linear_bn_eval if isinstance(layer, nn.Linear) else fuse_conv_bn_eval
        _set_module(traced, before, fuse(layer, norm))  # type: ignore[arg-type, type-var]
        node.replace_all_uses_with(before)
        traced.graph.erase_node(node)
    elif isinstance(norm, nn.BatchNorm2d):
        _set_module(traced, node, _as_depthwise(norm))


def _as_depthwise(norm: nn.BatchNorm2d) -> nn.Conv2d:
    """Write a batch norm that stands alone as a depthwise 1x1 convolution, which has integer kernels."""
    identity = nn.Conv2d(norm.num_features, norm.num_features, 1, groups=norm.num_features, bias=False).eval()
    nn.init.ones_(identity.weight)
    return fuse_conv_bn_eval(identity, norm)


def prepare(folded: fx.GraphModule, *, weight_bits: int, float_layers: Collection[str] = ()) -> fx.GraphModule:
    """Insert quantizers into a copy of a folded graph; layers labelled in ``float_layers`` stay float.

    Raises UnsupportedOpError when one weighted layer is called twice: its integer bias depends on its input's scale.
    """
    prepared = copy.deepcopy(folded)
    quantized = _quantized_nodes(prepared, float_layers)
    for node in list(prepared.graph.nodes):
        if node in quantized and RULES[kind_of(module_of(node))].weighted:
            _quantize_weights(node, weight_bits)
    for node in list(prepared.graph.nodes):
        if node.op in ("placeholder", "call_module"):
            _insert_quantizer(prepared, node, quantized)
    prepared.graph.lint()
    prepared.recompile()
    return prepared


def _quantized_nodes(prepared: fx.GraphModule, float_layers: Collection[str]) -> set[fx.Node]:
    """Choose what becomes int8; a float layer takes its activation function with it."""
    quantized: set[fx.Node] = set()
    for node in compute_nodes(prepared):
        kind, before = kind_of(module_of(node)), node.args[0]
        follows_float = (
            isinstance(before, fx.Node)
            and before.meta["label"] in float_layers
            and kind in RULES[kind_of(module_of(before))].takes_in
        )
        if node.meta["label"] not in float_layers and not follows_float and RULES[kind].output is not Output.FLOAT:
            quantized.add(node)
    return quantized


def _quantize_weights(node: fx.Node, weight_bits: int) -> None:
    if not _called_once(node):
        raise UnsupportedOpError(
            "this layer is called more than once; its int8 bias would need two scales",
            where=f"layer '{node.target}'",
            remedy="give each call a layer of its own",
        )
    layer = module_of(node)
    layer.__class__ = QUANTIZED_CLASS[type(layer)]  # the weights stay where they are
    layer.quantize_to(weight_bits)  # type: ignore[operator]


def _insert_quantizer(prepared: fx.GraphModule, node: fx.Node, quantized: set[fx.Node]) -> None:
    if not _wanted(node, quantized):
        return
    rule = RULES[kind_of(module_of(node))] if node.op == "call_module" else None
    quantizer: nn.Module
    if rule is not None and rule.output is Output.SAME_ROUNDED and node in quantized:
        leader = quantizer_of(node.args[0])  # type: ignore[arg-type]
        quantizer = FollowingQuantizer(leader)
    else:
        quantizer = ActivationQuantizer(rule.fixed if rule and node in quantized else None)
    name = f"quantizers.{node.meta['label'].replace('.', '_')}"
    prepared.add_submodule(name, quantizer)
    with prepared.graph.inserting_after(node):
        inserted = prepared.graph.call_module(name, (node,))
    inserted.meta.update(label=node.meta["label"] + ":q", shape=node.meta["shape"])
    node.replace_all_uses_with(inserted, delete_user_cb=lambda user: user is not inserted)


def _wanted(node: fx.Node, quantized: set[fx.Node]) -> bool:
    """Quantize what an int8 layer reads, and the network's output if an int8 layer makes it."""
    if node in quantized:
        rule = RULES[kind_of(module_of(node))]
        if rule.output is Output.SAME and on_grid(node.args[0]):
            return False
        if _taken_in(node, quantized):
            return False
        return any(user in quantized or user.op == "output" for user in node.users)
    return any(user in quantized for user in node.users) and "tensor_meta" in node.meta


def on_grid(value: object) -> bool:
    """Whether a value lies on a quantizer's grid: it comes out of one, or out of an operation that keeps grids."""
    if not isinstance(value, fx.Node) or value.op != "call_module":
        return False
    module = module_of(value)
    if isinstance(module, QUANTIZERS):
        return True
    return RULES[kind_of(module)].output is Output.SAME and on_grid(value.args[0])


def _taken_in(node: fx.Node, quantized: set[fx.Node]) -> bool:
    """Whether the activation function after this node runs inside its integer kernel."""
    users = list(node.users)
    if len(users) != 1 or users[0] not in quantized:
        return False
    return kind_of(module_of(users[0])) in RULES[kind_of(module_of(node))].takes_in


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


@torch.no_grad()
def freeze(prepared: fx.GraphModule) -> fx.GraphModule:
    """Return a copy that computes with the files' integers, in evaluation mode."""
    frozen = copy.deepcopy(prepared).cpu().eval()
    plan: list[tuple[fx.Node, nn.Module]] = []
    for node in compute_nodes(frozen):
        module = module_of(node)
        if isinstance(module, QUANTIZERS):
            scale, zero_point = (module.leader if isinstance(module, FollowingQuantizer) else module).qparams()
            plan.append((node, FrozenQuantizer(float(scale), int(zero_point))))
        elif isinstance(module, WEIGHTED):
            plan.append((node, FrozenWeighted(module, float(input_quantizer(node).qparams()[0]))))
        elif kind_of(module) in ("AveragePool", "GlobalAveragePool") and on_grid(node.args[0]):
            scale = input_quantizer(node).qparams()[0]
            plan.append((node, FrozenPool(module, float(scale), round_result=kind_of(module) == "AveragePool")))
    for node, module in plan:
        _set_module(frozen, node, module)
    frozen.recompile()
    return frozen


def quantized_labels(prepared: fx.GraphModule) -> list[str]:
    """Return the labels of the layers with int8 weights, in order."""
    return [node.meta["label"] for node in compute_nodes(prepared) if isinstance(module_of(node), WEIGHTED)]


def float_reasons(prepared: fx.GraphModule) -> tuple[str, ...]:
    """Say which operations stay float and why: ``layer (op): reason``."""
    reasons = []
    for node in compute_nodes(prepared):
        module = module_of(node)
        if isinstance(module, QUANTIZERS):
            continue
        rule = RULES[kind_of(module)]
        note = rule.note
        if rule.weighted and not isinstance(module, WEIGHTED):
            note = "left float to keep the accuracy margin"
        if note:
            reasons.append(f"{node.meta['label']} ({kind_of(module)}): {note}")
    return tuple(reasons)


def _called_once(node: fx.Node) -> bool:
    calls = [other for other in node.graph.nodes if other.op == "call_module" and other.target == node.target]
    return len(calls) == 1


def _set_module(traced: fx.GraphModule, node: fx.Node, module: nn.Module) -> None:
    traced.set_submodule(str(node.target), module)
