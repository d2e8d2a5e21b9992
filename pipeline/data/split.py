"""Dividing samples into training, validation and test: seeded, stratified, the same for ever.

A split that a source brings with it is kept.  The order in which samples are drawn comes from PCG64's raw output, which
NumPy promises never to change (NEP 19), so that a card's test split stays what it was, on every machine.

Shapes: N samples, K classes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.data.source import Dataset, Parts, Source, take
from pipeline.errors import DataError
from pipeline.spec import DatasetCard

_DRAWS = {"test": 1, "val": 2}  # tells the draws of one seed apart


def divide(parts: Parts, card: DatasetCard) -> Dataset:
    """Return the three splits; test and validation are drawn from the training part where the source brings none.

    Shares count from the source's training part.  Raises DataError when a split is empty, when there is but one class,
    or when a class is missing in a split.
    """
    _check_classes(parts, card)
    everything = np.arange(len(parts.train), dtype=np.int64)
    val, test, left = parts.val, parts.test, everything
    if test is None:
        drawn = _draw("test", card.split.test, parts, card, left=left)
        test, left = take(parts.train, drawn), np.setdiff1d(left, drawn, assume_unique=True)
    if val is None:
        drawn = _draw("val", card.split.val, parts, card, left=left)
        val, left = take(parts.train, drawn), np.setdiff1d(left, drawn, assume_unique=True)
    dataset = Dataset(card=card, classes=parts.classes, train=take(parts.train, left), val=_held(val), test=_held(test))
    for name, source in (("train", dataset.train), ("val", dataset.val), ("test", dataset.test)):
        _check_every_class(name, source, parts.classes, card)
    return dataset


def stratified_draw(
    labels: NDArray[np.int64], count: int, seed: int, draw: int, *, least: int = 1, keep: int = 0
) -> NDArray[np.int64]:
    """Return ``count`` sorted indices into ``labels``, each class in its share of the whole.

    At least ``least`` and at most all but ``keep`` samples of every class that occurs.  ``draw`` tells several draws
    with one seed apart.  Raises ValueError when no such draw exists.
    """
    present, per_class = np.unique(labels, return_counts=True)
    wanted = np.zeros(int(present.max(initial=-1)) + 1, dtype=np.int64)
    wanted[present] = _apportion(per_class.astype(np.int64), count, least=least, keep=keep)
    order = np.argsort(np.random.PCG64(np.random.SeedSequence([seed, draw])).random_raw(len(labels)), kind="stable")
    grouped = order[np.argsort(labels[order], kind="stable")]  # by class, at random inside
    starts = np.concatenate([[0], np.cumsum(per_class)[:-1]])
    rank = np.arange(len(labels)) - np.repeat(starts, per_class)
    chosen: NDArray[np.int64] = np.sort(grouped[rank < wanted[labels[grouped]]])
    return chosen


def _apportion(per_class: NDArray[np.int64], count: int, *, least: int, keep: int) -> NDArray[np.int64]:
    """Return how many of each class make up ``count``: the quotas of the whole, rounded by largest remainder."""
    most = per_class - keep
    if (most < least).any() or not least * len(per_class) <= count <= most.sum():
        raise ValueError(f"{count} of {per_class.sum()} samples cannot hold {least} or more of each class")
    quota = per_class * (count / per_class.sum())
    given: NDArray[np.int64] = np.clip(np.floor(quota).astype(np.int64), least, most)
    while (missing := count - int(given.sum())) != 0:
        step = 1 if missing > 0 else -1
        free = (given < most) if step > 0 else (given > least)
        given[np.argmax(np.where(free, step * (quota - given), -np.inf))] += step
    return given


def _count(split: str, wanted: float, total: int, card: DatasetCard) -> int:
    """Return the number of samples of a split that the card gives as a share or as a number."""
    count = round(wanted * total) if 0 < wanted < 1 else int(wanted) if 0 < wanted < total else 0
    if count < 1:
        raise DataError(
            f"[split] {split} = {wanted} of {total} samples leaves a split empty",
            where=card.name,
            remedy=f"write a share between 0 and 1, or a number from 1 to {max(total - 1, 1)}",
        )
    return count


def _draw(split: str, wanted: float, parts: Parts, card: DatasetCard, *, left: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return indices into the source's training part, drawn from those that are left."""
    labels = parts.train.labels
    count = _count(split, wanted, len(labels), card)
    still_to_fill = 2 if split == "test" and parts.val is None else 1  # every class must reach these splits too
    try:
        drawn = stratified_draw(labels[left], count, card.split.seed, _DRAWS[split], keep=still_to_fill)
    except ValueError as error:
        per_class = np.bincount(labels, minlength=len(parts.classes))
        rarest = int(per_class.argmin())
        raise DataError(
            f"a {split} split of {count} of {len(labels)} samples cannot leave every class in every split "
            f"({len(parts.classes)} classes; the rarest, '{parts.classes[rarest]}', has {per_class[rarest]} samples)",
            where=card.name,
            remedy="change [split] val and test in the card, add samples of the rare classes, or leave those out",
        ) from error
    return left[drawn]


def _held(source: Source) -> Source:
    return take(source, np.arange(len(source), dtype=np.int64))


def _check_classes(parts: Parts, card: DatasetCard) -> None:
    if len(parts.train) == 0:
        raise DataError("the training split is empty: 0 samples", where=card.name, remedy="add samples")
    if len(np.unique(parts.train.labels)) < 2:
        only = parts.classes[int(parts.train.labels[0])]
        raise DataError(
            f"all {len(parts.train)} samples are of one class, '{only}'; there is nothing to tell apart",
            where=card.name,
            remedy="add samples of a second class, or check the labels",
        )
    _check_every_class("train", parts.train, parts.classes, card)


def _check_every_class(split: str, source: Source, classes: tuple[str, ...], card: DatasetCard) -> None:
    if not len(source):
        raise DataError(f"the {split} split is empty: 0 samples", where=card.name, remedy="add samples")
    per_class = np.bincount(source.labels, minlength=len(classes))
    missing = [classes[number] for number in np.flatnonzero(per_class == 0)]
    if missing:
        raise DataError(
            f"the {split} split ({len(source)} samples) holds none of the class '{missing[0]}'"
            + (f" and {len(missing) - 1} others" if len(missing) > 1 else ""),
            where=card.name,
            remedy="add samples of that class, or take it out of the card's classes",
        )
