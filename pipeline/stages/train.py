"""train: from nothing to a checkpoint."""

from __future__ import annotations

from pipeline.artifacts import Checkpoint, DataRef, NetworkRef
from pipeline.checkpoints import save
from pipeline.data.load import load
from pipeline.network import build_network
from pipeline.run import Work, stage
from pipeline.spec import TrainSpec
from pipeline.tasks.classification import cross_entropy
from pipeline.training import Fit, fit, pick_device, samples


@stage(version=1)
def train(work: Work, *, data: DataRef, network: NetworkRef, spec: TrainSpec, seed: int) -> Checkpoint:
    """Train the network from scratch; the best epoch on the validation split is kept.

    A killed run goes on after its last whole epoch.  Raises TrainingDivergedError when the loss stops being finite.
    """
    device = pick_device(work.device)
    dataset = load(data)
    module = build_network(network, seed=seed).to(device)
    train_samples = samples(dataset.train, data.card.input, device)
    val_samples = samples(dataset.val, data.card.input, device)
    job = Fit(
        plan=spec,
        phase="train",
        seed=seed,
        loss=cross_entropy(spec.label_smoothing),
        resume_file=work.scratch / "epoch.pt",
    )
    history = fit(module, train_samples, val_samples, job, work.progress)
    best = max(epoch.val_accuracy for epoch in history)
    return save(module, work.store, ref=network, val_accuracy=best, history=history)
