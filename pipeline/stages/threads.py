"""threads: how many threads torch trains this network with on this machine, found by a clock once and kept."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from pipeline import tasks
from pipeline.artifacts.networks import DataFacts, DataRef, NetworkRef, Threads
from pipeline.data.load import load
from pipeline.data.source import take
from pipeline.declare.recipe import TrainSpec
from pipeline.networks.build import build_network, check_training_step
from pipeline.networks.memory import lie_channels_last
from pipeline.runs.run import Work, stage
from pipeline.training.batches import hold
from pipeline.training.devices import using_threads
from pipeline.training.loop import loss_of

CLEARLY_FASTER = 0.9  # of the time of one thread: what more threads must stay below
_BUDGET_S = 1.2  # for the timed steps of all numbers of threads together
_MOST_ROUNDS = 25
_FEWEST_ROUNDS = 3
_LONGEST_STEP_S = 0.15  # a longer one is tried with fewer samples


@stage(version=1)
def choose_threads(
    work: Work,
    *,
    data: DataRef,
    facts: DataFacts,
    network: NetworkRef,
    batch_size: int,
    cores: int,
    machine: str,
) -> Threads:
    """Time training steps with one thread and with ``cores`` threads in turn, and take more only where that pays.

    More threads must be clearly faster in the median of the rounds and faster in three quarters of them: beside other
    programs, small networks take 6 to 18 times as long with two threads as with one.  A step of very many samples is
    tried with fewer.  ``machine`` stands in the key: another one decides anew.  Raises ModelError as training would.
    """
    del work, machine
    if cores == 1:
        return Threads(count=1)
    step = _step(data, facts, network, batch_size)
    times = _interleaved(step, (1, cores))
    medians = {count: round(1000 * statistics.median(found), 3) for count, found in times.items()}
    return Threads(count=fastest(times), step_ms=medians)


def fastest(times: dict[int, list[float]]) -> int:
    """Return the number of threads to train with; ``times``: threads → time of each round, those of 1 first."""
    single = np.array(times[1])
    best, reached = 1, CLEARLY_FASTER
    for count, found in times.items():
        ratios = np.array(found) / single  # (rounds,)
        if count > 1 and np.quantile(ratios, 0.75) < 1 and np.median(ratios) <= reached:
            best, reached = count, float(np.median(ratios))
    return best


def _step(data: DataRef, facts: DataFacts, network: NetworkRef, batch_size: int) -> Callable[[], object]:
    """Return a training step on real samples, as many of them as keep it short."""
    task, train = tasks.named(data.card.task), load(data).train
    module = build_network(network, seed=0)
    check_training_step(module, network)
    lie_channels_last(module)
    updates = task.updates(TrainSpec())
    samples = min(batch_size, len(train))

    def of(count: int) -> Callable[[], object]:
        few = hold(take(train, np.arange(count, dtype=np.int64)), facts.frontend, torch.device("cpu"))
        inputs, wanted = next(few.batches(torch.arange(count), count))

        def step() -> None:
            for update in updates:
                module.zero_grad(set_to_none=True)
                loss_of(update, module, inputs, wanted).backward()  # type: ignore[no-untyped-call]

        return step

    step = of(samples)
    took = _seconds(step, 1)
    return of(max(2, int(samples * _LONGEST_STEP_S / took))) if took > _LONGEST_STEP_S and samples > 2 else step


def _interleaved(step: Callable[[], object], counts: tuple[int, ...]) -> dict[int, list[float]]:
    """Run the step with each number of threads in turn, so that a busy machine hits all alike; seconds of each."""
    times: dict[int, list[float]] = {count: [] for count in counts}
    started = time.perf_counter()
    for index in range(_MOST_ROUNDS):
        if index >= _FEWEST_ROUNDS and time.perf_counter() - started > _BUDGET_S:
            break
        for count in counts:
            times[count].append(_seconds(step, count))
    return times


def _seconds(step: Callable[[], object], threads: int) -> float:
    """Time the second of two steps: the first wakes the threads."""
    with using_threads(threads):
        step()
        started = time.perf_counter()
        step()
        return time.perf_counter() - started
