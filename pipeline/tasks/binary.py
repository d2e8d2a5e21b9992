"""Yes or no from one logit: cross-entropy, area under the ROC curve, a threshold chosen on the validation split.

The second of the card's two classes is the positive one.

Shapes: N samples, P positive ones, Q negative ones, n of a batch, B resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from pipeline.artifacts.evidence import Answers, Comparison, Figure, Interval, Lines, Metric
from pipeline.data.source import Source, Wanted
from pipeline.declare.card import DatasetCard
from pipeline.declare.recipe import TrainSpec
from pipeline.errors import ConfigError
from pipeline.judging import stats
from pipeline.judging.stats import Floats
from pipeline.onboard import decode
from pipeline.onboard.about import PROBABILITIES, Output
from pipeline.onboard.arrays import Predict, Signature
from pipeline.tasks import plain
from pipeline.tasks.confusion import confusion, matrices
from pipeline.tasks.inputs import samples_figure
from pipeline.tasks.protocol import (
    OUTPUT,
    Prepare,
    Put,
    Update,
    all_parameters,
    batched,
    input_spec,
    labels_of,
    output_spec,
)

METRIC = Metric(name="AUC", unit="", higher_is_better=True)
OTHERS: tuple[Metric, ...] = (
    Metric(name="F1", unit="", higher_is_better=True),
    Metric(name="accuracy", unit="share", higher_is_better=True),
)
WANTED: Wanted = "class"
exported = plain.exported
legacy_names = plain.legacy_names

THRESHOLD = "threshold"  # the decision is yes from it on; in logits
DISAGREEMENTS_SHOWN = 48
_CURVE_POINTS = 400  # of a drawn ROC curve
_BINS = 40  # of the histogram of logits
_DISTILLATION_TEMPERATURE = 3.0


def signature(card: DatasetCard, classes: tuple[str, ...], wanted: tuple[int, ...], /) -> Signature:
    """Ask for one logit.  Raises ConfigError unless there are two classes and one of them per sample."""
    if len(classes) != 2 or wanted:
        found = f"labels of shape {wanted}" if wanted else f"{len(classes)} classes"
        raise ConfigError(
            f"card '{card.name}': task binary needs one of exactly two classes per sample, not {found}",
            remedy='name the negative one first: classes = ["benign", "malignant"]',
        )
    return Signature(inputs=(input_spec(card),), outputs=(output_spec((1,), "K"),))


def updates(plan: TrainSpec, /, *, teacher: Any = None, weight: float = 0.0) -> tuple[Update, ...]:
    """Binary cross-entropy with label smoothing, mixed with the teacher's softened outputs (Hinton et al. 2015)."""
    import torch  # noqa: PLC0415  (a recalled run must not load it)

    functional, t, smoothing = torch.nn.functional, _DISTILLATION_TEMPERATURE, plan.label_smoothing

    def loss(network: Any, inputs: Any, wanted: Mapping[str, Any]) -> Any:
        logits = network(inputs)[:, 0]  # (n,)
        aim = wanted[WANTED].to(logits.dtype) * (1 - smoothing) + smoothing / 2
        hard = functional.binary_cross_entropy_with_logits(logits, aim)
        if teacher is None:
            return hard
        with torch.no_grad():
            softened = torch.sigmoid(teacher(inputs)[:, 0] / t)
        soft = functional.binary_cross_entropy_with_logits(logits / t, softened) * t * t
        return weight * soft + (1 - weight) * hard

    return (Update(parameters=all_parameters, loss=loss),)


# ── deciding ────────────────────────────────────────────────────────────────────────────────────────────────────────


def answer(
    predict: Predict, source: Source, prepare: Prepare, /, *, chosen: Mapping[str, float] | None = None
) -> Answers:
    """Decide yes from the chosen threshold on, or from 0 (probability ½) where none was chosen."""
    outputs = batched(predict, source, prepare)
    decisions = decode.above(outputs[OUTPUT][:, 0], (chosen or {}).get(THRESHOLD, 0.0))  # (N,)
    labels = labels_of(source, WANTED)
    right = decisions == labels
    return Answers(
        outputs=outputs,
        decisions=decisions,
        score=right.astype(np.float64),
        value=auc(outputs[OUTPUT][:, 0], labels),
        others={"F1": f1(decisions, labels), "accuracy": float(right.mean())},
    )


def choose(answers: Answers, source: Source, /) -> Mapping[str, float]:
    """Choose the threshold with the best F1: half-way between two neighbouring logits, the first of equal ones."""
    logits, labels = _logits(answers), labels_of(source, WANTED)
    values, place, counts = np.unique(logits, return_inverse=True, return_counts=True)
    positives = np.bincount(place, labels, len(values))  # of each distinct logit
    above = np.cumsum(counts[::-1])[::-1]  # decided yes when the threshold is just below this value
    found = np.cumsum(positives[::-1])[::-1]
    best = int(np.argmax(2 * found / (above + labels.sum())))
    middle = (values[best] + values[best - 1]) / 2 if best else values[0] - 1.0
    return {THRESHOLD: float(middle)}


