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

from pipeline.artifacts import DataRef, Epoch, Finetuned, NetworkRef, Start, TransferPoint
from pipeline.checkpoints import save
from pipeline.data.load import load
from pipeline.data.source import Source, take
from pipeline.network import build_network, called_layers, head_name, load_state
from pipeline.pruning import apply
from pipeline.run import Work, stage
from pipeline.spec import FinetuneSpec, TrainSpec
from pipeline.tasks.classification import accuracy, cross_entropy
from pipeline.training import Fit, Samples, evaluate, fit, pick_device, samples, steps_in

_FEWEST_STEPS = 200  # with a handful of labels an epoch is a step or two; train at least this long
_GRADUAL = (("head", 0.0, 1.0), ("upper half", 0.5, 0.5), ("all", 1.0, 0.25))  # phase, layers freed, learning rate


@dataclass(frozen=True, kw_only=True)
class _Task:
    """What every training of this stage shares."""

    work: Work
    network: NetworkRef
    spec: FinetuneSpec
    scratch: TrainSpec
    seed: int
    device: torch.device
    val: Samples
    test: Samples
    weights: Mapping[str, Tensor]
    start: Start


@stage(version=1)
def finetune(
    work: Work,
    *,
    data: DataRef,
    network: NetworkRef,
    start: Start,
    spec: FinetuneSpec,
    scratch: TrainSpec,
    seed: int,
) -> Finetuned:
    """Load ``start`` into the network (a new head where the classes differ), train, and compare with from-scratch.

    ``mode``: "head" trains the last layer alone, the rest frozen with its batch-norm statistics; "gradual" frees the
    layers from the top in three phases; "all" trains everything.  ``scratch`` is the plan of the from-scratch trainings
    it is compared with.  Raises ModelError naming the tensors when ``start`` is another network's.
    """
    device = pick_device(work.device)
    dataset = load(data)
    task = _Task(
        work=work,
        network=network,
        spec=spec,
        scratch=scratch,
        seed=seed,
        device=device,
        val=samples(dataset.val, data.card.input, device),
        test=samples(dataset.test, data.card.input, device),
        weights=safetensors.torch.load(work.store.get(start.weights)),
        start=start,
    )
    train = samples(dataset.train, data.card.input, device)
    module, replaced = _transferred(task)
    history = _finetune(task, module, train, name="finetune")
    fewest = int(np.bincount(dataset.train.labels).min())
    points = [
        _compare(task, count, samples(_few(dataset.train, count, seed), data.card.input, device))
        for count in spec.compare_labels_per_class
        if count < fewest
    ]
    from_scratch = _scratch(task, train, "from scratch") if spec.compare_labels_per_class else None
    if from_scratch is not None:
        reached = _test_accuracy(task, module)
        points.append(TransferPoint(labels_per_class=None, transferred=reached, from_scratch=from_scratch))
    return Finetuned(
        checkpoint=save(
            module,
            work.store,
            ref=network,
            edits=start.edits,
            val_accuracy=accuracy(*evaluate(module, task.val)),  # of the last phase, which need not be the best one
            history=history,
        ),
        start=start.label,
        replaced_head=replaced,
        transfer=tuple(points),
    )


def _transferred(task: _Task) -> tuple[nn.Module, tuple[str, ...]]:
    """Build the network with the start's weights; the head's tensors that do not fit stay new and are named."""
    module = apply(build_network(task.network, seed=task.seed), task.start.edits)
    own = module.state_dict()
    head = head_name(module, task.network.input_shape)
    new = tuple(
        name
        for name, tensor in own.items()
        if name.rpartition(".")[0] == head and (name not in task.weights or task.weights[name].shape != tensor.shape)
    )
    load_state(module, {**task.weights, **{name: own[name] for name in new}}, where=task.start.label)
    return module.to(task.device), new


def _finetune(task: _Task, module: nn.Module, train: Samples, *, name: str) -> list[Epoch]:
    phases = _GRADUAL if task.spec.mode == "gradual" else ((name, 0.0 if task.spec.mode == "head" else 1.0, 1.0),)
    history: list[Epoch] = []
    for number, (phase, freed, rate) in enumerate(phases):
        plan = task.spec.train.model_copy(
            update={
                "epochs": max(1, task.spec.train.epochs // len(phases)),
                "learning_rate": task.spec.train.learning_rate * rate,
            }
        )
        frozen = _freeze_all_but(module, task.network.input_shape, freed)
        job = Fit(
            plan=_long_enough(plan, train),
            phase=name if len(phases) == 1 else f"{name}: {phase}",
            seed=task.seed + number,
            loss=cross_entropy(plan.label_smoothing),
            train_mode=partial(_train_mode, frozen=frozen),
            resume_file=task.work.scratch / f"{name}-{number}.pt".replace(" ", "-"),
        )
        history += fit(module, train, task.val, job, task.work.progress)
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


def _few(source: Source, per_class: int, seed: int) -> Source:
    """Draw so many samples of every class."""
    generator = np.random.default_rng(seed)
    of_class = [np.flatnonzero(source.labels == label) for label in np.unique(source.labels)]
    return take(source, np.concatenate([generator.permutation(indices)[:per_class] for indices in of_class]))


def _compare(task: _Task, per_class: int, few: Samples) -> TransferPoint:
    name = f"{per_class} labels per class"
    module, _ = _transferred(task)
    _finetune(task, module, few, name=f"{name}, transferred")
    return TransferPoint(
        labels_per_class=per_class,
        transferred=_test_accuracy(task, module),
        from_scratch=_scratch(task, few, f"{name}, from scratch"),
    )


def _scratch(task: _Task, train: Samples, name: str) -> float:
    """Train the same network from nothing on the same labels; return its accuracy on the test split."""
    module = apply(build_network(task.network, seed=task.seed), task.start.edits).to(task.device)
    plan = _long_enough(task.scratch, train)
    job = Fit(
        plan=plan,
        phase=name,
        seed=task.seed,
        loss=cross_entropy(plan.label_smoothing),
        resume_file=task.work.scratch / f"{name}.pt".replace(" ", "-"),
    )
    fit(module, train, task.val, job, task.work.progress)
    return _test_accuracy(task, module)


def _test_accuracy(task: _Task, module: nn.Module) -> float:
    return accuracy(*evaluate(module, task.test))
