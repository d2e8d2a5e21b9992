"""Decisions of a device, by numpy alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipeline.onboard.decode import above, largest, sigmoid, softmax

FINITE = hnp.arrays(
    np.float32, st.tuples(st.integers(1, 4), st.integers(1, 5)), elements=st.floats(-(2**99), 2**99, width=32)
)


def test_the_largest_output_is_the_class() -> None:
    assert largest(np.array([[0.1, 0.9, 0.3], [5, 4, 3]])).tolist() == [1, 0]
    assert largest(np.array([[2.0, 2.0]])).tolist() == [0]  # the first of equals
    assert largest(np.zeros((0, 3))).shape == (0,)


def test_every_pixel_has_a_class() -> None:
    maps = np.zeros((2, 3, 4, 5))
    maps[1, 2, 3, 4] = 1
    got = largest(maps)
    assert (got.shape, got.dtype.name) == ((2, 4, 5), "int64")
    assert got[1, 3, 4] == 2
    assert got.sum() == 2
    assert largest(np.moveaxis(maps, 1, 3), axis=3).tolist() == got.tolist()


def test_above_includes_the_threshold() -> None:
    got = above(np.array([[0.2], [0.5], [0.7]]), 0.5)
    assert (got.tolist(), got.dtype.name) == ([[0], [1], [1]], "int64")
    assert above(np.array([np.nan]), 0.0).tolist() == [0]


@given(FINITE)
def test_softmax_is_a_distribution_that_keeps_the_order(outputs: np.ndarray) -> None:
    got = softmax(outputs)
    np.testing.assert_allclose(got.sum(1), 1)
    assert (got >= 0).all()
    assert (np.take_along_axis(got, largest(outputs)[:, None], 1)[:, 0] == got.max(1)).all()


def test_softmax_by_hand() -> None:
    np.testing.assert_allclose(softmax(np.log([[1.0, 2.0, 5.0]])), [[0.125, 0.25, 0.625]])
    np.testing.assert_allclose(softmax(np.log([[1.0], [3.0]]), axis=0), [[0.25], [0.75]])


@given(FINITE)
def test_sigmoid_is_symmetric_and_does_not_overflow(outputs: np.ndarray) -> None:
    got = sigmoid(outputs)
    np.testing.assert_allclose(got + sigmoid(-outputs), 1)
    assert ((got >= 0) & (got <= 1)).all()
    assert (got[outputs >= 0] >= 0.5).all()
    assert (got[outputs <= 0] <= 0.5).all()


@pytest.mark.parametrize(("odds", "probability"), [(1, 0.5), (3, 0.75), (1 / 3, 0.25)])
def test_sigmoid_by_hand(odds: float, probability: float) -> None:
    assert sigmoid(np.array(np.log(odds))) == pytest.approx(probability)
