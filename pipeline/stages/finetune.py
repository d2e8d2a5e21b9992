"""finetune: transfer learning from another network's weights, and what the transfer was worth at equal labels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from pipeline import tasks
from pipeline.artifacts.evidence import Answers
from pipeline.artifacts.networks import DataFacts, DataRef, NetworkRef
from pipeline.artifacts.training import Checkpoint, Epoch, Finetuned, Start, TransferPoint
from pipeline.data.load import load
from pipeline.data.source import Indices, Source, take
from pipeline.declare.recipe import FinetuneSpec, TrainSpec
from pipeline.networks.build import build_network, called_layers, head_name
from pipeline.networks.checkpoints import save
from pipeline.networks.edits import apply
from pipeline.networks.weights import fit_start, load_state, without_wrapper
from pipeline.onboard.frontend import Frontend
from pipeline.runs.run import Work, stage
from pipeline.tasks import Task
from pipeline.training.batches import Samples, hold
from pipeline.training.devices import pick_device, using_threads
from pipeline.training.loop import Fit, evaluate, fit
from pipeline.training.schedule import steps_in

_FEWEST_STEPS = 200  # with a handful of labels an epoch is a step or two; train at least this long
_GRADUAL = (("head", 0.0, 1.0), ("upper half", 0.5, 0.5), ("all", 1.0, 0.25))  # phase, layers freed, learning rate


@dataclass(frozen=True, kw_only=True)
class _Shared:
    """What every training of this stage shares."""

    work: Work
    task: Task
    network: NetworkRef
    spec: FinetuneSpec
    scratch: TrainSpec
    seed: int
    device: torch.device
    frontend: Frontend
    val: Samples
    test: Samples
    weights: Mapping[str, Tensor]
    start: Start


@stage(version=1)
def finetune(
    work: Work,
    *,
    data: DataRef,
    facts: DataFacts,
    network: NetworkRef,
    start: Start,
    spec: FinetuneSpec,
    scratch: TrainSpec,
    seed: int,
    threads: int,
    device: str,
) -> Finetuned:
    """Load ``start`` into the network (a new head where the outputs differ), train, and compare with from-scratch.

    ``mode``: "head" trains the last layer alone, the rest frozen with its batch-norm statistics; "gradual" frees the
    layers from the top in three phases; "all" trains everything.  ``scratch`` is the plan of the from-scratch trainings
    it is compared with; samples are told off per class only where there are classes.  Raises ModelError naming the
    tensors when ``start`` is another network's.
    """
    place, dataset = pick_device(device), load(data)
    with using_threads(threads):
        shared = _Shared(
            work=work,
            task=tasks.named(data.card.task),
            network=network,
            spec=spec,
            scratch=scratch,
            seed=seed,
            device=place,
            frontend=facts.frontend,
            val=hold(dataset.val, facts.frontend, place),
            test=hold(dataset.test, facts.frontend, place),
            weights=safetensors.torch.load(work.store.get(start.weights)),
            start=start,
        )
        module, replaced = _transferred(shared)
        train = hold(dataset.train, facts.frontend, place)
        history = _finetune(shared, module, train, name="finetune")
        return Finetuned(
            checkpoint=_saved(shared, module, history),
            start=_described(shared, module),
            replaced_head=replaced,
            transfer=_transfer(shared, module, train, dataset.train) if spec.compare_labels_per_class else (),
        )


def _saved(shared: _Shared, module: nn.Module, history: list[Epoch]) -> Checkpoint:
    return save(
        module,
        shared.work.store,
        ref=shared.network,
        edits=shared.start.edits,
        metric=shared.task.METRIC,
        val_metric=_answers(shared, module, shared.val).value,  # of the last phase, which need not be the best one
        history=history,
    )


def _transfer(shared: _Shared, module: nn.Module, train: Samples, source: Source) -> tuple[TransferPoint, ...]:
    """Compare with training from nothing on few labels of every class, then on all there are."""
    points: list[TransferPoint] = []
    if source.strata is not None:
        fewest = int(np.unique(source.strata, return_counts=True)[1].min())
        for count in shared.spec.compare_labels_per_class:
            if count < fewest:
                few = take(source, _few(source.strata, count, shared.seed))
                points.append(_compare(shared, count, hold(few, shared.frontend, shared.device)))
    from_scratch = _scratch(shared, train, "from scratch")
    reached = _test_metric(shared, module)
    return (*points, TransferPoint(labels_per_class=None, transferred=reached, from_scratch=from_scratch))


def _described(shared: _Shared, module: nn.Module) -> str:
    """Say what the weights are, and what all their names began with that the network's do not."""
    _, wrapper = without_wrapper(shared.weights, module.state_dict())
    return shared.start.label + (f" (names without '{wrapper}')" if wrapper else "")


