"""The loop with other tasks: metrics where lower is better, two networks against each other, several inputs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from pipeline.artifacts.evidence import Answers, Metric
from pipeline.data.source import Source
from pipeline.declare.recipe import TrainSpec
from pipeline.onboard.arrays import Arrays, Predict, Signature, TensorSpec
from pipeline.progress import Progress, Silent
from pipeline.tasks import Update, batched, classification
from pipeline.training import loop as training
from pipeline.training.batches import Held
from pipeline.training.loop import Fit, best_value, evaluate, fit, predict_with
from tests import learnable
from tests.training.test_loop import CPU, Killed, Killing, plan

# ── other metrics ───────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, kw_only=True)
class Told:
    """Classification, but for the metric: told beforehand, epoch by epoch."""

    METRIC: Metric
    values: list[float]
    updates: Any = classification.updates

    def exported(self, network: nn.Module, /) -> nn.Module:
        return network

    def answer(self, predict: Predict, source: Source, prepare: Any, /, **_: object) -> Answers:
        outputs = batched(predict, source, prepare)
        none = np.zeros(len(source))
        return Answers(outputs=outputs, decisions=none, score=none, value=self.values.pop(0))


def kept(values: list[float], *, higher_is_better: bool, early_stop_epochs: int = 0) -> tuple[int, int]:
    """Return which epoch (from 1) was kept of a training with these values of the metric, and how many there were."""
    network, seen = nn.Sequential(nn.Flatten(), nn.Linear(192, 4)), list[Tensor]()

    def train_mode(module: nn.Module) -> None:
        seen.append(network.get_parameter("1.weight").detach().clone())  # what the epoch begins with
        module.train()

    spec = plan(epochs=len(values), schedule="constant", early_stop_epochs=early_stop_epochs)
    told: Any = Told(METRIC=Metric(name="x", unit="", higher_is_better=higher_is_better), values=[*values, 0])
    what = Fit(plan=spec, task=told, updates=classification.updates(spec), phase="x", seed=0, train_mode=train_mode)
    history = fit(network, learnable.tensors(64, 0), learnable.tensors(8, 1), what, Silent())
    best = best_value(history, told.METRIC)
    same = [index for index, weight in enumerate(seen) if torch.equal(weight, network.get_parameter("1.weight"))]
    epoch = same[0] if same else len(history)
    assert math.isnan(best) or history[epoch - 1].val_metric == best
    return epoch, len(history)


def test_where_lower_is_better_the_lowest_epoch_is_kept() -> None:
    assert kept([3.0, 1.0, 2.0, 5.0], higher_is_better=False) == (2, 4)
    assert kept([3.0, 1.0, 2.0, 5.0], higher_is_better=True) == (4, 4)
    assert kept([-1.0, -3.0, -2.0], higher_is_better=False) == (2, 3)


def test_of_equal_metrics_the_lower_loss_is_kept() -> None:
    assert kept([2.0, 1.0, 1.0, 1.0], higher_is_better=False) == (4, 4)  # the loss falls


def test_early_stopping_follows_the_metrics_direction() -> None:
    assert kept([3.0, 2.0, 2.0, 4.0, 1.0], higher_is_better=False, early_stop_epochs=2)[1] == 4
    assert kept([3.0, 2.0, 2.0, 4.0, 1.0], higher_is_better=True, early_stop_epochs=2)[1] == 3


def test_a_metric_that_is_no_number_is_never_better() -> None:
    nan = math.nan
    assert kept([nan, 2.0, nan], higher_is_better=True) == (2, 3)
    assert kept([nan, 2.0, nan], higher_is_better=False) == (2, 3)
    assert kept([nan, nan], higher_is_better=True) == (2, 2)  # then the loss alone decides


# ── several updates, inputs, outputs ────────────────────────────────────────────────────────────────────────────────


class Players(nn.Module):
    """Two parts that are trained against each other; the second one ships."""

    def __init__(self) -> None:
        super().__init__()
        self.critic = nn.Linear(192, 1)
        self.player = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))


class Game:
    """The critic learns to tell classes 0 and 1 from the rest; the player learns all four, and to please the critic."""

    METRIC = classification.METRIC
    answer = staticmethod(classification.answer)

    def updates(self, _: TrainSpec) -> tuple[Update, ...]:
        def criticise(network: Players, x: Tensor, wanted: Any) -> Tensor:
            wrong = network.critic(x.flatten(1))[:, 0]
            return F.binary_cross_entropy_with_logits(wrong, (wanted["class"] < 2).float())

        def play(network: Players, x: Tensor, wanted: Any) -> Tensor:
            pleased: Tensor = network.critic(x.flatten(1)).sum()
            return F.cross_entropy(network.player(x), wanted["class"]) + 0 * pleased

        return (
            Update(parameters=lambda network: network.critic.parameters(), loss=criticise),
            Update(parameters=lambda network: network.player.parameters(), loss=play),
        )

    def exported(self, network: Players, /) -> nn.Module:
        return network.player


def played(resume_file: Path | None = None, progress: Progress | None = None, **settings: object) -> Players:
    torch.manual_seed(0)
    network, game = Players(), Game()
    spec = plan(epochs=4, learning_rate=3e-2, **settings)
    what = Fit(
        plan=spec,
        task=game,  # type: ignore[arg-type]  # a task as far as training needs it
        updates=game.updates(spec),
        phase="game",
        seed=0,
        resume_file=resume_file,
    )
    fit(network, learnable.tensors(128, 0), learnable.tensors(100, 1), what, progress or Silent())
    return network


def test_two_updates_train_two_parts_each_with_an_optimizer_of_its_own() -> None:
    network, data = played(), learnable.tensors(100, 1)
    assert evaluate(network.player, data, classification).value > 0.6  # chance: 0.25
    told = network.critic(data.inputs["input"].flatten(1))[:, 0] > 0
    assert float((told == (data.wanted["class"] < 2)).float().mean()) > 0.7  # chance: 0.5


def test_each_part_learns_as_it_does_alone() -> None:
    torch.manual_seed(0)
    alone = Players()
    spec = plan(epochs=4, learning_rate=3e-2)
    what = Fit(plan=spec, task=classification, updates=classification.updates(spec), phase="x", seed=0)
    fit(alone.player, learnable.tensors(128, 0), learnable.tensors(100, 1), what, Silent())
    assert learnable.equal(played().player.state_dict(), alone.player.state_dict())


def test_two_optimizers_are_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "_SAVE_EVERY_S", -1.0)
    with pytest.raises(Killed):
        played(tmp_path / "epoch.pt", Killing(3))
    assert learnable.equal(played(tmp_path / "epoch.pt").state_dict(), played().state_dict())


class Both(nn.Module):
    """A picture and a number in, four values and their sum out."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(193, 4)

    def forward(self, picture: Tensor, number: Tensor) -> tuple[Tensor, Tensor]:
        out = self.fc(torch.cat([picture.flatten(1), number], 1))
        return out, out.sum(1, keepdim=True)