def f1(decisions: NDArray[Any], labels: NDArray[Any]) -> float:
    """Return the harmonic mean of precision and recall, 0 … 1; 0 where nothing positive is found or there."""
    found = int(((decisions == 1) & (labels == 1)).sum())
    return 2 * found / max(int((decisions == 1).sum()) + int((labels == 1).sum()), 1)


def auc(logits: NDArray[Any], labels: NDArray[Any]) -> float:
    """Return how often a positive sample has the larger logit than a negative one (ties count ½), from ranks.

    nan where one of the classes is missing.
    """
    positive = labels == 1
    pairs = int(positive.sum()) * int((~positive).sum())
    if not pairs:
        return float("nan")
    least = positive.sum() * (positive.sum() + 1) / 2  # what the ranks of the positive ones sum up to at least
    return float((scipy.stats.rankdata(logits)[positive].sum() - least) / pairs)


# ── comparing ───────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, kw_only=True)
class _Placed:
    """Each sample's share of the other class that it is on the right side of (ties ½)."""

    positive: Floats  # (ways, P)
    negative: Floats  # (ways, Q)

    @property
    def covariance(self) -> Floats:
        """Return the covariance of the ways' areas, (ways, ways)."""
        by_positive, by_negative = np.cov(self.positive), np.cov(self.negative)
        ways = len(self.positive)
        sums = by_positive / self.positive.shape[1] + by_negative / self.negative.shape[1]
        return np.asarray(sums, np.float64).reshape(ways, ways)


def _placed(logits: Sequence[NDArray[Any]], labels: NDArray[Any]) -> _Placed | None:
    """Place samples by midranks (DeLong et al., Biometrics 44, 1988; Sun & Xu, IEEE Signal Proc. Letters 21, 2014).

    None where a class has fewer than two samples, so that it has no variance.
    """
    positive = labels == 1
    p, q = int(positive.sum()), int((~positive).sum())
    if min(p, q) < 2:
        return None
    rank = scipy.stats.rankdata
    ranks = [rank(each) for each in logits]
    above = [(each[positive] - rank(x[positive])) / q for each, x in zip(ranks, logits, strict=True)]
    below = [1 - (each[~positive] - rank(x[~positive])) / p for each, x in zip(ranks, logits, strict=True)]
    return _Placed(positive=np.array(above), negative=np.array(below))


def interval(answers: Answers, source: Source, /) -> Interval:
    """Return the area with DeLong's interval, or resampled by groups where the source has some.

    A perfect order has no variance of its own: then Wilson's interval of as many right pairs as can be formed of
    different samples stands for it.
    """
    labels, logits = labels_of(source, WANTED), _logits(answers)
    placed = _placed([logits], labels)
    if source.groups is not None or placed is None:
        curve = _Curve(logits, labels)
        return stats.bootstrap_interval(curve.areas, len(labels), groups=source.groups)
    error = float(np.sqrt(placed.covariance[0, 0]))
    value = answers.value
    if error == 0:
        pairs = min(placed.positive.shape[1], placed.negative.shape[1])
        return stats.wilson_interval(round(value * pairs), pairs)
    reach = float(scipy.special.ndtri((1 + stats.CONFIDENCE) / 2)) * error
    return Interval(value=value, low=max(0.0, value - reach), high=min(1.0, value + reach))


def compare(first: Answers, second: Answers, source: Source, /) -> Comparison:
    """Compare two areas on the same samples by DeLong's test, or resampled by groups where the source has some."""
    labels, both = labels_of(source, WANTED), [_logits(first), _logits(second)]
    agreement = float(np.mean(first.decisions == second.decisions))
    placed = _placed(both, labels)
    if source.groups is not None or placed is None:
        before, after = (_Curve(logits, labels) for logits in both)
        return stats.paired_bootstrap(
            lambda counts: (before.areas(counts), after.areas(counts)),
            len(labels),
            agreement=agreement,
            groups=source.groups,
        )
    return _delong(first.value, second.value, placed, agreement)


def _delong(first: float, second: float, placed: _Placed, agreement: float) -> Comparison:
    contrast = np.array([-1.0, 1.0])
    error = float(np.sqrt(max(contrast @ placed.covariance @ contrast, 0.0)))
    difference = second - first
    wide, narrow = (
        float(scipy.special.ndtri((1 + level) / 2)) * error for level in (stats.CONFIDENCE, stats.ONE_SIDED)
    )
    one_pair = 1 / (placed.positive.shape[1] * placed.negative.shape[1])  # no smaller gap can show
    return Comparison(
        samples=placed.positive.shape[1] + placed.negative.shape[1],
        value_float=first,
        value_int8=second,
        difference=difference,
        low=max(-1.0, difference - wide),
        high=min(1.0, difference + wide),
        p=float(2 * scipy.stats.norm.sf(abs(difference) / error)) if error else 1.0,
        detectable=max(stats.detectable_by(error), one_pair),
        agreement=agreement,
        method="DeLong 1988",
        one_sided_low=max(-1.0, difference - narrow),
        one_sided_high=min(1.0, difference + narrow),
    )


