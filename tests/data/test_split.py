"""Splits: disjoint, complete, stratified, seeded, the same for ever; and what cannot be divided."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.data.calibration import calibration_indices
from pipeline.data.source import INPUT, ArraySource, Dataset, Indices, Parts, Source, Subset, everything
from pipeline.data.split import divide, draw, stratified_draw
from pipeline.declare.card import DatasetCard
from pipeline.errors import DataError
from tests.data.sets import card, classes_in, samples

COUNTS = st.lists(st.integers(5, 40), min_size=2, max_size=6)  # samples per class
SEEDS = st.integers(0, 2**32 - 1)
FROZEN_DRAW = [7, 10, 11, 15, 18, 23]


def source_of(numbers: NDArray[np.int32], labels: Indices | None, groups: Indices | None = None) -> ArraySource:
    """Return samples that are numbers (N, 1), with classes and groups if there are any."""
    wanted = {} if labels is None else {"class": labels}
    return ArraySource(inputs={INPUT: numbers}, labels=wanted, strata=labels, groups=groups)


def parts_of(per_class: list[int]) -> Parts:
    """Return samples that hold their own number, with shuffled labels."""
    labels = np.repeat(np.arange(len(per_class)), per_class).astype(np.int64)
    np.random.default_rng(0).shuffle(labels)
    numbers = np.arange(len(labels), dtype=np.int32)[:, None]
    classes = tuple(f"c{number}" for number in range(len(per_class)))
    return Parts(classes=classes, train=source_of(numbers, labels))


def declared(val: float, test: float, seed: int = 0, **more: Any) -> DatasetCard:
    return card("npz", (1,), **{"split": {"seed": seed, "val": val, "test": test}, **more})


def divided(parts: Parts, card: DatasetCard) -> Dataset:
    """Divide; no preprocessing."""
    splits = divide(parts, card)
    return Dataset(
        card=card,
        classes=parts.classes,
        train=splits["train"],
        val=splits["val"],
        test=splits["test"],
        frontend={},
    )


def numbers(dataset: Dataset) -> list[list[int]]:
    """Return which samples lie in train, val and test."""
    return [
        samples(split, np.arange(len(split)))[:, 0].tolist() for split in (dataset.train, dataset.val, dataset.test)
    ]


@given(COUNTS, SEEDS, st.sampled_from([0.2, 0.25, 0.3]), st.sampled_from([0.2, 0.25, 0.3]))
def test_splits_are_disjoint_complete_and_stratified(per_class: list[int], seed: int, val: float, test: float) -> None:
    parts = parts_of(per_class)
    dataset = divided(parts, declared(val, test, seed))
    train_numbers, val_numbers, test_numbers = numbers(dataset)
    total = sum(per_class)
    assert sorted(train_numbers + val_numbers + test_numbers) == list(range(total))
    assert (len(val_numbers), len(test_numbers)) == (round(val * total), round(test * total))
    for split, share in ((dataset.val, val), (dataset.test, test)):
        held = np.bincount(classes_in(split), minlength=len(per_class))
        # largest remainder: less than 1 from the quota; 1 more for the rounding of the split's size,
        # and 1 for the classes that the other draw made a little larger or smaller
        assert np.abs(held - share * np.array(per_class)).max() < 3
        assert held.min() >= 1
    for split, chosen in zip((dataset.train, dataset.val, dataset.test), numbers(dataset), strict=True):
        assert np.array_equal(classes_in(split), classes_in(parts.train)[chosen])


@given(COUNTS, SEEDS)
def test_the_seed_decides(per_class: list[int], seed: int) -> None:
    parts = parts_of(per_class)
    first = numbers(divided(parts, declared(0.2, 0.2, seed)))
    assert numbers(divided(parts, declared(0.2, 0.2, seed))) == first
    # the test split does not move when only the validation split is changed
    assert numbers(divided(parts, declared(0.3, 0.2, seed)))[2] == first[2]


def test_other_seeds_give_other_splits() -> None:
    parts = parts_of([40, 40])
    seen = {tuple(numbers(divided(parts, declared(0.2, 0.2, seed)))[2]) for seed in range(20)}
    assert len(seen) == 20


def test_the_draw_stays_what_it_was() -> None:
    # written down once: published figures stand for these samples
    labels = np.arange(30, dtype=np.int64) % 3
    assert stratified_draw(labels, 6, 0, 1).tolist() == FROZEN_DRAW
    assert stratified_draw(labels, 6, 0, 2).tolist() != FROZEN_DRAW


@given(COUNTS, SEEDS, st.data())
def test_a_draw_is_within_one_of_each_quota(per_class: list[int], seed: int, data: st.DataObject) -> None:
    labels = classes_in(parts_of(per_class).train)
    count = data.draw(st.integers(0, len(labels)))
    drawn = stratified_draw(labels, count, seed, 1, least=0)
    assert len(drawn) == len(set(drawn.tolist())) == count
    assert np.array_equal(drawn, np.sort(drawn))
    quota = np.array(per_class) * count / len(labels)
    assert np.abs(np.bincount(labels[drawn], minlength=len(per_class)) - quota).max() < 1 + 1e-9


@given(COUNTS, st.data())
def test_a_draw_keeps_what_it_must(per_class: list[int], data: st.DataObject) -> None:
    labels = classes_in(parts_of(per_class).train)
    count = data.draw(st.integers(len(per_class), len(labels) - 2 * len(per_class)))
    held = np.bincount(labels[stratified_draw(labels, count, 0, 1, least=1, keep=2)], minlength=len(per_class))
    assert held.min() >= 1
    assert (np.array(per_class) - held).min() >= 2


def test_every_class_reaches_every_split_however_rare() -> None:
    dataset = divided(parts_of([500, 3]), declared(0.1, 0.1))
    for split in (dataset.train, dataset.val, dataset.test):
        assert (classes_in(split) == 1).sum() == 1


def test_numbers_of_samples_are_exact() -> None:
    assert [len(split) for split in numbers(divided(parts_of([30, 50, 20]), declared(17, 23)))] == [60, 17, 23]


def test_own_test_split_is_kept_and_shares_count_from_the_training_part() -> None:
    parts = parts_of([20, 20])
    own = source_of(np.full((4, 1), -1, dtype=np.int32), np.array([0, 1, 0, 1]))
    dataset = divided(Parts(classes=parts.classes, train=parts.train, test=own), declared(0.25, 0.9))
    assert [len(split) for split in numbers(dataset)] == [30, 10, 4]
    assert numbers(dataset)[2] == [-1] * 4


@pytest.mark.parametrize("own", [False, True])
def test_sources_beyond_the_budget_are_viewed_not_held(monkeypatch: pytest.MonkeyPatch, own: bool) -> None:
    parts = parts_of([40, 40])
    if own:
        parts = Parts(classes=parts.classes, train=parts.train, val=parts.train, test=parts.train)
    held = divided(parts, declared(0.2, 0.2))
    monkeypatch.setattr("pipeline.data.source.MEMORY_BUDGET_BYTES", 40 * 4)
    viewed = divided(parts, declared(0.2, 0.2))
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
        divided(parts_of(per_class), declared(val, test))
    assert caught.value.remedy
    assert caught.value.where == "set"


def test_an_own_split_that_is_empty() -> None:
    parts = parts_of([20, 20])
    nothing = source_of(np.empty((0, 1), dtype=np.int32), np.empty(0, dtype=np.int64))
    with pytest.raises(DataError, match="the test split is empty: 0 samples"):
        divided(Parts(classes=parts.classes, train=parts.train, test=nothing), declared(0.2, 0.2))


# ── nothing is classified ───────────────────────────────────────────────────────────────────────────────────────────


@given(st.integers(10, 200), SEEDS)
def test_without_classes_the_draw_is_plain(count: int, seed: int) -> None:
    parts = Parts(classes=(), train=source_of(np.arange(count, dtype=np.int32)[:, None], None))
    dataset = divided(parts, declared(0.2, 0.3, seed))
    drawn = numbers(dataset)
    assert sorted(itertools.chain(*drawn)) == list(range(count))
    assert [len(drawn[1]), len(drawn[2])] == [round(0.2 * count), round(0.3 * count)]
    assert dataset.test.strata is None
    assert dataset.test.wanted(everything(dataset.test)) == {}  # nothing is labelled either


def test_a_plain_draw_is_at_random() -> None:
    source = source_of(np.arange(1000, dtype=np.int32)[:, None], None)
    chosen = draw(source, everything(source), 500, 0, 1)
    # of 1000 in order, 500 at random lie in the first half about 250 times: 11 is one standard deviation
    assert abs((chosen < 500).sum() - 250) < 50
    assert np.array_equal(chosen, np.sort(chosen))


def test_too_few_samples_to_divide() -> None:
    parts = Parts(classes=(), train=source_of(np.zeros((2, 1), dtype=np.int32), None))
    with pytest.raises(DataError, match="a test split of 1 of 2 samples cannot leave a sample in every split"):
        divided(parts, declared(0.5, 0.5))


def test_calibration_needs_no_classes() -> None:
    parts = Parts(classes=(), train=source_of(np.arange(100, dtype=np.int32)[:, None], None))
    dataset = divided(parts, declared(0.2, 0.2, calibration={"samples": 20}))
    chosen = calibration_indices(dataset)
    assert len(set(chosen.tolist())) == 20
    assert chosen.max() < len(dataset.train)


# ── groups ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def grouped(sizes: list[int], labels: Indices | None = None, classes: tuple[str, ...] = ()) -> Parts:
    """Return samples in groups of these sizes, in shuffled order."""
    order = np.random.default_rng(1).permutation(sum(sizes))
    groups = np.repeat(np.arange(len(sizes)), sizes)[order]
    values = np.arange(sum(sizes), dtype=np.int32)[:, None]
    return Parts(classes=classes, train=source_of(values, None if labels is None else labels[order], groups))


def groups_in(source: Source) -> set[int]:
    assert source.groups is not None
    return set(source.groups.tolist())


@given(st.lists(st.integers(1, 30), min_size=12, max_size=40), SEEDS)
def test_a_group_stays_in_one_split(sizes: list[int], seed: int) -> None:
    dataset = divided(grouped(sizes), declared(0.2, 0.2, seed))
    train, val, test = (groups_in(split) for split in (dataset.train, dataset.val, dataset.test))
    assert not train & val
    assert not train & test
    assert not val & test
    assert sorted(itertools.chain(*numbers(dataset))) == list(range(sum(sizes)))


@pytest.mark.parametrize("seed", range(5))
def test_sizes_are_as_near_as_groups_allow(seed: int) -> None:
    # many sizes: some sum of them is the number wanted, and a search that stops early would miss it
    sizes = [1, 2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47]
    dataset = divided(grouped(sizes), declared(60, 80, seed))
    assert abs(len(dataset.test) - 80) <= 1
    assert abs(len(dataset.val) - 60) <= 1


def test_groups_of_one_size_are_counted_exactly() -> None:
    dataset = divided(grouped([10] * 10), declared(0.2, 0.3))
    assert [len(split) for split in (dataset.train, dataset.val, dataset.test)] == [50, 20, 30]


def test_other_seeds_draw_other_groups() -> None:
    seen = {frozenset(groups_in(divided(grouped([10] * 20), declared(0.2, 0.2, seed)).test)) for seed in range(10)}
    assert len(seen) > 5
    again = [groups_in(divided(grouped([10] * 20), declared(0.2, 0.2, 3)).test) for _ in range(2)]
    assert again[0] == again[1]


@given(st.integers(0, 20), st.integers(12, 40))
def test_whole_groups_are_drawn_stratified_where_that_can_be(seed: int, count: int) -> None:
    # each speaker says every word, some more often
    random = np.random.default_rng(seed)
    sizes = random.integers(6, 20, count).tolist()
    labels = np.concatenate([np.resize(np.arange(3), size) for size in sizes]).astype(np.int64)
    dataset = divided(grouped(sizes, labels, ("a", "b", "c")), declared(0.25, 0.25, seed))
    whole = np.bincount(labels) / len(labels)
    for split in (dataset.val, dataset.test):
        share = np.bincount(classes_in(split), minlength=3) / len(split)
        assert np.abs(share - whole).max() < 0.1
        assert abs(len(split) / len(labels) - 0.25) < 0.1


def test_a_class_of_three_groups_reaches_every_split() -> None:
    sizes = [10] * 30
    labels = np.repeat(np.array([0] * 27 + [1] * 3), 10)
    for seed in range(10):
        dataset = divided(grouped(sizes, labels, ("common", "rare")), declared(0.1, 0.1, seed))
        for split in (dataset.train, dataset.val, dataset.test):
            assert (classes_in(split) == 1).sum() == 10


@pytest.mark.parametrize(
    ("sizes", "labels", "says"),
    [
        ([50, 50], None, r"cannot leave a whole group in every split \(2 groups\)"),
        (
            [10] * 10,
            np.repeat(np.array([0] * 8 + [1] * 2), 10),
            r"whole groups and every class in every split \(10 groups; the rarest, 'rare', has 2 groups\)",
        ),
    ],
)
def test_groups_that_cannot_be_divided(sizes: list[int], labels: Indices | None, says: str) -> None:
    with pytest.raises(DataError, match=says) as caught:
        divided(grouped(sizes, labels, () if labels is None else ("common", "rare")), declared(0.2, 0.2))
    assert "add groups" in caught.value.remedy


def test_a_group_in_two_splits_that_the_source_brings() -> None:
    values = np.arange(4, dtype=np.int32)[:, None]
    train = source_of(values, None, np.array([0, 0, 1, 1]))
    test = source_of(values, None, np.array([2, 2, 1, 3]))
    with pytest.raises(DataError, match="1 groups are in the train split and in the test split too"):
        divided(Parts(classes=(), train=train, val=source_of(values, None), test=test), declared(0.2, 0.2))


# ── calibration ─────────────────────────────────────────────────────────────────────────────────────────────────────


def shares(dataset: Dataset, chosen: NDArray[np.int64]) -> list[int]:
    return [int((classes_in(dataset.train)[chosen] == number).sum()) for number in range(len(dataset.classes))]


def test_calibration_is_a_seeded_stratified_draw_from_the_training_split() -> None:
    dataset = divided(parts_of([100, 50, 50]), declared(0.25, 0.25, calibration={"samples": 40}))
    chosen = calibration_indices(dataset)
    assert shares(dataset, chosen) == [20, 10, 10]
    assert np.array_equal(chosen, calibration_indices(dataset))
    other = divided(parts_of([100, 50, 50]), declared(0.25, 0.25, seed=1, calibration={"samples": 40}))
    assert not np.array_equal(chosen, calibration_indices(other))


@pytest.mark.parametrize(("asked", "given_samples"), [(1, 1), (3, 3), (10_000, 48)])
def test_calibration_of_few_or_of_all(asked: int, given_samples: int) -> None:
    dataset = divided(parts_of([20] * 4), declared(0.2, 0.2, calibration={"samples": asked}))
    assert len(calibration_indices(dataset)) == given_samples
