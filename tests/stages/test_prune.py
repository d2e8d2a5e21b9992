"""prune: steps that pay are kept, the others undone with a reason; latency as the aim; zeros that bring nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from pipeline.training import loop as training
from pipeline.artifacts.training import Checkpoint, Pruned
from pipeline.artifacts.networks import DataRef
from pipeline.networks.checkpoints import restore_float
from pipeline.data.load import load
from pipeline.onboard.timing import Invoker, Speed, compare_speed
from pipeline.graph.costs import layer_costs
from pipeline.graph.fold import fold
from pipeline.runs.run import Work
from pipeline.declare.recipe import PruneSpec, TrainSpec
from pipeline.stages import prune as stage
from pipeline.stages.prune import prune
from pipeline.judging.stats import Interval
from pipeline.tasks.classification import accuracy
from pipeline.training.loop import evaluate, samples
from tests import learnable

WIDTH = 64  # wide enough for half of the work to show in the latency, on a busy machine too


@dataclass(frozen=True, kw_only=True)
class Made:
    """A trained network and what it was trained on."""

    work: Work
    data: DataRef
    checkpoint: Checkpoint
    said: learnable.Listening

    def pruned(self, **settings: object) -> Pruned:
        spec = {"amount": 0.5, "recovery_epochs": 1, "margin_pp": 100, "learning_rate": 1e-2, **settings}
        return prune(
            self.work,
            data=self.data,
            checkpoint=self.checkpoint,
            spec=PruneSpec.model_validate(spec),
            train=TrainSpec(batch_size=32),
            seed=0,
        )

    def costs(self, checkpoint: Checkpoint) -> tuple[int, int]:
        """MACs and parameters."""
        rows = layer_costs(fold(restore_float(checkpoint, self.work.store), learnable.SHAPE))
        return sum(row.macs for row in rows), sum(row.parameters for row in rows)

    def accuracy(self, checkpoint: Checkpoint) -> float:
        val = samples(load(self.data).val, self.data.card.input, torch.device("cpu"))
        return accuracy(*evaluate(restore_float(checkpoint, self.work.store), val))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("prune")
    work, data, ref = learnable.work(folder), learnable.dataset(folder), learnable.network(folder, width=WIDTH)
    checkpoint = learnable.trained(work, data, ref, epochs=6)
    return Made(work=work, data=data, checkpoint=checkpoint, said=learnable.Listening())


@pytest.fixture
def made(trained: Made, tmp_path: Path) -> Made:
    said = learnable.Listening()
    return replace(trained, work=learnable.again(trained.work, tmp_path, said), said=said)


def always(ratio: float) -> Callable[..., Speed]:
    """Stand for a measurement with a clear result, as the decisions need one that is the same everywhere."""
    return lambda *_, **__: Speed(ratio=Interval(value=ratio, low=ratio - 0.01, high=ratio + 0.01), rounds=30)


def test_a_step_that_pays_is_kept(made: Made) -> None:
    before = made.costs(made.checkpoint)
    result = made.pruned()
    [step] = result.steps
    assert step.kept, step.why
    assert (step.macs_before, step.parameters_before) == before
    assert (step.macs_after, step.parameters_after) == made.costs(result.checkpoint)
    assert 0.4 < step.macs_after / step.macs_before <= 0.5
    assert step.latency_ratio_low <= step.latency_ratio <= step.latency_ratio_high < 1
    assert step.val_accuracy_before == made.checkpoint.val_accuracy
    assert step.val_accuracy_after == result.checkpoint.val_accuracy == made.accuracy(result.checkpoint)
    assert step.why.startswith(f"latency x {step.latency_ratio:.2f} (")
    assert result.checkpoint.edits
    assert [epoch.phase for epoch in result.checkpoint.history] == ["recovery 1"]
    assert made.said.lines == [f"pruning step 1 kept: {step.why}"]
    channels = [
        len(t) for n, t in restore_float(result.checkpoint, made.work.store).state_dict().items() if "bias" in n
    ]
    assert all(count % 8 == 0 for count in channels[1:]), channels  # [0] is the head's


def test_steps_share_the_amount(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "compare_speed", always(0.8))
    result = made.pruned(amount=0.64, steps=2, round_to=1)
    first, second = result.steps
    assert first.macs_after == second.macs_before
    for step in result.steps:
        assert 0.55 < step.macs_after / step.macs_before <= 0.6  # the square root of 0.36
    assert [epoch.phase for epoch in result.checkpoint.history] == ["recovery 1", "recovery 2"]
    assert made.costs(result.checkpoint)[0] == second.macs_after
    assert result.checkpoint.val_accuracy == made.accuracy(result.checkpoint)


def test_a_step_that_costs_too_much_accuracy_is_undone(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "compare_speed", always(0.3))
    result = made.pruned(amount=0.95, steps=3, recovery_epochs=0, margin_pp=0, round_to=1)
    assert result.checkpoint == made.checkpoint
    step = result.steps[-1]
    assert not step.kept
    assert step.val_accuracy_after < made.checkpoint.val_accuracy
    wanted = f"at least {100 * made.checkpoint.val_accuracy:.1f} % wanted"
    assert step.why.startswith("accuracy fell too far: ")
    assert wanted in step.why
    assert made.said.lines[-1] == f"pruning step {step.index} undone: {step.why}"


def test_a_later_step_that_does_not_pay_leaves_the_earlier_ones(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    ratios = iter((0.7, 1.0))
    monkeypatch.setattr(stage, "compare_speed", lambda *_, **__: always(next(ratios))())
    result = made.pruned(amount=0.6, steps=3)
    assert [step.kept for step in result.steps] == [True, False]  # the third is not tried
    assert made.costs(result.checkpoint) == (result.steps[0].macs_after, result.steps[0].parameters_after)
    assert [epoch.phase for epoch in result.checkpoint.history] == ["recovery 1"]


def test_a_file_that_is_not_faster_is_undone(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    def other_way_round(candidate: Invoker, reference: Invoker, *, budget_s: float, seed: int = 0) -> Speed:
        return compare_speed(reference, candidate, budget_s=budget_s, seed=seed)

    monkeypatch.setattr(stage, "compare_speed", other_way_round)
    result = made.pruned(recovery_epochs=0)
    assert result.checkpoint == made.checkpoint
    [step] = result.steps
    assert not step.kept
    assert step.latency_ratio > 1
    assert step.why == (
        f"the exported file is not clearly faster: latency x {step.latency_ratio:.2f} "
        f"({step.latency_ratio_low:.2f} to {step.latency_ratio_high:.2f})"
    )


def test_where_nothing_can_go_the_reason_is_recorded(made: Made) -> None:
    result = made.pruned(round_to=2 * WIDTH)
    assert result.checkpoint == made.checkpoint
    [step] = result.steps
    assert not step.kept
    assert (step.macs_before, step.parameters_before) == (step.macs_after, step.parameters_after)
    assert step.why == "so many channels cannot go while their counts stay multiples of 128"
    assert made.said.lines == [f"pruning step 1: {step.why}"]


def test_latency_as_the_aim(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "_COST_BUDGET_S", 0.1)
    result = made.pruned(of="latency", amount=0.3, recovery_epochs=0)
    [step] = result.steps
    assert step.kept, step.why
    # what was aimed at was measured file by file, what counts is measured interleaved: not quite the same number
    assert 0.2 < step.latency_ratio < 0.9
    assert step.macs_after < step.macs_before


def test_nothing_is_done_where_nothing_is_asked_for(made: Made) -> None:
    assert made.pruned(amount=0) == Pruned(checkpoint=made.checkpoint)
    assert not list(made.work.scratch.iterdir())


def test_single_zeros_are_tried_and_not_kept(made: Made) -> None:
    result = made.pruned(amount=0, unstructured_sparsity=0.9)
    assert result.checkpoint == made.checkpoint
    assert result.steps == ()
    trial = result.sparsity
    assert trial is not None
    assert (trial.sparsity, trial.size_ratio) == (0.9, 1.0)
    assert trial.compressed_size_ratio < 0.4
    assert trial.latency_ratio > 0.8  # kernels multiply zeros like any other number
    assert 0.2 < trial.val_accuracy <= 1


class StoppedError(Exception):
    """Stands for kill -9."""


class Stopping(learnable.Listening):
    """Raises at the third report of a loss."""

    left = 3

    def advance(self, steps: int = 1, **numbers: float) -> None:  # noqa: ARG002
        self.left -= bool(numbers)
        if not self.left:
            raise StoppedError


def test_a_stopped_recovery_goes_on(made: Made, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(training, "_SAVE_EVERY_S", -1.0)
    monkeypatch.setattr(stage, "compare_speed", always(0.5))
    undisturbed = made.pruned(recovery_epochs=4)
    stopped = tmp_path / "stopped"
    with pytest.raises(StoppedError):
        replace(made, work=learnable.again(made.work, stopped, Stopping())).pruned(recovery_epochs=4)
    resumed = replace(made, work=learnable.again(made.work, stopped)).pruned(recovery_epochs=4)
    assert resumed.checkpoint.weights == undisturbed.checkpoint.weights
    assert resumed.steps == undisturbed.steps