class _Curve:
    """Areas under the ROC curve of resamples, from one sorting."""

    def __init__(self, logits: NDArray[Any], labels: NDArray[Any]) -> None:
        values, self._tie = np.unique(logits, return_inverse=True)  # (N,) of 0 … number of distinct logits - 1
        self._order = np.argsort(self._tie, kind="stable")
        self._starts = np.searchsorted(self._tie[self._order], np.arange(len(values)))
        self._positive = labels == 1

    def areas(self, counts: Floats) -> Floats:
        """Return the area (B,) when sample i is there ``counts`` (B, N) times; nan where a class is missing."""
        positive = self._summed(np.where(self._positive, counts, 0))  # (B, distinct logits)
        negative = self._summed(np.where(self._positive, 0, counts))
        below = negative.cumsum(1) - negative / 2  # ties count ½
        pairs = positive.sum(1) * negative.sum(1)
        won = (positive * below).sum(1)
        areas: Floats = np.divide(won, pairs, out=np.full(len(counts), np.nan), where=pairs > 0)
        return areas

    def _summed(self, counts: Floats) -> Floats:
        summed: Floats = np.add.reduceat(counts[:, self._order], self._starts, axis=1)
        return summed


def baselines(source: Source, /) -> Mapping[str, float]:
    """Return the area of an order that is drawn by lot."""
    del source
    return {"chance": 0.5}


# ── figures ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def figures(
    answers: Mapping[str, Answers], source: Source, classes: tuple[str, ...], put: Put, /
) -> tuple[Figure, ...]:
    """Return ROC curves, confusion at the threshold, the logits of both classes, and where float and int8 disagree."""
    labels = labels_of(source, WANTED)
    curves = {title: put(roc(_logits(each), labels)) for title, each in answers.items()}
    counts = {title: confusion(labels, each.decisions, len(classes)) for title, each in answers.items()}
    return (
        Lines(title="ROC curve", x="false positive rate", y="true positive rate", series=curves),
        *matrices(counts, classes, put),
        _histogram(next(iter(answers.values())), labels, classes, put),
        *_disagreements(tuple(answers.values()), labels, source, classes, put),
    )


def roc(logits: NDArray[Any], labels: NDArray[Any]) -> Floats:
    """Return the ROC curve as (false positive rate, true positive rate), (R, 2), from (0, 0) to (1, 1)."""
    order = np.argsort(-logits, kind="stable")
    last_of_equal = np.append(np.diff(logits[order]) != 0, True)
    positive = labels[order] == 1
    true, false = (np.append(0, sums.cumsum()[last_of_equal]) for sums in (positive, ~positive))
    curve = np.stack([false / max(false[-1], 1), true / max(true[-1], 1)], 1)  # (R, 2)
    shown = np.unique(np.linspace(0, len(curve) - 1, min(len(curve), _CURVE_POINTS)).astype(int))
    points: Floats = curve[shown]
    return points


def _histogram(answers: Answers, labels: NDArray[Any], classes: Sequence[str], put: Put) -> Figure:
    logits = _logits(answers)
    edges = np.linspace(logits.min(), logits.max() + 1e-6, _BINS + 1)
    middles = (edges[1:] + edges[:-1]) / 2
    series = {
        name: put(np.stack([middles, np.histogram(logits[labels == k], edges)[0]], 1)) for k, name in enumerate(classes)
    }
    return Lines(title="Logits of each class, float", x="logit", y="samples", series=series)


def _disagreements(
    answers: Sequence[Answers], labels: NDArray[Any], source: Source, classes: Sequence[str], put: Put
) -> tuple[Figure, ...]:
    before, after = answers[0], answers[-1]
    differing = np.flatnonzero(before.decisions != after.decisions)
    if not len(differing):
        return ()
    captions = [
        f"#{i}: {classes[labels[i]]}; float {_logits(before)[i]:.2f}, int8 {_logits(after)[i]:.2f}"
        for i in differing[:DISAGREEMENTS_SHOWN]
    ]
    note = f"{len(captions)} of {len(differing)}, out of {len(labels)} test samples; logits"
    title = "Float and int8 disagree"
    return (samples_figure(title, source, differing[:DISAGREEMENTS_SHOWN], captions, put, note=note),)


def _logits(answers: Answers) -> Floats:
    logits: Floats = answers.outputs[OUTPUT][:, 0].astype(np.float64)
    return logits


def printing(output: Output, chosen: Mapping[str, float], /) -> tuple[str, ...]:
    """Print the class, the second one from the threshold on."""
    usual = 0.5 if output.holds == PROBABILITIES else 0.0
    return (f"print(labels[int(y[0, 0] >= {float(chosen.get(THRESHOLD, usual))!r})])",)
