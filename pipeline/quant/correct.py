"""Take the mean error that rounding leaves in a layer's outputs out of its biases.

Follows empirical bias correction (Nagel et al. 2019, arXiv:1906.04721, section 4.2): layer after layer, each one behind
those that are corrected already.

Shapes: N samples, O output channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from pipeline.graph.kinds import module_of
from pipeline.quant.calibrate import bound_scales
from pipeline.quant.grids import WEIGHTED
from pipeline.quant.samples import some_of

_MOST_SAMPLES, _MOST_VALUES = 128, 1 << 26  # large samples have many values of each channel


@torch.no_grad()
def correct_biases(prepared: fx.GraphModule, folded: fx.GraphModule, inputs: Tensor) -> None:
    """Correct the biases of a calibrated graph, in place, by the float graph's outputs on ``inputs`` (N, …)."""
    inputs = some_of(inputs, folded, most=_MOST_SAMPLES, values=_MOST_VALUES)
    labels = {node.meta["label"] for node in prepared.graph.nodes if _has_bias(node)}
    wanted = _Means(folded, labels)
    wanted.run(inputs)
    _Correcting(prepared.eval(), wanted.means).run(inputs)
    bound_scales(prepared)


def _has_bias(node: fx.Node) -> bool:
    return node.op == "call_module" and isinstance(module_of(node), WEIGHTED) and module_of(node).bias is not None


def _mean(outputs: Tensor, layer: nn.Module) -> Tensor:
    """Return the mean of every channel of a layer's outputs, (O,)."""
    return outputs.movedim(-1 if isinstance(layer, nn.Linear) else 1, 0).flatten(1).mean(1)


class _Means(fx.Interpreter):
    """Remembers the mean output of some layers, by label."""

    def __init__(self, graph: fx.GraphModule, labels: set[str]) -> None:
        super().__init__(graph)
        self.labels, self.means = labels, dict[str, Tensor]()

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n.meta.get("label") in self.labels:
            self.means[n.meta["label"]] = _mean(result, module_of(n))
        return result


class _Correcting(fx.Interpreter):
    """Corrects each layer before its output goes on."""

    def __init__(self, prepared: fx.GraphModule, wanted: Mapping[str, Tensor]) -> None:
        super().__init__(prepared)
        self.wanted = wanted

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if _has_bias(n):
            module_of(n).bias.add_(self.wanted[n.meta["label"]] - _mean(result, module_of(n)))  # type: ignore[operator]
            result = super().run_node(n)
        return result
