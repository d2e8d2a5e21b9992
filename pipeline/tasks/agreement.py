"""Agreement with a float network, where nobody knows what is right: samples are labelled with what that network gives.

The metric is the share of what tells samples apart in the float network's outputs that is still there: 1 - squared
differences / squared deviations of these outputs from their mean (R2).  Always giving the mean would reach 0.

Shapes: N samples, n of a batch, B resamples; outputs (N, …) of any shape.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.evidence import Answers, Comparison, Figure, Lines, Metric, Table
from pipeline.data.source import Source, Wanted
from pipeline.declare.card import DatasetCard
from pipeline.declare.recipe import TrainSpec
from pipeline.errors import ConfigError
from pipeline.judging import stats
from pipeline.judging.stats import Floats, Interval
from pipeline.onboard.about import Output
from pipeline.onboard.arrays import Predict, Signature
from pipeline.tasks import plain
from pipeline.tasks.protocol import (
    OUTPUT,
    Prepare,
    Put,
    Update,
    all_parameters,
    batched,
    input_spec,
    labels_of,
    mean_of,
    output_spec,
)

METRIC = Metric(name="agreement", unit="share", higher_is_better=True)
OTHERS: tuple[Metric, ...] = (
    Metric(name="same largest output", unit="share", higher_is_better=True),
    Metric(name="error", unit="share", higher_is_better=False),  # root of squared differences / squared outputs
)
WANTED: Wanted = "output"
choose = plain.choose
exported = plain.exported
legacy_names = plain.legacy_names

_AXES = {0: "", 1: "T", 2: "CT", 3: "CHW", 4: "CDHW"}  # of an output by its number of axes
_SAME_MIN = 0.5
_POINTS_SHOWN = 1_500
_SHOWN = 16
_TINY = 1e-30


def signature(card: DatasetCard, classes: tuple[str, ...], wanted: tuple[int, ...], /) -> Signature:
    """Ask for outputs of the shape that the float network gave.  Raises ConfigError for more axes than that."""
    del classes
    if len(wanted) not in _AXES:
        raise ConfigError(f"card '{card.name}': outputs of shape {wanted} have too many axes")
    return Signature(inputs=(input_spec(card),), outputs=(output_spec(wanted, _AXES[len(wanted)]),))


def updates(plan: TrainSpec, /, *, teacher: Any = None, weight: float = 0.0) -> tuple[Update, ...]:
    """Mean squared error against the float network's outputs; a teacher's are the same."""
    del plan, teacher, weight
    import torch  # noqa: PLC0415  (a recalled run must not load it)

    def loss(network: Any, inputs: Any, wanted: Mapping[str, Any]) -> Any:
        return torch.nn.functional.mse_loss(network(inputs), wanted[WANTED])

    return (Update(parameters=all_parameters, loss=loss),)


def answer(
    predict: Predict, source: Source, prepare: Prepare, /, *, chosen: Mapping[str, float] | None = None
) -> Answers:
    """Decide for the largest of several outputs; score: a sample's squared differences, the sum over its outputs."""
    del chosen
    outputs = batched(predict, source, prepare)
    found, wanted = _rows(outputs[OUTPUT]), _rows(labels_of(source, WANTED))
    score = ((found - wanted) ** 2).sum(1)
    same = float((found.argmax(1) == wanted.argmax(1)).mean())
    error = math.sqrt(float(score.sum()) / max(float((wanted**2).sum()), _TINY))
    return Answers(
        outputs=outputs,
        decisions=found.argmax(1) if found.shape[1] > 1 else outputs[OUTPUT],
        score=score,
        value=float(_agreement(score, source, np.ones((1, len(score))))[0]),
        others=dict(zip((metric.name for metric in OTHERS), (same, error), strict=True)),
    )


def _rows(outputs: NDArray[Any]) -> Floats:
    """(N, …) → (N, outputs of a sample)."""
    return outputs.reshape(len(outputs), -1).astype(np.float64)


def _agreement(score: Floats, source: Source, counts: Floats) -> Floats:
    """1 - what differs / what there is to tell, in each resample (B,)."""
    wanted = _rows(labels_of(source, WANTED))
    around = ((wanted - wanted.mean(0)) ** 2).sum(1)
    return 1 - mean_of(score, counts) / np.maximum(mean_of(around, counts), _TINY)


def interval(answers: Answers, source: Source, /) -> Interval:
    """Return the agreement with its bootstrap interval."""
    count = len(answers.score)
    return stats.bootstrap_interval(partial(_agreement, answers.score, source), count, groups=source.groups)


def compare(first: Answers, second: Answers, source: Source, /) -> Comparison:
    """Compare agreement, samples resampled for both together; the same decision: the same largest output."""

    def both(counts: Floats) -> tuple[Floats, Floats]:
        return _agreement(first.score, source, counts), _agreement(second.score, source, counts)

    a, b = _rows(first.outputs[OUTPUT]), _rows(second.outputs[OUTPUT])
    same = float((a.argmax(1) == b.argmax(1)).mean())
    found = stats.paired_bootstrap(both, len(first.score), agreement=same, groups=source.groups)
    return replace(found, agreement_min=_SAME_MIN)


def baselines(source: Source, /) -> Mapping[str, float]:
    """Return the agreement of always giving the mean of all outputs."""
    del source
    return {"mean of all": 0.0}


def figures(
    answers: Mapping[str, Answers], source: Source, classes: tuple[str, ...], put: Put, /
) -> tuple[Figure, ...]:
    """Return outputs against those of the float network, and the samples that are furthest off."""
    del classes
    wanted = _rows(labels_of(source, WANTED))
    shown = np.unique(np.linspace(0, wanted.size - 1, min(wanted.size, _POINTS_SHOWN)).astype(int))
    true = wanted.ravel()[shown]
    series = {
        title: put(np.stack([true, _rows(each.outputs[OUTPUT]).ravel()[shown]], 1)) for title, each in answers.items()
    }
    power = np.sqrt(np.maximum((wanted**2).sum(1), _TINY))
    worst = np.argsort(-list(answers.values())[-1].score, kind="stable")[:_SHOWN]
    rows = tuple(
        (f"#{i}", *(f"{100 * math.sqrt(each.score[i]) / power[i]:.3g} %" for each in answers.values())) for i in worst
    )
    return (
        Lines(title="Outputs against the float network's", x="float network", y="output", series=series, dots=True),
        Table(title="Samples that are furthest off", columns=("sample", *answers), rows=rows),
    )


def printing(output: Output, chosen: Mapping[str, float], /) -> tuple[str, ...]:
    """Print the outputs."""
    del output, chosen
    return ("print(y[0].tolist())",)
