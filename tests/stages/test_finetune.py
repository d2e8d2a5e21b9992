"""finetune: what is frozen stays, heads are replaced, other networks refused, transfer is measured at equal labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

from pipeline.artifacts.networks import DataRef, NetworkRef, WeightsFile
from pipeline.artifacts.training import Checkpoint, Finetuned, Start
from pipeline.data.load import load
from pipeline.declare.recipe import FinetuneSpec, TrainSpec
from pipeline.errors import ModelError
from pipeline.networks.build import build_network
from pipeline.networks.checkpoints import put_weights, restore_float, save
from pipeline.networks.edits import apply
from pipeline.networks.pruning import plan
from pipeline.runs.run import Work
from pipeline.runs.store import sha256_of_file
from pipeline.stages.finetune import _freeze_all_but, finetune
from pipeline.stages.importing import import_weights
from pipeline.tasks import classification
from pipeline.training import loop as training
from pipeline.training.batches import hold
from pipeline.training.loop import evaluate
from tests import learnable

HEAD = {"fc.weight", "fc.bias"}


@dataclass(frozen=True, kw_only=True)
class Made:
    """Weights of a short training, and what they were trained with."""

    work: Work
    data: DataRef
    ref: NetworkRef
    start: Start

    def tuned(self, *, labels: tuple[int, ...] = (), **settings: object) -> Finetuned:
        train = {"epochs": 1, "batch_size": 32, "learning_rate": 1e-2}
        spec = {"start": "run:any", "train": train, "compare_labels_per_class": labels, **settings}
        return finetune(
            self.work,
            data=self.data,
            facts=learnable.facts(self.data),
            network=self.ref,
            start=self.start,
            spec=FinetuneSpec.model_validate(spec),
            scratch=TrainSpec.model_validate(train),
            seed=0,
            threads=1,
            device="cpu",
        )

    def tensors(self, made: Start | Checkpoint) -> dict[str, Tensor]:
        return safetensors.torch.load(self.work.store.get(made.weights))

    def changed(self, result: Finetuned) -> set[str]:
        before, after = self.tensors(self.start), self.tensors(result.checkpoint)
        return {name for name in before if not torch.equal(before[name], after[name])}

    def reached(self, result: Finetuned, split: Literal["val", "test"] = "val") -> float:
        samples = hold(getattr(load(self.data), split), learnable.facts(self.data).frontend, torch.device("cpu"))
        return evaluate(restore_float(result.checkpoint, self.work.store), samples, classification).value


@pytest.fixture
def made(tmp_path: Path) -> Made:
    work, data, ref = learnable.work(tmp_path), learnable.dataset(tmp_path), learnable.network(tmp_path)
    checkpoint = learnable.trained(work, data, ref)
    return Made(work=work, data=data, ref=ref, start=Start(label="recipe:before", weights=checkpoint.weights))


def test_only_the_head_learns_and_batch_norm_statistics_stay(made: Made) -> None:
    result = made.tuned(mode="head")
    assert made.changed(result) == HEAD
    assert result.replaced_head == ()
    assert result.start == "recipe:before"
    assert {epoch.phase for epoch in result.checkpoint.history} == {"finetune"}


def test_everything_learns(made: Made) -> None:
    result = made.tuned(mode="all")
    assert made.changed(result) == set(made.tensors(made.start))
    assert result.checkpoint.val_metric == made.reached(result) > 0.5  # chance: 0.25


def test_layers_thaw_in_three_phases(made: Made) -> None:
    result = made.tuned(mode="gradual")
    phases = list(dict.fromkeys(epoch.phase for epoch in result.checkpoint.history))
    assert phases == ["finetune: head", "finetune: upper half", "finetune: all"]
    tops = [max(e.learning_rate for e in result.checkpoint.history if e.phase == phase) for phase in phases]
    assert tops == pytest.approx([1e-2, 5e-3, 2.5e-3], rel=0.02)  # the last rate of the first epoch of a cosine
    assert made.changed(result) == set(made.tensors(made.start))
    assert result.checkpoint.val_metric == made.reached(result)


def test_the_metric_is_that_of_the_weights_even_if_an_earlier_phase_was_better(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.stages.finetune._GRADUAL", (("head", 0.0, 1.0), ("all", 1.0, 1e3)))
    result = made.tuned(mode="gradual")
    best = dict.fromkeys(("finetune: head", "finetune: all"), 0.0)
    for epoch in result.checkpoint.history:
        best[epoch.phase] = max(best[epoch.phase], epoch.val_metric)
    assert best["finetune: all"] < best["finetune: head"]  # a learning rate of 10
    assert result.checkpoint.val_metric == best["finetune: all"] == made.reached(result)


def test_the_upper_half_is_the_half_that_is_called_last(tmp_path: Path) -> None:
    network = build_network(learnable.network(tmp_path), seed=0)
    frozen = _freeze_all_but(network, learnable.SHAPE, 0.5)
    assert [name for name, module in network.named_modules() if module in frozen] == [f"body.{i}" for i in range(4)]
    learning = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert learning == {"body.4.weight", "body.4.bias", *HEAD}


def test_a_head_for_other_classes_is_made_anew(made: Made, tmp_path: Path) -> None:
    three = replace(made, data=learnable.dataset(tmp_path, classes=3), ref=learnable.network(tmp_path, classes=3))
    result = three.tuned(mode="head")
    assert set(result.replaced_head) == HEAD
    before, after = made.tensors(made.start), made.tensors(result.checkpoint)
    assert all(torch.equal(before[name], after[name]) for name in before if name not in HEAD)
    assert after["fc.weight"].shape == (3, 8)
    assert result.checkpoint.val_metric > 0.4  # chance: 0.33


def test_a_start_without_a_head_gets_one(made: Made) -> None:
    backbone = {name: tensor for name, tensor in made.tensors(made.start).items() if name not in HEAD}
    headless = replace(made.start, weights=put_weights(backbone, made.work.store))
    assert set(replace(made, start=headless).tuned(mode="head").replaced_head) == HEAD


def test_weights_of_another_network_are_refused_by_name(made: Made, tmp_path: Path) -> None:
    wide = replace(made, ref=learnable.network(tmp_path, width=16))
    with pytest.raises(ModelError, match="recipe:before: the weights are those of another network") as caught:
        wide.tuned()
    assert "'body.0.weight': expected (16, 3, 3, 3), found (8, 3, 3, 3)" in caught.value.remedy
    dense = replace(made, ref=learnable.network(tmp_path, learnable.DENSE, name="dense"))
    with pytest.raises(ModelError, match=r"'1\.weight': missing, expected"):
        dense.tuned()


def test_a_pruned_start_stays_pruned(made: Made) -> None:
    network = build_network(made.ref, seed=1)
    edits = plan(network, made.ref.input_shape, channel_share=0.5, round_to=1)
    pruned = save(
        apply(network, edits), made.work.store, ref=made.ref, edits=edits, metric=classification.METRIC, val_metric=0.0
    )
    result = replace(made, start=Start(label="run:pruned", weights=pruned.weights, edits=edits)).tuned()
    assert result.checkpoint.edits == edits
    after, wanted = made.tensors(result.checkpoint), made.tensors(pruned)
    assert {name: tensor.shape for name, tensor in after.items()} == {n: tensor.shape for n, tensor in wanted.items()}


def test_transfer_is_compared_at_equal_labels(made: Made, tmp_path: Path) -> None:
    (tmp_path / "noisy").mkdir()
    noisy = learnable.dataset(tmp_path / "noisy", noise=2.0)
    good = learnable.trained(made.work, made.data, made.ref, epochs=8, learning_rate=3e-2)
    known = replace(made, start=Start(label="run:good", weights=good.weights), data=noisy)
    result = known.tuned(labels=(1, 1000), mode="head")
    assert [point.labels_per_class for point in result.transfer] == [1, None]  # there are no 1000
    assert all(0 <= value <= 1 for point in result.transfer for value in (point.transferred, point.from_scratch))
    few = result.transfer[0]
    assert few.transferred > few.from_scratch + 0.1  # four labels against a network that knows the task
    assert result.transfer[-1].transferred == known.reached(result, "test")


def test_without_classes_only_all_labels_together_are_compared(tmp_path: Path) -> None:
    data, path = learnable.numbers(tmp_path), tmp_path / "dense.py"
    path.write_text(learnable.DENSE)
    ref = learnable.network_at(path, learnable.facts(data).signature)
    work = learnable.work(tmp_path)
    start = learnable.trained(work, data, ref)
    made = Made(work=work, data=data, ref=ref, start=Start(label="run:before", weights=start.weights))
    result = made.tuned(labels=(5, 10))
    assert [point.labels_per_class for point in result.transfer] == [None]
    assert result.checkpoint.metric.name == "RMSE"
    assert all(0 < value < 10 for point in result.transfer for value in (point.transferred, point.from_scratch))


def test_no_comparison_is_made_that_nobody_asked_for(made: Made) -> None:
    assert made.tuned().transfer == ()


class StoppedError(Exception):
    """Stands for kill -9."""


class Stopping(learnable.Listening):
    """Raises when a training of this name has made so many reports."""

    def __init__(self, phase: str, reports: int) -> None:
        super().__init__()
        self.phase, self.left = phase, reports
        self.now = ""

    def start(self, title: str, total: int) -> None:  # noqa: ARG002
        self.now = title

    def advance(self, steps: int = 1, **numbers: float) -> None:
        if self.now == self.phase and steps and numbers:
            self.left -= 1
            if not self.left:
                raise StoppedError


@pytest.mark.parametrize(
    "phase", ["finetune: upper half", "5 labels per class, transferred: all", "5 labels per class, from scratch"]
)
def test_a_stop_anywhere_changes_nothing(
    made: Made, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, phase: str
) -> None:
    monkeypatch.setattr(training, "_SAVE_EVERY_S", -1.0)
    monkeypatch.setattr("pipeline.stages.finetune._FEWEST_STEPS", 8)  # each epoch is written to the disk here

    def run(name: str, progress: learnable.Listening | None = None) -> Finetuned:
        work = learnable.again(made.work, tmp_path / name, progress)
        return replace(made, work=work).tuned(labels=(5,), mode="gradual")

    undisturbed = run("undisturbed")
    with pytest.raises(StoppedError):
        run("stopped", Stopping(phase, 2))
    resumed = run("stopped")
    assert resumed.checkpoint.weights == undisturbed.checkpoint.weights
    assert resumed.transfer == undisturbed.transfer


# ── weights from a file ─────────────────────────────────────────────────────────────────────────────────────────────


def write_npz(path: Path, weights: dict[str, Tensor]) -> None:
    np.savez(path, **{name: tensor.numpy() for name, tensor in weights.items()})  # type: ignore[arg-type]


def write_pt(path: Path, weights: dict[str, Tensor]) -> None:
    torch.save({"state_dict": weights, "epoch": 3}, path)


def write_safetensors(path: Path, weights: dict[str, Tensor]) -> None:
    safetensors.torch.save_file(weights, path)


WRITERS: dict[str, Callable[[Path, dict[str, Tensor]], None]] = {
    ".npz": write_npz,
    ".pt": write_pt,
    ".safetensors": write_safetensors,
}


@pytest.mark.parametrize("suffix", WRITERS)
def test_weights_come_from_every_kind_of_file(made: Made, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"mine{suffix}"
    WRITERS[suffix](path, made.tensors(made.start))
    imported = import_weights(made.work, file=WeightsFile(sha256=sha256_of_file(path), path=path))
    assert imported == Start(label=f"weights:mine{suffix}", weights=made.start.weights)
    assert made.changed(replace(made, start=imported).tuned(mode="head")) == HEAD


def test_tensors_that_share_their_memory_are_imported(tmp_path: Path) -> None:
    work = learnable.work(tmp_path)
    shared = torch.arange(6.0)
    torch.save({"a": shared, "b": shared, "c": shared.view(2, 3).t()}, tmp_path / "tied.pt")
    imported = import_weights(work, file=WeightsFile(sha256="0" * 64, path=tmp_path / "tied.pt"))
    found = safetensors.torch.load(work.store.get(imported.weights))
    assert torch.equal(found["a"], found["b"])
    assert torch.equal(found["c"], shared.view(2, 3).t())


def test_a_file_with_code_in_it_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save(torch.nn.Linear(2, 2), path)
    with pytest.raises(ModelError, match="only plain tensors are read"):
        import_weights(learnable.work(tmp_path), file=WeightsFile(sha256="0" * 64, path=path))
