"""One class per sample: cross-entropy, accuracy, the largest logit.

Shapes: N samples, n of a batch, B resamples, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.evidence import Answers, Comparison, Figure, Interval, Metric, Table
from pipeline.data.source import Source, Wanted
from pipeline.declare.card import DatasetCard
from pipeline.declare.recipe import TrainSpec
from pipeline.errors import ConfigError
from pipeline.judging import stats
from pipeline.judging.stats import Floats, Indices
from pipeline.onboard import decode
from pipeline.onboard.about import Output
from pipeline.onboard.arrays import Predict, Signature
from pipeline.tasks import plain
from pipeline.tasks.confusion import confusion, matrices, recalls, share_text
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
    mean_of,
    output_spec,
)

METRIC = Metric(name="accuracy", unit="share", higher_is_better=True)
OTHERS: tuple[Metric, ...] = (
    Metric(name="balanced accuracy", unit="share", higher_is_better=True),
    Metric(name="worst class recall", unit="share", higher_is_better=True),
)
WANTED: Wanted = "class"
choose = plain.choose
exported = plain.exported

DISAGREEMENTS_SHOWN = 48
SHARED_ERRORS_SHOWN = 16
CONFUSIONS_SHOWN = 12
_DISTILLATION_TEMPERATURE = 3.0


def signature(card: DatasetCard, classes: tuple[str, ...], wanted: tuple[int, ...], /) -> Signature:
    """Ask for one logit per class.  Raises ConfigError for fewer than two classes and for labels with a shape."""
    if len(classes) < 2 or wanted:
        found = f"labels of shape {wanted}" if wanted else f"{len(classes)} classes"
        raise ConfigError(
            f"card '{card.name}': classification needs one of two or more classes per sample, not {found}"
        )
    return Signature(inputs=(input_spec(card),), outputs=(output_spec((len(classes),), "K"),))


def updates(plan: TrainSpec, /, *, teacher: Any = None, weight: float = 0.0) -> tuple[Update, ...]:
    """Cross-entropy with label smoothing (Szegedy et al. 2016), mixed with the teacher's softened outputs.

    Distillation: Hinton et al. 2015, at temperature 3.
    """
    import torch  # noqa: PLC0415  (a recalled run must not load it)

    functional, t = torch.nn.functional, _DISTILLATION_TEMPERATURE
    softened = functional.log_softmax

    def loss(network: Any, inputs: Any, wanted: Mapping[str, Any]) -> Any:
        logits = network(inputs)  # (n, K)
        if teacher is None:
            return functional.cross_entropy(logits, wanted[WANTED], label_smoothing=plan.label_smoothing)
        with torch.no_grad():
            aim = softened(teacher(inputs) / t, 1)  # (n, K)
        soft = functional.kl_div(softened(logits / t, 1), aim, reduction="batchmean", log_target=True) * t * t
        hard = functional.cross_entropy(logits, wanted[WANTED], label_smoothing=plan.label_smoothing)
        return weight * soft + (1 - weight) * hard

    return (Update(parameters=all_parameters, loss=loss),)


# ── deciding and comparing ──────────────────────────────────────────────────────────────────────────────────────────


def answer(
    predict: Predict, source: Source, prepare: Prepare, /, *, chosen: Mapping[str, float] | None = None
) -> Answers:
    """Decide for the largest logit, the first of equal ones."""
    del chosen  # nothing is chosen for this decision
    outputs = batched(predict, source, prepare)
    decisions, labels = decode.largest(outputs[OUTPUT]), labels_of(source, WANTED)
    right = decisions == labels  # (N,)
    found = recalls(confusion(labels, decisions, outputs[OUTPUT].shape[1]))
    return Answers(
        outputs=outputs,
        decisions=decisions,
        score=right.astype(np.float64),
        value=float(right.mean()),
        others={"balanced accuracy": float(np.nanmean(found)), "worst class recall": float(np.nanmin(found))},
    )


def interval(answers: Answers, source: Source, /) -> Interval:
    """Return the accuracy with Wilson's interval, or resampled by groups where the source has some."""
    samples = len(answers.score)
    if source.groups is not None:
        return stats.bootstrap_interval(lambda n: mean_of(answers.score, n), samples, groups=source.groups)
    return stats.wilson_interval(int(answers.score.sum()), samples)


def compare(first: Answers, second: Answers, source: Source, /) -> Comparison:
    """Compare by the exact McNemar test with Tango's interval, or resampled by groups where the source has some.

    Raises ValueError when the two are empty or differ in length.
    """
    samples = len(first.score)
    if samples == 0 or len(second.score) != samples:
        raise ValueError(f"paired answers of {samples} and {len(second.score)} samples")
    agreement = float(np.mean(first.decisions == second.decisions))
    if source.groups is not None:

        def both(counts: Floats) -> tuple[Floats, Floats]:
            return mean_of(first.score, counts), mean_of(second.score, counts)

        return stats.paired_bootstrap(both, samples, agreement=agreement, groups=source.groups)
    gained, lost = int((second.score > first.score).sum()), int((second.score < first.score).sum())
    difference = stats.paired_difference_interval(gained, lost, samples)
    bounds = stats.paired_difference_interval(gained, lost, samples, confidence=stats.ONE_SIDED)
    return Comparison(
        samples=samples,
        value_float=first.value,
        value_int8=second.value,
        difference=difference.value,
        low=difference.low,
        high=difference.high,
        p=stats.mcnemar_p(gained, lost),
        detectable=stats.detectable_gap(samples, discordant=gained + lost),
        agreement=agreement,
        method="exact McNemar test, Tango 1998",
        one_sided_low=bounds.low,
        one_sided_high=bounds.high,
    )


