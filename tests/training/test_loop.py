"""The one training loop: the best epoch by the task's metric, stopping, resuming, several updates, diverging."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from pipeline.artifacts.training import Epoch
from pipeline.declare.recipe import TrainSpec
from pipeline.errors import ModelError, TrainingDivergedError
from pipeline.networks.build import build_network
from pipeline.progress import Progress, Silent
from pipeline.tasks import Update, classification
from pipeline.training import loop as training
from pipeline.training.batches import Held
from pipeline.training.loop import Fit, evaluate, fit
from tests import learnable

CPU = torch.device("cpu")
Loss = Callable[[Tensor, Tensor], Tensor]  # (outputs, labels) → scalar


def plan(**settings: object) -> TrainSpec:
    return TrainSpec.model_validate({"epochs": 2, "batch_size": 32, "learning_rate": 1e-2, **settings})


def updates(loss: Loss) -> tuple[Update, ...]:
    return (
        Update(
            parameters=lambda network: network.parameters(),
            loss=lambda network, x, wanted: loss(network(x), wanted["class"]),
        ),
    )


def job(spec: TrainSpec, *, seed: int = 0, loss: Loss | None = None, resume_file: Path | None = None) -> Fit:
    return Fit(
        plan=spec,
        task=classification,
        updates=updates(loss) if loss else classification.updates(spec),
        phase="train",
        seed=seed,
        resume_file=resume_file,
    )


def convolutional(folder: Path, dropout: float = 0.0) -> nn.Module:
    return build_network(learnable.network(folder, dropout=dropout), seed=0)


def fitted(
    network: nn.Module, spec: TrainSpec, *, seed: int = 0, loss: Loss | None = None, progress: Progress | None = None
) -> list[Epoch]:
    train, val = learnable.tensors(128, 0), learnable.tensors(100, 1)
    return fit(network, train, val, job(spec, seed=seed, loss=loss), progress or Silent())


# ── the loop ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_it_learns(tmp_path: Path) -> None:
    network = convolutional(tmp_path)
    history = fitted(network, plan(epochs=8, learning_rate=3e-2))
    assert history[-1].val_metric > 0.8  # chance: 0.25
    assert history[-1].train_loss < 0.5 * history[0].train_loss
    assert [epoch.index for epoch in history] == list(range(1, 9))
    assert not network.training


def nothing(outputs: Tensor, labels: Tensor) -> Tensor:
    """Teach nothing."""
    return 0 * F.cross_entropy(outputs, labels)


def turning(after_steps: int) -> Loss:
    """Cross-entropy that is made larger instead of smaller after so many steps."""
    steps = iter(range(10**9))
    return lambda outputs, labels: F.cross_entropy(outputs, labels) * (1 if next(steps) < after_steps else -1)


def test_the_best_epochs_weights_are_kept(tmp_path: Path) -> None:
    network = convolutional(tmp_path)
    history = fitted(network, plan(epochs=5, schedule="constant", learning_rate=5e-2), loss=turning(3 * 4))
    reached = [epoch.val_metric for epoch in history]
    assert reached[-1] < max(reached) - 0.1
    assert evaluate(network, learnable.tensors(100, 1), classification).value == max(reached)


def test_of_equally_accurate_epochs_the_one_with_the_lowest_loss_is_kept() -> None:
    """Logits that rank the classes right from the start, and a loss that is lowest in epoch 2 of 3."""
    layer = nn.Linear(4, 4)
    network = nn.Sequential(nn.Flatten(), layer)
    labels = torch.arange(4).repeat(8)
    data = Held(inputs={"input": torch.eye(4)[labels] * 3}, wanted={"class": labels})
    with torch.no_grad():
        layer.weight.copy_(torch.eye(4))
    seen: list[Tensor] = []

    def loss(outputs: Tensor, labels: Tensor) -> Tensor:
        seen.append(layer.weight.detach().clone())
        value = F.cross_entropy(outputs, labels)
        return value if len(seen) <= 2 else value + 1

    history = fit(network, data, data, job(plan(epochs=3, schedule="constant"), loss=loss), Silent())
    assert [epoch.val_metric for epoch in history] == [1, 1, 1]
    assert history[1].train_loss < history[0].train_loss < history[2].train_loss
    assert torch.equal(layer.weight, seen[2])  # what the third epoch began with


def test_it_stops_early_after_so_many_epochs_without_a_better_one(tmp_path: Path) -> None:
    history = fitted(convolutional(tmp_path), plan(epochs=20, early_stop_epochs=3), loss=nothing)
    assert len(history) == 4  # the first one counts as better than none
    assert len(fitted(convolutional(tmp_path), plan(epochs=5), loss=nothing)) == 5


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_the_same_seed_gives_the_same_bits(tmp_path: Path, dropout: float) -> None:
    spec = plan(augment={"shift_px": 1, "noise": 0.1})
    networks = [convolutional(tmp_path, dropout=dropout) for _ in range(3)]
    for network, seed in zip(networks, (0, 0, 1), strict=True):
        torch.rand(17)  # what was drawn before does not matter
        fitted(network, spec, seed=seed)
    first, second, third = (network.state_dict() for network in networks)
    assert learnable.equal(first, second)
    assert not learnable.equal(first, third)


@pytest.mark.parametrize("only", ["weight", "bias"])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_one_kind_of_parameters_alone_can_be_trained(only: str, optimizer: str) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name.endswith(only))
    before = copy.deepcopy(network.state_dict())
    fitted(network, plan(epochs=1, optimizer=optimizer))
    changed = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {f"1.{only}"}


def test_weight_decay_is_for_matrices_only() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    before = copy.deepcopy(network.state_dict())
    spec = plan(epochs=1, schedule="constant", learning_rate=0.1, weight_decay=0.5)
    fitted(network, spec, loss=nothing)
    assert torch.equal(network.state_dict()["1.bias"], before["1.bias"])
    shrunk = before["1.weight"] * (1 - 0.1 * 0.5) ** 4  # 4 steps
    torch.testing.assert_close(network.state_dict()["1.weight"], shrunk)


def test_a_network_without_weights_is_refused() -> None:
    with pytest.raises(ModelError, match="no weights to train"):
        fitted(nn.Sequential(nn.Flatten()), plan())


def test_a_last_batch_of_one_sample_does_not_stop_batch_norm() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4))
    history = fit(network, learnable.tensors(65, 0), learnable.tensors(20, 1), job(plan()), Silent())
    assert len(history) == 2


def test_what_fails_in_training_mode_only_is_told_with_the_batch() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.BatchNorm1d(8), nn.Linear(8, 4))
    with pytest.raises(ModelError, match=r"the network raised ValueError in training mode .*\(1, 3, 8, 8\)") as caught:
        fitted(network, plan(batch_size=1))
    assert "batch_size" in caught.value.remedy


class Counting(Silent):
    """Adds up the steps."""

    def __init__(self) -> None:
        self.total = self.done = 0
        self.last: dict[str, float] = {}

    def start(self, title: str, total: int) -> None:  # noqa: ARG002
        self.total = total

    def advance(self, steps: int = 1, **numbers: float) -> None:
        self.done += steps
        self.last = numbers


def test_progress_counts_every_step_and_shows_the_loss(tmp_path: Path) -> None:
    counting = Counting()
    history = fit(
        convolutional(tmp_path), learnable.tensors(150, 0), learnable.tensors(20, 1), job(plan(batch_size=3)), counting
    )
    assert counting.done == counting.total == 100
    assert counting.last["loss"] == pytest.approx(history[-1].train_loss)


# ── resuming ────────────────────────────────────────────────────────────────────────────────────────────────────────


class Killed(Exception):  # noqa: N818
    """Stands for kill -9."""


class Killing(Silent):
    """Raises at the n-th step report."""

    def __init__(self, reports: int) -> None:
        self.left = reports

    def advance(self, steps: int = 1, **numbers: float) -> None:
        self.left -= 1 if steps and numbers else 0
        if self.left == 0:
            raise Killed


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("killed_in_epoch", [1, 3])
def test_a_stopped_fit_that_goes_on_ends_with_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: str, killed_in_epoch: int
) -> None:
    monkeypatch.setattr(training, "_SAVE_EVERY_S", -1.0)
    spec = plan(epochs=4, optimizer=optimizer, schedule="one-cycle", augment={"shift_px": 1, "noise": 0.1})
    undisturbed = convolutional(tmp_path, dropout=0.3)
    wanted = fitted(undisturbed, spec)

    train, val = learnable.tensors(128, 0), learnable.tensors(100, 1)
    resumable = job(spec, resume_file=tmp_path / "epoch.pt")
    with pytest.raises(Killed):
        fit(convolutional(tmp_path, dropout=0.3), train, val, resumable, Killing(killed_in_epoch))
    assert (tmp_path / "epoch.pt").exists() is (killed_in_epoch > 1)
    counting, resumed = Counting(), convolutional(tmp_path, dropout=0.3)
    history = fit(resumed, train, val, resumable, counting)

    assert learnable.equal(resumed.state_dict(), undisturbed.state_dict())
    assert [replace(epoch, duration_s=0) for epoch in history] == [replace(epoch, duration_s=0) for epoch in wanted]
    assert counting.done == counting.total  # what was done before counts


def test_early_stopping_goes_on_counting_after_a_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "_SAVE_EVERY_S", -1.0)
    train, val = learnable.tensors(64, 0), learnable.tensors(40, 1)
    stale = job(plan(epochs=20, early_stop_epochs=3), loss=nothing, resume_file=tmp_path / "epoch.pt")
    with pytest.raises(Killed):
        fit(convolutional(tmp_path), train, val, stale, Killing(3))
    assert len(fit(convolutional(tmp_path), train, val, stale, Silent())) == 4


# ── what goes wrong ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_loss_that_is_no_number_stops_with_epoch_rate_and_remedy(tmp_path: Path) -> None:
    steps = iter(range(10**9))
    with pytest.raises(TrainingDivergedError) as caught:
        fitted(
            convolutional(tmp_path),
            plan(epochs=5, schedule="constant", learning_rate=0.02),
            loss=lambda y, t: F.cross_entropy(y, t) * (float("nan") if next(steps) > 5 else 1),
        )
    assert str(caught.value) == (
        "training: the loss is no longer a finite number in epoch 2 of 'train' at learning rate 0.02\n"
        "  try a smaller learning_rate (for example 0.002), another schedule, or look for extreme values in the data"
    )


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_learning_rate_that_breaks_the_weights_is_noticed(tmp_path: Path, optimizer: str) -> None:
    spec = plan(epochs=3, schedule="constant", learning_rate=1e30, optimizer=optimizer)
    with pytest.raises(TrainingDivergedError, match="epoch 1 of 'train' at learning rate 1e"):
        fitted(convolutional(tmp_path), spec)


def test_weights_broken_by_the_very_last_step_are_noticed() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    spec = plan(epochs=1, batch_size=128, schedule="constant", learning_rate=3e38, optimizer="sgd")
    with pytest.raises(TrainingDivergedError, match="epoch 1"):
        fitted(network, spec)
