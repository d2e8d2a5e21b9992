"""``karui validate``: files of karui's and of others, judged as they are."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.catalog import find
from pipeline.declare.recipe import QuantizeSpec
from pipeline.errors import ConfigError, ModelError
from pipeline.networks.from_torch import folded_graph
from pipeline.quant.calibrate import calibrate
from pipeline.quant.prepare import prepare
from pipeline.quant.to_onnx import to_bytes, write_onnx
from pipeline.report.validation import lines_of
from pipeline.tflite import write_tflite
from pipeline.validating import Question, validate
from tests.networks.onnx.written import model, node, random, two_ends
from tests.own_project import Karui
from tests.own_project import karui as karui  # noqa: PLC0414  a fixture

SHAPE = (3, 8, 8)


@pytest.fixture(autouse=True)
def _files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write a network as float and int8 files, and samples with and without labels."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)
    ).eval()
    folded = folded_graph(network, SHAPE)
    x = torch.from_numpy(random(60, *SHAPE))
    prepared = prepare(folded, weight_bits=8)
    calibrate(prepared, x, QuantizeSpec(calibration="min-max"))
    for name, graph in (("float", folded), ("int8", prepared.eval())):
        written = write_onnx(graph, name="net")
        Path(f"{name}.onnx").write_bytes(to_bytes(written))
        Path(f"{name}.tflite").write_bytes(write_tflite(written))
    with torch.no_grad():
        labels = network(x).argmax(1).numpy()
    labels[:9] = np.arange(9) % 3
    np.savez("plain.npz", x=x.numpy())
    np.savez("labelled.npz", x=x.numpy(), y=labels)


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_labels_are_the_measure_where_there_are_some(kind: str) -> None:
    found = validate(Question(model=Path(f"int8.{kind}"), data="labelled.npz", beside=Path(f"float.{kind}")))
    assert found.metric.name == "accuracy"
    assert found.value.value > 0.8
    assert found.comparison is not None
    assert found.comparison.agreement > 0.9
    assert found.integer_nodes > 0
    assert found.times_as_long is not None
    assert 0 < found.latency_p50_ms <= found.latency_p95_ms.value


def test_a_float_file_runs_nothing_on_integers() -> None:
    found = validate(Question(model=Path("float.tflite"), data="labelled.npz"))
    assert found.integer_nodes == 0
    assert found.comparison is None
    assert found.checks == ()
    assert found.state == "met"


def test_a_limit_that_nobody_measured_is_open(karui: Karui) -> None:
    profile = find("target", "x86-laptop-vnni").read_text().replace("[limits]", "[limits]\nlatency_p95_ms = 5.0")
    Path("mine.toml").write_text(profile.replace('"64 MiB"', '"100 B"'))
    found = validate(Question(model=Path("int8.onnx"), data="labelled.npz", target="mine.toml"))
    states = {check.quantity: check.state for check in found.checks}
    assert states == {"file size": "missed", "accuracy drop": "open", "latency p95": "open", "peak memory": "met"}
    assert found.state == "missed"
    Path("mine.toml").write_text(profile)
    arguments = ("validate", "int8.onnx", "--data", "labelled.npz", "--target", "mine.toml")
    said = karui(*arguments)
    assert said.status == 5
    assert "? latency p95 (int8): not measured, asked ≤ 5.00 ms: open" in said.out
    assert karui(*arguments, "--allow-open").status == 0


@pytest.mark.parametrize(("factor", "state"), [(10.0, "met"), (1.0, "uncertain"), (0.1, "missed")])
def test_the_latency_of_a_raspberry_pi_is_estimated_without_an_emulator(factor: float, state: str) -> None:
    question = Question(model=Path("int8.onnx"), data="labelled.npz", target="raspberry-pi-4")
    found = validate(question).by_model
    assert found is not None
    assert (found.place.how, found.place.profile) == ("estimated", "raspberry-pi-4b")
    assert found.latency_ms.low < found.latency_ms.value < found.latency_ms.high
    limit = f"[limits]\nlatency_p95_ms = {factor * found.latency_ms.value}"
    Path("mine.toml").write_text(find("target", "raspberry-pi-4").read_text().replace("[limits]", limit))
    judged = validate(replace(question, target="mine.toml"))
    [check] = [each for each in judged.checks if each.quantity == "latency p95"]
    assert check.state == state
    assert any(line.startswith("latency there") and "estimated on the basis" in line for line in lines_of(judged))


def test_without_labels_the_float_file_is_the_measure() -> None:
    found = validate(Question(model=Path("int8.onnx"), data="plain.npz", beside=Path("float.tflite")))
    assert found.metric.name == "agreement"
    assert 0.8 < found.value.value < 1
    with pytest.raises(ConfigError, match="nobody says what is right"):
        validate(Question(model=Path("int8.onnx"), data="plain.npz"))


def test_pictures_of_tensorflow_lie_with_their_channels_last() -> None:
    nodes = [
        node("Transpose", "x", "a", perm=[0, 3, 1, 2]),
        node("Conv", "a w", "b"),
        node("GlobalAveragePool", "b", "y"),
    ]
    made = model(nodes, (1, 8, 8, 3), {"w": random(4, 3, 3, 3)})
    Path("last.onnx").write_bytes(made.SerializeToString())
    found = validate(Question(model=Path("last.onnx"), data="plain.npz", beside=Path("last.onnx")))
    assert found.value.value == 1.0


def test_several_inputs_and_outputs_are_judged_together() -> None:
    Path("two.onnx").write_bytes(two_ends().SerializeToString())
    np.savez("two.npz", x=random(20, *SHAPE), side=random(20, 4))
    found = validate(Question(model=Path("two.onnx"), data="two.npz", beside=Path("two.onnx")))
    assert found.value.value == 1.0
    assert found.samples == 20
    scores = Question(model=Path("two.onnx"), data="two.npz", beside=Path("two.onnx"), output="scores")
    assert validate(scores).value.value == 1.0
    with pytest.raises(ModelError, match=r"has no output 'score'.*did you mean 'scores'"):
        validate(replace(scores, output="score"))
    np.savez("two.npz", x=random(20, *SHAPE), side=random(20, 4), y=np.arange(20) % 3)
    assert validate(replace(scores, beside=None)).metric.name == "accuracy"


def test_labels_of_several_outputs_have_to_be_for_one() -> None:
    nodes = [node("GlobalAveragePool", "x", "a"), node("Flatten", "a", "y"), node("Neg", "y", "z")]
    Path("two.onnx").write_bytes(model(nodes, (1, *SHAPE), outputs=("y", "z")).SerializeToString())
    Path("card.toml").write_text(
        'name = "a"\ntitle = "A"\nkind = "npz"\n[files.all]\npath = "labelled.npz"\n[input]\nshape = [3, 8, 8]\n'
    )
    with pytest.raises(ModelError, match="has 2 outputs: y, z") as caught:
        validate(Question(model=Path("two.onnx"), data="card.toml"))
    assert "--output NAME" in caught.value.remedy
    assert validate(Question(model=Path("two.onnx"), data="card.toml", output="z")).metric.name == "accuracy"


def test_other_files_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"is no \.onnx or \.tflite file"):
        validate(Question(model=Path("plain.npz"), data="plain.npz"))


def test_the_command(karui: Karui) -> None:
    arguments = ("validate", "int8.onnx", "--data", "plain.npz", "--float", "float.onnx", "--target", "raspberry-pi-4")
    said = karui(*arguments)
    assert "integer nodes" in said.out
    assert "✓ file size (int8): " in said.out
    assert "✓ peak memory (int8): " in said.out
    assert said.status == 0
    document = json.loads(karui(*arguments, "--json").out)
    assert document["metric"]["name"] == "agreement"
    karui("validate", "none.onnx", "--data", "plain.npz").refused(2, "none.onnx: there is no such file")
