"""State that is carried from call to call: recognised or named, and sequences as samples."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.catalog import load_card
from pipeline.data.load import load, reference
from pipeline.errors import ConfigError, DataError, ModelError
from pipeline.networks.from_onnx import network_from
from pipeline.onboard.arrays import TensorSpec
from pipeline.quant.samples import calibration_inputs
from pipeline.stages.describe import describe
from pipeline.starting.models import Quantizing, quantizing
from pipeline.starting.sequences import carried_of
from pipeline.validating import Question, validate
from tests import learnable
from tests.networks.onnx.written import Array, random, recurrent

STEPS = 5


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.onnx").write_bytes(recurrent().SerializeToString())


def specs(*names: str, width: int = 4) -> list[TensorSpec]:
    return [TensorSpec(name, "float32", (width,), "F") for name in names]


@pytest.mark.parametrize(
    ("into", "output"),
    [
        ("h", "hn"),
        ("h0", "h1"),
        ("h0", "hn"),
        ("state", "stateN"),
        ("state_in", "state_out"),
        ("past_key", "present_key"),
        ("prev_cell", "next_cell"),
        ("cache", "new_cache"),
    ],
)
def test_state_is_recognised_by_its_names(into: str, output: str) -> None:
    found, said = carried_of(specs("audio", into), specs("speech", output), ())
    assert found == {output: into}
    assert f"{output} → {into}" in said
    assert "--carry none" in said


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        (("x", "side"), ("xn", "y")),
        (("left", "right"), ("scores", "boxes")),
        (("h",), ("hn",)),
        (("input", "z"), ("output", "y")),
    ],
)
def test_other_names_say_nothing(inputs: tuple[str, ...], outputs: tuple[str, ...]) -> None:
    assert carried_of(specs(*inputs), specs(*outputs), ()) == ({}, "")


def test_another_shape_is_no_state() -> None:
    assert carried_of(specs("audio", "h"), specs("hn", width=5), ()) == ({}, "")


def test_what_is_carried_can_be_said() -> None:
    inputs, outputs = specs("audio", "memory"), specs("speech", "kept")
    assert carried_of(inputs, outputs, ["kept=memory"]) == ({"kept": "memory"}, "")
    assert carried_of(specs("audio", "h"), specs("hn"), ["none"]) == ({}, "")
    with pytest.raises(ConfigError, match="there is no output 'kep'; did you mean 'kept'"):
        carried_of(inputs, outputs, ["kep=memory"])
    with pytest.raises(ConfigError, match="there is no input 'memry'"):
        carried_of(inputs, outputs, ["kept=memry"])
    with pytest.raises(ConfigError, match="has the shape"):
        carried_of(inputs, specs("kept", width=5), ["kept=memory"])
    with pytest.raises(ConfigError, match="all inputs are carried"):
        carried_of(specs("memory"), outputs, ["kept=memory"])


def made(**arrays: Array) -> Quantizing:
    np.savez("some.npz", **arrays)  # type: ignore[arg-type]  # the stubs take them for the other argument
    found = quantizing(Path("net.onnx"), "some.npz")
    found.write()
    return found


def by_hand(x: Array, h: Array) -> tuple[Array, Array]:
    """Return outputs and states (N, T, …) of the network, with numpy alone."""
    weights = 0.4 * random(14, 8), 0.1 * random(8), random(8, 2, seed=2)
    states = []
    for step in range(x.shape[1]):
        h = np.tanh(np.concatenate([x[:, step], h], 1) @ weights[0] + weights[1])
        states.append(h)
    return np.stack(states, 1) @ weights[2], np.stack(states, 1)


def test_sequences_become_a_card_whose_samples_they_are(tmp_path: Path) -> None:
    x = random(20, STEPS, 6)
    assert any("hn → h" in each for each in made(x=x).said)
    card, folder = load_card("net-data.toml")
    assert (card.steps, card.carried) == (STEPS, {"hn": "h"})
    data = reference(card, folder)
    dataset = load(data)
    batch = dataset.train.read(np.arange(4))
    y, states = by_hand(batch.inputs["x_in"], batch.inputs["h"])
    wanted = np.concatenate([y.reshape(4, -1), states.reshape(4, -1)], 1)
    np.testing.assert_allclose(batch.wanted["output"], wanted, atol=1e-5)
    facts = describe(learnable.work(tmp_path), data=data)
    assert facts.signature.carried == {"hn": "h"}
    network = network_from(Path("net.onnx"))
    rows = calibration_inputs(dataset, facts.frontend, network).numpy()  # every step, with the state by then
    assert rows.shape == (len(dataset.train) * STEPS, 14)
    first = len(dataset.train)
    assert np.abs(rows[:first, 6:]).max() == 0
    assert np.abs(rows[first:, 6:]).max() > 0.1


def test_one_long_sequence_is_cut_with_the_state_by_then() -> None:
    x = random(1, 200, 6)
    found = made(x=x[0], h=np.full((1, 8), 0.5, np.float32))
    assert any("1 sequences of 200 steps, cut into" in each for each in found.said)
    held = np.load("net-samples.npz")
    _, states = by_hand(x, np.full((1, 8), 0.5, np.float32))
    each = held["x"].shape[1] if "x" in held else held["x_in"].shape[1]
    np.testing.assert_allclose(held["h"][0], 0.5)
    np.testing.assert_allclose(held["h"][1], states[0, each - 1], atol=1e-5)


def test_what_is_no_sequence_is_refused() -> None:
    with pytest.raises(ConfigError, match="holds no array 'x_in', found z"):
        made(z=random(3, 4))
    with pytest.raises(DataError, match=r"'x_in' has the shape \(20, 7\), and the network takes \(6,\) at each call"):
        made(x=random(20, 7))
    with pytest.raises(DataError, match="1 sequences of 9 steps"):
        made(x=random(9, 6))
    with pytest.raises(DataError, match=r"'h' has the shape \(20, 7\), expected \(20, 8\)"):
        made(x=random(20, STEPS, 6), h=random(20, 7))


def test_what_carries_a_state_is_not_trained() -> None:
    np.savez("some.npz", x=random(20, STEPS, 6))
    with pytest.raises(ConfigError, match="is not trained"):
        quantizing(Path("net.onnx"), "some.npz", epochs=1)


def test_a_file_that_carries_a_state_is_judged_in_a_closed_loop() -> None:
    np.savez("some.npz", x=random(20, STEPS, 6))
    same = validate(Question(model=Path("net.onnx"), data="some.npz", beside=Path("net.onnx")))
    assert same.value.value == pytest.approx(1.0)
    assert same.samples == 20


def unnamed() -> Path:
    """Write the network with a state that no name tells."""
    text = recurrent()
    for node in text.graph.node:
        node.input[:] = ["memory" if each == "h" else each for each in node.input]
        for names in (node.input, node.output):
            names[:] = ["kept" if each == "hn" else each for each in names]
    next(each for each in text.graph.input if each.name == "h").name = "memory"
    next(each for each in text.graph.output if each.name == "hn").name = "kept"
    Path("unnamed.onnx").write_bytes(text.SerializeToString())
    return Path("unnamed.onnx")


def test_the_state_of_a_file_to_judge_can_be_said() -> None:
    path = unnamed()
    np.savez("some.npz", x=random(20, STEPS, 6))
    question = Question(model=path, data="some.npz", beside=path, carry=("kept=memory",))
    found = validate(question)
    assert found.samples == 20
    assert found.value.value == pytest.approx(1.0)
    with pytest.raises(ConfigError, match="holds no array 'memory'"):  # else a state is an input like others
        validate(replace(question, carry=()))
    with pytest.raises(ConfigError, match="there is no output 'kep'; did you mean 'kept'"):
        validate(replace(question, carry=("kep=memory",)))
    with pytest.raises(ConfigError, match="nobody says what is right"):
        validate(replace(question, beside=None))
    with pytest.raises(ModelError, match="has no output 'kept', which the other file carries"):
        validate(replace(question, beside=Path("net.onnx")))


def test_a_card_says_itself_what_is_carried() -> None:
    made(x=random(20, STEPS, 6))
    question = Question(model=Path("net.onnx"), data="net-data.toml", carry=("hn=h",))
    with pytest.raises(ConfigError, match=r"net-data\.toml says what is carried"):
        validate(question)
    assert validate(replace(question, carry=())).value.value == pytest.approx(1.0, abs=1e-4)
