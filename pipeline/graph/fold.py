"""Fold batch norms and constant factors into the layers beside them: the float graph that the float files hold.

Needs: a flat graph.  Guarantees: a flat graph in which no batch norm over channels of a picture or series is left, and
none after a convolution or linear layer that feeds nothing else, or that a linear layer alone reads; all weights are
finite numbers.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from pipeline.errors import ModelError
from pipeline.graph import ops
from pipeline.graph.ends import is_end
from pipeline.graph.kinds import broken_promise, check_flat, compute_nodes, kind_of, module_of

_Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d


def fold(graph: fx.GraphModule) -> fx.GraphModule:
    """Fold a flat graph, in place, and return it.  Raises ModelError where a folded weight overflows."""
    for node in compute_nodes(graph):
        if kind_of(module_of(node)) == "BatchNormalization":
            _fold_batch_norm(graph, node)
        elif isinstance(module_of(node), ops.Scale):
            _fold_scale(graph, node)
    graph.delete_all_unused_submodules()
    graph.graph.lint()
    graph.recompile()
    _check(graph)
    return graph


def _fold_batch_norm(graph: fx.GraphModule, node: fx.Node) -> None:
    before, norm = node.args[0], _with_parameters(module_of(node))
    if isinstance(before, fx.Node) and _takes_norm(before):
        layer = module_of(before)
        fuse = fuse_linear_bn_eval if isinstance(layer, nn.Linear) else fuse_conv_bn_eval
        graph.set_submodule(str(before.target), fuse(layer, norm))  # type: ignore[arg-type, type-var]
        _take_out(graph, node, before)
    elif isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d) and len(node.meta["shape"]) > 2:
        graph.set_submodule(str(node.target), _as_depthwise(norm, axes=len(node.meta["shape"]) - 2))
    elif isinstance(norm, nn.BatchNorm1d) and isinstance(before, fx.Node) and _feeds_linear(node):
        after = next(iter(node.users))
        graph.set_submodule(str(after.target), _linear_behind(norm, module_of(after)))  # type: ignore[arg-type]
        _take_out(graph, node, before)


def _with_parameters(norm: nn.Module) -> nn.Module:
    """Give a norm that has none a factor of 1 and an offset of 0: torch's fusion of linear layers needs them."""
    if not isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d) or norm.affine:
        return norm
    whole = type(norm)(norm.num_features, eps=norm.eps).eval()
    whole.running_mean, whole.running_var = norm.running_mean, norm.running_var
    return whole


def _feeds_linear(norm: fx.Node) -> bool:
    """Whether a linear layer alone reads this; the network's input stays normed, as its columns may differ much."""
    users = list(norm.users)
    if len(users) != 1 or users[0].op != "call_module" or is_end(norm.all_input_nodes[0]):
        return False
    return isinstance(module_of(users[0]), nn.Linear)


@torch.no_grad()
def _linear_behind(norm: nn.BatchNorm1d, layer: nn.Linear) -> nn.Linear:
    """Return the linear layer that does what a batch norm of features and the layer behind it do."""
    identity = nn.Linear(norm.num_features, norm.num_features, bias=False).eval()
    nn.init.eye_(identity.weight)
    before, joined = fuse_linear_bn_eval(identity, norm), copy.deepcopy(layer)
    bias = layer.weight @ before.bias
    joined.bias = nn.Parameter(bias if layer.bias is None else layer.bias + bias)
    joined.weight = nn.Parameter(layer.weight @ before.weight)
    return joined


def _takes_norm(before: fx.Node) -> bool:
    """Whether what scales the channels of this node's value can become part of its weights."""
    if before.op != "call_module" or not isinstance(module_of(before), _Convolution | nn.Linear):
        return False
    return len(before.users) == 1 and not isinstance(module_of(before), ops.Projection)


def _as_depthwise(norm: nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d, *, axes: int) -> _Convolution:
    """Write a batch norm that stands alone as a depthwise convolution of one element, which has integer kernels."""
    make = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[axes]
    identity = make(norm.num_features, norm.num_features, 1, groups=norm.num_features, bias=False).eval()
    nn.init.ones_(identity.weight)
    fused: _Convolution = fuse_conv_bn_eval(identity, norm)  # type: ignore[assignment]
    return fused


@torch.no_grad()
def _fold_scale(graph: fx.GraphModule, node: fx.Node) -> None:
    """Multiply the weights before it, where each of their output channels has one factor and one offset."""
    before, scale = node.args[0], module_of(node)
    if not isinstance(scale, ops.Scale) or not isinstance(before, fx.Node) or before.op != "call_module":
        return
    layer = module_of(before)
    if not isinstance(layer, _Convolution | nn.Linear) or len(before.users) != 1:
        return
    axis = 1 if isinstance(layer, _Convolution) else len(before.meta["shape"]) - 1
    factor, offset = (_per_channel(each, before.meta["shape"], axis) for each in (scale.factor, scale.offset))
    if factor is None or offset is None:
        return
    bias = torch.zeros(layer.weight.shape[0]) if layer.bias is None else layer.bias
    weight = layer.weight * factor.reshape(-1, *(1,) * (layer.weight.dim() - 1))
    layer.weight, layer.bias = nn.Parameter(weight), nn.Parameter(bias * factor + offset)
    _take_out(graph, node, before)


def _per_channel(values: Tensor, shape: tuple[int, ...], axis: int) -> Tensor | None:
    """Return one value per channel; None where they differ along another axis."""
    full = values.reshape((1,) * (len(shape) - values.dim()) + tuple(values.shape))
    if any(side != 1 for place, side in enumerate(full.shape) if place != axis):
        return None
    return full.flatten().expand(shape[axis])


def _take_out(graph: fx.GraphModule, node: fx.Node, before: fx.Node) -> None:
    node.replace_all_uses_with(before)
    graph.graph.erase_node(node)


def _check(folded: fx.GraphModule) -> None:
    check_flat(folded, after="fold")
    for node in compute_nodes(folded):
        module = module_of(node)
        before = node.args[0]
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            raise broken_promise("fold", f"the batch norm '{node.meta['label']}' is still there")
        if isinstance(module, nn.BatchNorm1d) and isinstance(before, fx.Node) and _takes_norm(before):
            raise broken_promise("fold", f"the batch norm '{node.meta['label']}' is still there")
    for name, tensor in folded.state_dict().items():
        if tensor.is_floating_point() and not tensor.is_meta and not tensor.isfinite().all():
            raise ModelError(
                f"'{name}' holds values that are no finite numbers once batch norms are folded into the weights",
                where="network",
                remedy="train with a smaller learning rate, or start from other weights",
            )
