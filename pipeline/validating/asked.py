"""The samples that a file is judged on, what is asked about them, and how they are prepared."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import catalog
from pipeline.data.load import load, reference
from pipeline.data.source import INPUT, ArraySource, Source
from pipeline.declare.card import DatasetCard, outside_name
from pipeline.errors import ConfigError, ModelError, nearest
from pipeline.onboard.arrays import Arrays, Signature, TensorSpec
from pipeline.onboard.frontend import prepare
from pipeline.starting.files import relative, render
from pipeline.starting.given import Given
from pipeline.starting.models import card_named, files_of
from pipeline.starting.samples import given_by
from pipeline.starting.sequences import carried_of, sequences_by
from pipeline.tasks import Task, named
from pipeline.validating.opened import Opened, Question


@dataclass(frozen=True, kw_only=True, eq=False)
class Asked:
    """Samples, what is asked about them, and how they are prepared."""

    task: Task
    source: Source
    prepared: Callable[[Arrays], Arrays]
    carried: Mapping[str, str]


def check_ends(opened: Opened, asked: Asked) -> None:
    """Refuse a file whose inputs are not those of the samples, or that has more outputs than a task knows."""
    given, taken = list(asked.source.read(np.arange(1)).inputs), [outside_name(spec.name) for spec in opened.inputs]
    if len(given) != len(taken) or (len(taken) > 1 and set(given) != set(taken)):
        raise ModelError(
            f"takes {', '.join(taken)}, and the samples have {', '.join(given)}",
            where=str(opened.path),
            remedy="the card names each input as the file does: [inputs.NAME]",
        )
    if len(opened.outputs) > 1 and asked.task.WANTED != "output":
        names = ", ".join(spec.name for spec in opened.outputs)
        what = f"has {len(opened.outputs)} outputs: {names}"
        raise ModelError(what, where=str(opened.path), remedy="say which one the labels are for: --output NAME")


def ask(question: Question, opened: Opened, beside: Opened | None) -> Asked:
    """Find the samples, and what is right for them.  Raises ConfigError, DataError and ModelError."""
    card = card_named(question.data)
    if card is not None:
        if question.carry:
            remedy = 'say it there: [inputs.NAME] carried = "OUTPUT"; and leave --carry out'
            raise ConfigError(f"the card {card} says what is carried", where="--carry", remedy=remedy)
        return _of_card(*catalog.load_card(str(card)))
    own_names = [replace(spec, name=outside_name(spec.name)) for spec in opened.inputs]
    inputs = opened.inputs if len(own_names) == 1 else own_names
    carried, _ = carried_of(inputs, opened.outputs, question.carry)
    if question.carry and carried and beside is None:
        raise ConfigError("nobody says what is right", where="--carry", remedy="name the float file: --float FILE")
    if carried and beside is not None:
        _check_carried(beside, carried)
        return _of_sequences(question, beside, Signature(tuple(inputs), opened.outputs, carried))
    given = given_by(Path(question.data), inputs, opened.outputs)
    if not given.inputs:
        return _of_card(DatasetCard.model_validate(tomllib.loads(_card(given, opened))), Path.cwd())
    if beside is None:
        raise ConfigError(
            f"{given.said}: nobody says what is right", where="--data", remedy="name the float file: --float FILE"
        )
    shaped = zip(inputs, given.inputs.values(), strict=True)
    names = [INPUT] if len(inputs) == 1 else [spec.name for spec in inputs]
    return _agreeing(
        {name: _prepared(x, spec, given) for name, (spec, x) in zip(names, shaped, strict=True)}, beside, {}
    )


def _check_carried(beside: Opened, carried: Mapping[str, str]) -> None:
    """Refuse a float file whose state has other names."""
    there = {"output": [each.name for each in beside.outputs], "input": [outside_name(e.name) for e in beside.inputs]}
    for kind, names in (("output", list(carried)), ("input", list(carried.values()))):
        for name in names:
            if name not in there[kind]:
                what = f"has no {kind} '{name}', which the other file carries{nearest(name, there[kind])}"
                raise ModelError(what, where=str(beside.path), remedy="both files have to call their state alike")


def _of_sequences(question: Question, beside: Opened, signature: Signature) -> Asked:
    given = sequences_by(Path(question.data), signature, beside.predict({}))
    return _agreeing(given.inputs, beside, signature.carried)


def _agreeing(inputs: Arrays, beside: Opened, carried: Mapping[str, str]) -> Asked:
    """Ask for what the float file gives."""
    wanted = [np.asarray(each, np.float32) for each in beside.predict(carried)(inputs).values()]
    several = np.concatenate([each.reshape(len(each), -1) for each in wanted], 1)
    source = ArraySource(inputs=inputs, labels={"output": wanted[0] if len(wanted) == 1 else several})
    return Asked(task=named("agreement"), source=source, prepared=lambda inputs: inputs, carried=carried)


def _prepared(x: NDArray[Any], spec: TensorSpec, given: Given) -> NDArray[np.float32]:
    shaped = x.reshape(-1, *spec.shape).astype(np.float32)
    return np.asarray(shaped / np.float32(given.divide), np.float32)


def _of_card(card: DatasetCard, folder: Path) -> Asked:
    dataset = load(reference(card, folder))
    return Asked(
        task=named(card.task),
        source=dataset.test,
        prepared=lambda inputs: prepare(inputs, dataset.frontend),
        carried=card.carried,
    )


def _card(given: Given, opened: Opened) -> str:
    """Return a card that keeps as many samples as it can for measuring."""
    least = opened.outputs[0].shape[0] if given.task == "classification" else 1
    return render(
        "samples.toml",
        given=given,
        name="validated",
        place=relative(given.place),
        files=files_of(given),
        arrays=[pair for pair in given.arrays if pair[0] != pair[1]],
        inputs=[replace(spec, name=outside_name(spec.name)) for spec in opened.inputs],
        outputs=(),
        carried={},
        val=least,
        test=given.samples - 2 * least,
    )
