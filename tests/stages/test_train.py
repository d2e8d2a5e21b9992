"""train: the best epoch in the store, recalled, resumed after a stop."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pipeline import training
from pipeline.checkpoints import restore_float
from pipeline.data.load import load
from pipeline.errors import ModelError, TrainingDivergedError
from pipeline.progress import Silent
from pipeline.run import open_run
from pipeline.spec import TrainSpec
from pipeline.stages.train import train
from pipeline.tasks.classification import accuracy
from pipeline.training import evaluate, samples
from tests import learnable

SPEC = TrainSpec(epochs=3, batch_size=32, learning_rate=3e-2, schedule="one-cycle", label_smoothing=0.05)


def test_the_checkpoint_is_the_best_epoch_of_its_history(tmp_path: Path) -> None:
    data, ref = learnable.dataset(tmp_path), learnable.network(tmp_path)
    with open_run(tmp_path / "run", progress=Silent()) as run:
        checkpoint = run.step("train", train, data=data, network=ref, spec=SPEC, seed=0)
        network = restore_float(checkpoint, run.store)
        assert not (run.folder / "work").exists() or not list((run.folder / "work").iterdir())
    val = samples(load(data).val, data.card.input, torch.device("cpu"))
    assert accuracy(*evaluate(network, val)) == checkpoint.val_accuracy
    assert checkpoint.val_accuracy == max(epoch.val_accuracy for epoch in checkpoint.history) > 0.5  # chance: 0.25
    assert [(epoch.phase, epoch.index) for epoch in checkpoint.history] == [("train", 1), ("train", 2), ("train", 3)]
    assert (checkpoint.network, checkpoint.edits) == (ref, ())


def test_a_finished_training_is_recalled_and_another_seed_is_not(tmp_path: Path) -> None:
    data, ref = learnable.dataset(tmp_path), learnable.network(tmp_path)
    with open_run(tmp_path / "run", progress=Silent()) as run:
        steps = [run.step("train", train, data=data, network=ref, spec=SPEC, seed=seed) for seed in (0, 0, 1)]
        assert [note.recalled for note in run.notes] == [False, True, False]
    assert steps[0] == steps[1]
    assert steps[0].weights != steps[2].weights


class StoppedError(Exception):
    """Stands for kill -9."""


class Stopping(Silent):
    """Raises at the second report of a loss."""

    def __init__(self) -> None:
        self.reports = 0

    def advance(self, steps: int = 1, **numbers: float) -> None:  # noqa: ARG002
        self.reports += bool(numbers)
        if self.reports == 2:
            raise StoppedError


def test_a_stopped_training_goes_on_and_ends_with_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "_SAVE_EVERY_S", -1.0)
    data, ref = learnable.dataset(tmp_path), learnable.network(tmp_path)
    with open_run(tmp_path / "undisturbed", progress=Silent()) as run:
        wanted = run.step("train", train, data=data, network=ref, spec=SPEC, seed=0)
    with pytest.raises(StoppedError), open_run(tmp_path / "run", progress=Stopping()) as run:
        run.step("train", train, data=data, network=ref, spec=SPEC, seed=0)
    assert len(list((tmp_path / "run/work").glob("train-*/epoch.pt"))) == 1
    with open_run(tmp_path / "run", progress=Silent()) as run:
        resumed = run.step("train", train, data=data, network=ref, spec=SPEC, seed=0)
        assert not list((tmp_path / "run/work").iterdir())
    assert resumed.weights == wanted.weights


def test_what_diverges_leaves_nothing_to_recall(tmp_path: Path) -> None:
    data, ref = learnable.dataset(tmp_path), learnable.network(tmp_path)
    spec = SPEC.model_copy(update={"learning_rate": 1e30})
    with pytest.raises(TrainingDivergedError, match="epoch 1"), open_run(tmp_path / "run", progress=Silent()) as run:
        run.step("train", train, data=data, network=ref, spec=spec, seed=0)
    assert not list((tmp_path / "run/steps").glob("train-*"))


def test_a_network_that_fails_while_training_is_told_as_such(tmp_path: Path) -> None:
    source = """
from torch import nn
class Bad(nn.Module):
    def __init__(self, k):
        super().__init__()
        self.fc = nn.Linear(192, k)
    def forward(self, x):
        if self.training:
            raise KeyError("mode")
        return self.fc(x.flatten(1))
def build(input_shape, classes):
    return Bad(classes)
"""
    data, ref = learnable.dataset(tmp_path), learnable.network(tmp_path, source)
    with pytest.raises(ModelError, match=r"forward\(\) raised KeyError in training mode"):
        train(learnable.work(tmp_path), data=data, network=ref, spec=SPEC, seed=0)
