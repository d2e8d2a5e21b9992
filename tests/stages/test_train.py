"""train: the best epoch in the store, recalled, resumed after a stop."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pipeline.artifacts.networks import DataRef, NetworkRef
from pipeline.artifacts.training import Checkpoint
from pipeline.data.load import load
from pipeline.declare.recipe import TrainSpec
from pipeline.errors import ConfigError, ModelError, TrainingDivergedError
from pipeline.networks.checkpoints import restore_float
from pipeline.progress import Silent
from pipeline.runs.run import Run, open_run
from pipeline.stages.train import train
from pipeline.tasks import classification
from pipeline.training import loop as training
from pipeline.training.batches import hold
from pipeline.training.loop import evaluate
from tests import learnable

SPEC = TrainSpec(epochs=3, batch_size=32, learning_rate=3e-2, schedule="one-cycle", label_smoothing=0.05)


def step(
    run: Run, data: DataRef, ref: NetworkRef, *, spec: TrainSpec = SPEC, seed: int = 0, threads: int = 1
) -> Checkpoint:
    return run.step(
        "train",
        train,
        data=data,
        facts=learnable.facts(data),
        network=ref,
        spec=spec,
        seed=seed,
        threads=threads,
        device="cpu",
    )


def test_the_checkpoint_is_the_best_epoch_of_its_history(tmp_path: Path, cache: Path) -> None:
    data, ref = learnable.dataset(tmp_path), learnable.network(tmp_path)
    with open_run(tmp_path / "run", progress=Silent()) as run:
        checkpoint = step(run, data, ref)
        network = restore_float(checkpoint, run.store)
        assert not list((cache / "work").iterdir())
    val = hold(load(data).val, learnable.facts(data).frontend, torch.device("cpu"))
    assert evaluate(network, val, classification).value == checkpoint.val_metric
    assert checkpoint.val_metric == max(epoch.val_metric for epoch in checkpoint.history) > 0.5  # chance: 0.25
    assert checkpoint.metric == classification.METRIC
    assert [(epoch.phase, epoch.index) for epoch in checkpoint.history] == [("train", 1), ("train", 2), ("train", 3)]
    assert (checkpoint.network, checkpoint.edits) == (ref, ())


def test_a_finished_training_is_recalled_and_another_seed_is_not(tmp_path: Path) -> None:
    data, ref = learnable.dataset(tmp_path), learnable.network(tmp_path)
    with open_run(tmp_path / "run", progress=Silent()) as run:
        steps = [step(run, data, ref, seed=seed) for seed in (0, 0, 1)]
        assert [note.recalled for note in run.notes] == [False, True, False]
    assert steps[0] == steps[1]
    assert steps[0].weights != steps[2].weights


class StoppedError(Exception):
    """Stands for kill -9."""


class Stopping(Silent):
    """Raises at the second report of a loss."""

    def __init__(self) -> None:
        self.reports = 0

    def advance(self, steps: int = 1, **numbers: float) -> None:
        self.reports += bool(steps and numbers)
        if self.reports == 2:
            raise StoppedError


def test_a_stopped_training_goes_on_and_ends_with_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    monkeypatch.setattr(training, "_SAVE_EVERY_S", -1.0)
    data, ref = learnable.dataset(tmp_path), learnable.network(tmp_path)
    with open_run(tmp_path / "undisturbed", progress=Silent()) as run:
        wanted = step(run, data, ref)
    another = cache.with_name("another")
    monkeypatch.setenv("KARUI_CACHE", str(another))  # in which nothing is known
    with pytest.raises(StoppedError), open_run(tmp_path / "run", progress=Stopping()) as run:
        step(run, data, ref)
    assert len(list(another.glob("work/train-*/epoch.pt"))) == 1
    with open_run(tmp_path / "run", progress=Silent()) as run:
        resumed = step(run, data, ref)
        assert not list((another / "work").iterdir())
    assert resumed.weights == wanted.weights


def test_what_diverges_leaves_nothing_to_recall(tmp_path: Path, cache: Path) -> None:
    data, ref = learnable.dataset(tmp_path), learnable.network(tmp_path)
    spec = SPEC.model_copy(update={"learning_rate": 1e30})
    with pytest.raises(TrainingDivergedError, match="epoch 1"), open_run(tmp_path / "run", progress=Silent()) as run:
        step(run, data, ref, spec=spec)
    assert not list(cache.glob("steps/train-*"))


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
    with pytest.raises(ModelError, match="the network raised KeyError in training mode"):
        learnable.trained(learnable.work(tmp_path), data, ref)


# ── what decides ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_another_number_of_threads_is_another_training(tmp_path: Path) -> None:
    data, ref = learnable.dataset(tmp_path), learnable.network(tmp_path)
    before = torch.get_num_threads()
    with open_run(tmp_path / "run", progress=Silent()) as run:
        for threads in (1, 2, 1):
            step(run, data, ref, threads=threads)
        assert [note.recalled for note in run.notes] == [False, False, True]
    assert torch.get_num_threads() == before


def test_threads_are_what_the_stage_is_told_whatever_the_process_has(tmp_path: Path) -> None:
    source = learnable.CONVOLUTIONAL.replace(
        "        return self.fc",
        "        import torch\n        assert torch.get_num_threads() == 3\n        return self.fc",
    )
    data, ref = learnable.dataset(tmp_path), learnable.network(tmp_path, source)
    with open_run(tmp_path / "run", progress=Silent()) as run:
        step(run, data, ref, threads=3)
        with pytest.raises(ModelError, match="AssertionError"):
            step(run, data, ref, threads=2)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_a_device_that_is_not_there_is_refused(tmp_path: Path) -> None:
    data, ref = learnable.dataset(tmp_path), learnable.network(tmp_path)
    with pytest.raises(ConfigError, match="no CUDA device here"):
        train(
            learnable.work(tmp_path),
            data=data,
            facts=learnable.facts(data),
            network=ref,
            spec=SPEC,
            seed=0,
            threads=1,
            device="cuda",
        )


HELPER = "from torch import nn\ndef activation():\n    return nn.ReLU()\n"
USING_HELPER = "import karui_test_helper\n" + learnable.DENSE.replace("nn.ReLU()", "karui_test_helper.activation()")


def test_an_edited_helper_of_the_network_trains_again_and_a_comment_in_it_does_not(tmp_path: Path) -> None:
    data, helper = learnable.dataset(tmp_path), tmp_path / "karui_test_helper.py"
    made = []
    with open_run(tmp_path / "run", progress=Silent()) as run:
        for text in (HELPER, HELPER + "# a comment\n", HELPER.replace("ReLU", "Tanh"), HELPER):
            helper.write_text(text)
            made.append(step(run, data, learnable.network(tmp_path, USING_HELPER)))
        assert [note.recalled for note in run.notes] == [False, True, False, True]
    assert made[0].weights == made[1].weights == made[3].weights != made[2].weights


SHARE_OF_A_PICTURE = """
import math
from torch import nn

def build(signature, *, width=16):
    return nn.Sequential(
        nn.Flatten(), nn.Linear(math.prod(signature.input.shape), width), nn.ReLU(),
        nn.Linear(width, signature.output.shape[0]),
    )
"""


def test_a_metric_where_lower_is_better_keeps_the_lowest_epoch(tmp_path: Path) -> None:
    data = learnable.numbers(tmp_path)
    facts = learnable.facts(data)
    path = tmp_path / "mine.py"
    path.write_text(SHARE_OF_A_PICTURE)
    with open_run(tmp_path / "run", progress=Silent()) as run:
        made = run.step(
            "train",
            train,
            data=data,
            facts=facts,
            network=learnable.network_at(path, facts.signature),
            spec=TrainSpec(epochs=8, batch_size=32, learning_rate=3e-2, schedule="constant"),
            seed=0,
            threads=1,
            device="cpu",
        )
    assert (made.metric.name, made.metric.higher_is_better) == ("RMSE", False)
    reached = [epoch.val_metric for epoch in made.history]
    assert made.val_metric == min(reached) < 0.9 * max(reached)
    assert "validation RMSE" in made.summary
