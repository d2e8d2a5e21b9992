"""Agreement with a float network, where nobody knows what is right: samples are labelled with what that network gives.

The metric is the share of what tells samples apart in the float network's outputs that is still there: 1 - squared
differences / squared deviations of these outputs from their mean (R2).  Always giving the mean would reach 0.

Shapes: N samples, n of a batch, B resamples; outputs (N, …) of any shape.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.evidence import Answers, Comparison, Figure, Interval, Lines, Metric, Table
from pipeline.data.source import Source, Wanted
from pipeline.declare.card import DatasetCard
from pipeline.declare.recipe import TrainSpec
from pipeline.errors import ConfigError
from pipeline.judging import stats
from pipeline.judging.stats import Floats
from pipeline.onboard.about import Output
from pipeline.onboard.arrays import Arrays, Predict, Signature, TensorSpec
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
_SEVERAL = "Outputs"  # the class of graph.ends at the end of a network with several outputs
_SAME_MIN = 0.5
_POINTS_SHOWN = 1_500
_SHOWN = 16
_TINY = 1e-30


def signature(card: DatasetCard, classes: tuple[str, ...], wanted: tuple[int, ...], /) -> Signature:
    """Ask for outputs of the shape that the float network gave.  Raises ConfigError for more axes than that."""
    del classes
    shapes = dict(card.outputs) or {OUTPUT: wanted}
    if card.outputs and (values := sum(map(math.prod, shapes.values())) * (card.steps or 1)) != math.prod(wanted):
        raise ConfigError(f"card '{card.name}': its [outputs] have {values} values, y has {math.prod(wanted)}")
    for shape in shapes.values():
        if len(shape) not in _AXES:
            raise ConfigError(f"card '{card.name}': outputs of shape {shape} have too many axes")
    outputs = tuple(TensorSpec(name, "float32", shape, _AXES[len(shape)]) for name, shape in shapes.items())
    return Signature(inputs=(input_spec(card),), outputs=outputs)


def updates(plan: TrainSpec, /, *, teacher: Any = None, weight: float = 0.0) -> tuple[Update, ...]:
    """Mean squared error against the float network's outputs; a teacher's are the same.

    Several outputs count alike, whatever their size: each error is a share of what the output's values are.
    """
    del plan, teacher, weight
    import torch  # noqa: PLC0415  (a recalled run must not load it)

    def loss(network: Any, inputs: Any, wanted: Mapping[str, Any]) -> Any:
        found, target = network(inputs), wanted[WANTED]
        shapes = next((each.shapes for each in network.modules() if type(each).__name__ == _SEVERAL), ())
        if not shapes:
            return torch.nn.functional.mse_loss(found, target)
        ends = list(itertools.accumulate(map(math.prod, shapes), initial=0))
        parts = [(found[:, start:stop], target[:, start:stop]) for start, stop in itertools.pairwise(ends)]
        return sum(torch.nn.functional.mse_loss(a, b) / b.square().mean().clamp(min=_TINY) for a, b in parts)

    return (Update(parameters=all_parameters, loss=loss),)


def answer(
    predict: Predict, source: Source, prepare: Prepare, /, *, chosen: Mapping[str, float] | None = None
) -> Answers:
    """Decide for the largest value of each output; score: a sample's squared differences, the sum over its outputs.

    Of several outputs the one that agrees least counts.
    """
    del chosen
    outputs = batched(predict, source, prepare)
    pairs = _pairs(outputs, source)
    return Answers(
        outputs=outputs,
        decisions=_decisions(outputs),
        score=np.sum([each.squared / each.scale for each in pairs], axis=0),
        value=float(_agreement(pairs, np.ones((1, len(source))))[0]),
        others={
            "same largest output": min(each.same for each in pairs),
            "error": max(each.error for each in pairs),
        },
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Pair:
    """One output and the float network's; rows (N, values of a sample)."""

    name: str
    found: Floats
    wanted: Floats
    shape: tuple[int, ...]
    scale: float  # in which its squared differences are added to those of other outputs

    @property
    def squared(self) -> Floats:
        squared: Floats = ((self.found - self.wanted) ** 2).sum(1)
        return squared

    @property
    def same(self) -> float:
        return self.same_as(self.wanted)

    def same_as(self, other: Floats) -> float:
        return float((_largest(self.found, self.shape) == _largest(other, self.shape)).mean())

    @property
    def error(self) -> float:
        return math.sqrt(float(self.squared.sum()) / max(float((self.wanted**2).sum()), _TINY))

    @property
    def sqnr_db(self) -> float:
        return -20 * math.log10(max(self.error, 1e-10))


def _pairs(outputs: Arrays, source: Source) -> list[_Pair]:
    wanted = _rows(labels_of(source, WANTED))
    rows = {name: _rows(each) for name, each in outputs.items()}
    starts = np.cumsum([0, *(each.shape[1] for each in rows.values())])
    parts = [wanted[:, start : start + each.shape[1]] for start, each in zip(starts, rows.values(), strict=False)]
    scales = [max(float(each.var(0).sum()), _TINY) if len(rows) > 1 else 1.0 for each in parts]
    return [
        _Pair(name=name, found=found, wanted=part, shape=outputs[name].shape[1:], scale=scale)
        for (name, found), part, scale in zip(rows.items(), parts, scales, strict=True)
    ]


