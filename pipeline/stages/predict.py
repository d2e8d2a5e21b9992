"""predict: what torch gives on the test split with one set of weights, the reference of all files that hold them."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from pipeline.artifacts.evidence import Predicted
from pipeline.artifacts.files import Variant, Way
from pipeline.artifacts.networks import DataFacts, DataRef
from pipeline.artifacts.training import Checkpoint, Quantized
from pipeline.data.load import load
from pipeline.instruments import here
from pipeline.instruments.answers import keep
from pipeline.networks.checkpoints import restore_float, restore_prepared
from pipeline.onboard.arrays import Arrays
from pipeline.onboard.frontend import prepare
from pipeline.quant.grids import steps_of
from pipeline.quant.prepare import freeze
from pipeline.runs.run import Work, stage
from pipeline.runs.store import Store
from pipeline.tasks import named
from pipeline.training.devices import using_threads
from pipeline.training.loop import predict_with


@stage(version=1)
def predict(
    work: Work,
    *,
    data: DataRef,
    facts: DataFacts,
    weights: Checkpoint | Quantized,
    chosen: dict[str, float] | None,
    threads: int,
    unpruned: bool = False,
) -> Predicted:
    """Run the float network of a checkpoint, or the network of integers of a quantized one, over the test split.

    ``chosen``: settings of the decision that were chosen before; None: they are chosen here, on the validation split.
    ``unpruned``: these weights are those before pruning.
    Always on the CPU: a GPU's shorter floats would differ from the files more than the files do.
    Raises what loading the data and the weights raises (DataError, ModelError, StorageError).
    """
    task, dataset = named(data.card.task), load(data)
    checkpoint = weights.checkpoint if isinstance(weights, Quantized) else weights
    network, steps = _restored(weights, work.store)
    run = predict_with(task.exported(network), torch.device("cpu"), checkpoint.network.signature)

    def prepared(inputs: Arrays) -> Arrays:
        return prepare(inputs, facts.frontend)

    with using_threads(threads):
        if chosen is None:
            chosen = dict(task.choose(task.answer(run, dataset.val, prepared), dataset.val))
        answers = task.answer(run, dataset.test, prepared, chosen=chosen)
    answered = keep(
        answers,
        way=Way(variant=replace(_variant(weights), unpruned=unpruned), program="torch"),
        version=torch.__version__,
        place=here.place(),
        interval=task.interval(answers, dataset.test),
        steps=steps,
        store=work.store,
    )
    return Predicted(
        metric=task.METRIC,
        answered=answered,
        chosen=chosen,
        others=task.OTHERS,
        baselines=dict(task.baselines(dataset.test)),
    )


def _restored(weights: Checkpoint | Quantized, store: Store) -> tuple[nn.Module, dict[str, float]]:
    """Return the network, in evaluation mode, and one step of its output where that is quantized."""
    if not isinstance(weights, Quantized):
        return restore_float(weights, store), {}
    prepared = restore_prepared(weights, store)
    return freeze(prepared), steps_of(prepared, weights.checkpoint.network.signature)


def _variant(weights: Checkpoint | Quantized) -> Variant:
    if isinstance(weights, Quantized):
        return Variant(format="torch", precision="int8", weight_bits=weights.weight_bits)
    return Variant(format="torch", precision="fp32")