def _transferred(shared: _Shared) -> tuple[nn.Module, tuple[str, ...]]:
    """Build the network with the start's weights; the head's tensors that do not fit stay new and are named."""
    module = apply(build_network(shared.network, seed=shared.seed), shared.start.edits)
    own, label = module.state_dict(), shared.start.label
    weights, _ = without_wrapper(shared.weights, own)
    new = fit_start(own, weights, head_name(module, shared.network.input_shape), label)
    load_state(module, {**weights, **{name: own[name] for name in new}}, where=label)
    return module.to(shared.device), new


def _finetune(shared: _Shared, module: nn.Module, train: Samples, *, name: str) -> list[Epoch]:
    phases = _GRADUAL if shared.spec.mode == "gradual" else ((name, 0.0 if shared.spec.mode == "head" else 1.0, 1.0),)
    history: list[Epoch] = []
    for number, (phase, freed, rate) in enumerate(phases):
        plan = shared.spec.train.model_copy(
            update={
                "epochs": max(1, shared.spec.train.epochs // len(phases)),
                "learning_rate": shared.spec.train.learning_rate * rate,
            }
        )
        frozen = _freeze_all_but(module, shared.network.input_shape, freed)
        job = Fit(
            plan=_long_enough(plan, train),
            task=shared.task,
            updates=shared.task.updates(plan),
            phase=name if len(phases) == 1 else f"{name}: {phase}",
            seed=shared.seed + number,
            signature=shared.network.signature,
            train_mode=partial(_train_mode, frozen=frozen),
            resume_file=shared.work.scratch / f"{name}-{number}.pt".replace(" ", "-"),
        )
        history += fit(module, train, shared.val, job, shared.work.progress)
    module.requires_grad_(requires_grad=True)
    return history


def _freeze_all_but(module: nn.Module, sample_shape: tuple[int, ...], share: float) -> list[nn.Module]:
    """Freeze all but the head and the upper ``share`` of the layers below it; return the frozen layers."""
    if share == 1:
        module.requires_grad_(requires_grad=True)
        return []
    head = head_name(module, sample_shape)
    layers = [name for name in called_layers(module, sample_shape) if name != head]
    free = {head, *layers[round(len(layers) * (1 - share)) :]}
    module.requires_grad_(requires_grad=False)  # also what belongs to no layer
    for name in free:
        module.get_submodule(name).requires_grad_(requires_grad=True)
    return [layer for name, layer in module.named_modules() if not list(layer.children()) and name not in free]


def _train_mode(module: nn.Module, frozen: list[nn.Module]) -> None:
    """Training mode, but frozen layers keep their batch-norm statistics: they belong to their weights."""
    module.train()
    for layer in frozen:
        layer.eval()


def _long_enough(plan: TrainSpec, train: Samples) -> TrainSpec:
    steps_per_epoch = steps_in(len(train), plan.batch_size)
    return plan.model_copy(update={"epochs": max(plan.epochs, math.ceil(_FEWEST_STEPS / steps_per_epoch))})


def _few(strata: Indices, per_class: int, seed: int) -> Indices:
    """Draw so many samples of every class; ``strata`` (N,) says which is whose."""
    generator = np.random.default_rng(seed)
    of_class = [np.flatnonzero(strata == label) for label in np.unique(strata)]
    return np.concatenate([generator.permutation(indices)[:per_class] for indices in of_class])


def _compare(shared: _Shared, per_class: int, few: Samples) -> TransferPoint:
    name = f"{per_class} labels per class"
    module, _ = _transferred(shared)
    _finetune(shared, module, few, name=f"{name}, transferred")
    return TransferPoint(
        labels_per_class=per_class,
        transferred=_test_metric(shared, module),
        from_scratch=_scratch(shared, few, f"{name}, from scratch"),
    )


def _scratch(shared: _Shared, train: Samples, name: str) -> float:
    """Train the same network from nothing on the same labels; return its metric on the test split."""
    module = apply(build_network(shared.network, seed=shared.seed), shared.start.edits).to(shared.device)
    plan = _long_enough(shared.scratch, train)
    job = Fit(
        plan=plan,
        task=shared.task,
        updates=shared.task.updates(plan),
        phase=name,
        seed=shared.seed,
        signature=shared.network.signature,
        resume_file=shared.work.scratch / f"{name}.pt".replace(" ", "-"),
    )
    fit(module, train, shared.val, job, shared.work.progress)
    return _test_metric(shared, module)


def _test_metric(shared: _Shared, module: nn.Module) -> float:
    """Use the network as its user would: what the decision needs is set on the validation split."""
    chosen = shared.task.choose(_answers(shared, module, shared.val), shared.val.source)
    return _answers(shared, module, shared.test, chosen).value


def _answers(
    shared: _Shared, module: nn.Module, samples: Samples, chosen: Mapping[str, float] | None = None
) -> Answers:
    network = shared.task.exported(module)
    return evaluate(network, samples, shared.task, chosen, signature=shared.network.signature)
