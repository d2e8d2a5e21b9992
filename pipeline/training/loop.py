"""The one training loop and the one evaluation: train, fine-tune, prune's recovery, QAT and distillation all use them.

Every epoch starts from a seed made of the run's seed and the epoch's number, so a run that was killed and resumed ends
with the same weights as one that was not.

Shapes: N batch, D samples of a split.
"""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.artifacts.evidence import Answers, Metric
from pipeline.artifacts.training import Epoch
from pipeline.declare.recipe import TrainSpec
from pipeline.errors import KaruiError, ModelError, TrainingDivergedError
from pipeline.graph.ends import apart, joined, takes_joined
from pipeline.networks.memory import lie_channels_last
from pipeline.networks.outputs import auxiliary_outputs, weight_of
from pipeline.networks.weights import take_over
from pipeline.onboard.arrays import Arrays, Predict, Signature
from pipeline.onboard.stepping import stepping
from pipeline.progress import Progress
from pipeline.runs.store import write_atomic
from pipeline.tasks import Task, Update
from pipeline.training.augment import Inputs, Wanted, augment
from pipeline.training.batches import Samples, to_tensors
from pipeline.training.schedule import learning_rate_at, samples_used, steps_in

_OUTPUT = "output"  # the name of the only output of most networks
_CHECK_EVERY_STEPS = 20  # how often the loss is looked at
_SAVE_EVERY_S = 2.0  # a resume file is not written more often than this


@dataclass(frozen=True, kw_only=True)
class Fit:
    """What to do: ``train_mode`` puts the network into training mode (and may leave parts of it frozen)."""

    plan: TrainSpec
    task: Task
    updates: tuple[Update, ...]  # ``task.updates(plan)``: one for most; each has an optimizer of its own
    phase: str
    seed: int
    signature: Signature | None = None  # of the network; needed where it has several outputs
    train_mode: Callable[[nn.Module], object] = nn.Module.train
    resume_file: Path | None = None


@dataclass(kw_only=True)
class _State:
    """Where a fit stands between two epochs; written to the resume file."""

    history: list[Epoch] = field(default_factory=list)
    best_metric: float = math.nan
    best_loss: float = math.inf  # breaks ties between equal metrics
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    stale_epochs: int = 0


@dataclass(frozen=True, kw_only=True)
class _Stepper:
    """One update and the optimizer of its parameters."""

    update: Update
    optimizer: torch.optim.Optimizer


def fit(network: nn.Module, train: Samples, val: Samples, job: Fit, progress: Progress) -> list[Epoch]:
    """Train ``network`` in place and leave the best epoch's weights in it; return the learning curve.

    Best means the best of the task's metric on the validation split, then the lowest training loss.  Raises
    TrainingDivergedError when the loss stops being finite, naming the epoch, the learning rate and what to try;
    ModelError when forward() fails in training mode.
    """
    plan = job.plan
    if job.signature is not None and job.signature.carried:
        raise ModelError(
            "a network that carries a state cannot be trained here",
            where=job.phase,
            remedy='calibrate it: [train] epochs = 0, [quantize] method = "ptq"',
        )
    lie_channels_last(network)
    steppers = [_Stepper(update=update, optimizer=_optimizer(update, network, plan)) for update in job.updates]
    state = _load(job.resume_file, network, steppers)
    steps_per_epoch = steps_in(len(train), plan.batch_size)
    progress.start(job.phase, plan.epochs * steps_per_epoch)
    progress.advance(len(state.history) * steps_per_epoch)
    saved_at = time.monotonic()
    for index in range(len(state.history) + 1, plan.epochs + 1):
        if plan.early_stop_epochs and state.stale_epochs >= plan.early_stop_epochs:
            break
        started = time.monotonic()
        rate, loss = _one_epoch(network, train, job, steppers=steppers, index=index, progress=progress)
        answers = evaluate(job.task.exported(network), val, job.task, signature=job.signature)
        _check_finite(_all_finite(answers), job, index, rate)  # the last step's weights made no loss yet
        epoch = Epoch(
            phase=job.phase,
            index=index,
            learning_rate=rate,
            train_loss=loss,
            val_metric=answers.value,
            duration_s=time.monotonic() - started,
        )
        _remember(state, epoch, network, job.task.METRIC)
        reached = {"loss": loss, f"val {job.task.METRIC.name}": answers.value}
        progress.advance(0, epoch=index, epochs=plan.epochs, **reached)
        if job.resume_file and time.monotonic() - saved_at > _SAVE_EVERY_S:
            _save(job.resume_file, state, network, steppers)
            saved_at = time.monotonic()
    take_over(network, state.best_weights)
    network.eval()
    return state.history


