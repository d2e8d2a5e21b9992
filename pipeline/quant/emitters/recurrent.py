"""LSTM, GRU and RNN layers, in float; ONNX wants the steps first and has its gates in another order.

Shapes: N batch, T steps, D directions, H hidden features, G gates.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from pipeline.graph.recurrent import Recurrent
from pipeline.quant.emitters.draft import Draft, Emitter, array_of, inputs_of

_GATES: Mapping[str, tuple[int, ...]] = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2), "RNN": (0,)}  # ONNX's among torch's


def _recurrent(out: Draft, node: fx.Node, module: nn.Module) -> str:
    assert isinstance(module, Recurrent)  # noqa: S101
    label, hidden, directions = node.meta["label"], module.layer.hidden_size, module.directions
    x, *states = inputs_of(out, node)
    inputs = [out.op("Transpose", (x,), f"{label}:steps", perm=(1, 0, 2)), *_weights(out, label, module)]
    if states:
        inputs += ["", *(_first(out, f"{label}:first{place}", each, module) for place, each in enumerate(states))]
    attributes: dict[str, object] = {"hidden_size": hidden}
    if directions > 1:
        attributes["direction"] = "bidirectional"
    if module.name == "GRU":
        attributes["linear_before_reset"] = 1
    if module.name == "RNN" and module.layer.nonlinearity == "relu":
        attributes["activations"] = ["Relu"] * directions
    value = out.nth(2 if module.gives_cells else 0, module.name, inputs, label, **attributes)
    batch_first = (1, 0, 2) if module.gives_cells else (2, 0, 1, 3)
    value = out.op("Transpose", (value,), f"{label}:samples", perm=batch_first)  # (N, D, H) or (N, T, D, H)
    shape = out.constant(f"{label}.shape", np.array([0, *node.meta["shape"][1:]], np.int64))
    return out.op("Reshape", (value, shape), f"{label}:shaped")


def _weights(out: Draft, label: str, module: Recurrent) -> list[str]:
    """Add W (D, G * H, F), R (D, G * H, H) and B (D, 2 * G * H)."""
    order = _GATES[module.name]
    found = [[_ordered(each, order) for each in tensors] for tensors in module.weights()]
    return [
        out.constant(f"{label}.w", np.stack([each[0] for each in found])),
        out.constant(f"{label}.r", np.stack([each[1] for each in found])),
        out.constant(f"{label}.b", np.stack([np.concatenate(each[2:]) for each in found])),
    ]


def _ordered(tensor: Tensor, order: tuple[int, ...]) -> NDArray[np.generic]:
    values = array_of(tensor)
    gates = values.reshape(len(order), -1, *values.shape[1:])
    return gates[list(order)].reshape(values.shape)


def _first(out: Draft, name: str, state: str, module: Recurrent) -> str:
    """(N, D * H) → (D, N, H)."""
    shape = out.constant(f"{name}.shape", np.array([0, module.directions, module.layer.hidden_size], np.int64))
    apart = out.op("Reshape", (state, shape), f"{name}:apart")
    return out.op("Transpose", (apart,), name, perm=(1, 0, 2))


RECURRENT: Mapping[str, Emitter] = dict.fromkeys(_GATES, _recurrent)
