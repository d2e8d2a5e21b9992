"""From a file's outputs to what they mean, sample by sample: a class, numbers, a class for every pixel.

Shapes: n samples, K classes, T numbers, H height, W width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Callable

import numpy as np
from numpy.typing import NDArray

from pipeline.onboard import decode
from pipeline.onboard.about import PROBABILITIES, About, Output
from pipeline.onboard.arrays import Arrays

THRESHOLD = "threshold"
TOP = 3


@dataclass(frozen=True)
class Answer:
    """What a network says about one sample."""

    label: str = ""  # the decision, where there is one
    top: tuple[tuple[str, float], ...] = ()  # the likeliest classes and their probabilities
    numbers: dict[str, float] = field(default_factory=dict)  # what was predicted; of a mask each class's share
    mask: NDArray[Any] | None = None  # (H, W): the class of each pixel, in as few bytes as it needs

    @property
    def words(self) -> dict[str, Any]:
        """Return it as JSON has it, without the mask."""
        if self.top:
            top = [{"class": label, "probability": round(share, 6)} for label, share in self.top]
            return {"class": self.label, "top": top}
        return {"shares" if self.mask is not None else "numbers": self.numbers}


def answers_of(outputs: Arrays, about: About, decision: Mapping[str, float]) -> list[Answer]:
    """Return an answer for each of n samples; ``decision``: settings that were chosen for it (a threshold)."""
    first = about.outputs[0]
    make = _ANSWERS.get(about.task, _numbers)
    return make(outputs[first.name], first, about.labels, decision)


def label_of(labels: tuple[str, ...], place: int) -> str:
    """Return the name of a class, its number where it has none."""
    return labels[place] if place < len(labels) else str(place)


def _classes(
    values: NDArray[Any], output: Output, labels: tuple[str, ...], decision: Mapping[str, float]
) -> list[Answer]:
    del decision  # the largest one needs no setting
    shares = values if output.holds == PROBABILITIES else decode.softmax(values)  # (n, K)
    decided = decode.largest(values)  # (n,): of the outputs themselves, as everywhere else
    order = np.argsort(-values, axis=1, kind="stable")[:, :TOP]
    return [
        Answer(
            label=label_of(labels, int(decided[row])),
            top=tuple((label_of(labels, int(place)), float(shares[row, place])) for place in order[row]),
        )
        for row in range(len(values))
    ]


def _yes_or_no(
    values: NDArray[Any], output: Output, labels: tuple[str, ...], decision: Mapping[str, float]
) -> list[Answer]:
    likely = output.holds == PROBABILITIES
    threshold = decision.get(THRESHOLD, 0.5 if likely else 0.0)
    yes = decode.above(values[:, 0], threshold)  # (n,)
    shares = values[:, 0] if likely else decode.sigmoid(values[:, 0])
    found = []
    for decided, share in zip(yes.tolist(), shares.tolist()):
        both = ((label_of(labels, 0), 1 - share), (label_of(labels, 1), share))
        found.append(Answer(label=both[decided][0], top=tuple(sorted(both, key=lambda each: -each[1]))))
    return found


def _numbers(
    values: NDArray[Any], output: Output, labels: tuple[str, ...], decision: Mapping[str, float]
) -> list[Answer]:
    del decision  # numbers are what they are
    rows = values.reshape(len(values), -1).astype(np.float64) * output.times
    names = (
        labels if len(labels) == rows.shape[1] else tuple(f"{output.name} {place}" for place in range(rows.shape[1]))
    )
    return [Answer(numbers=dict(zip(names, row.tolist()))) for row in rows]


def _masks(
    values: NDArray[Any], output: Output, labels: tuple[str, ...], decision: Mapping[str, float]
) -> list[Answer]:
    del output, decision  # the largest one needs no setting
    masks, classes = decode.largest(values), values.shape[1]  # (n, H, W)
    found = []
    for mask in masks:
        shares = np.bincount(mask.ravel(), minlength=classes) / mask.size
        named = {label_of(labels, k): float(shares[k]) for k in range(classes)}
        found.append(Answer(numbers=named, mask=mask.astype(np.min_scalar_type(classes - 1))))
    return found


_Make = Callable[[NDArray[Any], Output, "tuple[str, ...]", Mapping[str, float]], "list[Answer]"]
# a task that is not here gives its numbers
_ANSWERS: dict[str, _Make] = {
    "binary": _yes_or_no,
    "classification": _classes,
    "segmentation": _masks,
}
