"""The one training loop and the one evaluation: train, fine-tune, prune's recovery, QAT and distillation all use them.

Every epoch starts from a seed made of the run's seed and the epoch's number, so a run that was killed and resumed ends
with the same weights as one that was not.  Data that fits is held as tensors; larger data is read ahead by a thread.

Shapes: N batch, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.artifacts import Epoch
from pipeline.data.preprocess import normalize
from pipeline.data.source import ArraySource, Source
from pipeline.errors import ConfigError, ModelError, TrainingDivergedError
from pipeline.progress import Progress
from pipeline.spec import AugmentSpec, InputSpec, TrainSpec
from pipeline.store import write_atomic
from pipeline.tasks.classification import Loss, accuracy

_EVALUATION_BATCH = 500
_CHECK_EVERY_STEPS = 20  # how often the loss is looked at
_SAVE_EVERY_S = 2.0  # a resume file is not written more often than this
_ONE_CYCLE_WARM_SHARE = 0.3


class Samples(Protocol):
    """What the loop trains on."""

    def __len__(self) -> int:
        """Return how many samples there are."""

    def batches(self, order: Tensor, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (inputs (N, …) float32, labels (N,)) in this order."""


@dataclass(frozen=True, kw_only=True)
class TensorSamples:
    """Samples held in memory, normalized once."""

    inputs: Tensor  # (N, …) float32
    labels: Tensor  # (N,) int64

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, order: Tensor, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield batches by index."""
        for chosen in torch.split(order.to(self.labels.device), batch_size):
            yield self.inputs[chosen], self.labels[chosen]


@dataclass(frozen=True, kw_only=True)
class StreamedSamples:
    """Samples read while training, one batch ahead."""

    source: Source
    spec: InputSpec
    device: torch.device

    def __len__(self) -> int:
        return len(self.source)

    def batches(self, order: Tensor, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Read, normalize and yield; the next batch is read meanwhile."""
        with ThreadPoolExecutor(1) as reader:
            parts = [chosen.numpy() for chosen in torch.split(order.cpu(), batch_size)]
            ahead = reader.submit(self._read, parts[0])
            for following in [*parts[1:], None]:
                batch = ahead.result()
                if following is not None:
                    ahead = reader.submit(self._read, following)
                yield batch

    def _read(self, chosen: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        labels = torch.from_numpy(self.source.labels[chosen])
        return _inputs(self.source, chosen, self.spec).to(self.device), labels.to(self.device)


def samples(source: Source, spec: InputSpec, device: torch.device) -> Samples:
    """Hold a source as tensors if it is in memory, else stream it."""
    if isinstance(source, ArraySource):
        inputs = _inputs(source, np.arange(len(source)), spec)
        return TensorSamples(inputs=inputs.to(device), labels=torch.from_numpy(source.labels).to(device))
    return StreamedSamples(source=source, spec=spec, device=device)


def _inputs(source: Source, chosen: NDArray[np.int64], spec: InputSpec) -> Tensor:
    """Read and normalize; pictures channels last, held or streamed: noise is drawn in the order of the memory."""
    inputs = torch.from_numpy(normalize(source.read(chosen), spec))
    if inputs.dim() == 4:
        inputs = inputs.contiguous(memory_format=torch.channels_last)  # half the time per step on CPUs
    return inputs


@dataclass(frozen=True, kw_only=True)
class Fit:
    """What to do: ``train_mode`` puts the network into training mode (and may leave parts of it frozen)."""

    plan: TrainSpec
    phase: str
    seed: int
    loss: Loss
    train_mode: Callable[[nn.Module], object] = nn.Module.train
    resume_file: Path | None = None


@dataclass(kw_only=True)
class _State:
    """Where a fit stands between two epochs; written to the resume file."""

    history: list[Epoch] = field(default_factory=list)
    best_accuracy: float = -1.0
    best_loss: float = math.inf  # breaks ties between equal accuracies
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    stale_epochs: int = 0


def fit(network: nn.Module, train: Samples, val: Samples, job: Fit, progress: Progress) -> list[Epoch]:
    """Train ``network`` in place and leave the best epoch's weights in it; return the learning curve.

    Best means highest validation accuracy, then lowest training loss.  Raises TrainingDivergedError when the loss stops
    being finite, naming the epoch, the learning rate and what to try; ModelError when forward() fails in training mode.
    """
    plan = job.plan
    if _is_picture_network(network):
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = _optimizer(network, plan)
    state = _load(job.resume_file, network, optimizer)
    steps_per_epoch = steps_in(len(train), plan.batch_size)
    progress.start(job.phase, plan.epochs * steps_per_epoch)
    progress.advance(len(state.history) * steps_per_epoch)
    saved_at = time.monotonic()
    for index in range(len(state.history) + 1, plan.epochs + 1):
        if plan.early_stop_epochs and state.stale_epochs >= plan.early_stop_epochs:
            break
        started = time.monotonic()
        rate, loss = _one_epoch(network, train, job, optimizer=optimizer, index=index, progress=progress)
        logits, labels = evaluate(network, val)
        _check_finite(np.isfinite(logits).all(), job, index, rate)  # the last step's weights made no loss yet
        epoch = Epoch(
            phase=job.phase,
            index=index,
            learning_rate=rate,
            train_loss=loss,
            val_accuracy=accuracy(logits, labels),
            duration_s=time.monotonic() - started,
        )
        _remember(state, epoch, network)
        if job.resume_file and time.monotonic() - saved_at > _SAVE_EVERY_S:
            _save(job.resume_file, state, network, optimizer)
            saved_at = time.monotonic()
    network.load_state_dict(state.best_weights)
    network.eval()
    return state.history


def evaluate(network: nn.Module, data: Samples) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return logits (N, K) and labels (N,) over all samples, in order; the network is left in evaluation mode."""
    network.eval()
    logits, labels = [], []
    with torch.inference_mode():
        for inputs, wanted in data.batches(torch.arange(len(data)), _EVALUATION_BATCH):
            logits.append(network(inputs).float().cpu().numpy())
            labels.append(wanted.cpu().numpy())
    return np.concatenate(logits), np.concatenate(labels)


def steps_in(count: int, batch_size: int) -> int:
    """Return how many steps one epoch over ``count`` samples takes."""
    return math.ceil(_used(count, batch_size) / batch_size)


def _used(count: int, batch_size: int) -> int:
    """Leave out a last batch of a single sample (another one every epoch): batch norm cannot train on it."""
    return count - 1 if count > batch_size > 1 and count % batch_size == 1 else count


def pick_device(wanted: str) -> torch.device:
    """Turn ``auto``, ``cpu`` or ``cuda`` into a device; raises ConfigError when CUDA is asked for and absent."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ConfigError("no CUDA device here", where="--device cuda", remedy="use --device auto or --device cpu")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


def learning_rate_at(plan: TrainSpec, done: float) -> float:
    """Return the learning rate when the share ``done`` (0 … 1) of all steps is done."""
    if plan.schedule == "constant":
        return plan.learning_rate
    if plan.schedule == "one-cycle" and done < _ONE_CYCLE_WARM_SHARE:  # Smith & Topin 2018
        return plan.learning_rate * (0.04 + 0.96 * 0.5 * (1 - math.cos(math.pi * done / _ONE_CYCLE_WARM_SHARE)))
    if plan.schedule == "one-cycle":
        done = (done - _ONE_CYCLE_WARM_SHARE) / (1 - _ONE_CYCLE_WARM_SHARE)
    return plan.learning_rate * 0.5 * (1 + math.cos(math.pi * done))  # Loshchilov & Hutter 2017


def augment(inputs: Tensor, spec: AugmentSpec) -> Tensor:
    """Return a randomly changed batch (N, C, H, W); draws from torch's global generator."""
    if inputs.dim() == 4:
        if spec.shift_px:
            inputs = _shift(inputs, spec.shift_px)
        if spec.crop_padding_px:
            inputs = _shift(inputs, spec.crop_padding_px)
        if spec.flip:
            mirrored = torch.rand(len(inputs), device=inputs.device) < 0.5
            inputs = torch.where(mirrored[:, None, None, None], inputs.flip(3), inputs)
    if spec.noise:
        inputs = inputs + torch.randn_like(inputs) * spec.noise
    return inputs


def _shift(inputs: Tensor, most: int) -> Tensor:
    """Shift every picture by its own whole pixels; edges are repeated."""
    n, _, height, width = inputs.shape
    down, right = torch.randint(-most, most + 1, (2, n, 1, 1), device=inputs.device)
    rows = (down + torch.arange(height, device=inputs.device)[None, :, None]).clamp(0, height - 1)  # (N, H, 1)
    columns = (right + torch.arange(width, device=inputs.device)[None, None, :]).clamp(0, width - 1)  # (N, 1, W)
    picked = torch.arange(n, device=inputs.device)[:, None, None]  # (N, 1, 1)
    return inputs.permute(0, 2, 3, 1)[picked, rows, columns].permute(0, 3, 1, 2)  # (N, C, H, W), channels last


def _one_epoch(
    network: nn.Module,
    train: Samples,
    job: Fit,
    *,
    optimizer: torch.optim.Optimizer,
    index: int,
    progress: Progress,
) -> tuple[float, float]:
    """Train for one epoch; return the last learning rate and the mean loss."""
    torch.manual_seed(job.seed * 100_003 + index)  # order, augmentation and dropout of this epoch
    order = torch.randperm(len(train))[: _used(len(train), job.plan.batch_size)]
    job.train_mode(network)
    total = torch.zeros(())
    steps = steps_in(len(train), job.plan.batch_size)
    rate = job.plan.learning_rate
    for step, (plain, labels) in enumerate(train.batches(order, job.plan.batch_size), 1):
        rate = learning_rate_at(job.plan, (index - 1 + (step - 1) / steps) / job.plan.epochs)
        for group in optimizer.param_groups:
            group["lr"] = rate
        inputs = augment(plain, job.plan.augment)
        loss = job.loss(_forward(network, inputs), labels, inputs)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        total = total + loss.detach().cpu()
        if step % _CHECK_EVERY_STEPS == 0 or step == steps:
            _check_finite(torch.isfinite(total), job, index, rate)
            progress.advance(step - ((step - 1) // _CHECK_EVERY_STEPS) * _CHECK_EVERY_STEPS, loss=float(total) / step)
    return rate, float(total) / steps


def _forward(network: nn.Module, inputs: Tensor) -> Tensor:
    try:
        logits: Tensor = network(inputs)
    except Exception as error:  # the user's code: what works in evaluation mode may not in training mode
        reason = (str(error) or "no reason given").splitlines()[0]
        raise ModelError(
            f"forward() raised {type(error).__name__} in training mode for a batch {tuple(inputs.shape)}: {reason}",
            where="training",
            remedy="correct the network file, or choose another batch_size in the recipe",
        ) from error
    return logits


def _check_finite(finite: object, job: Fit, epoch: int, rate: float) -> None:
    if not finite:
        raise TrainingDivergedError(
            f"the loss is no longer a finite number in epoch {epoch} of '{job.phase}' at learning rate {rate:.3g}",
            where="training",
            remedy=f"try a smaller learning_rate (for example {job.plan.learning_rate / 10:.3g}), "
            "another schedule, or look for extreme values in the data",
        )


def _remember(state: _State, epoch: Epoch, network: nn.Module) -> None:
    state.history.append(epoch)
    better = (epoch.val_accuracy, -epoch.train_loss) > (state.best_accuracy, -state.best_loss)
    state.stale_epochs = 0 if epoch.val_accuracy > state.best_accuracy else state.stale_epochs + 1
    if better:
        state.best_accuracy, state.best_loss = epoch.val_accuracy, epoch.train_loss
        state.best_weights = {key: value.detach().clone() for key, value in network.state_dict().items()}


def _optimizer(network: nn.Module, plan: TrainSpec) -> torch.optim.Optimizer:
    """Weight decay is for matrices and kernels only; norms, biases and step sizes go without."""
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if not trained:
        raise ModelError(
            "the network has no weights to train", where="training", remedy="add layers with weights to it"
        )
    groups = [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": plan.weight_decay},
        {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if plan.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=plan.learning_rate, momentum=plan.momentum, nesterov=plan.momentum > 0)
    return torch.optim.AdamW(groups, lr=plan.learning_rate)


def _is_picture_network(network: nn.Module) -> bool:
    return any(isinstance(module, nn.Conv2d) for module in network.modules())


def _save(path: Path, state: _State, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    content: dict[str, Any] = {
        "network": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "history": [asdict(epoch) for epoch in state.history],
        "best": [state.best_accuracy, state.best_loss, state.stale_epochs],
        "best_weights": state.best_weights,
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomic(path, buffer.getvalue())


def _load(path: Path | None, network: nn.Module, optimizer: torch.optim.Optimizer) -> _State:
    state = _State()
    if path is None or not path.exists():
        return state
    content = torch.load(path, map_location="cpu", weights_only=True)
    network.load_state_dict(content["network"])
    optimizer.load_state_dict(content["optimizer"])
    state.history = [Epoch(**epoch) for epoch in content["history"]]
    state.best_accuracy, state.best_loss, state.stale_epochs = content["best"]
    state.best_weights = content["best_weights"]
    return state
