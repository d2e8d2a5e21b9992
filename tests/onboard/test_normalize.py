"""(raw / divide - mean) / std, in float32, the same bits everywhere."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipeline.onboard.frontend import StepCall, prepare, run_steps
from pipeline.onboard.frontend.normalize import apply

STEPS = 4  # float32 roundings: the cast, the division, the subtraction, the second division


@given(
    hnp.arrays(np.uint8, st.tuples(st.integers(0, 4), st.just(3), st.integers(1, 4), st.integers(1, 4))),
    st.floats(1, 1000),
    st.tuples(*[st.floats(-2, 2)] * 3),
    st.tuples(*[st.floats(0.1, 10)] * 3),
    st.booleans(),
)
def test_it_is_the_declared_formula(
    raw: np.ndarray, divide: float, mean: tuple[float, ...], std: tuple[float, ...], per_channel: bool
) -> None:
    if not per_channel:
        mean, std = mean[:1], std[:1]
    got = apply(raw, divide=divide, mean=mean, std=std)
    exact_mean, exact_std = (np.array(values, dtype=np.float64).reshape(1, -1, 1, 1) for values in (mean, std))
    exact = (raw.astype(np.float64) / divide - exact_mean) / exact_std
    assert (got.dtype.str, got.shape, got.flags.c_contiguous) == ("<f4", raw.shape, True)
    # each rounding is relative to the largest value on the way
    largest = (np.abs(raw / divide) + np.abs(exact_mean)) / exact_std
    assert (np.abs(got - exact) <= STEPS * np.finfo(np.float32).eps * np.maximum(largest, 1e-30)).all()


@given(hnp.arrays(np.uint8, (6, 1, 2, 2)))
def test_samples_do_not_influence_each_other(raw: np.ndarray) -> None:
    settings = {"divide": 255.0, "mean": (0.3,), "std": (0.4,)}
    one_by_one = [apply(raw[number : number + 1], **settings)[0] for number in range(6)]  # type: ignore[arg-type]
    assert np.array_equal(apply(raw, **settings), one_by_one)  # type: ignore[arg-type]


def test_a_table_has_one_mean_per_feature() -> None:
    assert apply(np.array([[2, 30], [0, 0]], dtype=np.int16), mean=(1.0, 10.0), std=(1.0, 10.0)).tolist() == [
        [1, 2],
        [-1, -1],
    ]


def test_the_raw_values_stay_as_they_are() -> None:
    raw = np.ones((2, 3), dtype=np.float32)
    apply(raw, divide=2.0)
    assert (raw == 1).all()


def test_views_are_made_contiguous() -> None:
    raw = np.arange(24, dtype=np.float32).reshape(2, 3, 4).transpose(0, 2, 1)
    assert apply(raw).flags.c_contiguous


def test_steps_run_in_order_and_inputs_without_steps_stay() -> None:
    halve, shift = StepCall("normalize", {"divide": 2.0}), StepCall("normalize", {"mean": (1.0,)})
    raw = np.array([[4.0, 8.0]], np.float32)
    assert run_steps(raw, (halve, shift)).tolist() == [[1, 3]]
    assert run_steps(raw, (shift, halve)).tolist() == [[1.5, 3.5]]
    words = np.arange(6).reshape(3, 2).T
    got = prepare({"picture": raw, "words": words}, {"picture": (halve,)})
    assert got["picture"].tolist() == [[2, 4]]
    assert got["words"].dtype == words.dtype
    assert got["words"].flags.c_contiguous
    np.testing.assert_array_equal(got["words"], words)


def test_an_unknown_step_is_an_error() -> None:
    with pytest.raises(KeyError, match="blur"):
        run_steps(np.zeros((1, 1)), (StepCall("blur"),))
