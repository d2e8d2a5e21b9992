"""Functions that the tables do not know, as torch itself takes them apart: into simpler ones, which they may know."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, fx
from torch._decomp import decomposition_table
from torch.fx.experimental.proxy_tensor import make_fx

_ASSIGNMENTS = frozenset({"copy_", "fill_", "zero_", "index_put_"})
_PARTS = frozenset({"slice", "select", "narrow", "unbind", "chunk", "split", "diagonal"})
_WHERE_IT_STANDS = ("nn_module_stack", "stack_trace")


def taken_apart(node: fx.Node) -> fx.GraphModule | None:
    """Return what a call is computed from, a graph of the same inputs as the call's own; None where torch does not say.

    Every part stands in the layer and on the line of the call.
    """
    function = node.target
    if not isinstance(function, torch._ops.OpOverload):
        return None
    own = decomposition_table.get(function)
    examples = {each: each.meta.get("val") for each in node.all_input_nodes}
    if own is None and not function._can_decompose():
        return None
    if not all(isinstance(each, Tensor) for each in examples.values()):
        return None

    def call(*tensors: Tensor) -> Any:
        given = dict(zip(examples, tensors, strict=True))
        arguments, options = fx.node.map_arg((node.args, dict(node.kwargs)), given.__getitem__)
        result = function(*arguments, **options)
        return tuple(result) if isinstance(result, list | tuple) else (result,)

    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            table = {} if own is None else {function: own}
            parts = make_fx(call, table, _allow_non_fake_inputs=True)(*examples.values())
    except Exception:  # noqa: BLE001  (whatever torch's code raises: then nothing is known)
        return None
    if any(part.target is function for part in parts.graph.nodes):
        return None
    for part in parts.graph.nodes:
        part.meta.update({name: node.meta[name] for name in _WHERE_IT_STANDS if name in node.meta})
    return parts


def writes_into_parts(graph: fx.Graph) -> bool:
    """Whether part of a tensor is assigned to: that has to be spelled out as what it makes of the whole."""
    return any(
        _name(node) in _ASSIGNMENTS or (_name(node).endswith("_") and _name(node.all_input_nodes[0]) in _PARTS)
        for node in graph.nodes
        if node.all_input_nodes and not _name(node).startswith("_")
    )


def _name(node: fx.Node) -> str:
    return str(node.target).split(".")[1] if str(node.target).startswith("aten.") else ""