def best_value(history: Sequence[Epoch], metric: Metric) -> float:
    """Return the metric of the epoch that is kept.  Raises IndexError for no epochs."""
    best = history[0].val_metric
    for epoch in history[1:]:
        best = epoch.val_metric if metric.better(epoch.val_metric, best) else best
    return best


def evaluate(
    network: nn.Module,
    samples: Samples,
    task: Task,
    chosen: Mapping[str, float] | None = None,
    *,
    signature: Signature | None = None,
) -> Answers:
    """Return the task's answers on a split; the network, on the device of ``samples``, is left in evaluation mode.

    ``chosen``: settings of the decision that ``task.choose`` found; ``signature``: as for ``predict_with``.
    """
    return task.answer(predict_with(network, samples.device, signature), samples.source, _as_they_are, chosen=chosen)


def predict_with(network: nn.Module, device: torch.device, signature: Signature | None = None) -> Predict:
    """Return the network as a function of named arrays, prepared inputs (n, …) → outputs (n, …) float32.

    It computes in evaluation mode on ``device``, where the network has to be.  ``signature`` names the outputs and says
    in which order ``forward()`` takes several inputs; without one that is the order of the arrays.
    """
    order = None if signature is None else [spec.name for spec in signature.inputs]
    names = (_OUTPUT,) if signature is None else tuple(spec.name for spec in signature.outputs)

    def predict(inputs: Arrays) -> Arrays:
        network.eval()
        given = to_tensors({name: inputs[name] for name in order or inputs}, device)
        with torch.inference_mode():
            if signature is not None and takes_joined(network):
                whole = network(joined(given))
                return apart(signature.outputs, whole.float().cpu().numpy())
            given_back = network(*given.values())
        outputs = [given_back] if isinstance(given_back, Tensor) else list(given_back)
        return {name: output.float().cpu().numpy() for name, output in zip(names, outputs, strict=True)}

    return predict if signature is None else stepping(predict, signature)


def _as_they_are(inputs: Arrays) -> Arrays:
    """Take samples that are prepared already."""
    return inputs


def _all_finite(answers: Answers) -> bool:
    return all(bool(np.isfinite(output).all()) for output in answers.outputs.values())