TWO = Signature(
    inputs=(TensorSpec("picture", "float32", (3, 8, 8), "CHW"), TensorSpec("number", "float32", (1,), "F")),
    outputs=(TensorSpec("output", "float32", (4,), "K"), TensorSpec("sum", "float32", (1,), "F")),
)


def test_a_network_with_several_inputs_and_outputs_is_a_function_of_named_arrays() -> None:
    network = Both()
    predict: Predict = predict_with(network, CPU, TWO)
    picture, number = learnable.pictures(6, 0)[0], np.arange(6, dtype=np.float32)[:, None]
    inputs: Arrays = {"number": number, "picture": picture}  # another order than the signature's
    found = predict(inputs)
    assert list(found) == ["output", "sum"]
    with torch.no_grad():
        wanted, total = network(torch.from_numpy(picture), torch.from_numpy(number))
    assert np.array_equal(found["output"], wanted.numpy())
    assert np.array_equal(found["sum"], total.numpy())
    assert not network.training


def test_several_inputs_are_trained_on() -> None:
    x, labels = learnable.pictures(128, 0)
    hint = torch.from_numpy(labels)[:, None].float()
    data = Held(inputs={"picture": 0 * torch.from_numpy(x), "number": hint}, wanted={"class": torch.from_numpy(labels)})

    def loss(network: nn.Module, inputs: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Tensor:
        return F.cross_entropy(network(*inputs.values())[0], wanted["class"])

    spec = plan(epochs=30, learning_rate=0.3, schedule="constant", augment={"shift_px": 1})
    what = Fit(
        plan=spec,
        task=classification,
        updates=(Update(parameters=lambda network: network.parameters(), loss=loss),),
        phase="two",
        seed=0,
        signature=TWO,
    )
    torch.manual_seed(0)
    history = fit(Both(), data, data, what, Silent())
    assert best_value(history, classification.METRIC) > 0.6  # the number alone tells
