"""prune: steps that pay are kept, the others undone with a reason; latency as the aim; decisions are taken once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from pipeline import catalog, tasks
from pipeline.artifacts.evidence import Place
from pipeline.artifacts.networks import DataFacts, DataRef
from pipeline.artifacts.training import Checkpoint, Paid, Pruned
from pipeline.data.load import load
from pipeline.declare.recipe import PruneSpec, TrainSpec
from pipeline.graph.costs import layer_costs
from pipeline.instruments import Contender, counts, here
from pipeline.instruments.known import kernels_of
from pipeline.instruments.modelled import ByKernels
from pipeline.networks.checkpoints import restore_float
from pipeline.networks.from_torch import folded_graph
from pipeline.runs.run import Work
from pipeline.stages.prune import prune
from pipeline.training import loop as training
from pipeline.training.batches import hold
from pipeline.training.loop import evaluate
from tests import learnable

WIDTH = 64  # wide enough for half of the work to show in the latency, on a busy machine too
HERE = Place(how="measured", name="this machine")


@dataclass(frozen=True, kw_only=True)
class Made:
    """A trained network and what it was trained on."""

    work: Work
    data: DataRef
    facts: DataFacts
    checkpoint: Checkpoint
    said: learnable.Listening

    def pruned(self, place: Place = counts.PLACE, by_kernels: ByKernels | None = None, **settings: object) -> Pruned:
        spec = {"amount": 0.5, "recovery_epochs": 1, "margin_pp": 100, "learning_rate": 1e-2, **settings}
        return prune(
            self.work,
            data=self.data,
            facts=self.facts,
            checkpoint=self.checkpoint,
            spec=PruneSpec.model_validate(spec),
            train=TrainSpec(batch_size=32),
            seed=0,
            threads=1,
            device="cpu",
            place=place,
            by_kernels=by_kernels,
        )

    def costs(self, checkpoint: Checkpoint) -> tuple[int, int]:
        """MACs and parameters."""
        rows = layer_costs(folded_graph(restore_float(checkpoint, self.work.store), learnable.SHAPE))
        return sum(row.macs for row in rows), sum(row.parameters for row in rows)

    def value(self, checkpoint: Checkpoint) -> float:
        val = hold(load(self.data).val, self.facts.frontend, torch.device("cpu"))
        return evaluate(restore_float(checkpoint, self.work.store), val, tasks.named("classification")).value


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("prune")
    work, data, ref = learnable.work(folder), learnable.dataset(folder), learnable.network(folder, width=WIDTH)
    checkpoint = learnable.trained(work, data, ref, epochs=6)
    return Made(work=work, data=data, facts=learnable.facts(data), checkpoint=checkpoint, said=learnable.Listening())


@pytest.fixture
def made(trained: Made, tmp_path: Path) -> Made:
    said = learnable.Listening()
    return replace(trained, work=learnable.again(trained.work, tmp_path, said), said=said)


class Clock:
    """Stands for an instrument that times: says in turn what it was told to."""

    def __init__(self, *ratios: float) -> None:
        self.ratios: Iterator[float] = iter(ratios)
        self.asked = 0

    def compare(self, candidate: Contender, reference: Contender, *, threads: int, budget_s: float, seed: int) -> Paid:
        assert (threads, seed) == (1, 0)
        assert budget_s > 0
        assert candidate.path.is_file()
        assert reference.path.is_file()
        self.asked += 1
        ratio = next(self.ratios)
        return Paid(ratio=ratio, low=ratio - 0.01, high=ratio + 0.01, of="latency", place=HERE)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Clock]:
    def wind(*ratios: float) -> Clock:
        told = Clock(*ratios)
        monkeypatch.setattr(here, "compare", told.compare)
        return told

    return wind


def test_a_step_that_pays_is_kept(made: Made) -> None:
    before = made.costs(made.checkpoint)
    result = made.pruned()
    [step] = result.steps
    assert step.kept, step.why
    assert (step.macs_before, step.parameters_before) == before
    assert (step.macs_after, step.parameters_after) == made.costs(result.checkpoint)
    assert 0.4 < step.macs_after / step.macs_before <= 0.5
    assert step.paid is not None
    assert step.paid.ratio == step.paid.low == step.paid.high == step.macs_after / step.macs_before
    assert (step.paid.of, step.paid.place) == ("macs", counts.PLACE)
    assert step.val_metric_before == made.checkpoint.val_metric
    assert step.val_metric_after == result.checkpoint.val_metric == made.value(result.checkpoint)
    assert step.why.startswith(f"MACs x {step.paid.ratio:.2f}, validation accuracy ")
    assert result.checkpoint.edits
    assert [epoch.phase for epoch in result.checkpoint.history] == ["recovery 1"]
    assert made.said.lines == [f"pruning step 1 kept: {step.why}"]
    channels = [
        len(t) for n, t in restore_float(result.checkpoint, made.work.store).state_dict().items() if "bias" in n
    ]
    assert all(count % 8 == 0 for count in channels[1:]), channels  # [0] is the head's


def test_the_clock_of_this_machine_finds_half_of_the_work_cheaper_and_is_recorded(made: Made) -> None:
    [step] = made.pruned(place=here.place(), recovery_epochs=0, amount=0.8).steps
    assert step.paid is not None
    assert (step.paid.of, step.paid.place.how) == ("latency", "measured")
    assert step.paid.low <= step.paid.ratio <= step.paid.high
    assert step.kept is step.paid.cheaper
    assert step.paid.ratio < 1


def test_a_target_that_is_not_at_hand_decides_by_what_is_estimated_of_it(
    made: Made, clock: Callable[..., Clock]
) -> None:
    silent = clock()
    kernels = kernels_of(catalog.load_target("raspberry-pi-4b"))
    assert kernels is not None
    place, by_kernels = kernels.place, ByKernels(kernels=kernels, precision="int8")
    first, again = (
        made.pruned(place=place, by_kernels=by_kernels, of="latency", amount=0.3, recovery_epochs=0) for _ in "12"
    )
    assert first.steps == again.steps  # no clock is asked
    assert silent.asked == 0
    [step] = first.steps
    assert step.kept, step.why
    assert step.paid is not None
    assert (step.paid.of, step.paid.place) == ("latency", place)
    assert step.paid.low < step.paid.ratio <= 0.7
    assert step.why.startswith(f"estimated latency x {step.paid.ratio:.2f} (")


def test_steps_share_the_amount(made: Made) -> None:
    result = made.pruned(amount=0.64, steps=2, round_to=1)
    first, second = result.steps
    assert first.macs_after == second.macs_before
    for step in result.steps:
        assert 0.55 < step.macs_after / step.macs_before <= 0.6  # the square root of 0.36
    assert [epoch.phase for epoch in result.checkpoint.history] == ["recovery 1", "recovery 2"]
    assert made.costs(result.checkpoint)[0] == second.macs_after
    assert result.checkpoint.val_metric == made.value(result.checkpoint)


def test_a_step_that_costs_too_much_is_undone(made: Made) -> None:
    result = made.pruned(amount=0.95, steps=3, recovery_epochs=0, margin_pp=0, round_to=1)
    assert result.checkpoint == made.checkpoint
    step = result.steps[-1]
    assert not step.kept
    assert step.val_metric_after < made.checkpoint.val_metric
    assert step.why.startswith("too much was lost: validation accuracy ")
    assert f"at most 0 points worse than {100 * made.checkpoint.val_metric:.1f} % is wanted" in step.why
    assert made.said.lines[-1] == f"pruning step {step.index} undone: {step.why}"


def test_the_margin_of_a_metric_that_shall_be_small_is_in_per_cent(tmp_path: Path) -> None:
    data = learnable.numbers(tmp_path)
    facts, said = learnable.facts(data), learnable.Listening()
    work = learnable.work(tmp_path, said)
    checkpoint = learnable.trained(work, data, learnable.network(tmp_path, classes=1, width=32))
    made = Made(work=work, data=data, facts=facts, checkpoint=checkpoint, said=said)
    assert not checkpoint.metric.higher_is_better
    lost = made.pruned(amount=0.9, recovery_epochs=0, margin_pp=0.1, round_to=1)
    assert not lost.steps[-1].kept
    assert lost.steps[-1].val_metric_after > checkpoint.val_metric
    assert "at most 0.1 % worse than" in lost.steps[-1].why
    assert made.pruned(amount=0.3, recovery_epochs=1, margin_pp=1e6, round_to=1).steps[0].kept


def test_a_later_step_that_does_not_pay_leaves_the_earlier_ones(made: Made, clock: Callable[..., Clock]) -> None:
    clock(0.7, 1.0)
    result = made.pruned(place=HERE, amount=0.6, steps=3)
    assert [step.kept for step in result.steps] == [True, False]  # the third is not tried
    assert made.costs(result.checkpoint) == (result.steps[0].macs_after, result.steps[0].parameters_after)
    assert [epoch.phase for epoch in result.checkpoint.history] == ["recovery 1"]


def test_a_file_that_is_not_cheaper_is_undone(made: Made, clock: Callable[..., Clock]) -> None:
    clock(0.995)  # the interval reaches beyond 1
    result = made.pruned(place=HERE, recovery_epochs=0)
    assert result.checkpoint == made.checkpoint
    [step] = result.steps
    assert not step.kept
    assert step.why == "the exported file is not clearly cheaper: measured latency x 0.99 (0.98 to 1.00)"


def test_where_nothing_can_go_the_reason_is_recorded(made: Made) -> None:
    result = made.pruned(round_to=2 * WIDTH)
    assert result.checkpoint == made.checkpoint
    [step] = result.steps
    assert not step.kept
    assert step.paid is None
    assert (step.macs_before, step.parameters_before) == (step.macs_after, step.parameters_after)
    assert step.why == (
        "so many channels cannot go while their counts stay multiples of 128: at most 0% of the multiply-accumulates"
    )
    assert made.said.lines == [f"pruning step 1: {step.why}"]


def test_latency_as_the_aim(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    def square_root(candidate: Contender, reference: Contender, **_: object) -> Paid:
        ratio = (candidate.macs / reference.macs) ** 0.5  # a clock that never errs: half the MACs take 71 % of the time
        return Paid(ratio=ratio, low=ratio, high=ratio, of="latency", place=HERE)

    monkeypatch.setattr(here, "compare", square_root)
    [step] = made.pruned(place=HERE, of="latency", amount=0.3, recovery_epochs=0).steps
    assert step.kept, step.why
    assert step.paid is not None
    assert 0.6 < step.paid.ratio <= 0.7
    assert 0.36 < step.macs_after / step.macs_before <= 0.49


def test_who_only_counts_asks_no_clock(made: Made, clock: Callable[..., Clock]) -> None:
    silent = clock()
    result = made.pruned(of="latency", recovery_epochs=0, unstructured_sparsity=0.5)
    assert result.steps[0].kept
    assert result.sparsity is not None
    assert silent.asked == 0


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
    assert trial.latency_ratio == 1  # kernels multiply zeros like any other number
    assert trial.place == counts.PLACE
    assert 0.2 < trial.val_metric <= 1


def test_for_a_target_that_is_not_at_hand_single_zeros_are_timed_here(made: Made, clock: Callable[..., Clock]) -> None:
    """A model of kernels knows of no zeros: it would claim what it did not find out."""
    kernels = kernels_of(catalog.load_target("raspberry-pi-4b"))
    assert kernels is not None
    timed = clock(0.97)
    by_kernels = ByKernels(kernels=kernels, precision="int8")
    trial = made.pruned(place=kernels.place, by_kernels=by_kernels, amount=0, unstructured_sparsity=0.9).sparsity
    assert trial is not None
    assert (trial.latency_ratio, trial.place, timed.asked) == (0.97, HERE, 1)


# ── after a kill ────────────────────────────────────────────────────────────────────────────────────────────────────


class StoppedError(Exception):
    """Stands for kill -9."""


class Stopping(learnable.Listening):
    """Raises at the third report of a loss."""

    left = 3

    def advance(self, steps: int = 1, **numbers: float) -> None:
        self.left -= bool(steps and numbers)
        if not self.left:
            raise StoppedError


def test_a_stopped_recovery_goes_on(made: Made, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(training, "_SAVE_EVERY_S", -1.0)
    undisturbed = made.pruned(recovery_epochs=4)
    stopped = tmp_path / "stopped"
    with pytest.raises(StoppedError):
        replace(made, work=learnable.again(made.work, stopped, Stopping())).pruned(recovery_epochs=4)
    resumed = replace(made, work=learnable.again(made.work, stopped)).pruned(recovery_epochs=4)
    assert resumed.checkpoint.weights == undisturbed.checkpoint.weights
    assert resumed.steps == undisturbed.steps


def test_what_the_clock_decided_before_a_kill_stands(made: Made, clock: Callable[..., Clock]) -> None:
    """The second time the clock would say otherwise, and is not asked."""
    first = clock(*[0.6] * 50)
    decided = made.pruned(place=HERE, of="latency", amount=0.3, recovery_epochs=0)
    assert decided.steps[0].kept
    assert first.asked > 1  # for the plan, and for the step
    other = clock(*[2.0] * 50)
    assert made.pruned(place=HERE, of="latency", amount=0.3, recovery_epochs=0) == decided
    assert other.asked == 0
