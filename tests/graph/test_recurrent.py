"""LSTM, GRU and RNN layers against their equations, written out in numpy.

Shapes: N batch, T steps, F features, H hidden features.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from pipeline.graph.costs import layer_costs
from pipeline.graph.recurrent import Recurrent
from tests.graph.flat import Flat, chain

Floats = NDArray[np.float64]
KINDS: dict[str, type[nn.LSTM | nn.GRU | nn.RNN]] = {"LSTM": nn.LSTM, "GRU": nn.GRU, "RNN": nn.RNN}
TOLERANCE = 1e-6  # float32 against float64, a handful of steps


def layer(kind: str, features: int, hidden: int, *, both_ways: bool = False, bias: bool = True) -> Recurrent:
    torch.manual_seed(0)
    return Recurrent(KINDS[kind](features, hidden, batch_first=True, bidirectional=both_ways, bias=bias)).eval()


def sigmoid(x: Floats) -> Floats:
    result: Floats = 1 / (1 + np.exp(-x))
    return result


def by_hand(module: Recurrent, x: Floats, direction: int, hidden: Floats, cell: Floats) -> tuple[Floats, Floats]:
    """Return the states of all steps (N, T, H) and the last cells (N, H): torch's own equations."""
    w, r, bias, again = (each.double().numpy() for each in module.weights()[direction])
    found = []
    for step in range(x.shape[1]) if direction == 0 else reversed(range(x.shape[1])):
        inputs, states = x[:, step] @ w.T + bias, hidden @ r.T + again
        if module.name == "LSTM":
            i, f, g, o = np.split(inputs + states, 4, axis=1)
            cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
            hidden = sigmoid(o) * np.tanh(cell)
        elif module.name == "GRU":
            (r_x, z_x, n_x), (r_h, z_h, n_h) = np.split(inputs, 3, axis=1), np.split(states, 3, axis=1)
            new, z = np.tanh(n_x + sigmoid(r_x + r_h) * n_h), sigmoid(z_x + z_h)
            hidden = (1 - z) * new + z * hidden
        else:
            hidden = np.tanh(inputs + states)
        found.append(hidden)
    return np.stack(found if direction == 0 else found[::-1], axis=1), cell


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("steps", "features", "hidden"), [(1, 1, 1), (4, 2, 3), (3, 5, 1)])
@pytest.mark.parametrize("bias", [True, False])
def test_one_direction_from_zeros(kind: str, steps: int, features: int, hidden: int, *, bias: bool) -> None:
    module = layer(kind, features, hidden, bias=bias)
    x = np.random.default_rng(0).normal(size=(3, steps, features))
    zeros = np.zeros((3, hidden))
    wanted, _ = by_hand(module, x, 0, zeros, zeros)
    with torch.no_grad():
        found = module(torch.from_numpy(x).float())
    np.testing.assert_allclose(found.numpy(), wanted, atol=TOLERANCE)


@pytest.mark.parametrize("kind", KINDS)
def test_both_directions_from_given_states(kind: str) -> None:
    """States lie side by side: the forward direction's columns, then the backward's."""
    module = layer(kind, 2, 3, both_ways=True)
    rng = np.random.default_rng(1)
    x, hidden, cell = rng.normal(size=(2, 4, 2)), rng.normal(size=(2, 6)), rng.normal(size=(2, 6))
    halves = [slice(0, 3), slice(3, 6)]
    ran = [by_hand(module, x, way, hidden[:, half], cell[:, half]) for way, half in enumerate(halves)]
    states = [hidden, cell] if kind == "LSTM" else [hidden]
    with torch.no_grad():
        found = module(torch.from_numpy(x).float(), *(torch.from_numpy(each).float() for each in states))
    assert module.directions == 2
    np.testing.assert_allclose(found.numpy(), np.concatenate([each for each, _ in ran], axis=2), atol=TOLERANCE)


def test_the_last_cells_of_an_lstm_are_an_operation_of_their_own() -> None:
    module = layer("LSTM", 2, 3, both_ways=True)
    cells = Recurrent(module.layer, gives_cells=True)
    x, zeros = np.random.default_rng(2).normal(size=(3, 4, 2)), np.zeros((3, 3))
    wanted = np.concatenate([by_hand(module, x, way, zeros, zeros)[1] for way in (0, 1)], axis=1)
    with torch.no_grad():
        np.testing.assert_allclose(cells(torch.from_numpy(x).float()).numpy(), wanted, atol=TOLERANCE)


def test_weights_are_given_for_each_direction_with_zeros_for_missing_biases() -> None:
    shapes = [tuple(tuple(each.shape) for each in ways) for ways in layer("GRU", 2, 3, both_ways=True).weights()]
    assert shapes == [((9, 2), (9, 3), (9,), (9,))] * 2
    ((_, _, *biases),) = layer("LSTM", 2, 3, bias=False).weights()
    assert [each.tolist() for each in biases] == [[0.0] * 12] * 2


@pytest.mark.parametrize(
    ("kind", "gates", "both_ways"), [("LSTM", 4, False), ("LSTM", 4, True), ("GRU", 3, False), ("RNN", 1, True)]
)
def test_costs_are_those_of_all_gates_at_every_step(kind: str, gates: int, *, both_ways: bool) -> None:
    (row,) = layer_costs(chain((5, 2), layer(kind, 2, 3, both_ways=both_ways)))
    ways = 2 if both_ways else 1
    assert (row.op, row.output_shape) == (kind, (5, 3 * ways))
    assert row.macs == 5 * ways * gates * 3 * (2 + 3)
    assert row.parameters == ways * gates * 3 * (2 + 3 + 2)


def test_an_lstm_that_gives_its_cells_too_has_its_parameters_once() -> None:
    flat, module = Flat(5, 2), layer("LSTM", 2, 3)
    sequence = flat.add(module, flat.x)
    cells = flat.add(Recurrent(module.layer, gives_cells=True), flat.x)
    last = flat.add(nn.Linear(3, 1), cells)
    rows = layer_costs(flat.ending_in(last))
    assert sequence.meta["shape"] == (1, 5, 3)
    assert [row.parameters for row in rows] == [4 * 3 * (2 + 3 + 2), 0, 4]
