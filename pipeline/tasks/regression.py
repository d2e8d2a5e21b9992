"""Numbers: squared error, root of its mean, the network's outputs as they are.

Shapes: N samples, n of a batch, B resamples, T targets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.evidence import Answers, Comparison, Figure, Interval, Lines, Metric, Table
from pipeline.data.source import Source, Wanted
from pipeline.declare.card import DatasetCard
from pipeline.declare.recipe import TrainSpec
from pipeline.errors import ConfigError
from pipeline.judging import stats
from pipeline.judging.stats import Floats, Indices
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

METRIC = Metric(name="RMSE", unit="", higher_is_better=False)
OTHERS: tuple[Metric, ...] = (
    Metric(name="R2", unit="", higher_is_better=True),
    Metric(name="MAE", unit="", higher_is_better=False),
)
WANTED: Wanted = "number"
choose = plain.choose
exported = plain.exported
legacy_names = plain.legacy_names

_SAME_MIN = 0.5  # numbers have no decision that flips: their own metric limits what int8 may lose
SAME_SHARE = 0.05  # outputs closer than this share of the target's standard deviation are the same decision
_POINTS_SHOWN = 1_500
_LARGEST_ERRORS_SHOWN = 16


def signature(card: DatasetCard, classes: tuple[str, ...], wanted: tuple[int, ...], /) -> Signature:
    """Ask for one output per target.  Raises ConfigError for labels that are no row of numbers."""
    del classes  # targets may have names, but they are no classes
    if len(wanted) != 1:
        raise ConfigError(
            f"card '{card.name}': regression needs one number per target and sample, not labels of shape {wanted}"
        )
    return Signature(inputs=(input_spec(card),), outputs=(output_spec(wanted, "T"),))


def updates(plan: TrainSpec, /, *, teacher: Any = None, weight: float = 0.0) -> tuple[Update, ...]:
    """Mean squared error, mixed with the squared distance to the teacher's outputs."""
    del plan  # numbers have no label smoothing
    import torch  # noqa: PLC0415  (a recalled run must not load it)

    functional = torch.nn.functional

    def loss(network: Any, inputs: Any, wanted: Mapping[str, Any]) -> Any:
        outputs = network(inputs)  # (n, T)
        hard = functional.mse_loss(outputs, wanted[WANTED])
        if teacher is None:
            return hard
        with torch.no_grad():
            aim = teacher(inputs)
        return weight * functional.mse_loss(outputs, aim) + (1 - weight) * hard

    return (Update(parameters=all_parameters, loss=loss),)


def answer(
    predict: Predict, source: Source, prepare: Prepare, /, *, chosen: Mapping[str, float] | None = None
) -> Answers:
    """Decide for the outputs as they are; score: a sample's squared error, the mean over its targets."""
    del chosen  # nothing is chosen for this decision
    outputs = batched(predict, source, prepare)
    numbers, wanted = outputs[OUTPUT].astype(np.float64), labels_of(source, WANTED).astype(np.float64)  # (N, T)
    errors = numbers - wanted
    score = (errors**2).mean(1)
    return Answers(
        outputs=outputs,
        decisions=outputs[OUTPUT],
        score=score,
        value=float(np.sqrt(score.mean())),
        others={"R2": r_squared(numbers, wanted), "MAE": float(np.abs(errors).mean())},
    )


def r_squared(numbers: Floats, wanted: Floats) -> float:
    """Return 1 - squared errors / squared deviations from the mean, the mean over targets; nan for a constant one."""
    around = ((wanted - wanted.mean(0)) ** 2).sum(0)  # (T,)
    errors = ((numbers - wanted) ** 2).sum(0)
    explained = 1 - np.divide(errors, around, out=np.full(errors.shape, np.nan), where=around > 0)
    return float(explained.mean())


def interval(answers: Answers, source: Source, /) -> Interval:
    """Return the root mean squared error with its bootstrap interval."""

    def rmse(counts: Floats) -> Floats:
        return np.sqrt(mean_of(answers.score, counts))

    return stats.bootstrap_interval(rmse, len(answers.score), groups=source.groups)


def compare(first: Answers, second: Answers, source: Source, /) -> Comparison:
    """Compare root mean squared errors, samples resampled for both together.

    Agreement: outputs within a twentieth of the targets' standard deviation.
    """

    def both(counts: Floats) -> tuple[Floats, Floats]:
        return np.sqrt(mean_of(first.score, counts)), np.sqrt(mean_of(second.score, counts))

    apart = np.abs(second.outputs[OUTPUT].astype(np.float64) - first.outputs[OUTPUT])  # (N, T)
    same = (apart <= _same_within(labels_of(source, WANTED))).all(1)
    found = stats.paired_bootstrap(both, len(first.score), agreement=float(same.mean()), groups=source.groups)
    return replace(found, agreement_min=_SAME_MIN)


def baselines(source: Source, /) -> Mapping[str, float]:
    """Return the root mean squared error of always naming the mean."""
    wanted = labels_of(source, WANTED).astype(np.float64)  # (N, T)
    return {"mean of all": float(np.sqrt(((wanted - wanted.mean(0)) ** 2).mean()))}


def figures(
    answers: Mapping[str, Answers], source: Source, classes: tuple[str, ...], put: Put, /
) -> tuple[Figure, ...]:
    """Return predicted against true and errors against true for each target, and the largest errors."""
    wanted = labels_of(source, WANTED)  # (N, T)
    shown = np.unique(np.linspace(0, len(wanted) - 1, min(len(wanted), _POINTS_SHOWN)).astype(int))
    targets = [f", {name}" for name in classes] if len(classes) == wanted.shape[1] else _numbered(wanted.shape[1])
    drawn: list[Figure] = []
    for t, target in enumerate(targets):
        true = wanted[shown, t].astype(np.float64)
        by_way = {title: each.outputs[OUTPUT][shown, t] for title, each in answers.items()}
        against = {title: put(np.stack([true, numbers], 1)) for title, numbers in by_way.items()}
        errors = {title: put(np.stack([true, numbers - true], 1)) for title, numbers in by_way.items()}
        drawn += [
            Lines(title=f"Predicted against true{target}", x="true", y="predicted", series=against, dots=True),
            Lines(title=f"Errors{target}", x="true", y="predicted − true", series=errors, dots=True),
        ]
    return (*drawn, _largest_errors(answers, wanted))


def _largest_errors(answers: Mapping[str, Answers], wanted: NDArray[Any]) -> Figure:
    """List the samples that the float reference is furthest off."""
    worst: Indices = np.argsort(-next(iter(answers.values())).score, kind="stable")[:_LARGEST_ERRORS_SHOWN]
    rows = tuple(
        (f"#{i}", _numbers(wanted[i]), *(_numbers(each.outputs[OUTPUT][i]) for each in answers.values())) for i in worst
    )
    return Table(title="Largest errors", columns=("sample", "true", *answers), rows=rows)


def _numbers(values: NDArray[Any]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)


def _numbered(targets: int) -> list[str]:
    return [f", target {t + 1}" for t in range(targets)] if targets > 1 else [""]


def _same_within(wanted: NDArray[Any]) -> Floats:
    """Return how far two outputs may be apart to be the same decision, (T,)."""
    deviation = wanted.astype(np.float64).std(0)
    return SAME_SHARE * np.where(deviation > 0, deviation, 1.0)


def printing(output: Output, chosen: Mapping[str, float], /) -> tuple[str, ...]:
    """Print the numbers in the units of the data."""
    del chosen
    times = f" * {output.times!r}" if output.times != 1 else ""
    return (f"print((y[0]{times}).tolist())",)
