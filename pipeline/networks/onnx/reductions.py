"""Sums, means and largest elements over some axes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from pipeline.networks.onnx.nodes import Handler, Node
from pipeline.networks.onnx.values import Value

Over = Callable[[Tensor, tuple[int, ...], bool], Tensor]


def _reduce(over: Over, *, unreduced: Callable[[Tensor], Tensor] | None = None) -> Handler:
    def convert(node: Node) -> Value:
        x = node.value()
        rank = len(x.shape)
        axes = node.whole_numbers("axes", 1)
        if not axes and node.attribute("noop_with_empty_axes", 0):
            return node.run(unreduced, x) if unreduced else x
        lying = tuple(sorted(node.axis(axis, rank) for axis in axes or range(rank)))
        keep = bool(node.attribute("keepdims", 1))
        if not lying:
            return x
        return node.run(lambda y: over(y, lying, keep), x)

    return convert


def _log_sum_exp(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    largest = x.amax(axes, keepdim=True)
    summed = torch.log(torch.exp(x - largest).sum(axes, keepdim=True)) + largest
    return summed if keep else summed.squeeze(axes)


REDUCTIONS: Mapping[str, Handler] = {
    "ReduceMean": _reduce(lambda x, axes, keep: x.mean(axes, keepdim=keep)),
    "ReduceSum": _reduce(lambda x, axes, keep: x.sum(axes, keepdim=keep)),
    "ReduceMax": _reduce(lambda x, axes, keep: x.amax(axes, keepdim=keep)),
    "ReduceMin": _reduce(lambda x, axes, keep: -((-x).amax(axes, keepdim=keep))),
    "ReduceL1": _reduce(lambda x, axes, keep: x.abs().sum(axes, keepdim=keep), unreduced=torch.abs),
    "ReduceL2": _reduce(lambda x, axes, keep: torch.sqrt((x * x).sum(axes, keepdim=keep)), unreduced=torch.abs),
    "ReduceSumSquare": _reduce(lambda x, axes, keep: (x * x).sum(axes, keepdim=keep), unreduced=lambda x: x * x),
    "ReduceLogSum": _reduce(lambda x, axes, keep: torch.log(x.sum(axes, keepdim=keep)), unreduced=torch.log),
    "ReduceLogSumExp": _reduce(_log_sum_exp),
}
