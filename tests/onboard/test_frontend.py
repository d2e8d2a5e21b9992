"""Preprocessing steps: what each makes of golden values, alone and one after the other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pipeline.onboard.arrays import Arrays
from pipeline.onboard.frontend import STEPS, StepCall, clip, fill, one_hot, prepare, run_steps

NAN = np.nan


def test_fill_puts_a_value_per_column_where_there_is_none() -> None:
    raw = np.array([[1.5, NAN, 3.0], [NAN, 2.0, NAN]], dtype=np.float32)
    out = fill.apply(raw, values=[10.0, 20.0, -1.0])
    assert out.dtype == np.float32
    assert out.tolist() == [[1.5, 20.0, 3.0], [10.0, 2.0, -1.0]]
    assert np.isnan(raw).sum() == 3  # what came in stays as it was


def test_fill_takes_whole_numbers_which_miss_nothing() -> None:
    assert fill.apply(np.array([[1, 2]]), values=[0.0, 0.0]).tolist() == [[1.0, 2.0]]


def test_fill_says_nothing_of_numbers_that_float32_has_not() -> None:
    assert fill.apply(np.array([[NAN]], np.float32), values=[1e39]).tolist() == [
        [np.inf]
    ]  # refused where all inputs are


def test_one_hot_stands_where_the_column_stood() -> None:
    raw = np.array([[5.0, 0, 7.0], [6.0, 2, 8.0]], dtype=np.float32)
    out = one_hot.apply(raw, columns=[1], codes=[[0, 1, 2]])
    assert out.dtype == np.float32
    assert out.tolist() == [[5, 1, 0, 0, 7], [6, 0, 0, 1, 8]]


@pytest.mark.parametrize("code", [3.0, -1.0, 0.5, NAN])
def test_a_code_that_is_not_listed_gives_zeros(code: float) -> None:
    assert one_hot.apply(np.array([[code]], dtype=np.float32), columns=[0], codes=[[0, 1, 2]]).tolist() == [[0, 0, 0]]


def test_several_columns_each_with_its_own_codes() -> None:
    raw = np.array([[1, 9.0, 4], [0, 8.0, 2]])
    out = one_hot.apply(raw, columns=[2, 0], codes=[[2, 4], [1]])
    assert out.tolist() == [[1, 9, 0, 1], [0, 8, 1, 0]]


def test_clip_cuts_both_ends() -> None:
    out = clip.apply(np.array([[-9.0, -2.0, 0.0, 2.5, np.inf]]), limit=2.5)
    assert out.dtype == np.float32
    assert out.tolist() == [[-2.5, -2.0, 0.0, 2.5, 2.5]]
    assert clip.apply(np.array([-1e30, 7.0]), limit=1e300).tolist() == [np.float32(-1e30), 7.0]  # and says nothing
    assert np.isnan(clip.apply(np.array([NAN]), limit=1.0)).all()  # a gap is not made a number by the way


def test_a_table_goes_through_all_steps_in_order() -> None:
    # age, category, income: golden values, worked out by hand
    steps = (
        StepCall("fill", {"values": [30.0, -1.0, 2.0]}),
        StepCall("one_hot", {"columns": [1], "codes": [[0, 1]]}),
        StepCall("normalize", {"divide": 1.0, "mean": [30.0, 0.0, 0.0, 2.0], "std": [10.0, 1.0, 1.0, 0.5]}),
        StepCall("clip", {"limit": 3.0}),
    )
    raw = np.array([[20, 0, 2], [NAN, 1, NAN], [30, NAN, 9]], dtype=np.float32)
    assert run_steps(raw, steps).tolist() == [[-1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 3]]


def test_samples_do_not_influence_each_other() -> None:
    raw = np.random.default_rng(0).normal(0, 3, (50, 4)).astype(np.float32)
    raw[::7, 2] = NAN
    raw[:, 3] = np.arange(50) % 3
    steps = (
        StepCall("fill", {"values": [0.0, 0.0, 1.0, -1.0]}),
        StepCall("one_hot", {"columns": [3], "codes": [[0, 1, 2]]}),
        StepCall("clip", {"limit": 2.0}),
    )
    whole = run_steps(raw, steps)
    assert np.array_equal(whole, np.concatenate([run_steps(raw[row : row + 1], steps) for row in range(50)]))


def test_inputs_have_steps_of_their_own() -> None:
    inputs: Arrays = {
        "image": np.full((2, 1, 2, 2), 8, dtype=np.uint8),
        "speed": np.array([[1.0], [2.0]], dtype=np.float32),
    }
    made = prepare(inputs, {"image": (StepCall("normalize", {"divide": 4.0, "mean": [1.0], "std": [1.0]}),)})
    assert made["image"].tolist() == np.ones((2, 1, 2, 2)).tolist()
    assert np.array_equal(made["speed"], inputs["speed"])


def test_an_input_without_steps_becomes_contiguous() -> None:
    raw = np.arange(12.0).reshape(3, 4).T
    assert prepare({"input": raw}, {})["input"].flags.c_contiguous


def test_a_step_that_is_not_known() -> None:
    with pytest.raises(KeyError, match="fly"):
        run_steps(np.zeros((1, 1)), (StepCall("fly"),))


def test_every_step_takes_no_samples() -> None:
    settings: dict[str, dict[str, Any]] = {
        "clip": {"limit": 1.0},
        "fill": {"values": [0.0, 0.0]},
        "normalize": {"mean": [0.0], "std": [1.0]},
        "one_hot": {"columns": [0], "codes": [[0, 1]]},
    }
    assert settings.keys() <= STEPS.keys()
    for name, given in settings.items():
        assert len(STEPS[name](np.zeros((0, 2), dtype=np.float32), **given)) == 0