def baselines(source: Source, /) -> Mapping[str, float]:
    """Return what drawing lots among the classes reaches, and what always naming the most frequent one does."""
    counts = np.unique(labels_of(source, WANTED), return_counts=True)[1]
    return {"chance": 1 / len(counts), "most frequent class": float(counts.max() / counts.sum())}


def legacy_names(comparison: Comparison, /) -> Mapping[str, float]:
    """Return shares as accuracies and differences in percentage points."""
    return {
        "accuracy_float": comparison.value_float,
        "accuracy_int8": comparison.value_int8,
        "difference_pp": 100 * comparison.difference,
        "low_pp": 100 * comparison.low,
        "high_pp": 100 * comparison.high,
        "mcnemar_p": comparison.p,
        "detectable_pp": 100 * comparison.detectable,
    }


# ── figures ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def figures(
    answers: Mapping[str, Answers], source: Source, classes: tuple[str, ...], put: Put, /
) -> tuple[Figure, ...]:
    """Return confusion matrices, the pairs confused most, each class's recall, and telling samples."""
    labels = labels_of(source, WANTED)
    counts = {title: confusion(labels, each.decisions, len(classes)) for title, each in answers.items()}
    return (
        *matrices(counts, classes, put),
        *_most_confused(counts, classes),
        _recall_per_class(counts, classes),
        *_telling_samples(tuple(each.decisions for each in answers.values()), labels, source, classes, put),
    )


def _most_confused(counts: Mapping[str, Indices], classes: Sequence[str]) -> tuple[Figure, ...]:
    """List the pairs of classes that are confused most, all ways of running together."""
    together = np.sum(list(counts.values()), axis=0)  # (K, K)
    np.fill_diagonal(together, 0)
    order = np.argsort(-together, axis=None, kind="stable")[:CONFUSIONS_SHOWN]
    places = [divmod(int(flat), len(classes)) for flat in order if together.flat[flat] > 0]
    rows = tuple(
        (classes[true], classes[decided], *(str(each[true, decided]) for each in counts.values()))
        for true, decided in places
    )
    return (Table(title="Most confused", columns=("true", "taken for", *counts), rows=rows),) if rows else ()


def _recall_per_class(counts: Mapping[str, Indices], classes: Sequence[str]) -> Figure:
    found = [recalls(each) for each in counts.values()]
    samples = next(iter(counts.values())).sum(1)
    rows = tuple(
        (name, str(samples[k]), *(share_text(recall[k]) for recall in found)) for k, name in enumerate(classes)
    )
    return Table(title="Recall per class", columns=("class", "samples", *counts), rows=rows)


def _telling_samples(
    decisions: Sequence[NDArray[Any]], labels: Indices, source: Source, classes: Sequence[str], put: Put
) -> tuple[Figure, ...]:
    """Show the samples on which float and int8 disagree, and those that both get wrong in the same way."""
    by_float, by_int8 = decisions[0], decisions[-1]
    differing, shared = disagreements(by_float, by_int8, labels), shared_errors(by_float, by_int8, labels)

    def caption(index: int) -> str:
        said = [f"float {classes[by_float[index]]}", f"int8 {classes[by_int8[index]]}"][: len(decisions)]
        return f"#{index}: {classes[labels[index]]}; {', '.join(said)}"

    title = "Both are wrong" if len(decisions) > 1 else "Float is wrong"
    shown = (
        ("Float and int8 disagree", differing, DISAGREEMENTS_SHOWN, "; first those lost by int8, then those gained"),
        (title, shared, SHARED_ERRORS_SHOWN, ""),
    )
    return tuple(
        samples_figure(
            title,
            source,
            indices[:most],
            [caption(int(index)) for index in indices[:most]],
            put,
            note=f"{min(len(indices), most)} of {len(indices)}, out of {len(labels)} test samples{order}",
        )
        for title, indices, most, order in shown
        if len(indices)
    )


def disagreements(by_float: NDArray[Any], by_int8: NDArray[Any], labels: NDArray[Any]) -> Indices:
    """Return samples with different decisions: first those that int8 lost, then those it gained, then the rest."""
    differing = np.flatnonzero(by_float != by_int8)
    rank = np.where(by_float == labels, 0, np.where(by_int8 == labels, 1, 2))
    return differing[np.argsort(rank[differing], kind="stable")]


def shared_errors(by_float: NDArray[Any], by_int8: NDArray[Any], labels: NDArray[Any]) -> Indices:
    """Return samples for which both decide the same, wrongly."""
    return np.flatnonzero((by_float == by_int8) & (by_float != labels))


def printing(output: Output, chosen: Mapping[str, float], /) -> tuple[str, ...]:
    """Print the class with the largest output."""
    del output, chosen
    return ("print(labels[y[0].argmax()])",)