def _decisions(outputs: Arrays) -> NDArray[Any]:
    """Return the largest of each output's values, (N,) or (N, …) of maps and several; of one number, itself."""
    found = [_largest(_rows(each), each.shape[1:]) for each in outputs.values()]
    if len(found) > 1 or found[0].shape[1] > 1:
        return np.concatenate(found, 1)
    return found[0][:, 0] if next(iter(outputs.values()))[0].size > 1 else next(iter(outputs.values()))


def _largest(rows: Floats, shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Return which channel or column is the largest at each of P positions of maps and lists (N, P); else (N, 1)."""
    if len(shape) < 2:
        return np.asarray(rows.argmax(1)[:, None])
    axis = -1 if len(shape) == 2 and shape[0] > shape[1] else 1
    places: NDArray[np.int64] = rows.reshape(-1, *shape).argmax(axis).reshape(len(rows), -1)
    return places


def _rows(outputs: NDArray[Any]) -> Floats:
    """(N, …) → (N, outputs of a sample)."""
    return outputs.reshape(len(outputs), -1).astype(np.float64)


def _agreement(pairs: Sequence[_Pair], counts: Floats) -> Floats:
    """1 - what differs / what there is to tell, in each resample (B,); of several outputs the worst."""
    each = [
        1 - mean_of(pair.squared, counts) / np.maximum(mean_of(_around(pair.wanted), counts), _TINY) for pair in pairs
    ]
    worst: Floats = np.min(each, axis=0)
    return worst


def _around(wanted: Floats) -> Floats:
    around: Floats = ((wanted - wanted.mean(0)) ** 2).sum(1)
    return around


def interval(answers: Answers, source: Source, /) -> Interval:
    """Return the agreement with its bootstrap interval."""
    pairs = _pairs(answers.outputs, source)
    return stats.bootstrap_interval(partial(_agreement, pairs), len(answers.score), groups=source.groups)


def compare(first: Answers, second: Answers, source: Source, /) -> Comparison:
    """Compare agreement, samples resampled for both together; the same decision: the same largest values."""
    one, other = _pairs(first.outputs, source), _pairs(second.outputs, source)

    def both(counts: Floats) -> tuple[Floats, Floats]:
        return _agreement(one, counts), _agreement(other, counts)

    same = min(a.same_as(b.found) for a, b in zip(one, other, strict=True))
    found = stats.paired_bootstrap(both, len(first.score), agreement=same, groups=source.groups)
    return replace(found, agreement_min=_SAME_MIN)


def baselines(source: Source, /) -> Mapping[str, float]:
    """Return the agreement of always giving the mean of all outputs."""
    del source
    return {"mean of all": 0.0}


def figures(
    answers: Mapping[str, Answers], source: Source, classes: tuple[str, ...], put: Put, /
) -> tuple[Figure, ...]:
    """Return outputs against those of the float network, each output's error, and the samples furthest off.

    Of several outputs the one is drawn that agrees least in the last of the answers.
    """
    del classes
    pairs = {title: _pairs(each.outputs, source) for title, each in answers.items()}
    last = list(pairs.values())[-1]
    worst = int(np.argmax([each.error for each in last]))
    several = f" ({last[worst].name})" if len(last) > 1 else ""
    wanted = last[worst].wanted
    shown = np.unique(np.linspace(0, wanted.size - 1, min(wanted.size, _POINTS_SHOWN)).astype(int))
    true = wanted.ravel()[shown]
    series = {title: put(np.stack([true, each[worst].found.ravel()[shown]], 1)) for title, each in pairs.items()}
    power = np.sqrt(np.maximum((wanted**2).sum(1), _TINY))
    furthest = np.argsort(-last[worst].squared, kind="stable")[:_SHOWN]
    rows = tuple(
        (f"#{i}", *(f"{100 * math.sqrt(each[worst].squared[i]) / power[i]:.3g} %" for each in pairs.values()))
        for i in furthest
    )
    title = f"Outputs against the float network's{several}"
    return (
        Lines(title=title, x="float network", y="output", series=series, dots=True),
        *([_each_output(pairs)] if several else []),
        Table(title=f"Samples that are furthest off{several}", columns=("sample", *answers), rows=rows),
    )


def _each_output(pairs: Mapping[str, Sequence[_Pair]]) -> Table:
    rows = tuple(
        (same[0].name, *(f"{100 * each.error:.3g} % ({each.sqnr_db:.1f} dB)" for each in same))
        for same in zip(*pairs.values(), strict=True)
    )
    return Table(title="Error of each output", columns=("output", *pairs), rows=rows)


def printing(output: Output, chosen: Mapping[str, float], /) -> tuple[str, ...]:
    """Print the outputs."""
    del output, chosen
    return ("print(y[0].tolist())",)
