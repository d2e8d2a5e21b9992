"""The one training loop: schedules, augmentation, the best epoch, stopping, resuming, streaming, diverging."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from pipeline import training
from pipeline.artifacts import Epoch
from pipeline.data.source import ArraySource, Subset
from pipeline.errors import ConfigError, ModelError, TrainingDivergedError
from pipeline.network import build_network
from pipeline.progress import Progress, Silent
from pipeline.spec import AugmentSpec, TrainSpec
from pipeline.tasks.classification import Loss, accuracy, cross_entropy
from pipeline.training import (
    Fit,
    StreamedSamples,
    TensorSamples,
    augment,
    evaluate,
    fit,
    learning_rate_at,
    pick_device,
    samples,
    steps_in,
)
from tests import learnable

CPU = torch.device("cpu")
SCHEDULES = ("cosine", "one-cycle", "constant")


def plan(**settings: object) -> TrainSpec:
    return TrainSpec.model_validate({"epochs": 2, "batch_size": 32, "learning_rate": 1e-2, **settings})


def job(spec: TrainSpec, *, seed: int = 0, loss: Loss | None = None, resume_file: Path | None = None) -> Fit:
    return Fit(plan=spec, phase="train", seed=seed, loss=loss or cross_entropy(), resume_file=resume_file)


def convolutional(folder: Path, dropout: float = 0.0) -> nn.Module:
    return build_network(learnable.network(folder, dropout=dropout), seed=0)


def fitted(
    network: nn.Module, spec: TrainSpec, *, seed: int = 0, loss: Loss | None = None, progress: Progress | None = None
) -> list[Epoch]:
    train, val = learnable.tensors(128, 0), learnable.tensors(100, 1)
    return fit(network, train, val, job(spec, seed=seed, loss=loss), progress or Silent())


# ── learning rate ───────────────────────────────────────────────────────────────────────────────────────────────────

rates, shares = st.floats(1e-6, 10), st.floats(0, 1)


@given(st.sampled_from(SCHEDULES), rates, shares)
def test_the_learning_rate_stays_between_nothing_and_the_plans(schedule: str, rate: float, done: float) -> None:
    assert 0 <= learning_rate_at(plan(schedule=schedule, learning_rate=rate), done) <= rate * (1 + 1e-12)


@given(rates)
def test_schedules_begin_and_end_where_they_should(rate: float) -> None:
    def at(schedule: str, done: float) -> float:
        return learning_rate_at(plan(schedule=schedule, learning_rate=rate), done) / rate

    assert [at("constant", done) for done in (0, 0.5, 1)] == [1, 1, 1]
    assert [at("cosine", done) for done in (0, 0.5, 1)] == pytest.approx([1, 0.5, 0])
    assert [at("one-cycle", done) for done in (0, 0.15, 0.3, 0.65, 1)] == pytest.approx([0.04, 0.52, 1, 0.5, 0])


@given(st.sampled_from(("cosine", "one-cycle")), shares, shares)
def test_after_its_peak_the_learning_rate_only_falls(schedule: str, one: float, other: float) -> None:
    peak = 0.0 if schedule == "cosine" else 0.3
    early, late = sorted((peak + one * (1 - peak), peak + other * (1 - peak)))
    spec = plan(schedule=schedule)
    assert learning_rate_at(spec, late) <= learning_rate_at(spec, early) + 1e-15


# ── augmentation ────────────────────────────────────────────────────────────────────────────────────────────────────


def batch(count: int, *, channels: int = 3) -> Tensor:
    x = torch.randn(count, channels, 6, 5, generator=torch.Generator().manual_seed(1))
    return x.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("setting", [{}, {"shift_px": 1}, {"crop_padding_px": 2}, {"flip": True}, {"noise": 0.1}])
def test_augmentation_keeps_shape_and_channels_last(setting: dict[str, float]) -> None:
    x = batch(7)
    changed = augment(x, AugmentSpec.model_validate(setting))
    assert changed.shape == x.shape
    assert changed.stride() == x.stride()
    assert torch.equal(changed, x) is (not setting)
    assert torch.equal(x, batch(7))  # the samples themselves are for the next epoch


@pytest.mark.parametrize("key", ["shift_px", "crop_padding_px"])
def test_every_picture_is_shifted_by_its_own_whole_pixels_and_edges_are_repeated(key: str) -> None:
    most = 2
    x = batch(400)
    torch.manual_seed(0)
    changed = augment(x, AugmentSpec.model_validate({key: most})).numpy()
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (most, most), (most, most)), mode="edge")
    windows = {
        (down, right): padded[:, :, down : down + 6, right : right + 5]
        for down in range(2 * most + 1)
        for right in range(2 * most + 1)
    }
    found = Counter(
        next(shift for shift, window in windows.items() if np.array_equal(window[index], changed[index]))
        for index in range(len(x))
    )
    assert found.keys() == windows.keys()  # 400 draws of 25 shifts: each is missing with a chance of 8e-8
    assert max(found.values()) < 40  # 16 wanted


def test_half_of_the_pictures_are_mirrored() -> None:
    x = batch(2000)
    torch.manual_seed(0)
    changed = augment(x, AugmentSpec(flip=True))
    same = (changed == x).flatten(1).all(1)
    mirrored = (changed == x.flip(3)).flatten(1).all(1)
    assert bool((same ^ mirrored).all())
    assert abs(float(mirrored.float().mean()) - 0.5) < 0.05  # 4.5 standard deviations


def test_noise_has_the_wanted_size_and_tables_get_nothing_else() -> None:
    table = torch.zeros(2000, 10)
    torch.manual_seed(0)
    changed = augment(table, AugmentSpec(shift_px=3, flip=True, noise=0.2))
    assert float(changed.std()) == pytest.approx(0.2, rel=0.03)
    assert torch.equal(augment(table, AugmentSpec(shift_px=3, flip=True)), table)


def test_augmentation_follows_the_seed() -> None:
    spec = AugmentSpec(shift_px=1, crop_padding_px=1, flip=True, noise=0.1)
    drawn = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        drawn.append(augment(batch(20), spec))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


# ── the loop ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_it_learns(tmp_path: Path) -> None:
    network = convolutional(tmp_path)
    history = fitted(network, plan(epochs=8, learning_rate=3e-2))
    assert history[-1].val_accuracy > 0.8  # chance: 0.25
    assert history[-1].train_loss < 0.5 * history[0].train_loss
    assert [epoch.index for epoch in history] == list(range(1, 9))
    assert not network.training


def turning(after_steps: int) -> Loss:
    """Cross-entropy that is made larger instead of smaller after so many steps."""
    right, steps = cross_entropy(), iter(range(10**9))
    return lambda logits, labels, x: right(logits, labels, x) * (1 if next(steps) < after_steps else -1)


def test_the_best_epochs_weights_are_kept(tmp_path: Path) -> None:
    network = convolutional(tmp_path)
    history = fitted(network, plan(epochs=5, schedule="constant", learning_rate=5e-2), loss=turning(3 * 4))
    reached = [epoch.val_accuracy for epoch in history]
    assert reached[-1] < max(reached) - 0.1
    assert accuracy(*evaluate(network, learnable.tensors(100, 1))) == max(reached)


def test_of_equally_accurate_epochs_the_one_with_the_lowest_loss_is_kept() -> None:
    """Logits that rank the classes right from the start, and a loss that is lowest in epoch 2 of 3."""
    layer = nn.Linear(4, 4)
    network = nn.Sequential(nn.Flatten(), layer)
    labels = torch.arange(4).repeat(8)
    data = TensorSamples(inputs=torch.eye(4)[labels] * 3, labels=labels)
    with torch.no_grad():
        layer.weight.copy_(torch.eye(4))
    seen: list[Tensor] = []

    def loss(logits: Tensor, labels: Tensor, x: Tensor) -> Tensor:
        seen.append(layer.weight.detach().clone())
        value = cross_entropy()(logits, labels, x)
        return value if len(seen) <= 2 else value + 1

    history = fit(network, data, data, job(plan(epochs=3, schedule="constant"), loss=loss), Silent())
    assert [epoch.val_accuracy for epoch in history] == [1, 1, 1]
    assert history[1].train_loss < history[0].train_loss < history[2].train_loss
    assert torch.equal(layer.weight, seen[2])  # what the third epoch began with


def test_it_stops_early_after_so_many_epochs_without_a_better_one(tmp_path: Path) -> None:
    right = cross_entropy()
    history = fitted(
        convolutional(tmp_path), plan(epochs=20, early_stop_epochs=3), loss=lambda y, t, x: 0 * right(y, t, x)
    )
    assert len(history) == 4  # the first one counts as better than none
    assert len(fitted(convolutional(tmp_path), plan(epochs=5), loss=lambda y, t, x: 0 * right(y, t, x))) == 5


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
    right = cross_entropy()
    spec = plan(epochs=1, schedule="constant", learning_rate=0.1, weight_decay=0.5)
    fitted(network, spec, loss=lambda y, t, x: 0 * right(y, t, x))
    assert torch.equal(network.state_dict()["1.bias"], before["1.bias"])
    shrunk = before["1.weight"] * (1 - 0.1 * 0.5) ** 4  # 4 steps
    torch.testing.assert_close(network.state_dict()["1.weight"], shrunk)


def test_a_network_without_weights_is_refused() -> None:
    with pytest.raises(ModelError, match="no weights to train"):
        fitted(nn.Sequential(nn.Flatten()), plan())


def test_a_last_batch_of_one_sample_does_not_stop_batch_norm() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4))
    assert [steps_in(count, 32) for count in (31, 32, 33, 34, 65)] == [1, 1, 1, 2, 2]
    history = fit(network, learnable.tensors(65, 0), learnable.tensors(20, 1), job(plan()), Silent())
    assert len(history) == 2


def test_what_fails_in_training_mode_only_is_told_with_the_batch() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.BatchNorm1d(8), nn.Linear(8, 4))
    with pytest.raises(ModelError, match=r"forward\(\) raised ValueError in training mode .*\(1, 3, 8, 8\)") as caught:
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

    def advance(self, steps: int = 1, **numbers: float) -> None:  # noqa: ARG002
        self.left -= 1 if numbers else 0
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
    right = cross_entropy()
    train, val = learnable.tensors(64, 0), learnable.tensors(40, 1)
    stale = replace(
        job(plan(epochs=20, early_stop_epochs=3), resume_file=tmp_path / "epoch.pt"),
        loss=lambda y, t, x: 0 * right(y, t, x),
    )
    with pytest.raises(Killed):
        fit(convolutional(tmp_path), train, val, stale, Killing(3))
    assert len(fit(convolutional(tmp_path), train, val, stale, Silent())) == 4


# ── streaming ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("setting", [{}, {"noise": 0.2}, {"noise": 0.2, "shift_px": 1, "flip": True}])
def test_streamed_samples_give_the_same_weights_as_held_ones(tmp_path: Path, setting: dict[str, float]) -> None:
    x, labels = learnable.pictures(130, 0)
    held = samples(ArraySource(samples=x, labels=labels), learnable.INPUT, CPU)
    whole = ArraySource(samples=np.concatenate([x[:5], x]), labels=np.concatenate([labels[:5], labels]))
    view = Subset(whole=whole, indices=np.arange(5, 135), labels=labels)
    streamed = samples(view, learnable.INPUT, CPU)
    assert isinstance(held, TensorSamples)
    assert isinstance(streamed, StreamedSamples)
    assert held.inputs.is_contiguous(memory_format=torch.channels_last)  # half the time per step
    one, other = convolutional(tmp_path), convolutional(tmp_path)
    first = fit(one, held, held, job(plan(augment=setting)), Silent())
    second = fit(other, streamed, streamed, job(plan(augment=setting)), Silent())
    assert learnable.equal(one.state_dict(), other.state_dict())
    assert first[-1].train_loss == second[-1].train_loss


def test_evaluation_keeps_the_order_over_several_batches(tmp_path: Path) -> None:
    network, data = convolutional(tmp_path), learnable.tensors(1100, 5)  # batches of 500
    logits, labels = evaluate(network.train(), data)
    with torch.no_grad():
        wanted = network(data.inputs).numpy()
    assert not network.training
    assert np.abs(logits - wanted).max() < 1e-5  # batches of another size sum in another order
    assert np.array_equal(labels, data.labels.numpy())


# ── what goes wrong ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_loss_that_is_no_number_stops_with_epoch_rate_and_remedy(tmp_path: Path) -> None:
    right, steps = cross_entropy(), iter(range(10**9))
    with pytest.raises(TrainingDivergedError) as caught:
        fitted(
            convolutional(tmp_path),
            plan(epochs=5, schedule="constant", learning_rate=0.02),
            loss=lambda y, t, x: right(y, t, x) * (float("nan") if next(steps) > 5 else 1),
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


def test_devices() -> None:
    assert pick_device("cpu") == CPU
    if torch.cuda.is_available():
        assert pick_device("auto").type == pick_device("cuda").type == "cuda"
        return
    assert pick_device("auto") == CPU
    with pytest.raises(ConfigError, match="--device cuda: no CUDA device here") as caught:
        pick_device("cuda")
    assert caught.value.exit_code == 2
    assert "--device cpu" in caught.value.remedy


def test_the_head_may_be_made_before_the_body(tmp_path: Path) -> None:
    from pipeline.network import called_layers, head_name  # noqa: PLC0415

    network = convolutional(tmp_path)
    assert head_name(network, learnable.SHAPE) == "fc"
    assert called_layers(network, learnable.SHAPE) == [*(f"body.{index}" for index in range(9)), "fc"]
    assert network.training
    no_layers: Callable[[], nn.Module] = nn.Flatten
    with pytest.raises(ModelError, match="no Linear or Conv"):
        head_name(no_layers(), learnable.SHAPE)
