"""Fold batch norms into the layers before them: the float graph that the float files hold.

Needs: a network that can be traced.  Guarantees: a flat graph in which no BatchNorm2d is left, and no batch norm after
a convolution or linear layer that feeds nothing else; all weights are finite numbers.
"""

from __future__ import annotations

import copy

from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from pipeline.errors import ModelError
from pipeline.graph.kinds import broken_promise, called_once, check_flat, compute_nodes, kind_of, module_of
from pipeline.graph.trace import trace

_Foldable = nn.Conv1d | nn.Conv2d | nn.Linear


def fold(network: nn.Module, sample_shape: tuple[int, ...]) -> fx.GraphModule:
    """Trace a copy of ``network`` for samples of ``sample_shape`` and fold its batch norms; on the CPU, not training.

    Raises ModelError and UnsupportedOpError as ``trace`` does, and ModelError where a folded weight overflows.
    """
    traced = trace(copy.deepcopy(network).cpu(), sample_shape)
    for node in compute_nodes(traced):
        if kind_of(module_of(node)) == "BatchNormalization":
            _fold_batch_norm(traced, node)
    traced.delete_all_unused_submodules()
    traced.graph.lint()
    traced.recompile()
    _check(traced)
    return traced


def _fold_batch_norm(traced: fx.GraphModule, node: fx.Node) -> None:
    before, norm = node.args[0], module_of(node)
    if isinstance(before, fx.Node) and _takes_norm(before):
        layer = module_of(before)
        fuse = fuse_linear_bn_eval if isinstance(layer, nn.Linear) else fuse_conv_bn_eval
        traced.set_submodule(str(before.target), fuse(layer, norm))  # type: ignore[arg-type, type-var]
        node.replace_all_uses_with(before)
        traced.graph.erase_node(node)
    elif isinstance(norm, nn.BatchNorm2d):
        traced.set_submodule(str(node.target), _as_depthwise(norm))


def _takes_norm(before: fx.Node) -> bool:
    """Whether a batch norm that reads this node can become part of its weights."""
    if before.op != "call_module" or not isinstance(module_of(before), _Foldable):
        return False
    return len(before.users) == 1 and called_once(before)


def _as_depthwise(norm: nn.BatchNorm2d) -> nn.Conv2d:
    """Write a batch norm that stands alone as a depthwise 1x1 convolution, which has integer kernels."""
    identity = nn.Conv2d(norm.num_features, norm.num_features, 1, groups=norm.num_features, bias=False).eval()
    nn.init.ones_(identity.weight)
    return fuse_conv_bn_eval(identity, norm)


def _check(folded: fx.GraphModule) -> None:
    check_flat(folded, after="fold")
    for node in compute_nodes(folded):
        module = module_of(node)
        before = node.args[0]
        if isinstance(module, nn.BatchNorm2d):
            raise broken_promise("fold", f"the batch norm '{node.meta['label']}' is still there")
        if isinstance(module, nn.BatchNorm1d) and isinstance(before, fx.Node) and _takes_norm(before):
            raise broken_promise("fold", f"the batch norm '{node.meta['label']}' is still there")
    for name, tensor in folded.state_dict().items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ModelError(
                f"'{name}' holds values that are no finite numbers once batch norms are folded into the weights",
                where="network",
                remedy="train with a smaller learning rate, or start from other weights",
            )
