"""LSTM, GRU and RNN layers in LiteRT against ONNX Runtime: sizes of one, given states, last cells; what is refused.

Shapes: N batch, T steps, F features, D directions, H hidden features.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from onnx import helper

from pipeline.errors import UnsupportedOpError
from pipeline.tflite import write_tflite
from tests.tflite.nets import Net, check, operators

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
BATCHES = (1, 3)


def layer(net: Net, kind: str, hidden: int, *states: str, ways: int = 1, bias: bool = True, **options: Any) -> str:
    """Add a layer over the input (N, T, F) and return its output (T, D, N, H)."""
    gates, features = GATES[kind] * hidden, net.samples.shape[2]
    weights = net.random(ways, gates, features), net.random(ways, gates, hidden)
    biases = net.random(ways, 2 * gates) if bias else ""
    x = net.op("Transpose", net.input, perm=[1, 0, 2])
    options = {"linear_before_reset": 1, **options} if kind == "GRU" else options
    direction = options.pop("direction", "bidirectional" if ways > 1 else "forward")
    inputs = [x, *weights, biases, *(["", *states] if states else [])]
    return net.op(kind, *inputs, hidden_size=hidden, direction=direction, **options)


def samples_first(net: Net, sequence: str) -> str:
    return net.op("Transpose", sequence, perm=[2, 0, 1, 3])


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize(
    ("steps", "features", "hidden", "ways"), [(1, 1, 1, 1), (1, 2, 3, 2), (3, 1, 2, 2), (2, 4, 1, 1)]
)
def test_any_size(kind: str, steps: int, features: int, hidden: int, ways: int) -> None:
    net = Net(steps, features)
    found = check(net, samples_first(net, layer(net, kind, hidden, ways=ways)), batches=BATCHES)
    assert found.shape == (8, steps, ways, hidden)


@pytest.mark.parametrize("kind", GATES)
def test_without_a_bias(kind: str) -> None:
    net = Net(2, 3)
    check(net, samples_first(net, layer(net, kind, 2, bias=False)), batches=BATCHES)


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("ways", [1, 2])
def test_from_given_states(kind: str, ways: int) -> None:
    """States (D, N, H): here the first features of each step, read as one per direction."""
    net = Net(2, 3)
    first = net.op("Slice", net.input, *(net.const([each], np.int64) for each in (0, ways, 1)))
    states = net.op("Transpose", first, perm=[1, 0, 2])
    given = (states, states) if kind == "LSTM" else (states,)
    check(net, samples_first(net, layer(net, kind, 3, *given, ways=ways)), batches=BATCHES)


@pytest.mark.parametrize("ways", [1, 2])
def test_the_last_cells_of_an_lstm(ways: int) -> None:
    net = Net(3, 2)
    layer(net, "LSTM", 2, ways=ways)
    whole = net.nodes.pop()
    outputs = ["", "", "cells"]
    net.nodes.append(helper.make_node("LSTM", whole.input, outputs, name=whole.name))
    net.nodes[-1].attribute.extend(whole.attribute)
    found = check(net, net.op("Transpose", "cells", perm=[1, 0, 2]), batches=BATCHES)
    assert found.shape == (8, ways, 2)


@pytest.mark.parametrize("ways", [1, 2])
def test_an_rnn_of_relus_grows_beyond_one(ways: int) -> None:
    net = Net(4, 2)
    found = check(net, samples_first(net, layer(net, "RNN", 3, ways=ways, activations=["Relu"] * ways)), batches=(3,))
    assert found.min() == 0
    assert found.max() > 1


STEPS = {
    "LSTM": {"SLICE": 6, "FULLY_CONNECTED": 1, "ADD": 2, "MUL": 3, "LOGISTIC": 1, "TANH": 2},
    "GRU": {"SLICE": 6, "FULLY_CONNECTED": 1, "ADD": 3, "MUL": 2, "LOGISTIC": 1, "TANH": 1, "SUB": 1},
    "RNN": {"SLICE": 1, "FULLY_CONNECTED": 1, "ADD": 1, "TANH": 1},
}


@pytest.mark.parametrize("kind", GATES)
def test_a_step_takes_no_more_than_fifteen_operators(kind: str) -> None:
    """The inputs of all steps are multiplied at once, however many there are."""
    counts = []
    for steps in (2, 3):
        net = Net(steps, 2)
        counts.append(Counter(operators(write_tflite(net.model(samples_first(net, layer(net, kind, 2)))))))
    assert counts[1] - counts[0] == STEPS[kind]
    assert sum(STEPS[kind].values()) <= 15


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        ("LSTM", {"direction": "reverse"}, "a form that torch does not have"),
        ("GRU", {"linear_before_reset": 0}, "a form that torch does not have"),
    ],
)
def test_forms_that_torch_does_not_have_are_refused(kind: str, options: dict[str, Any], words: str) -> None:
    net = Net(3, 2)
    output = layer(net, kind, 2, **options)
    with pytest.raises(UnsupportedOpError, match=words) as caught:
        write_tflite(net.model(output))
    assert caught.value.where == f"layer 'features.{output}' ({kind})"
    assert caught.value.remedy == "export it from torch"


def test_sequences_of_different_lengths_are_refused() -> None:
    net = Net(3, 2)
    output = layer(net, "RNN", 2)
    net.nodes[-1].input.append(net.const([3] * 8, np.int32))
    with pytest.raises(UnsupportedOpError, match="torch does not have"):
        write_tflite(net.model(output, batch=8))


@pytest.mark.parametrize("kind", GATES)
def test_sequences_that_are_too_long_are_refused_with_what_to_do(kind: str) -> None:
    net = Net(513, 1)
    output = layer(net, kind, 1)
    with pytest.raises(UnsupportedOpError, match=f"{kind} over 513 steps, each of which takes 15 operators") as caught:
        write_tflite(net.model(output))
    assert caught.value.remedy.startswith("cut the sequence to 512 steps")
