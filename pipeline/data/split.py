"""Dividing samples into training, validation and test: seeded, stratified, the same for ever.

A split that a source brings with it is kept.  The order in which samples are drawn comes from PCG64's raw output, which
NumPy promises never to change (NEP 19), so that a card's test split stays what it was, on every machine.

Shapes: N samples, K strata (classes).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.data.groups import grouped_draw
from pipeline.data.source import Indices, Parts, Source, everything, take
from pipeline.declare.card import DatasetCard
from pipeline.errors import DataError

Splits = dict[str, Source]  # "train", "val", "test" → its samples

_DRAWS = {"test": 1, "val": 2}  # tells the draws of one seed apart


def divide(parts: Parts, card: DatasetCard) -> Splits:
    """Return the three splits; test and validation are drawn from the training part where the source brings none.

    Shares count from the source's training part.  Samples of one group stay together: whole groups are drawn, so that
    sizes are as near to what the card says as they can be.  Raises DataError when a split is empty, when there is but
    one class, when a class is missing in a split, or when a group lies in two splits that the source brings.
    """
    _check_parts(parts, card)
    val, test, left = parts.val, parts.test, everything(parts.train)
    if test is None:
        drawn = _draw("test", card.split.test, parts, card, left=left)
        test, left = take(parts.train, drawn), np.setdiff1d(left, drawn, assume_unique=True)
    if val is None:
        drawn = _draw("val", card.split.val, parts, card, left=left)
        val, left = take(parts.train, drawn), np.setdiff1d(left, drawn, assume_unique=True)
    splits = {"train": take(parts.train, left), "val": _held(val), "test": _held(test)}
    for name, source in splits.items():
        _check_every_stratum(name, source, parts.classes, card)
    _check_groups(splits, card)
    return splits


def draw(
    source: Source, left: Indices, count: int, seed: int, number: int, *, least: int = 1, keep: int = 0
) -> Indices:
    """Return ``count`` sorted indices into ``source`` out of those ``left``: stratified, whole groups, or plain.

    With groups, about ``count``.  The rest is as in ``stratified_draw``.
    """
    strata = np.zeros(len(left), dtype=np.int64) if source.strata is None else source.strata[left]
    if source.groups is None:
        return left[stratified_draw(strata, count, seed, number, least=least, keep=keep)]
    return left[grouped_draw(strata, source.groups[left], count, raw_order(len(left), seed, number), keep=keep)]


def stratified_draw(strata: Indices, count: int, seed: int, number: int, *, least: int = 1, keep: int = 0) -> Indices:
    """Return ``count`` sorted indices into ``strata``, each stratum in its share of the whole.

    At least ``least`` and at most all but ``keep`` samples of every stratum that occurs.  ``number`` tells several
    draws with one seed apart.  Raises ValueError when no such draw exists.
    """
    present, per_stratum = np.unique(strata, return_counts=True)
    wanted = np.zeros(int(present.max(initial=-1)) + 1, dtype=np.int64)
    wanted[present] = _apportion(per_stratum.astype(np.int64), count, least=least, keep=keep)
    order = raw_order(len(strata), seed, number)
    sorted_by_stratum = order[np.argsort(strata[order], kind="stable")]  # at random inside each
    starts = np.concatenate([[0], np.cumsum(per_stratum)[:-1]])
    rank = np.arange(len(strata)) - np.repeat(starts, per_stratum)
    chosen: Indices = np.sort(sorted_by_stratum[rank < wanted[strata[sorted_by_stratum]]])
    return chosen


def raw_order(samples: int, seed: int, number: int) -> Indices:
    """Return 0 … samples-1 in a random order that never changes for a seed and the number of the draw."""
    raw = np.random.PCG64(np.random.SeedSequence([seed, number])).random_raw(samples)
    order: Indices = np.argsort(raw, kind="stable")
    return order


def _apportion(per_stratum: Indices, count: int, *, least: int, keep: int) -> Indices:
    """Return how many of each stratum make up ``count``: the quotas of the whole, rounded by largest remainder."""
    most = per_stratum - keep
    if (most < least).any() or not least * len(per_stratum) <= count <= most.sum():
        raise ValueError(f"{count} of {per_stratum.sum()} samples cannot hold {least} or more of each class")
    quota = per_stratum * (count / per_stratum.sum())
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


def _draw(split: str, wanted: float, parts: Parts, card: DatasetCard, *, left: Indices) -> Indices:
    """Return indices into the source's training part, drawn from those that are left."""
    count = _count(split, wanted, len(parts.train), card)
    still_to_fill = 2 if split == "test" and parts.val is None else 1  # every stratum must reach these splits too
    try:
        return draw(parts.train, left, count, card.split.seed, _DRAWS[split], keep=still_to_fill)
    except ValueError as error:
        raise _cannot_divide(split, count, parts, card) from error


