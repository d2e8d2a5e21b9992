"""Nodes that are linear in their only computed input, and small: written as one matrix that the runtime itself gives.

``y = M x + b``: b is what comes of zeros, and each column of M what comes of a unit vector.  Whether the node is linear
is tried on random numbers.

Shapes: F elements of a sample in, G out.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from pipeline.networks.onnx.constants import evaluator
from pipeline.networks.onnx.modules import Selected
from pipeline.networks.onnx.nodes import Array, Node
from pipeline.networks.onnx.values import Refusal, TouchesBatch, Value

LINEAR = frozenset(
    {
        *("AffineGrid", "AveragePool", "CenterCropPad", "Col2Im", "Compress", "ConvTranspose", "CumSum", "DFT"),
        *("DeformConv", "Gather", "GatherElements", "GatherND", "GridSample", "NegativeLogLikelihoodLoss"),
        *("Resize", "ReverseSequence", "RoiAlign", "STFT", "Scatter", "ScatterElements", "ScatterND", "TensorScatter"),
    }
)
_MOST_IN, _MOST_WEIGHTS = 2048, 1 << 22
_FAR = 1e3  # a maximum of inputs and constants shows only beyond these
_BEYOND = 1e9  # a number that no bound is as small as
_LINEAR_WITHIN = 1e-4  # of the largest number


def as_matrix(node: Node, written: onnx.NodeProto) -> Value:
    """Return what a linear node gives.  Raises Refusal where it is none, or large."""
    computed = [place for place, each in enumerate(node.inputs) if isinstance(each, Value)]
    if len(computed) != 1 or any(node.wanted[1:]):
        raise Refusal("is supported for one computed input alone")
    x = node.value(computed[0])
    if not 0 < math.prod(x.shape) <= _MOST_IN:
        raise Refusal(f"is supported for at most {_MOST_IN:,} elements")
    constants = [None if isinstance(each, Value) else each for each in node.inputs]
    compute = evaluator(written, constants, computed[0], node.opset)
    if node.op.startswith("Scatter") and node.attribute("reduction", "") in ("max", "min"):
        return _bounded(node, x, compute)
    offset, weights = _weights(compute, x.shape)
    if not node.lifted and offset.shape[:1] != (1,):
        raise TouchesBatch
    dims = tuple(offset.shape if node.lifted else offset.shape[1:])
    picked = weights.argmax(0)
    if not offset.any() and np.array_equal(weights, np.eye(len(weights), dtype=np.float32)[:, picked]):
        rows = node.run(lambda y: y.flatten(1), x, part="rows")
        chosen = node.run(Selected(1, torch.from_numpy(picked.astype(np.int64))), rows, part="chosen")
        return node.run(lambda y: y.reshape(y.shape[0], *dims), chosen)
    return node.run(_Affine(torch.from_numpy(weights), torch.from_numpy(offset.ravel()), dims), x)


def _bounded(node: Node, x: Value, compute: Callable[[Array], Array]) -> Value:
    """Return the larger, or smaller, of each element and a constant of its own, where there is one."""
    sign = np.float32(1 if node.attribute("reduction") == "max" else -1)
    bounds = sign * compute(np.full(x.shape, -sign * _BEYOND, np.float32))
    if bounds.shape != x.shape:
        raise Refusal("gives another shape than it takes")
    bounded = (bounds > -_BEYOND).astype(np.float32)
    bounds = np.where(bounded, bounds, 0).astype(np.float32)
    tried = np.random.default_rng(0).standard_normal(x.shape).astype(np.float32)
    if not np.array_equal(compute(tried), np.where(bounded, sign * np.maximum(sign * tried, bounds), tried)):
        raise Refusal("is no bound of each element by itself")
    above = node.broadcast(lambda y, low: torch.relu(y * float(sign) - low), x, bounds, part="above")
    kept = node.broadcast(torch.mul, x, 1 - bounded, part="kept")
    taken = node.broadcast(torch.mul, above, sign * bounded, part="taken")
    return node.broadcast(torch.add, node.broadcast(torch.add, kept, taken, part="both"), sign * bounds * bounded)


def _weights(compute: Callable[[Array], Array], shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Return b with the shape of the output, and the weights (F, G)."""
    elements = math.prod(shape)
    offset = compute(np.zeros(shape, np.float32))
    if offset.dtype != np.float32 or not 0 < offset.size * elements <= _MOST_WEIGHTS:
        raise Refusal("is supported for few elements alone")
    weights = np.empty((elements, offset.size), np.float32)
    for place in range(elements):
        unit = np.zeros(elements, np.float32)
        unit[place] = 1
        weights[place] = (compute(unit.reshape(shape)) - offset).ravel()
    random = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    for samples in (random, random * np.float32(_FAR)):
        wanted, found = compute(samples), (samples.ravel() @ weights).reshape(offset.shape) + offset
        if not np.abs(wanted - found).max() <= _LINEAR_WITHIN * max(float(np.abs(wanted).max()), 1e-6):
            raise Refusal("is supported only where it is linear in its input")
    return offset, weights


class _Affine(nn.Module):
    """``x @ weights + offset`` of all elements of a sample."""

    weights: Tensor
    offset: Tensor | None

    def __init__(self, weights: Tensor, offset: Tensor, dims: tuple[int, ...]) -> None:
        super().__init__()
        self.dims = dims
        self.register_buffer("weights", weights)
        self.register_buffer("offset", offset if offset.any() else None)

    def forward(self, x: Tensor) -> Tensor:
        """(n, …) → (n, *dims)."""
        y: Tensor = x.flatten(1) @ self.weights
        y = y if self.offset is None else y + self.offset
        return y.reshape(y.shape[0], *self.dims)