def _one_epoch(
    network: nn.Module,
    train: Samples,
    job: Fit,
    *,
    steppers: Sequence[_Stepper],
    index: int,
    progress: Progress,
) -> tuple[float, float]:
    """Train for one epoch; return the last learning rate and the mean loss (of several updates: of their sum)."""
    plan = job.plan
    _seed(job.seed * 100_003 + index, train.device)  # order, augmentation and dropout of this epoch
    order = torch.randperm(len(train))[: samples_used(len(train), plan.batch_size)]
    job.train_mode(network)
    total = torch.zeros(())
    steps = steps_in(len(train), plan.batch_size)
    rate = plan.learning_rate
    for step, (plain, labels) in enumerate(train.batches(order, plan.batch_size), 1):
        rate = learning_rate_at(plan, (index - 1 + (step - 1) / steps) / plan.epochs)
        inputs, wanted = augment(plain, labels, plan.augment)
        for stepper in steppers:
            total = total + _step(network, stepper, inputs, wanted, rate=rate)
        if step % _CHECK_EVERY_STEPS == 0 or step == steps:
            _check_finite(torch.isfinite(total), job, index, rate)
            progress.advance(step - ((step - 1) // _CHECK_EVERY_STEPS) * _CHECK_EVERY_STEPS, loss=float(total) / step)
    return rate, float(total) / steps


def _seed(seed: int, device: torch.device) -> None:
    if device.type == "cpu":  # torch.manual_seed() keeps a text of the stack for each card that is not there
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)


def _step(network: nn.Module, stepper: _Stepper, inputs: Inputs, wanted: Wanted, *, rate: float) -> Tensor:
    for group in stepper.optimizer.param_groups:
        group["lr"] = rate
    loss = loss_of(stepper.update, network, inputs, wanted)
    stepper.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    stepper.optimizer.step()
    return loss.detach().cpu()


def loss_of(update: Update, network: nn.Module, inputs: Inputs, wanted: Wanted) -> Tensor:
    """Return the loss of a batch, a scalar with its graph; auxiliary outputs add theirs.

    Raises ModelError: the network is the user's code, and what works in evaluation mode may not in training mode.
    """
    if takes_joined(network):
        inputs = joined(inputs)
    try:
        with auxiliary_outputs() as others:
            loss: Tensor = update.loss(network, inputs, wanted)
        for output in others:
            loss = loss + weight_of(others) * update.loss(partial(_known, output), inputs, wanted)
    except KaruiError:
        raise
    except Exception as error:
        first = inputs if isinstance(inputs, Tensor) else next(iter(inputs.values()))
        reason = (str(error) or "no reason given").splitlines()[0]
        raise ModelError(
            f"the network raised {type(error).__name__} in training mode for a batch {tuple(first.shape)}: {reason}",
            where="training",
            remedy="correct the network file, or choose another batch_size in the recipe",
        ) from error
    return loss


def _known(output: Tensor, _: object) -> Tensor:
    """Stand for a network whose output is there already."""
    return output


def _check_finite(finite: object, job: Fit, epoch: int, rate: float) -> None:
    if not finite:
        raise TrainingDivergedError(
            f"the loss is no longer a finite number in epoch {epoch} of '{job.phase}' at learning rate {rate:.3g}",
            where="training",
            remedy=f"try a smaller learning_rate (for example {job.plan.learning_rate / 10:.3g}), "
            "another schedule, or look for extreme values in the data",
        )


def _remember(state: _State, epoch: Epoch, network: nn.Module, metric: Metric) -> None:
    state.history.append(epoch)
    better = metric.better(epoch.val_metric, state.best_metric)
    worse = metric.better(state.best_metric, epoch.val_metric)
    state.stale_epochs = 0 if better else state.stale_epochs + 1
    if better or (not worse and epoch.train_loss < state.best_loss):
        state.best_metric, state.best_loss = epoch.val_metric, epoch.train_loss
        state.best_weights = {key: value.detach().clone() for key, value in network.state_dict().items()}


def _optimizer(update: Update, network: nn.Module, plan: TrainSpec) -> torch.optim.Optimizer:
    """Weight decay is for matrices and kernels only; norms, biases and step sizes go without."""
    trained = [parameter for parameter in update.parameters(network) if parameter.requires_grad]
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
    fused = all(parameter.is_floating_point() for parameter in trained)  # a third of the time, where torch has it
    return torch.optim.AdamW(groups, lr=plan.learning_rate, fused=fused)


def _save(path: Path, state: _State, network: nn.Module, steppers: Sequence[_Stepper]) -> None:
    content: dict[str, Any] = {
        "network": network.state_dict(),
        "optimizers": [stepper.optimizer.state_dict() for stepper in steppers],
        "history": [asdict(epoch) for epoch in state.history],
        "best": [state.best_metric, state.best_loss, state.stale_epochs],
        "best_weights": state.best_weights,
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomic(path, buffer.getvalue())


def _load(path: Path | None, network: nn.Module, steppers: Sequence[_Stepper]) -> _State:
    state = _State()
    if path is None or not path.exists():
        return state
    content = torch.load(path, map_location="cpu", weights_only=True)
    take_over(network, content["network"])
    for stepper, saved in zip(steppers, content["optimizers"], strict=True):
        stepper.optimizer.load_state_dict(saved)
    state.history = [Epoch(**epoch) for epoch in content["history"]]
    state.best_metric, state.best_loss, state.stale_epochs = content["best"]
    state.best_weights = content["best_weights"]
    return state
