"""Operations that no runtime has an integer kernel for, put together from some that have one.

``spell_out``  needs a copy of a folded graph; guarantees a flat graph in which Hard-swish is x * hard-sigmoid(x).
"""

from __future__ import annotations

from collections.abc import Collection

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, fx, nn

from pipeline.graph import ops
from pipeline.graph.kinds import compute_nodes, module_of
from pipeline.graph.params import QuantParams
from pipeline.quant.scheme import GATE


class Gate(nn.Hardsigmoid):
    """Hard-sigmoid as the files compute it: a sum that the quantizer behind it clamps, read with another scale.

    Half way up lies between two of its 255 steps, and zero is a frequent input: so everything lies an eighth higher.
    """

    params = GATE
    summed = QuantParams.of(6 * GATE.scale)  # the sum's own, 0 ... 6
    shift = summed.scale / 8

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (torch's own name)
        """Any shape."""
        return F.hardsigmoid(input + self.shift)


def spell_out(graph: fx.GraphModule, float_layers: Collection[str]) -> None:
    """Rewrite a graph in place, but for the layers that stay float."""
    for node in compute_nodes(graph):
        if isinstance(module_of(node), nn.Hardswish) and node.meta["label"] not in float_layers:
            _spell_hard_swish(graph, node)
    graph.delete_all_unused_submodules()


def _spell_hard_swish(graph: fx.GraphModule, node: fx.Node) -> None:
    x, label, place = node.args[0], node.meta["label"], f"spelled.{node.name}"
    graph.add_submodule(f"{place}.gate", nn.Hardsigmoid())
    graph.add_submodule(f"{place}.product", ops.Mul())
    with graph.graph.inserting_before(node):
        gate = graph.graph.call_module(f"{place}.gate", (x,))
        product = graph.graph.call_module(f"{place}.product", (x, gate))
    gate.meta.update(label=f"{label}:gate", shape=node.meta["shape"])
    product.meta.update(label=label, shape=node.meta["shape"])
    node.replace_all_uses_with(product)
    graph.graph.erase_node(node)
