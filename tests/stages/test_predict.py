"""predict: the torch references of one small network, float and int8."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.artifacts.evidence import Answers, Predicted
from pipeline.artifacts.files import Variant, Way
from pipeline.data.load import load
from pipeline.data.source import everything
from pipeline.host import machine_name
from pipeline.instruments.answers import load_answers
from pipeline.networks.checkpoints import restore_float
from pipeline.onboard.frontend import prepare
from pipeline.runs import records
from pipeline.stages import predict as stage
from pipeline.tasks import classification
from tests import learnable
from tests.stages.networks_made import BITS, TEST_SAMPLES, Made, make


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(tmp_path_factory.mktemp("predict"))


@pytest.fixture(scope="module")
def float_reference(made: Made) -> Predicted:
    return made.predicted(made.checkpoint)


def test_the_float_reference_is_the_network_itself(made: Made, float_reference: Predicted) -> None:
    got = load_answers(float_reference.answered, made.work.store)
    test = load(made.data).test
    batch = test.read(everything(test))
    x = torch.from_numpy(prepare(batch.inputs, made.facts.frontend)["input"])
    with torch.inference_mode():
        wanted = restore_float(made.checkpoint, made.work.store)(x).numpy()
    np.testing.assert_allclose(got.outputs["output"], wanted, rtol=0, atol=1e-5)
    assert got.outputs["output"].dtype == np.float32
    right = wanted.argmax(1) == batch.wanted["class"]
    np.testing.assert_array_equal(got.score, right)
    np.testing.assert_array_equal(got.decisions, wanted.argmax(1))
    answered = float_reference.answered
    assert answered.value == pytest.approx(right.mean())
    assert answered.low < answered.value < answered.high  # trained, and not perfect
    assert set(answered.others) == {"balanced accuracy", "worst class recall"}
    assert answered.samples == TEST_SAMPLES


def test_it_says_what_ran_and_where(float_reference: Predicted) -> None:
    answered = float_reference.answered
    assert answered.way == Way(variant=Variant(format="torch", precision="fp32"), program="torch")
    assert answered.version == torch.__version__
    assert answered.place.text == f"measured on {machine_name()}"
    assert answered.steps == {}
    assert float_reference.metric == classification.METRIC
    assert float_reference.chosen == {}
    assert float_reference.summary.startswith("test accuracy ")


@pytest.mark.parametrize("which", range(len(BITS)))
def test_the_int8_reference_gives_whole_steps(made: Made, float_reference: Predicted, which: int) -> None:
    got = made.predicted(made.quantized[which], chosen=float_reference.chosen).answered
    assert got.way.variant == Variant(format="torch", precision="int8", weight_bits=BITS[which])
    outputs = made.work.store.get_array(got.outputs["output"]) / got.steps["output"]
    np.testing.assert_allclose(outputs, np.rint(outputs), atol=1e-3)
    assert np.ptp(outputs) <= 255
    assert abs(got.value - float_reference.answered.value) < 0.1
    assert got.outputs != float_reference.answered.outputs


def test_the_same_again_is_the_same_artifact_and_survives_the_record(made: Made, float_reference: Predicted) -> None:
    assert made.predicted(made.checkpoint) == float_reference
    assert records.from_json(Predicted, records.to_json(float_reference)) == float_reference


def test_the_threads_of_torch_are_those_asked_for(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def answer(*given: Any, chosen: Mapping[str, float] | None = None) -> Answers:
        seen.append(torch.get_num_threads())
        return classification.answer(*given, chosen=chosen)

    monkeypatch.setattr(stage, "named", lambda _: task(answer=answer))
    before = torch.get_num_threads()
    stage.predict(made.work, data=made.data, facts=made.facts, weights=made.checkpoint, chosen={}, threads=2)
    assert seen == [2]  # once: what is chosen already is not chosen again
    assert torch.get_num_threads() == before


def test_the_decision_is_chosen_on_the_validation_split_and_used_on_the_test_split(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths: list[tuple[int, object]] = []

    def answer(predict: Any, source: Any, prepare_: Any, chosen: Mapping[str, float] | None = None) -> Answers:
        lengths.append((len(source), chosen))
        return classification.answer(predict, source, prepare_, chosen=chosen)

    def choose(answers: Answers, source: Any) -> Mapping[str, float]:
        assert len(answers.score) == len(source)
        return {"threshold": answers.value}

    monkeypatch.setattr(stage, "named", lambda _: task(answer=answer, choose=choose))
    got = made.predicted(made.checkpoint)
    validation = made.facts.samples["val"]
    assert got.chosen == {"threshold": pytest.approx(made.checkpoint.val_metric)}
    assert lengths == [(validation, None), (TEST_SAMPLES, got.chosen)]
    lengths.clear()
    other = made.predicted(made.quantized[0], chosen=got.chosen)
    assert other.chosen == got.chosen
    assert lengths == [(TEST_SAMPLES, got.chosen)]


def task(**changed: Any) -> SimpleNamespace:
    """Return classification with some of its names replaced."""
    return SimpleNamespace(**{**vars(classification), **changed})


def test_the_network_comes_back_with_its_edits_and_not_training(made: Made) -> None:
    folder = made.data.folder
    ref = learnable.network(folder, name="dropping", dropout=0.9)
    dropping = dataclasses.replace(made.checkpoint, network=ref)
    got, wanted = made.predicted(dropping).answered, made.predicted(made.checkpoint).answered
    assert got.outputs == wanted.outputs  # dropout is off
