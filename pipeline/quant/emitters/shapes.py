"""Operations that move or join elements without computing."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import fx, nn

from pipeline.graph import ops
from pipeline.quant.emitters.draft import Draft, Emitter, array_of, inputs_of


def _concat(out: Draft, node: fx.Node, layer: nn.Module) -> str:
    return out.op("Concat", inputs_of(out, node), node.meta["label"], axis=layer.axis)


def _reshape(out: Draft, node: fx.Node, layer: nn.Module) -> str:
    assert isinstance(layer, ops.Reshape)  # noqa: S101
    label = node.meta["label"]
    if len(layer.sample_shape) == 1:
        return out.op("Flatten", inputs_of(out, node), label, axis=1)
    shape = out.constant(f"{label}.shape", np.array([0, *layer.sample_shape], np.int64))  # 0: as in the input
    return out.op("Reshape", (*inputs_of(out, node), shape), label)


def _transpose(out: Draft, node: fx.Node, layer: nn.Module) -> str:
    return out.op("Transpose", inputs_of(out, node), node.meta["label"], perm=layer.order)


def _slice(out: Draft, node: fx.Node, layer: nn.Module) -> str:
    assert isinstance(layer, ops.Slice)  # noqa: S101
    label = node.meta["label"]
    ends = {"starts": layer.start, "ends": layer.stop, "axes": layer.axis, "steps": layer.step}
    constants = [out.constant(f"{label}.{name}", np.array([value], np.int64)) for name, value in ends.items()]
    return out.op("Slice", (*inputs_of(out, node), *constants), label)


def _gather(out: Draft, node: fx.Node, layer: nn.Module) -> str:
    assert isinstance(layer, ops.Gather)  # noqa: S101
    label = node.meta["label"]
    indices = out.constant(f"{label}.indices", array_of(layer.indices).astype(np.int64))
    return out.op("Gather", (*inputs_of(out, node), indices), label, axis=layer.axis)


SHAPES: Mapping[str, Emitter] = {
    "Concat": _concat,
    "Reshape": _reshape,
    "Transpose": _transpose,
    "Slice": _slice,
    "Gather": _gather,
}
