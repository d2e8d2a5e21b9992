"""train: from nothing to a checkpoint."""

from __future__ import annotations

from pipeline import tasks
from pipeline.artifacts.networks import DataFacts, DataRef, NetworkRef
from pipeline.artifacts.training import Checkpoint
from pipeline.data.load import load
from pipeline.declare.recipe import TrainSpec
from pipeline.networks.build import build_network
from pipeline.networks.checkpoints import save
from pipeline.runs.run import Work, stage
from pipeline.training.batches import hold
from pipeline.training.devices import pick_device, using_threads
from pipeline.training.loop import Fit, best_value, evaluate, fit


@stage(version=1)
def train(
    work: Work,
    *,
    data: DataRef,
    facts: DataFacts,
    network: NetworkRef,
    spec: TrainSpec,
    seed: int,
    threads: int,
    device: str,
) -> Checkpoint:
    """Train the network from scratch; the best epoch on the validation split is kept.

    ``threads``: of torch on the processor; ``device``: "cpu" or "cuda".  A killed run goes on after its last whole
    epoch.  Raises TrainingDivergedError when the loss stops being finite, ConfigError when there is no such device.
    """
    place, task, dataset = pick_device(device), tasks.named(data.card.task), load(data)
    with using_threads(threads):
        module = build_network(network, seed=seed).to(place)
        job = Fit(
            plan=spec,
            task=task,
            updates=task.updates(spec),
            phase="train",
            seed=seed,
            signature=network.signature,
            resume_file=work.scratch / "epoch.pt",
        )
        training, validation = (hold(split, facts.frontend, place) for split in (dataset.train, dataset.val))
        if spec.epochs == 0:  # it comes with its weights
            reached = evaluate(task.exported(module), validation, task, signature=network.signature).value
            return save(module, work.store, ref=network, metric=task.METRIC, val_metric=reached)
        history = fit(module, training, validation, job, work.progress)
        best = best_value(history, task.METRIC)
        return save(module, work.store, ref=network, metric=task.METRIC, val_metric=best, history=history)
