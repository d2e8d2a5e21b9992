"""A class for every pixel: cross-entropy per pixel, mean intersection over union, the largest logit.

Shapes: N pictures, n of a batch, B resamples, M pictures shown, C channels, H height, W width, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.evidence import Answers, Comparison, Figure, Interval, Metric, Pictures, Table
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
from pipeline.tasks.confusion import confusion, matrices, share_text, shares
from pipeline.tasks.inputs import as_bytes, first_input, is_picture
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

METRIC = Metric(name="mIoU", unit="share", higher_is_better=True)
OTHERS: tuple[Metric, ...] = (
    Metric(name="pixel accuracy", unit="share", higher_is_better=True),
    Metric(name="worst class IoU", unit="share", higher_is_better=True),
)
WANTED: Wanted = "mask"
choose = plain.choose
exported = plain.exported
legacy_names = plain.legacy_names

MOST_CLASSES = 256  # a mask is a byte per pixel
OVERLAYS_SHOWN = 16
_OPACITY = 0.6  # of a mask's colours over the picture
_GAP_PX = 2  # white, between the views of one picture
_DISTILLATION_TEMPERATURE = 3.0
# Okabe & Ito, 2008: told apart with every kind of colour vision; their black would be lost on dark pictures
_PALETTE = np.array(
    [[230, 159, 0], [86, 180, 233], [0, 158, 115], [240, 228, 66], [0, 114, 178], [213, 94, 0], [204, 121, 167]],
    np.float64,
)


def signature(card: DatasetCard, classes: tuple[str, ...], wanted: tuple[int, ...], /) -> Signature:
    """Ask for a map of logits per class.  Raises ConfigError unless pictures come with masks of the same size."""
    shape = card.input.shape
    if len(shape) != 3 or wanted != shape[1:]:
        raise ConfigError(
            f"card '{card.name}': segmentation needs pictures (C, H, W) with masks (H, W), "
            f"not inputs {shape} with labels of shape {wanted}"
        )
    if not 2 <= len(classes) <= MOST_CLASSES:
        raise ConfigError(f"card '{card.name}': segmentation needs 2 … {MOST_CLASSES} classes, not {len(classes)}")
    return Signature(inputs=(input_spec(card),), outputs=(output_spec((len(classes), *wanted), "KHW"),))


def updates(plan: TrainSpec, /, *, teacher: Any = None, weight: float = 0.0) -> tuple[Update, ...]:
    """Cross-entropy of every pixel with label smoothing, mixed with the teacher's softened maps.

    Distillation: Hinton et al. 2015, at temperature 3.
    """
    import torch  # noqa: PLC0415  (a recalled run must not load it)

    functional, t = torch.nn.functional, _DISTILLATION_TEMPERATURE
    softened = functional.log_softmax

    def loss(network: Any, inputs: Any, wanted: Mapping[str, Any]) -> Any:
        logits = network(inputs)  # (n, K, H, W)
        hard = functional.cross_entropy(logits, wanted[WANTED].long(), label_smoothing=plan.label_smoothing)
        if teacher is None:
            return hard
        with torch.no_grad():
            aim = softened(teacher(inputs) / t, 1)  # (n, K, H, W)
        apart = functional.kl_div(softened(logits / t, 1), aim, reduction="none", log_target=True)  # (n, K, H, W)
        return weight * apart.sum(1).mean() * t * t + (1 - weight) * hard

    return (Update(parameters=all_parameters, loss=loss),)


# ── deciding and comparing ──────────────────────────────────────────────────────────────────────────────────────────


def answer(
    predict: Predict, source: Source, prepare: Prepare, /, *, chosen: Mapping[str, float] | None = None
) -> Answers:
    """Decide for each pixel's largest logit, the first of equal ones; score: a picture's share of right pixels."""
    del chosen  # nothing is chosen for this decision
    outputs = batched(predict, source, prepare)
    masks, wanted = decode.largest(outputs[OUTPUT]).astype(np.uint8), labels_of(source, WANTED)  # (N, H, W)
    score = (masks == wanted).mean((1, 2))
    each_class = intersection_over_union(confusion(wanted, masks, outputs[OUTPUT].shape[1]))
    return Answers(
        outputs=outputs,
        decisions=masks,
        score=score,
        value=float(np.nanmean(each_class)),
        others={"pixel accuracy": float(score.mean()), "worst class IoU": float(np.nanmin(each_class))},
    )


def intersection_over_union(counts: Indices) -> Floats:
    """Return each class's pixels that are right, over those that are or are called so, (K,); nan where there are none.

    ``counts`` (K, K): true class down, decided class across, summed over all pictures.
    """
    both = np.diag(counts)
    return shares(both, counts.sum(0) + counts.sum(1) - both)


@dataclass(frozen=True, kw_only=True)
class _Overlap:
    """Pixels of every picture and class: right ones, and those that are or are called so."""

    both: Floats  # (N, K)
    either: Floats  # (N, K)

    def mean_iou(self, counts: Floats) -> Floats:
        """Return the metric (B,) when picture i is there ``counts`` (B, N) times."""
        each_class = shares(counts @ self.both, counts @ self.either)  # (B, K)
        means: Floats = np.nanmean(each_class, axis=1)
        return means


def _overlap(masks: NDArray[Any], wanted: NDArray[Any], classes: int) -> _Overlap:
    pictures = np.arange(len(masks)).reshape(-1, 1, 1) * classes

    def per_picture(chosen: NDArray[Any]) -> Floats:
        return np.bincount(chosen.ravel(), minlength=len(masks) * classes).reshape(-1, classes).astype(np.float64)

    both = per_picture((pictures + wanted)[masks == wanted])
    return _Overlap(both=both, either=per_picture(pictures + masks) + per_picture(pictures + wanted) - both)


def _overlap_of(answers: Answers, source: Source) -> _Overlap:
    return _overlap(answers.decisions, labels_of(source, WANTED), answers.outputs[OUTPUT].shape[1])


def interval(answers: Answers, source: Source, /) -> Interval:
    """Return the mean intersection over union with its bootstrap interval over pictures."""
    overlap = _overlap_of(answers, source)
    return stats.bootstrap_interval(overlap.mean_iou, len(answers.score), groups=source.groups)


def compare(first: Answers, second: Answers, source: Source, /) -> Comparison:
    """Compare means of intersection over union, pictures resampled for both together; agreement: of pixels."""
    before, after = (_overlap_of(each, source) for each in (first, second))
    return stats.paired_bootstrap(
        lambda counts: (before.mean_iou(counts), after.mean_iou(counts)),
        len(first.score),
        agreement=float(np.mean(first.decisions == second.decisions)),
        groups=source.groups,
    )


def baselines(source: Source, /) -> Mapping[str, float]:
    """Return the mean intersection over union of naming the most frequent class everywhere."""
    pixels = np.unique(labels_of(source, WANTED), return_counts=True)[1]
    return {"most frequent class": float(pixels.max() / pixels.sum() / len(pixels))}


# ── figures ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def figures(
    answers: Mapping[str, Answers], source: Source, classes: tuple[str, ...], put: Put, /
) -> tuple[Figure, ...]:
    """Return pictures with true and found masks over them, each class's figures, and which pixels are taken for which.

    Pictures with fewer or more channels than 1 or 3 are left out.
    """
    wanted = labels_of(source, WANTED)
    counts = {title: confusion(wanted, each.decisions, len(classes)) for title, each in answers.items()}
    return (
        *_overlays(tuple(answers.values()), wanted, source, put),
        _iou_per_class(counts, classes),
        *matrices(counts, classes, put),
    )


def _iou_per_class(counts: Mapping[str, Indices], classes: Sequence[str]) -> Figure:
    found = [intersection_over_union(each) for each in counts.values()]
    pixels = next(iter(counts.values())).sum(1)
    rows = tuple((name, str(pixels[k]), *(share_text(iou[k]) for iou in found)) for k, name in enumerate(classes))
    return Table(title="Intersection over union per class", columns=("class", "pixels", *counts), rows=rows)


def _overlays(answers: Sequence[Answers], wanted: NDArray[Any], source: Source, put: Put) -> tuple[Figure, ...]:
    shown = _telling(answers)
    raw = first_input(source, shown)  # (M, C, H, W)
    if not is_picture(raw.shape[1:]):
        return ()
    pictures = np.broadcast_to(as_bytes(raw), (len(raw), 3, *raw.shape[2:]))
    views = [pictures, *(overlay(pictures, masks[shown]) for masks in (wanted, *(each.decisions for each in answers)))]
    gap = np.full((len(raw), 3, raw.shape[2], _GAP_PX), 255, np.uint8)
    beside = np.concatenate([part for view in views for part in (view, gap)][:-1], axis=3)  # (M, 3, H, 3 or 4 W + gaps)
    right = dict(zip(("float", "int8"), (each.score for each in answers), strict=False))  # int8 may be missing
    captions = tuple(
        f"#{i}: " + ", ".join(f"{name} {share_text(score[i])}" for name, score in right.items()) for i in shown
    )
    found = "found by float" + (", found by int8" if len(answers) > 1 else "")
    note = f"From left to right: picture, true mask, {found}; with each one's share of right pixels."
    return (Pictures(title="Masks", images=put(beside), captions=captions, note=note),)


def _telling(answers: Sequence[Answers]) -> Indices:
    """Choose pictures: half of them where float and int8 differ most, half from the best to the worst."""
    first, last = answers[0], answers[-1]
    differing = (first.decisions != last.decisions).mean((1, 2))
    most = np.argsort(-differing, kind="stable")[: OVERLAYS_SHOWN // 2]
    most = most[differing[most] > 0]
    ranked = np.argsort(-first.score, kind="stable")
    spread = ranked[np.linspace(0, len(ranked) - 1, OVERLAYS_SHOWN - len(most)).astype(int)]
    return np.array(list(dict.fromkeys((*most.tolist(), *spread.tolist()))), np.int64)


def overlay(pictures: NDArray[np.uint8], masks: NDArray[Any]) -> NDArray[np.uint8]:
    """Colour pictures (M, 3, H, W) by masks (M, H, W); class 0 is taken for the background and stays as it is."""
    turn, colour = np.divmod(np.maximum(masks.astype(np.int64), 1) - 1, len(_PALETTE))
    colours = _PALETTE[colour] / (1 + turn[..., None])  # (M, H, W, 3); beyond the palette the same ones, darker
    mixed = (1 - _OPACITY) * pictures + _OPACITY * np.moveaxis(colours, -1, 1)
    coloured: NDArray[np.uint8] = np.round(np.where(masks[:, None] > 0, mixed, pictures)).astype(np.uint8)
    return coloured


def printing(output: Output, chosen: Mapping[str, float], /) -> tuple[str, ...]:
    """Print each class's share of the picture."""
    del output, chosen
    return (
        "mask = y[0].argmax(0)  # (H, W): the class of each pixel",
        "print({label: float((mask == number).mean()) for number, label in enumerate(labels)})",
    )