def _cannot_divide(split: str, count: int, parts: Parts, card: DatasetCard) -> DataError:
    remedy = "change [split] val and test in the card, add samples of the rare classes, or leave those out"
    strata, groups = parts.train.strata, parts.train.groups
    said = f"a {split} split of {count} of {len(parts.train)} samples cannot leave"
    if groups is not None:
        number = len(np.unique(groups))
        remedy = "add groups, bring the splits yourself, or take the groups out of the card and the data"
        said += f" whole groups and every class in every split ({number} groups" if strata is not None else ""
        said += f" a whole group in every split ({number} groups" if strata is None else ""
    elif strata is None:
        said += " a sample in every split (nothing is classified"
    else:
        said += f" every class in every split ({_number_of_classes(parts, strata)} classes"
    if strata is not None:
        per_class = _per_class(strata, groups, parts.classes)
        rarest = int(per_class.argmin())
        unit = "samples" if groups is None else "groups"
        said += f"; the rarest, '{_named(rarest, parts.classes)}', has {per_class[rarest]} {unit}"
    return DataError(said + ")", where=card.name, remedy=remedy)


def _per_class(strata: Indices, groups: Indices | None, classes: tuple[str, ...]) -> Indices:
    """Return in how many samples, or groups, each stratum occurs."""
    if groups is not None:
        strata = np.unique(np.stack([strata, groups], axis=1), axis=0)[:, 0]
    return np.bincount(strata, minlength=len(classes)).astype(np.int64)


def _number_of_classes(parts: Parts, strata: Indices) -> int:
    return len(parts.classes) or len(np.unique(strata))


def _named(stratum: int, classes: tuple[str, ...]) -> str:
    return classes[stratum] if stratum < len(classes) else f"stratum {stratum}"


def _held(source: Source) -> Source:
    return take(source, everything(source))


# ── checks ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _check_parts(parts: Parts, card: DatasetCard) -> None:
    if len(parts.train) == 0:
        raise DataError("the training split is empty: 0 samples", where=card.name, remedy="add samples")
    strata = parts.train.strata
    if strata is not None and len(np.unique(strata)) < 2:
        raise DataError(
            f"all {len(parts.train)} samples are of one class, '{_named(int(strata[0]), parts.classes)}'; "
            "there is nothing to tell apart",
            where=card.name,
            remedy="add samples of a second class, or check the labels",
        )
    _check_every_stratum("train", parts.train, parts.classes, card)


def _check_every_stratum(split: str, source: Source, classes: tuple[str, ...], card: DatasetCard) -> None:
    if not len(source):
        raise DataError(f"the {split} split is empty: 0 samples", where=card.name, remedy="add samples")
    if source.strata is None:
        return
    per_class = np.bincount(source.strata, minlength=len(classes))[: len(classes) or None]
    missing = [_named(int(number), classes) for number in np.flatnonzero(per_class == 0)]
    if missing and classes:
        raise DataError(
            f"the {split} split ({len(source)} samples) holds none of the class '{missing[0]}'"
            + (f" and {len(missing) - 1} others" if len(missing) > 1 else ""),
            where=card.name,
            remedy="add samples of that class, or take it out of the card's classes",
        )


def _check_groups(splits: Splits, card: DatasetCard) -> None:
    """Refuse a group in two splits that a source brings: it would make the test easier than the world is."""
    for first, second in (("train", "val"), ("train", "test"), ("val", "test")):
        one, other = splits[first].groups, splits[second].groups
        both = np.intersect1d(one, other) if one is not None and other is not None else ()
        if len(both):
            raise DataError(
                f"{len(both)} groups are in the {first} split and in the {second} split too",
                where=card.name,
                remedy="leave every group in one split; or bring no splits: karui then draws whole groups",
            )
