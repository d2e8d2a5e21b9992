"""Samples for the loop: held or streamed they give the same bits, prepared once, labels by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.data.source import INPUT, ArraySource, Batch, Indices, Subset
from pipeline.declare.recipe import TrainSpec
from pipeline.networks.build import build_network
from pipeline.onboard.arrays import Arrays
from pipeline.onboard.frontend import StepCall, prepare
from pipeline.progress import Silent
from pipeline.tasks import classification
from pipeline.training.batches import Held, Samples, Streamed, hold
from pipeline.training.loop import Fit, evaluate, fit
from tests import learnable

CPU = torch.device("cpu")
HALVED = {INPUT: (StepCall("normalize", {"divide": 2.0, "mean": (0.5,), "std": (3.0, 1.0, 2.0)}),)}


def held_and_streamed(count: int, frontend: Any = learnable.FRONTEND) -> tuple[Samples, Samples]:
    """Return the same samples both ways."""
    source = learnable.source(count, 0)
    whole = learnable.source(count, 0)
    view = Subset(whole=whole, indices=np.arange(count))
    return hold(source, frontend, CPU), hold(view, frontend, CPU)


def all_of(samples: Samples, size: int = 7) -> tuple[Tensor, Mapping[str, Tensor]]:
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(0))
    inputs, wanted = zip(*samples.batches(order, size), strict=True)
    return torch.cat(inputs), {name: torch.cat([each[name] for each in wanted]) for name in wanted[0]}


def test_in_memory_is_held_and_everything_else_is_streamed() -> None:
    held, streamed = held_and_streamed(20)
    assert isinstance(held, Held)
    assert isinstance(streamed, Streamed)
    assert held.inputs[INPUT].is_contiguous(memory_format=torch.channels_last)  # half the time per step
    assert len(held) == len(streamed) == 20
    assert held.device == streamed.device == CPU


@pytest.mark.parametrize("frontend", [learnable.FRONTEND, HALVED], ids=["as it is", "normalized"])
def test_batches_are_the_prepared_samples_in_the_order_asked_for(frontend: Any) -> None:
    x, labels = learnable.pictures(20, 0)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0)).numpy()
    for samples in held_and_streamed(20, frontend):
        inputs, wanted = all_of(samples)
        assert np.array_equal(inputs.numpy(), prepare({INPUT: x}, frontend)[INPUT][order])
        assert np.array_equal(wanted["class"].numpy(), labels[order])
        first, _ = next(iter(samples.batches(torch.arange(3), 3)))
        assert isinstance(first, Tensor)
        assert first.is_contiguous(memory_format=torch.channels_last)


class CountingSource:
    """Counts how often inputs are read."""

    def __init__(self, count: int) -> None:
        self.inner, self.reads = learnable.source(count, 0), 0
        self.strata, self.groups = self.inner.strata, None

    def __len__(self) -> int:
        return len(self.inner)

    def read(self, indices: Indices) -> Batch:
        self.reads += len(indices)
        return self.inner.read(indices)

    def wanted(self, indices: Indices) -> Arrays:
        return self.inner.wanted(indices)


def test_what_is_streamed_is_read_once_an_epoch_and_labels_alone_read_no_input() -> None:
    source = CountingSource(20)
    samples = hold(source, HALVED, CPU)
    assert source.reads == 0
    all_of(samples)
    assert source.reads == 20
    samples.source.wanted(np.arange(20))
    assert source.reads == 20
    assert samples.source.strata is source.strata


def test_the_source_of_samples_is_prepared_and_what_is_held_is_not_copied() -> None:
    x, labels = learnable.pictures(20, 0)
    some = np.array([3, 1, 4])
    for samples in held_and_streamed(20, HALVED):
        batch = samples.source.read(some)
        assert np.array_equal(batch.inputs[INPUT], prepare({INPUT: x}, HALVED)[INPUT][some])
        assert np.array_equal(batch.wanted["class"], labels[some])
        assert np.array_equal(samples.source.wanted(some)["class"], labels[some])
        assert samples.source.strata is not None
    held = hold(learnable.source(20, 0), HALVED, CPU)
    assert isinstance(held, Held)
    assert isinstance(held.source, ArraySource)
    assert np.shares_memory(held.source.inputs[INPUT], held.inputs[INPUT].numpy())
    assert held.source is held.source


@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_prepared_in_portions_is_the_same(monkeypatch: pytest.MonkeyPatch, channels: int) -> None:
    x = np.random.default_rng(0).normal(size=(20, channels, 5, 4)).astype(np.float32)
    source = ArraySource(inputs={INPUT: x}, labels={"class": np.arange(20)})
    at_once = hold(source, {}, CPU)
    monkeypatch.setattr("pipeline.training.batches._AT_ONCE", 7)
    in_portions = hold(source, {}, CPU)
    for held in (at_once, in_portions):
        assert isinstance(held, Held)
        assert np.array_equal(held.inputs[INPUT].numpy(), x)
        # kernels are chosen by the order of the memory, and with them the last bits of a training
        assert held.inputs[INPUT].stride() == torch.from_numpy(x).contiguous(memory_format=torch.channels_last).stride()
        assert held.wanted["class"].tolist() == list(range(20))


def test_several_inputs_keep_their_names_and_order() -> None:
    x, labels = learnable.pictures(20, 0)
    arrays = {"picture": x, "number": labels.astype(np.float32)[:, None]}
    source = ArraySource(inputs=arrays, labels={"number": x[:, 0, 0, :2]})
    for samples in (hold(source, {}, CPU), hold(Subset(whole=source, indices=np.arange(20)), {}, CPU)):
        inputs, wanted = next(iter(samples.batches(torch.tensor([5, 2]), 2)))
        assert isinstance(inputs, Mapping)
        assert list(inputs) == ["picture", "number"]
        assert inputs["number"].flatten().tolist() == [labels[5], labels[2]]
        assert np.array_equal(wanted["number"].numpy(), x[[5, 2], 0, 0, :2])


def network(folder: Path) -> nn.Module:
    return build_network(learnable.network(folder), seed=0)


@pytest.mark.parametrize("setting", [{}, {"noise": 0.2}, {"noise": 0.2, "shift_px": 1, "flip": True}])
def test_streamed_samples_give_the_same_weights_as_held_ones(tmp_path: Path, setting: dict[str, float]) -> None:
    spec = TrainSpec.model_validate({"epochs": 2, "batch_size": 32, "learning_rate": 1e-2, "augment": setting})
    what = Fit(plan=spec, task=classification, updates=classification.updates(spec), phase="train", seed=0)
    networks, losses = [], []
    for samples in held_and_streamed(130, HALVED):
        networks.append(network(tmp_path))
        losses.append(fit(networks[-1], samples, samples, what, Silent())[-1].train_loss)
    assert learnable.equal(networks[0].state_dict(), networks[1].state_dict())
    assert losses[0] == losses[1]


def test_evaluation_keeps_the_order_over_several_batches(tmp_path: Path) -> None:
    module, data = network(tmp_path), learnable.tensors(1100, 5)  # batches of 512
    answers = evaluate(module.train(), data, classification)
    with torch.no_grad():
        wanted = module(data.inputs[INPUT]).numpy()
    assert not module.training
    assert np.abs(answers.outputs["output"] - wanted).max() < 1e-5  # batches of another size sum in another order
    right = wanted.argmax(1) == data.wanted["class"].numpy()
    assert np.array_equal(answers.score, right)
    assert answers.value == right.mean()
