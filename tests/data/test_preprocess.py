"""(raw / divide - mean) / std, in float32, the same bits everywhere."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipeline.data.preprocess import normalize
from pipeline.errors import DataError
from pipeline.spec import InputSpec

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
    spec = InputSpec(shape=raw.shape[1:], divide=divide, mean=mean, std=std)
    got = normalize(raw, spec)
    exact_mean, exact_std = (np.array(values, dtype=np.float64).reshape(1, -1, 1, 1) for values in (mean, std))
    exact = (raw.astype(np.float64) / divide - exact_mean) / exact_std
    assert (got.dtype.str, got.shape, got.flags.c_contiguous) == ("<f4", raw.shape, True)
    # each rounding is relative to the largest value on the way
    largest = (np.abs(raw / divide) + np.abs(exact_mean)) / exact_std
    assert (np.abs(got - exact) <= STEPS * np.finfo(np.float32).eps * np.maximum(largest, 1e-30)).all()


@given(hnp.arrays(np.uint8, (6, 1, 2, 2)))
def test_samples_do_not_influence_each_other(raw: np.ndarray) -> None:
    spec = InputSpec(shape=(1, 2, 2), divide=255, mean=(0.3,), std=(0.4,))
    one_by_one = [normalize(raw[number : number + 1], spec)[0] for number in range(6)]
    assert np.array_equal(normalize(raw, spec), one_by_one)


def test_a_table_has_one_mean_per_feature() -> None:
    spec = InputSpec(shape=(2,), mean=(1.0, 10.0), std=(1.0, 10.0))
    assert normalize(np.array([[2, 30], [0, 0]], dtype=np.int16), spec).tolist() == [[1, 2], [-1, -1]]


def test_the_raw_values_stay_as_they_are() -> None:
    raw = np.ones((2, 3), dtype=np.float32)
    normalize(raw, InputSpec(shape=(3,), divide=2.0))
    assert (raw == 1).all()


def test_views_are_made_contiguous() -> None:
    raw = np.arange(24, dtype=np.float32).reshape(2, 3, 4).transpose(0, 2, 1)
    assert normalize(raw, InputSpec(shape=(4, 3))).flags.c_contiguous


@pytest.mark.parametrize("shape", [(2, 4), (2, 3, 1), (3,)])
def test_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=r"samples have the shape .*, expected \(3,\)"):
        normalize(np.zeros(shape), InputSpec(shape=(3,)))
