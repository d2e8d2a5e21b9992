"""What a way gave, into the store and back; agreement in output steps; sources that are read once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.artifacts.evidence import Agreement, Answered, Answers, Interval, Place
from pipeline.artifacts.files import Variant, Way
from pipeline.data import source as sources
from pipeline.data.source import ArraySource, Subset, everything
from pipeline.errors import StorageError
from pipeline.instruments.answers import agreement, held, keep, load_answers
from pipeline.runs.store import Store

PLACE = Place(how="measured", name="here")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def kept(
    store: Store,
    outputs: Sequence[Sequence[float]] | NDArray[np.floating],
    *,
    step: float | None = 0.1,
    decisions: NDArray[np.generic] | None = None,
    more: dict[str, NDArray[np.float32]] | None = None,
) -> Answered:
    array = np.array(outputs)
    decided = array.argmax(1) if decisions is None else decisions
    answers = Answers(
        outputs={"output": array, **(more or {})},
        decisions=decided,
        score=np.arange(len(array), dtype=np.float64),
        value=0.75,
        others={"R²": 0.5},
    )
    return keep(
        answers,
        way=Way(variant=Variant(format="onnx", precision="int8", weight_bits=8), program="onnxruntime"),
        version="1",
        place=PLACE,
        interval=Interval(value=0.75, low=0.7, high=0.8),
        steps={} if step is None else {"output": step},
        store=store,
    )


def test_what_is_kept_comes_back(store: Store) -> None:
    masks = np.arange(8, dtype=np.uint8).reshape(2, 2, 2)
    got = kept(store, [[1.0, 2.0], [4.0, 3.0]], decisions=masks, more={"map": np.ones((2, 1, 2, 2), np.float32)})
    assert (got.value, got.low, got.high, got.others, got.samples) == (0.75, 0.7, 0.8, {"R²": 0.5}, 2)
    back = load_answers(got, store)
    assert set(back.outputs) == {"output", "map"}
    np.testing.assert_array_equal(back.outputs["output"], [[1, 2], [4, 3]])
    assert back.outputs["output"].dtype == np.float32
    np.testing.assert_array_equal(back.decisions, masks)
    assert back.decisions.dtype == np.uint8
    np.testing.assert_array_equal(back.score, [0.0, 1.0])
    assert (back.value, back.others) == (0.75, {"R²": 0.5})


def test_what_is_gone_is_told(store: Store) -> None:
    got = kept(store, [[1.0, 2.0]])
    store.path(got.score).unlink()
    with pytest.raises(StorageError):
        load_answers(got, store)


# ── agreement ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_agreement_counts_output_steps(store: Store) -> None:
    got = agreed(kept(store, [[0.0, 0.5], [1.0, 0.5]]), kept(store, [[0.0, 0.7000001], [0.4, 0.5]]), store)
    assert (got.same, got.max_steps) == (0.5, 6.0)
    assert got.mean_steps == pytest.approx((0 + 2 + 6 + 0) / 4)


def test_one_way_that_knows_its_step_is_enough(store: Store) -> None:
    first, second = kept(store, [[0.0, 0.5]], step=None), kept(store, [[0.0, 0.7]], step=0.1)
    assert agreed(first, second, store).max_steps == agreed(second, first, store).max_steps == 2.0


def test_without_a_step_the_range_is_divided_by_255(store: Store) -> None:
    got = agreed(kept(store, [[0.0, 255.0]], step=None), kept(store, [[2.0, 255.0]], step=None), store)
    assert got.max_steps == 2.0
    flat = kept(store, [[1.0, 1.0]], step=None)
    assert agreed(flat, flat, store).max_steps == 0.0


def test_every_output_is_counted_in_its_own_step(store: Store) -> None:
    maps = np.zeros((1, 1, 2, 2), np.float32)
    far = maps.copy()
    far[0, 0, 1, 1] = 255.0
    first = kept(store, [[0.0, 1.0]], more={"map": far})
    second = kept(store, [[0.0, 1.0]], more={"map": maps})
    got = agreed(first, second, store)
    assert got.max_steps == 255.0  # of the map's range
    assert got.mean_steps == pytest.approx(255 / 6)


def test_decisions_of_a_map_are_compared_pixel_by_pixel(store: Store) -> None:
    masks = np.zeros((1, 4, 5), np.uint8)
    other = masks.copy()
    other[0, 0, 0] = 1
    got = agreed(kept(store, [[1.0, 0.0]], decisions=masks), kept(store, [[1.0, 0.0]], decisions=other), store)
    assert got.same == pytest.approx(19 / 20)


def test_numbers_agree_where_no_step_lies_between_them(store: Store) -> None:
    """Decisions in the user's unit differ in their last bits though the outputs are the same step."""
    first = kept(store, [[0.3], [0.5], [0.7]], decisions=np.array([[3.0], [5.0], [7.0]]))
    second = kept(store, [[0.30001], [0.5], [0.8]], decisions=np.array([[3.0001], [5.0], [8.0]]))
    assert agreed(first, second, store).same == pytest.approx(2 / 3)


# ── sources ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def agreed(first: Answered, second: Answered, store: Store) -> Agreement:
    one, other = ((each.way, load_answers(each, store), each.steps) for each in (first, second))
    return agreement(one, other)


def samples(count: int = 5) -> ArraySource:
    labels = np.arange(count) % 2
    x = np.arange(count * 3, dtype=np.uint8).reshape(count, 3)
    return ArraySource(inputs={"input": x}, labels={"class": labels}, strata=labels, groups=np.arange(count) // 2)


def test_a_source_on_disk_is_held_as_it_is_stored() -> None:
    whole = samples()
    got = held(Subset(whole=whole, indices=np.array([4, 1, 2])))
    assert isinstance(got, ArraySource)
    batch = got.read(everything(got))
    np.testing.assert_array_equal(batch.inputs["input"], whole.inputs["input"][[4, 1, 2]])
    assert batch.inputs["input"].dtype == np.uint8
    np.testing.assert_array_equal(batch.wanted["class"], [0, 1, 0])
    assert got.strata is not None
    assert got.groups is not None
    np.testing.assert_array_equal(got.strata, [0, 1, 0])
    np.testing.assert_array_equal(got.groups, [2, 0, 1])


def test_what_is_held_or_empty_or_too_large_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = samples()
    assert held(whole) is whole
    empty = Subset(whole=whole, indices=np.array([], np.int64))
    assert held(empty) is empty
    monkeypatch.setattr(sources, "MEMORY_BUDGET_BYTES", 4 * 3 * 5 - 1)
    large = Subset(whole=whole, indices=np.arange(5))
    assert held(large) is large
