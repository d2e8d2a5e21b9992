"""prune: take channels away in steps, train to recover, keep a step only if it really pays.

What is decided by a clock is decided once: it is written down when it is taken and recalled after a kill.
"""

from __future__ import annotations

import copy
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import fx, nn

from pipeline import tasks
from pipeline.artifacts.evidence import Place
from pipeline.artifacts.files import LayerCost
from pipeline.artifacts.networks import DataFacts, DataRef
from pipeline.artifacts.training import Checkpoint, Edit, Epoch, Paid, Pruned, PruneStep, SparsityTrial
from pipeline.data.load import load
from pipeline.declare.recipe import PruneSpec, TrainSpec
from pipeline.declare.words import Precision
from pipeline.graph.costs import layer_costs
from pipeline.inspecting.works import works_of
from pipeline.instruments import INSTRUMENTS, Contender, Instrument, Works, counts
from pipeline.instruments.modelled import ByKernels
from pipeline.networks.checkpoints import restore_float, save
from pipeline.networks.edits import apply
from pipeline.networks.from_torch import folded_graph
from pipeline.networks.pruning import most_gone, plan_for, sparsify
from pipeline.quant.prepare import prepare
from pipeline.quant.to_onnx import to_bytes, write_onnx
from pipeline.runs.run import Work, stage
from pipeline.runs.store import write_atomic
from pipeline.tasks import Task
from pipeline.training.batches import Samples, hold
from pipeline.training.devices import pick_device, using_threads
from pipeline.training.loop import Fit, evaluate, fit

_MEASURE_BUDGET_S = 5.0  # for a decision
_COST_BUDGET_S = 0.5  # for each plan on the way to a latency
_INFERENCE_THREADS = 1  # a step that pays with one thread is what small devices need
_WEIGHT_BITS = 8  # fewer take as long
_PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")


