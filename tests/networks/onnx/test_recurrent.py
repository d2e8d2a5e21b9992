"""LSTM, GRU and RNN nodes as layers of torch: the network that is read is compared with ONNX Runtime on its file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import UnsupportedOpError
from pipeline.networks.from_onnx import network_from
from tests.networks.onnx.written import Array, model, node, random, write

STEPS, INPUTS, HIDDEN = 5, 3, 4
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def constants(op: str, directions: int = 1) -> dict[str, Array]:
    rows = GATES[op] * HIDDEN
    return {
        "w": random(directions, rows, INPUTS),
        "r": random(directions, rows, HIDDEN, seed=1),
        "b": random(directions, 2 * rows, seed=2),
    }


def written(op: str, folder: Path, outputs: str = "y", *, given: str = "x w r b", **attributes: Any) -> Path:
    """Write a network that turns (1, T, I) into steps first, as exporters do."""
    directions = 2 if attributes.get("direction") == "bidirectional" else 1
    own = {"hidden_size": HIDDEN, **attributes, **({"linear_before_reset": 1} if op == "GRU" else {})}
    nodes = [node("Transpose", "x", "t", perm=[1, 0, 2]), node(op, given.replace("x", "t", 1), outputs, **own)]
    named = [name for name in outputs.split() if name != "-"]
    return write(model(nodes, (1, STEPS, INPUTS), constants(op, directions), outputs=named), folder)


@pytest.mark.parametrize("op", GATES)
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_all_steps_and_the_last_state(op: str, direction: str, tmp_path: Path) -> None:
    network = network_from(written(op, tmp_path, "y h", direction=direction))
    directions = 2 if direction == "bidirectional" else 1
    last = (directions, 1, HIDDEN) if directions > 1 else (1, HIDDEN)  # a first axis of one element counts samples
    assert [each.shape for each in network.outputs] == [(STEPS, directions, 1, HIDDEN), last]


def test_the_cells_of_an_lstm(tmp_path: Path) -> None:
    network = network_from(written("LSTM", tmp_path, "y h c"))
    assert [each.name for each in network.outputs] == ["y", "h", "c"]


def test_an_rnn_of_another_function_and_without_a_bias(tmp_path: Path) -> None:
    assert network_from(written("RNN", tmp_path, activations=["Relu"]))
    assert network_from(written("GRU", tmp_path, given="x w r"))


def test_states_that_are_carried(tmp_path: Path) -> None:
    nodes = [
        node("LSTM", "t w r b - h0 c0", "y hn cn", hidden_size=HIDDEN),
        node("Transpose", "x", "t", perm=[1, 0, 2]),
    ]
    state = {"h0": (1, 1, HIDDEN), "c0": (1, 1, HIDDEN)}
    made = model(nodes[::-1], (1, STEPS, INPUTS), constants("LSTM"), outputs=("y", "hn", "cn"), also=state)
    network = network_from(write(made, tmp_path))
    assert [each.shape for each in network.inputs] == [(STEPS, INPUTS), (1, HIDDEN), (1, HIDDEN)]


@pytest.mark.parametrize(
    ("op", "attributes", "why"),
    [
        ("LSTM", {"clip": 1.0}, "has the attribute clip"),
        ("LSTM", {"activations": ["Sigmoid", "Tanh", "Relu"]}, "has the activation functions sigmoid, tanh, relu"),
    ],
)
def test_what_torch_has_not_is_refused(op: str, attributes: dict[str, Any], why: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedOpError, match=why):
        network_from(written(op, tmp_path, **attributes))


def test_a_reset_before_the_product_is_refused(tmp_path: Path) -> None:
    nodes = [node("Transpose", "x", "t", perm=[1, 0, 2]), node("GRU", "t w r b", "y", hidden_size=HIDDEN)]
    with pytest.raises(UnsupportedOpError, match="linear_before_reset = 0"):
        network_from(write(model(nodes, (1, STEPS, INPUTS), constants("GRU")), tmp_path))


def test_sequences_of_several_lengths_are_refused(tmp_path: Path) -> None:
    nodes = [node("Transpose", "x", "t", perm=[1, 0, 2]), node("RNN", "t w r b n", "y", hidden_size=HIDDEN)]
    lengths = {"n": np.array([STEPS - 1], np.int32)}
    with pytest.raises(UnsupportedOpError, match="different lengths"):
        network_from(write(model(nodes, (1, STEPS, INPUTS), {**constants("RNN"), **lengths}), tmp_path))
