"""Flat graphs put together by hand, without tracing a network."""

from __future__ import annotations

import torch
from torch import fx, nn


class Flat:
    """A flat graph under construction; shapes are those that the modules give for a batch of one."""

    def __init__(self, *shape: int) -> None:
        self.graph, self.modules = fx.Graph(), dict[str, nn.Module]()
        self.x = self.graph.placeholder("x")
        self.x.meta.update(label="x", shape=(1, *shape))

    @torch.no_grad()
    def add(self, module: nn.Module, *inputs: fx.Node, label: str = "") -> fx.Node:
        """Add an operation and return its node."""
        target = f"m{len(self.modules)}"
        self.modules[target] = module.eval()
        node = self.graph.call_module(target, inputs)
        result = module(*(torch.zeros(each.meta["shape"]) for each in inputs))
        node.meta.update(label=label or target, shape=tuple(result.shape))
        return node

    def ending_in(self, last: fx.Node) -> fx.GraphModule:
        """Return the graph that gives this value."""
        self.graph.output(last)
        return fx.GraphModule(self.modules, self.graph).eval()


def chain(shape: tuple[int, ...], *modules: nn.Module) -> fx.GraphModule:
    """Return modules one after the other as a flat graph, called m0, m1 and so on."""
    flat = Flat(*shape)
    last = flat.x
    for module in modules:
        last = flat.add(module, last)
    return flat.ending_in(last)