@dataclass(frozen=True, kw_only=True)
class Planned:
    """Which channels one step takes away: a decision where the aim is a latency."""

    edits: tuple[Edit, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Network:
    """A network on its way through the steps."""

    module: nn.Module
    edits: tuple[Edit, ...]
    val_metric: float
    history: tuple[Epoch, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class _Job:
    """What all steps share."""

    work: Work
    spec: PruneSpec
    train: TrainSpec
    seed: int
    checkpoint: Checkpoint  # of the unpruned network
    task: Task
    instrument: Instrument
    train_samples: Samples
    val_samples: Samples
    device: torch.device

    @property
    def counts_only(self) -> bool:
        """Whether no clock is asked."""
        return self.instrument is counts

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Return the shape of one sample."""
        return self.checkpoint.network.input_shape

    def costs(self, module: nn.Module) -> tuple[LayerCost, ...]:
        """Return what each layer of a network costs."""
        return layer_costs(folded_graph(module, self.sample_shape))

    def value(self, module: nn.Module) -> float:
        """Return the task's metric of a network on the validation split."""
        signature = self.checkpoint.network.signature
        return evaluate(module.to(self.device), self.val_samples, self.task, signature=signature).value

    def points_lost(self, value: float) -> float:
        """Return by how many points a value is worse than the unpruned network's."""
        return self.task.METRIC.worse_by_points(value, self.checkpoint.val_metric)


@stage(version=1)
def prune(
    work: Work,
    *,
    data: DataRef,
    facts: DataFacts,
    checkpoint: Checkpoint,
    spec: PruneSpec,
    train: TrainSpec,
    seed: int,
    threads: int,
    device: str,
    place: Place,
    by_kernels: ByKernels | None = None,
) -> Pruned:
    """Prune towards ``spec.amount`` of the MACs or of the latency; a step that does not pay is undone.

    A step pays if the instrument of ``place`` finds it cheaper than what was before, beyond its noise, and the metric
    on the validation split stays within ``spec.margin_pp`` points of the unpruned network's.  ``by_kernels``: the
    instrument, where the place is a target that is not at hand; this machine times ONNX float files.
    ``threads``: of torch in the training that follows a step; ``device``: "cpu" or "cuda".
    """
    if not spec.amount and not spec.unstructured_sparsity:
        return Pruned(checkpoint=checkpoint)
    to, dataset = pick_device(device), load(data)
    with using_threads(threads):
        job = _Job(
            work=work,
            spec=spec,
            train=train,
            seed=seed,
            checkpoint=checkpoint,
            task=tasks.named(data.card.task),
            instrument=by_kernels or (counts if place == counts.PLACE else INSTRUMENTS["latency"]),
            train_samples=hold(dataset.train, facts.frontend, to),
            val_samples=hold(dataset.val, facts.frontend, to),
            device=to,
        )
        start = _Network(
            module=restore_float(checkpoint, work.store), edits=checkpoint.edits, val_metric=checkpoint.val_metric
        )
        kept, steps = _steps(job, start)
        pruned = checkpoint if kept is start else _saved(job, kept)
        return Pruned(checkpoint=pruned, steps=tuple(steps), sparsity=_try_sparsity(job, kept))


def _saved(job: _Job, network: _Network) -> Checkpoint:
    return save(
        network.module,
        job.work.store,
        ref=job.checkpoint.network,
        edits=network.edits,
        metric=job.task.METRIC,
        val_metric=network.val_metric,
        history=network.history,
    )


def _steps(job: _Job, current: _Network) -> tuple[_Network, list[PruneStep]]:
    """Try the steps one after the other; the first that does not pay is undone and ends it."""
    steps: list[PruneStep] = []
    for index in range(1, job.spec.steps + 1) if job.spec.amount else ():
        edits = _plan(job, current, index)
        if not edits:
            steps.append(_nothing_can_go(job, current, index))
            job.work.progress.say(f"pruning step {index}: {steps[-1].why}")
            break
        candidate = _take_channels(job, current, edits, index)
        step = _judge(job, current, candidate, index)
        steps.append(step)
        job.work.progress.say(f"pruning step {index} {'kept' if step.kept else 'undone'}: {step.why}")
        if not step.kept:
            break
        current = candidate
    return current, steps


# ── one step ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _plan(job: _Job, current: _Network, index: int) -> tuple[Edit, ...]:
    """Choose the channels that go; empty where nothing can go."""
    network = current.module.cpu()
    share_left = (1 - job.spec.amount) ** (1 / job.spec.steps)

    def by_latency(module: nn.Module) -> float:
        return 1.0 if module is network else _compared(job, module, network, budget_s=_COST_BUDGET_S).ratio

    timed = job.spec.of == "latency" and not job.counts_only
    cost = by_latency if timed else None  # None: multiply-accumulates

    def make() -> Planned:
        return Planned(
            edits=plan_for(network, job.sample_shape, share_left=share_left, cost=cost, round_to=job.spec.round_to)
        )

    return (job.work.decided(f"plan-{index}", Planned, make) if timed else make()).edits


def _nothing_can_go(job: _Job, current: _Network, index: int) -> PruneStep:
    """Record a step that could not even be tried: the network, and so its file, stays the same."""
    costs = job.costs(current.module)
    most = most_gone(current.module, job.sample_shape, round_to=job.spec.round_to)
    macs, parameters = sum(row.macs for row in costs), sum(row.parameters for row in costs)
    return PruneStep(
        index=index,
        macs_before=macs,
        macs_after=macs,
        parameters_before=parameters,
        parameters_after=parameters,
        paid=None,
        val_metric_before=current.val_metric,
        val_metric_after=current.val_metric,
        kept=False,
        why=f"so many channels cannot go while their counts stay multiples of {job.spec.round_to}: at most {most:.0%} "
        "of the multiply-accumulates",
    )


def _take_channels(job: _Job, current: _Network, edits: tuple[Edit, ...], index: int) -> _Network:
    """Apply a plan to a copy and train it to recover."""
    module = apply(copy.deepcopy(current.module), edits).to(job.device)
    history = _recover(job, module, index) if job.spec.recovery_epochs else []
    value = job.value(module)
    return _Network(
        module=module.cpu().eval(),
        edits=(*current.edits, *edits),
        val_metric=value,
        history=(*current.history, *history),
    )


def _recover(job: _Job, module: nn.Module, index: int) -> list[Epoch]:
    plan = job.train.model_copy(
        update={
            "epochs": job.spec.recovery_epochs,
            "learning_rate": job.spec.learning_rate,
            "schedule": "cosine",
            "early_stop_epochs": 0,
        }
    )
    fitting = Fit(
        plan=plan,
        task=job.task,
        updates=job.task.updates(plan),
        phase=f"recovery {index}",
        seed=job.seed + index,
        signature=job.checkpoint.network.signature,
        resume_file=job.work.scratch / f"recovery-{index}.pt",
    )
    return fit(module, job.train_samples, job.val_samples, fitting, job.work.progress)


def _judge(job: _Job, before: _Network, after: _Network, index: int) -> PruneStep:
    paid = job.work.decided(
        f"paid-{index}",
        Paid,
        lambda: _compared(job, after.module, before.module, budget_s=_MEASURE_BUDGET_S),
    )
    cost_before, cost_after = (job.costs(network.module) for network in (before, after))
    kept, why = _verdict(job, after, paid)
    return PruneStep(
        index=index,
        macs_before=sum(row.macs for row in cost_before),
        macs_after=sum(row.macs for row in cost_after),
        parameters_before=sum(row.parameters for row in cost_before),
        parameters_after=sum(row.parameters for row in cost_after),
        paid=paid,
        val_metric_before=before.val_metric,
        val_metric_after=after.val_metric,
        kept=kept,
        why=why,
    )


def _verdict(job: _Job, after: _Network, paid: Paid) -> tuple[bool, str]:
    metric = job.task.METRIC
    found = f"{'MACs' if paid.of == 'macs' else f'{paid.place.how} {paid.of}'} x {paid.ratio:.2f}"
    if paid.low != paid.high:
        found += f" ({paid.low:.2f} to {paid.high:.2f})"
    reached = f"validation {metric.name} {metric.text(after.val_metric)}"
    if not paid.cheaper:
        return False, f"the exported file is not clearly cheaper: {found}"
    if not job.points_lost(after.val_metric) <= job.spec.margin_pp:  # what is no number is never within
        unpruned = metric.text(job.checkpoint.val_metric)
        unit = "points" if metric.unit == "share" else "%"
        allowed = f"at most {job.spec.margin_pp:g} {unit} worse than {unpruned} is wanted"
        return False, f"too much was lost: {reached}, {allowed}; {found}"
    return True, f"{found}, {reached}"


# ── files ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _compared(job: _Job, candidate: nn.Module, reference: nn.Module, *, budget_s: float) -> Paid:
    """Compare what one inference of two networks' float files costs."""
    return job.instrument.compare(
        _contender(job, candidate, "candidate"),
        _contender(job, reference, "reference"),
        threads=_INFERENCE_THREADS,
        budget_s=budget_s,
        seed=job.seed,
    )


def _contender(job: _Job, module: nn.Module, name: str) -> Contender:
    folded = folded_graph(module, job.sample_shape)
    path: Path = job.work.scratch / f"{name}.onnx"
    write_atomic(path, to_bytes(write_onnx(folded, name=name)))
    return Contender(path=path, macs=sum(row.macs for row in layer_costs(folded)), works=lambda: _works(folded))


def _works(folded: fx.GraphModule) -> Works:
    layers = works_of(folded, prepare(folded, weight_bits=_WEIGHT_BITS)).values()
    return {precision: tuple(each[precision] for each in layers) for precision in _PRECISIONS}


def _try_sparsity(job: _Job, network: _Network) -> SparsityTrial | None:
    """Zero single weights of a copy and find out what that brings: reported, never shipped."""
    share = job.spec.unstructured_sparsity
    if not share:
        return None
    dense = network.module.cpu()
    sparse = sparsify(copy.deepcopy(dense), share)
    # a model of kernels would only say again that they multiply zeros like any other number: a clock may disagree
    timed = job if job.counts_only else replace(job, instrument=INSTRUMENTS["latency"])
    paid = job.work.decided("sparsity", Paid, lambda: _compared(timed, sparse, dense, budget_s=_MEASURE_BUDGET_S))
    dense_file, sparse_file = (
        to_bytes(write_onnx(folded_graph(each, job.sample_shape), name="x")) for each in (dense, sparse)
    )
    return SparsityTrial(
        sparsity=share,
        val_metric=job.value(sparse),
        latency_ratio=paid.ratio,
        place=paid.place,
        size_ratio=len(sparse_file) / len(dense_file),
        compressed_size_ratio=len(zlib.compress(sparse_file, 9)) / len(zlib.compress(dense_file, 9)),
    )
