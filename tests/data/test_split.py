"""Splits: disjoint, complete, stratified, seeded, the same for ever; and what cannot be divided."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.data.calibration import calibration_indices
from pipeline.data.source import ArraySource, Dataset, Parts, Subset
from pipeline.data.split import divide, stratified_draw
from pipeline.errors import DataError
from pipeline.spec import DatasetCard
from tests.data.sets import card

COUNTS = st.lists(st.integers(5, 40), min_size=2, max_size=6)  # samples per class
SEEDS = st.integers(0, 2**32 - 1)
FROZEN_DRAW = [7, 10, 11, 15, 18, 23]


def parts_of(per_class: list[int]) -> Parts:
    """Return samples that hold their own number, with shuffled labels."""
    labels = np.repeat(np.arange(len(per_class)), per_class).astype(np.int64)
    np.random.default_rng(0).shuffle(labels)
    numbers = np.arange(len(labels), dtype=np.int32)[:, None]
    classes = tuple(f"c{number}" for number in range(len(per_class)))
    return Parts(classes=classes, train=ArraySource(samples=numbers, labels=labels))


def declared(val: float, test: float, seed: int = 0, **more: Any) -> DatasetCard:
    return card("npz", (1,), **{"split": {"seed": seed, "val": val, "test": test}, **more})


def numbers(dataset: Dataset) -> list[list[int]]:
    """Return which samples lie in train, val and test."""
    return [split.read(np.arange(len(split)))[:, 0].tolist() for split in (dataset.train, dataset.val, dataset.test)]


@given(COUNTS, SEEDS, st.sampled_from([0.2, 0.25, 0.3]), st.sampled_from([0.2, 0.25, 0.3]))
def test_splits_are_disjoint_complete_and_stratified(per_class: list[int], seed: int, val: float, test: float) -> None:
    parts = parts_of(per_class)
    dataset = divide(parts, declared(val, test, seed))
    train_numbers, val_numbers, test_numbers = numbers(dataset)
    total = sum(per_class)
    assert sorted(train_numbers + val_numbers + test_numbers) == list(range(total))
    assert (len(val_numbers), len(test_numbers)) == (round(val * total), round(test * total))
    for split, share in ((dataset.val, val), (dataset.test, test)):
        held = np.bincount(split.labels, minlength=len(per_class))
        # largest remainder: less than 1 from the quota; 1 more for the rounding of the split's size,
        # and 1 for the classes that the other draw made a little larger or smaller
        assert np.abs(held - share * np.array(per_class)).max() < 3
        assert held.min() >= 1
    for split, chosen in zip((dataset.train, dataset.val, dataset.test), numbers(dataset), strict=True):
        assert np.array_equal(split.labels, parts.train.labels[chosen])


@given(COUNTS, SEEDS)
def test_the_seed_decides(per_class: list[int], seed: int) -> None:
    parts = parts_of(per_class)
    first = numbers(divide(parts, declared(0.2, 0.2, seed)))
    assert numbers(divide(parts, declared(0.2, 0.2, seed))) == first
    # the test split does not move when only the validation split is changed
    assert numbers(divide(parts, declared(0.3, 0.2, seed)))[2] == first[2]


def test_other_seeds_give_other_splits() -> None:
    parts = parts_of([40, 40])
    seen = {tuple(numbers(divide(parts, declared(0.2, 0.2, seed)))[2]) for seed in range(20)}
    assert len(seen) == 20


def test_the_draw_stays_what_it_was() -> None:
    # written down once: published figures stand for these samples
    labels = np.arange(30, dtype=np.int64) % 3
    assert stratified_draw(labels, 6, 0, 1).tolist() == FROZEN_DRAW
    assert stratified_draw(labels, 6, 0, 2).tolist() != FROZEN_DRAW


@given(COUNTS, SEEDS, st.data())
def test_a_draw_is_within_one_of_each_quota(per_class: list[int], seed: int, data: st.DataObject) -> None:
    labels = parts_of(per_class).train.labels
    count = data.draw(st.integers(0, len(labels)))
    drawn = stratified_draw(labels, count, seed, 1, least=0)
    assert len(drawn) == len(set(drawn.tolist())) == count
    assert np.array_equal(drawn, np.sort(drawn))
    quota = np.array(per_class) * count / len(labels)
    assert np.abs(np.bincount(labels[drawn], minlength=len(per_class)) - quota).max() < 1 + 1e-9


@given(COUNTS, st.data())
def test_a_draw_keeps_what_it_must(per_class: list[int], data: st.DataObject) -> None:
    labels = parts_of(per_class).train.labels
    count = data.draw(st.integers(len(per_class), len(labels) - 2 * len(per_class)))
    held = np.bincount(labels[stratified_draw(labels, count, 0, 1, least=1, keep=2)], minlength=len(per_class))
    assert held.min() >= 1
    assert (np.array(per_class) - held).min() >= 2


def test_every_class_reaches_every_split_however_rare() -> None:
    dataset = divide(parts_of([500, 3]), declared(0.1, 0.1))
    for split in (dataset.train, dataset.val, dataset.test):
        assert (split.labels == 1).sum() == 1


def test_numbers_of_samples_are_exact() -> None:
    assert [len(split) for split in numbers(divide(parts_of([30, 50, 20]), declared(17, 23)))] == [60, 17, 23]


def test_own_test_split_is_kept_and_shares_count_from_the_training_part() -> None:
    parts = parts_of([20, 20])
    own = ArraySource(samples=np.full((4, 1), -1, dtype=np.int32), labels=np.array([0, 1, 0, 1]))
    dataset = divide(Parts(classes=parts.classes, train=parts.train, test=own), declared(0.25, 0.9))
    assert [len(split) for split in numbers(dataset)] == [30, 10, 4]
    assert numbers(dataset)[2] == [-1] * 4


@pytest.mark.parametrize("own", [False, True])
def test_sources_beyond_the_budget_are_viewed_not_held(monkeypatch: pytest.MonkeyPatch, own: bool) -> None:
    parts = parts_of([40, 40])
    if own:
        parts = Parts(classes=parts.classes, train=parts.train, val=parts.train, test=parts.train)
    held = divide(parts, declared(0.2, 0.2))
    monkeypatch.setattr("pipeline.data.source.MEMORY_BUDGET_BYTES", 40 * 4)
    viewed = divide(parts, declared(0.2, 0.2))
    assert isinstance(held.train, ArraySource)
    assert isinstance(viewed.train, Subset)
    assert numbers(viewed) == numbers(held)


@pytest.mark.parametrize(
    ("per_class", "val", "test", "says"),
    [
        ([40, 40], 0.0, 0.2, r"\[split\] val = 0.0 of 80 samples leaves a split empty"),
        ([40, 40], 0.2, 0, r"\[split\] test = 0.* of 80 samples leaves a split empty"),
        ([40, 40], 0.001, 0.2, r"val = 0.001 of 80 samples leaves a split empty"),
        ([40, 40], 0.2, 80, r"test = 80.* of 80 samples leaves a split empty"),
        ([40, 40], -1, 0.2, r"val = -1.* leaves a split empty"),
        ([40, 40], 0.5, 0.5, r"a val split of 40 of 80 samples cannot leave every class in every split"),
        ([40, 40], 1, 0.2, r"a val split of 1 of 80 samples cannot leave every class in every split \(2 classes"),
        ([40, 2], 0.2, 0.2, r"the rarest, 'c1', has 2 samples"),
        ([40], 0.2, 0.2, r"all 40 samples are of one class, 'c0'"),
        ([40, 0], 0.2, 0.2, r"all 40 samples are of one class, 'c0'"),
        ([40, 0, 40], 0.2, 0.2, r"the train split \(80 samples\) holds none of the class 'c1'"),
        ([], 0.2, 0.2, r"the training split is empty: 0 samples"),
    ],
)
def test_what_cannot_be_divided(per_class: list[int], val: float, test: float, says: str) -> None:
    with pytest.raises(DataError, match=says) as caught:
        divide(parts_of(per_class), declared(val, test))
    assert caught.value.remedy
    assert caught.value.where == "set"


def test_an_own_split_that_is_empty() -> None:
    parts = parts_of([20, 20])
    nothing = ArraySource(samples=np.empty((0, 1)), labels=np.empty(0, dtype=np.int64))
    with pytest.raises(DataError, match="the test split is empty: 0 samples"):
        divide(Parts(classes=parts.classes, train=parts.train, test=nothing), declared(0.2, 0.2))


# ── calibration ─────────────────────────────────────────────────────────────────────────────────────────────────────


def shares(dataset: Dataset, chosen: NDArray[np.int64]) -> list[int]:
    return [int((dataset.train.labels[chosen] == number).sum()) for number in range(len(dataset.classes))]


def test_calibration_is_a_seeded_stratified_draw_from_the_training_split() -> None:
    dataset = divide(parts_of([100, 50, 50]), declared(0.25, 0.25, calibration={"samples": 40}))
    chosen = calibration_indices(dataset)
    assert shares(dataset, chosen) == [20, 10, 10]
    assert np.array_equal(chosen, calibration_indices(dataset))
    other = divide(parts_of([100, 50, 50]), declared(0.25, 0.25, seed=1, calibration={"samples": 40}))
    assert not np.array_equal(chosen, calibration_indices(other))


@pytest.mark.parametrize(("asked", "given_samples"), [(1, 1), (3, 3), (10_000, 48)])
def test_calibration_of_few_or_of_all(asked: int, given_samples: int) -> None:
    dataset = divide(parts_of([20] * 4), declared(0.2, 0.2, calibration={"samples": asked}))
    assert len(calibration_indices(dataset)) == given_samples
