"""karui's training loop beside a bare PyTorch loop, and a QAT step beside a float step.

Same network, data and batch in one process, one epoch of each in turn (A B A B …), so that a busy machine hits all
alike; printed are the medians and the ratios of each pair.  Asked: at most 1.10 for an epoch, at most 1.4 for a QAT
step.

    python bench/bench_training.py [--rounds 5] [--threads 2] [--recipe fashion-resnet8]
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import click
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from pipeline import catalog
from pipeline.data.source import INPUT
from pipeline.declare.recipe import AugmentSpec, QuantizeSpec, TrainSpec
from pipeline.networks.build import build_network
from pipeline.networks.from_torch import folded_graph
from pipeline.progress import Silent
from pipeline.quant.calibrate import calibrate
from pipeline.quant.prepare import prepare
from pipeline.tasks import classification
from pipeline.training.batches import Held
from pipeline.training.devices import using_threads
from pipeline.training.loop import Fit, fit

SAMPLES = {"train": 3200, "val": 500}


EVALUATED_AT_ONCE = 512


def bare_epoch(network: nn.Module, train: Held, val: Held, plan: TrainSpec) -> float:
    """Run the loop of every tutorial; return seconds."""
    inputs, labels = train.inputs[INPUT], train.wanted["class"]
    optimizer = torch.optim.SGD(
        network.parameters(),
        lr=plan.learning_rate,
        momentum=plan.momentum,
        weight_decay=plan.weight_decay,
        nesterov=True,
    )
    started = time.perf_counter()
    network.train()
    for chosen in torch.randperm(len(labels)).split(plan.batch_size):  # type: ignore[no-untyped-call]
        loss = F.cross_entropy(network(inputs[chosen]), labels[chosen])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    network.eval()
    right = 0
    with torch.no_grad():
        for chosen in torch.arange(len(val)).split(EVALUATED_AT_ONCE):  # type: ignore[no-untyped-call]
            right += int((network(val.inputs[INPUT][chosen]).argmax(1) == val.wanted["class"][chosen]).sum())
    return time.perf_counter() - started


def karui_epoch(network: nn.Module, train: Held, val: Held, plan: TrainSpec) -> float:
    """Run one epoch of pipeline.training.loop.fit; return seconds."""
    started = time.perf_counter()
    updates = classification.updates(plan)
    fit(network, train, val, Fit(plan=plan, task=classification, updates=updates, phase="bench", seed=0), Silent())
    return time.perf_counter() - started


@click.command()
@click.option("--rounds", default=5, show_default=True)
@click.option("--threads", default=2, show_default=True)
@click.option("--recipe", default="fashion-resnet8", show_default=True)
@click.option("--augment/--no-augment", default=False, help="karui's loop with the recipe's augmentation.")
def main(rounds: int, threads: int, recipe: str, augment: bool) -> None:
    """Print the table."""
    torch.manual_seed(0)
    with using_threads(threads):
        times, batch_size = measured(rounds, recipe, augment=augment)
    print(f"{recipe}: {SAMPLES['train']} samples, batch {batch_size}, {threads} threads, {rounds} rounds")
    for name, seconds in times.items():
        print(f"  {name:26} {statistics.median(seconds):7.2f} s per epoch")
    for over, under in (
        ("karui", "bare PyTorch loop"),
        ("karui", "bare loop, channels last"),
        ("karui, QAT", "karui"),
        ("karui, QAT", "karui, batch norms folded"),
    ):
        ratios = [a / b for a, b in zip(times[over], times[under], strict=True)]
        print(f"  {over} / {under}: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


def measured(rounds: int, recipe: str, *, augment: bool) -> tuple[dict[str, list[float]], int]:
    """Return the seconds of every round of each way to train, and the batch size."""
    declared, folder = catalog.load_recipe(recipe)
    card, _ = catalog.load_card(declared.data, beside=folder)
    shape, classes = card.input.shape, len(card.classes)
    signature = classification.signature(card, card.classes, ())
    ref = catalog.network_ref(declared.network, beside=folder, signature=signature)
    train, val = (random_samples(count, shape, classes) for count in SAMPLES.values())
    plan = declared.train.model_copy(
        update={"epochs": 1, "schedule": "constant", "learning_rate": 1e-3, "label_smoothing": 0.0, "optimizer": "sgd"}
        | ({} if augment else {"augment": AugmentSpec()})
    )
    network, plain, plain_last = (build_network(ref, seed=0) for _ in range(3))
    plain_last.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    as_in_tutorials = Held(inputs={INPUT: train.inputs[INPUT].contiguous()}, wanted=train.wanted)
    folded, prepared = folded_graph(network, shape), prepare(folded_graph(network, shape), weight_bits=8)
    calibrate(prepared, train.inputs[INPUT][:128], QuantizeSpec())
    runs: dict[str, Callable[[], float]] = {
        "bare PyTorch loop": lambda: bare_epoch(plain, as_in_tutorials, val, plan),
        "bare loop, channels last": lambda: bare_epoch(plain_last, train, val, plan),
        "karui": lambda: karui_epoch(network, train, val, plan),
        "karui, batch norms folded": lambda: karui_epoch(folded, train, val, plan),
        "karui, QAT": lambda: karui_epoch(prepared, train, val, plan),
    }
    for run in runs.values():
        run()  # warm up
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            times[name].append(run())
    return times, plan.batch_size


def random_samples(count: int, shape: tuple[int, ...], classes: int) -> Held:
    """Draw inputs (count, *shape) and labels."""
    inputs = torch.randn(count, *shape)
    if inputs.dim() == 4:
        inputs = inputs.contiguous(memory_format=torch.channels_last)
    return Held(inputs={INPUT: inputs}, wanted={"class": torch.randint(0, classes, (count,))})


if __name__ == "__main__":
    main()
