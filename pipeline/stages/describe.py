"""What a data set holds: read once, before anything is built for it; a run that recalls this loads no data."""

from __future__ import annotations

import dataclasses

from pipeline.artifacts.networks import DataFacts, DataRef
from pipeline.data.hints import hints_of
from pipeline.data.load import load
from pipeline.data.source import Dataset, everything
from pipeline.errors import ConfigError
from pipeline.onboard.arrays import Signature, TensorSpec
from pipeline.runs.run import Work, stage
from pipeline.tasks import named

_AXES = {1: "F", 2: "CT", 3: "CHW"}  # of an input, by the number of its axes


@stage(version=1)
def describe(work: Work, *, data: DataRef) -> DataFacts:
    """Return what networks for this data set take and give, classes, sizes, preprocessing, and what is worth a look.

    Raises DataError for data that cannot be used, also when preprocessing makes a value that is no finite number;
    ConfigError for a card whose task cannot be meant.
    """
    dataset = load(data)
    hints = hints_of(dataset)
    for hint in hints:
        work.progress.say(f"data: {hint}")
    splits = {"train": dataset.train, "val": dataset.val, "test": dataset.test}
    return DataFacts(
        signature=_signature(dataset),
        classes=dataset.classes,
        samples={name: len(source) for name, source in splits.items()},
        frontend=dataset.frontend,
        pictures=dataset.pictures,
        left_out=dict(dataset.left_out),
        hints=hints,
    )


def _signature(dataset: Dataset) -> Signature:
    """Ask the task for the outputs, and the card for the inputs where there are several."""
    card = dataset.card
    labels = dataset.train.wanted(everything(dataset.train)[:1])
    wanted = next((label.shape[1:] for label in labels.values()), ())
    if not card.inputs:
        return named(card.task).signature(card, dataset.classes, wanted)
    first = card.model_copy(update={"input": next(iter(card.inputs.values()))})
    inputs = tuple(
        TensorSpec(name, "float32", spec.shape, _AXES[len(spec.shape)]) for name, spec in card.inputs.items()
    )
    asked = dataclasses.replace(named(card.task).signature(first, dataset.classes, wanted), inputs=inputs)
    carried = card.carried
    for name, into in carried.items():
        made = next((spec.shape for spec in asked.outputs if spec.name == name), None)
        if made != card.inputs[into].shape:
            told = "there is no such output in [outputs]" if made is None else f"it has the shape {list(made)}"
            what = f"[inputs.{into}] carried = '{name}': {told}"
            raise ConfigError(what, where=card.name, remedy="an output that is carried has the shape of its input")
    return dataclasses.replace(asked, carried=carried)
