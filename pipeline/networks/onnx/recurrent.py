"""Recurrent layers: LSTM, GRU and RNN of torch with the file's weights.

Shapes: n samples; T steps, B sequences in one call of the file, D directions, H hidden values, I inputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.networks.onnx.nodes import Array, Handler, Node, tensor_of
from pipeline.networks.onnx.values import Refusal, TouchesBatch, Value

# how torch orders what ONNX has as input, output, forget, cell (LSTM) and update, reset, hidden (GRU)
_GATES = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}
_MAKERS: Mapping[str, Any] = {"LSTM": nn.LSTM, "GRU": nn.GRU, "RNN": nn.RNN}
_USUAL = {"LSTM": ("sigmoid", "tanh", "tanh"), "GRU": ("sigmoid", "tanh"), "RNN": ("tanh",)}


class Recurrent(nn.Module):
    """A recurrent layer of torch: (n, T, B, I) and states (n, D, B, H) → all outputs (n, T, D, B, H).

    ``cell``: what an LSTM's cells hold at the end instead, (n, D, B, H); ``backwards``: from the last step on.
    """

    def __init__(self, layer: nn.Module, *, backwards: bool, cell: bool) -> None:
        super().__init__()
        self.layer, self.backwards, self.cell = layer, backwards, cell

    def forward(self, x: Tensor, *states: Tensor) -> Tensor:
        """Run it."""
        steps, batch = x.shape[1:3]
        rows = x.transpose(1, 2).flatten(0, 1)  # (n * B, T, I)
        rows = rows.flip(1) if self.backwards else rows
        given = [each.permute(1, 0, 2, 3).flatten(1, 2).contiguous() for each in states]  # (D, n * B, H)
        y, last = self.layer(rows, *([] if not given else [given[0] if len(given) == 1 else tuple(given)]))
        if self.cell:
            cell: Tensor = last[1].unflatten(1, (-1, batch)).permute(1, 0, 2, 3)
            return cell
        y = y.flip(1) if self.backwards else y
        directions = 2 if self.layer.bidirectional else 1
        every: Tensor = y.reshape(-1, batch, steps, directions, y.shape[-1] // directions).permute(0, 2, 3, 1, 4)
        return every


def _recurrent(node: Node) -> tuple[Value | None, ...]:
    if not node.lifted:
        raise TouchesBatch  # the first axis counts steps
    _check(node)
    x = node.value()
    last = node.attribute("layout", 0) == 1
    x = node.run(partial(torch.transpose, dim0=1, dim1=2), x, part="steps") if last else x
    steps, batch, _ = x.shape
    layer = _layer(node)
    direction = node.attribute("direction", "forward")
    states = _states(node, batch, last=last)
    make = partial(Recurrent, layer, backwards=direction == "reverse")
    y = node.run(make(cell=False), x, *states)
    found: list[Value | None] = [node.run(partial(_laid_out, last=last), y, part="laid_out") if last else y]
    if node.wanted[1:2] == (True,):
        ends = [0 if direction == "reverse" else steps - 1] if direction != "bidirectional" else [steps - 1, 0]
        found.append(node.run(partial(_at_the_end, ends=ends, last=last), y, part="last"))
    else:
        found.append(None)
    if node.op == "LSTM" and node.wanted[2:3] == (True,):
        cell = node.run(make(cell=True), x, *states, part="cell")
        found.append(node.run(partial(torch.transpose, dim0=1, dim1=2), cell, part="cells") if last else cell)
    return tuple(found)


def _laid_out(y: Tensor, *, last: bool) -> Tensor:
    """(n, T, D, B, H) → (n, B, T, D, H)."""
    return y.permute(0, 3, 1, 2, 4) if last else y


def _at_the_end(y: Tensor, *, ends: Sequence[int], last: bool) -> Tensor:
    """(n, T, D, B, H) → (n, D, B, H): each direction after its last step."""
    found = torch.stack([y[:, step, direction] for direction, step in enumerate(ends)], 1)
    return found.transpose(1, 2) if last else found


def _check(node: Node) -> None:
    for name in ("clip", "activation_alpha", "activation_beta", "input_forget"):
        if node.attribute(name):
            raise Refusal(f"has the attribute {name}")
    names = [(each.decode() if isinstance(each, bytes) else each).lower() for each in node.attribute("activations", ())]
    directions = 2 if node.attribute("direction", "forward") == "bidirectional" else 1
    if names and names != list(_USUAL[node.op]) * directions and not (node.op == "RNN" and set(names) == {"relu"}):
        raise Refusal(f"has the activation functions {', '.join(names)}")
    if node.given(7) and node.needed(7).any():
        raise Refusal("has peepholes")
    if node.op == "GRU" and not node.attribute("linear_before_reset", 0):
        raise Refusal("resets before its product (linear_before_reset = 0)")
    if node.given(4):
        lengths = node.needed(4)
        steps = node.value().shape[1 if node.attribute("layout", 0) else 0]
        if (lengths != steps).any():
            raise Refusal("has sequences of different lengths")


def _layer(node: Node) -> nn.Module:
    weights, recurrent, bias = node.needed(1), node.needed(2), node.constant(3)  # (D, G * H, …)
    directions, rows, inputs = weights.shape
    gates = _GATES[node.op]
    hidden = rows // len(gates)
    names = [(each.decode() if isinstance(each, bytes) else each).lower() for each in node.attribute("activations", ())]
    relu = {"nonlinearity": "relu"} if node.op == "RNN" and "relu" in names else {}
    layer: nn.Module = _MAKERS[node.op](inputs, hidden, batch_first=True, bidirectional=directions == 2, **relu)
    both = np.zeros((directions, 2 * rows), np.float32) if bias is None else bias
    for place, suffix in enumerate(("", "_reverse")[:directions]):
        own = {
            "weight_ih": weights[place], "weight_hh": recurrent[place],
            "bias_ih": both[place][:rows], "bias_hh": both[place][rows:],
        }  # fmt: skip
        for name, array in own.items():
            setattr(layer, f"{name}_l0{suffix}", nn.Parameter(tensor_of(_in_torch(array, gates))))
    return layer


def _in_torch(array: Array, gates: Sequence[int]) -> Array:
    parts = np.split(array, len(gates))
    return np.concatenate([parts[gate] for gate in gates])


def _states(node: Node, batch: int, *, last: bool) -> list[Value]:
    """Return the states before the first step, (D, B, H) each; [] where they are zero."""
    places = (5, 6) if node.op == "LSTM" else (5,)
    given = [node.inputs[place] if node.given(place) else None for place in places]
    if all(each is None or (not isinstance(each, Value) and not each.any()) for each in given):
        return []
    if not all(isinstance(each, Value) for each in given):
        raise Refusal("begins with a constant state")
    values = [node.value(place) for place in places]
    if last:
        turn = partial(torch.transpose, dim0=1, dim1=2)
        values = [node.run(turn, each, part=f"state_{place}") for place, each in enumerate(values)]
    if any(each.shape[1] != batch for each in values):
        raise Refusal("has states of another number of sequences")
    return values


RECURRENT: Mapping[str, Handler] = dict.fromkeys(_GATES, _recurrent)
