"""Operations over whole axes: softmax, layer norm, means and maxima."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import fx, nn

from pipeline.graph import ops
from pipeline.quant.emitters.draft import Draft, Emitter, array_of, inputs_of, plain


def _softmax(out: Draft, node: fx.Node, layer: nn.Module) -> str:
    axis = layer.dim if isinstance(layer.dim, int) else -1
    return out.op("Softmax", inputs_of(out, node), node.meta["label"], axis=axis)


def _layer_norm(out: Draft, node: fx.Node, layer: nn.Module) -> str:
    assert isinstance(layer, nn.LayerNorm)  # noqa: S101
    label = node.meta["label"]
    weight = np.ones(layer.normalized_shape, np.float32) if layer.weight is None else array_of(layer.weight)
    constants = [out.constant(f"{label}.w", weight)]
    if layer.bias is not None:
        constants.append(out.constant(f"{label}.b", array_of(layer.bias)))
    inputs = (*inputs_of(out, node), *constants)
    return out.op("LayerNormalization", inputs, label, axis=-len(layer.normalized_shape), epsilon=layer.eps)


def _reduce(out: Draft, node: fx.Node, layer: nn.Module) -> str:
    assert isinstance(layer, ops.Reduce)  # noqa: S101
    return out.op(layer.name, inputs_of(out, node), node.meta["label"], axes=layer.axes, keepdims=1)


REDUCTIONS: Mapping[str, Emitter] = {
    "Softmax": _softmax,
    "LayerNormalization": _layer_norm,
    "GlobalAveragePool": plain("GlobalAveragePool"),
    "ReduceMean": _reduce,
    "ReduceMax": _reduce,
}
