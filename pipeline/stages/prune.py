"""prune: take channels away in steps, train to recover, keep a step only if it really pays."""

from __future__ import annotations

import copy
import zlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from pipeline.artifacts import Checkpoint, DataRef, Edit, Epoch, Pruned, PruneStep, SparsityTrial
from pipeline.checkpoints import restore_float, save
from pipeline.data.load import load
from pipeline.latency.measure import Invoker, Speed, compare_speed, measure_interleaved
from pipeline.pruning import apply, plan_for, sparsify
from pipeline.quant.costs import layer_costs, total_macs
from pipeline.quant.prepare import fold
from pipeline.quant.to_onnx import to_bytes, write_onnx
from pipeline.run import Work, stage
from pipeline.runtimes import open_session
from pipeline.spec import PruneSpec, TrainSpec
from pipeline.store import write_atomic
from pipeline.tasks.classification import accuracy, cross_entropy
from pipeline.training import Fit, Samples, evaluate, fit, pick_device, samples

_MEASURE_BUDGET_S = 5.0  # for a decision
_COST_BUDGET_S = 0.5  # for each plan on the way to a latency


@dataclass(frozen=True, kw_only=True)
class _Network:
    """A network on its way through the steps."""

    module: nn.Module
    edits: tuple[Edit, ...]
    val_accuracy: float
    history: tuple[Epoch, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Task:
    """What all steps share."""

    work: Work
    spec: PruneSpec
    train: TrainSpec
    seed: int
    sample_shape: tuple[int, ...]
    lowest_accuracy: float
    train_samples: Samples
    val_samples: Samples
    device: torch.device


@stage(version=1)
def prune(work: Work, *, data: DataRef, checkpoint: Checkpoint, spec: PruneSpec, train: TrainSpec, seed: int) -> Pruned:
    """Prune towards ``spec.amount`` of the MACs or of the latency; a step that does not pay is undone.

    A step pays if the interval of (latency after / latency before), ONNX float files interleaved on this machine, lies
    below 1 and validation accuracy stays within ``spec.margin_pp`` of the unpruned network's.
    """
    if not spec.amount and not spec.unstructured_sparsity:
        return Pruned(checkpoint=checkpoint)
    device = pick_device(work.device)
    dataset = load(data)
    task = _Task(
        work=work,
        spec=spec,
        train=train,
        seed=seed,
        sample_shape=checkpoint.network.input_shape,
        lowest_accuracy=checkpoint.val_accuracy - spec.margin_pp / 100,
        train_samples=samples(dataset.train, data.card.input, device),
        val_samples=samples(dataset.val, data.card.input, device),
        device=device,
    )
    start = _Network(
        module=restore_float(checkpoint, work.store), edits=checkpoint.edits, val_accuracy=checkpoint.val_accuracy
    )
    kept, steps = _steps(task, start)
    pruned = checkpoint
    if kept is not start:
        pruned = save(
            kept.module,
            work.store,
            ref=checkpoint.network,
            edits=kept.edits,
            val_accuracy=kept.val_accuracy,
            history=kept.history,
        )
    return Pruned(checkpoint=pruned, steps=tuple(steps), sparsity=_try_sparsity(task, kept))


def _steps(task: _Task, current: _Network) -> tuple[_Network, list[PruneStep]]:
    """Try the steps one after the other; the first that does not pay is undone and ends it."""
    steps: list[PruneStep] = []
    for index in range(1, task.spec.steps + 1) if task.spec.amount else ():
        candidate = _take_channels(task, current, index)
        if candidate is None:
            steps.append(_nothing_can_go(task, current, index))
            task.work.progress.say(f"pruning step {index}: {steps[-1].why}")
            break
        step = _judge(task, current, candidate, index)
        steps.append(step)
        task.work.progress.say(f"pruning step {index} {'kept' if step.kept else 'undone'}: {step.why}")
        if not step.kept:
            break
        current = candidate
    return current, steps


def _nothing_can_go(task: _Task, current: _Network, index: int) -> PruneStep:
    """Record a step that could not even be tried: the network, and so its file, stays the same."""
    costs = layer_costs(fold(current.module, task.sample_shape))
    macs, parameters = sum(row.macs for row in costs), sum(row.parameters for row in costs)
    return PruneStep(
        index=index,
        macs_before=macs,
        macs_after=macs,
        parameters_before=parameters,
        parameters_after=parameters,
        latency_ratio=1.0,
        latency_ratio_low=1.0,
        latency_ratio_high=1.0,
        val_accuracy_before=current.val_accuracy,
        val_accuracy_after=current.val_accuracy,
        kept=False,
        why=f"so many channels cannot go while their counts stay multiples of {task.spec.round_to}",
    )


def _take_channels(task: _Task, current: _Network, index: int) -> _Network | None:
    """Prune one step and train to recover; None where nothing can go."""
    edits = plan_for(
        current.module,
        task.sample_shape,
        share_left=(1 - task.spec.amount) ** (1 / task.spec.steps),
        cost=lambda module: _cost(task, module),
        round_to=task.spec.round_to,
    )
    if not edits:
        return None
    module = apply(copy.deepcopy(current.module), edits).to(task.device)
    history: list[Epoch] = []
    if task.spec.recovery_epochs:
        plan = task.train.model_copy(
            update={
                "epochs": task.spec.recovery_epochs,
                "learning_rate": task.spec.learning_rate,
                "schedule": "cosine",
                "early_stop_epochs": 0,
            }
        )
        job = Fit(
            plan=plan,
            phase=f"recovery {index}",
            seed=task.seed + index,
            loss=cross_entropy(plan.label_smoothing),
            resume_file=task.work.scratch / f"recovery-{index}.pt",
        )
        history = fit(module, task.train_samples, task.val_samples, job, task.work.progress)
    return _Network(
        module=module.cpu().eval(),
        edits=(*current.edits, *edits),
        val_accuracy=accuracy(*evaluate(module.to(task.device), task.val_samples)),
        history=(*current.history, *history),
    )


def _cost(task: _Task, module: nn.Module) -> float:
    """MACs, or milliseconds of the exported file."""
    if task.spec.of == "macs":
        return float(total_macs(fold(module, task.sample_shape)))
    times = measure_interleaved({"candidate": _invoker(task, module)}, budget_s=_COST_BUDGET_S)
    return float(np.median(times["candidate"]))


def _judge(task: _Task, before: _Network, after: _Network, index: int) -> PruneStep:
    speed = compare_speed(
        _invoker(task, after.module), _invoker(task, before.module), budget_s=_MEASURE_BUDGET_S, seed=task.seed
    )
    cost_before, cost_after = (layer_costs(fold(n.module.cpu(), task.sample_shape)) for n in (before, after))
    kept, why = _verdict(task, after, speed)
    return PruneStep(
        index=index,
        macs_before=sum(row.macs for row in cost_before),
        macs_after=sum(row.macs for row in cost_after),
        parameters_before=sum(row.parameters for row in cost_before),
        parameters_after=sum(row.parameters for row in cost_after),
        latency_ratio=speed.ratio.value,
        latency_ratio_low=speed.ratio.low,
        latency_ratio_high=speed.ratio.high,
        val_accuracy_before=before.val_accuracy,
        val_accuracy_after=after.val_accuracy,
        kept=kept,
        why=why,
    )


def _verdict(task: _Task, after: _Network, speed: Speed) -> tuple[bool, str]:
    latency = f"latency x {speed.ratio.value:.2f} ({speed.ratio.low:.2f} to {speed.ratio.high:.2f})"
    reached = f"{100 * after.val_accuracy:.1f} % on the validation split"
    if not speed.faster:
        return False, f"the exported file is not clearly faster: {latency}"
    if after.val_accuracy < task.lowest_accuracy:
        return False, f"accuracy fell too far: {reached}, at least {100 * task.lowest_accuracy:.1f} % wanted; {latency}"
    return True, f"{latency}, {reached}"


def _invoker(task: _Task, module: nn.Module) -> Invoker:
    """Load the exported float file of a network, ready for one inference at a time."""
    path = task.work.scratch / "candidate.onnx"
    write_atomic(path, _file(task, module))
    session = open_session(path, "onnxruntime", threads=1)
    return session.invoker(np.zeros((1, *task.sample_shape), np.float32))


def _file(task: _Task, module: nn.Module) -> bytes:
    return to_bytes(write_onnx(fold(module, task.sample_shape), name="candidate"))


def _try_sparsity(task: _Task, network: _Network) -> SparsityTrial | None:
    """Zero single weights of a copy and measure what that brings: reported, never shipped."""
    share = task.spec.unstructured_sparsity
    if not share:
        return None
    sparse = sparsify(copy.deepcopy(network.module), share)
    speed = compare_speed(_invoker(task, sparse), _invoker(task, network.module), budget_s=_MEASURE_BUDGET_S)
    dense_file, sparse_file = _file(task, network.module), _file(task, sparse)
    return SparsityTrial(
        sparsity=share,
        val_accuracy=accuracy(*evaluate(sparse.to(task.device), task.val_samples)),
        latency_ratio=speed.ratio.value,
        size_ratio=len(sparse_file) / len(dense_file),
        compressed_size_ratio=len(zlib.compress(sparse_file, 9)) / len(zlib.compress(dense_file, 9)),
    )
