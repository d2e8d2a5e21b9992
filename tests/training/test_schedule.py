"""Learning rates and steps: where schedules begin and end, and which last batch is left out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.declare.recipe import TrainSpec
from pipeline.training.schedule import learning_rate_at, samples_used, steps_in

SCHEDULES = ("cosine", "one-cycle", "constant")


def plan(**settings: object) -> TrainSpec:
    return TrainSpec.model_validate({"learning_rate": 1e-2, **settings})


rates, shares = st.floats(1e-6, 10), st.floats(0, 1)


@given(st.sampled_from(SCHEDULES), rates, shares)
def test_the_learning_rate_stays_between_nothing_and_the_plans(schedule: str, rate: float, done: float) -> None:
    assert 0 <= learning_rate_at(plan(schedule=schedule, learning_rate=rate), done) <= rate * (1 + 1e-12)


@given(rates)
def test_schedules_begin_and_end_where_they_should(rate: float) -> None:
    def at(schedule: str, done: float) -> float:
        return learning_rate_at(plan(schedule=schedule, learning_rate=rate), done) / rate

    assert [at("constant", done) for done in (0, 0.5, 1)] == [1, 1, 1]
    assert [at("cosine", done) for done in (0, 0.5, 1)] == pytest.approx([1, 0.5, 0])
    assert [at("one-cycle", done) for done in (0, 0.15, 0.3, 0.65, 1)] == pytest.approx([0.04, 0.52, 1, 0.5, 0])


@given(st.sampled_from(("cosine", "one-cycle")), shares, shares)
def test_after_its_peak_the_learning_rate_only_falls(schedule: str, one: float, other: float) -> None:
    peak = 0.0 if schedule == "cosine" else 0.3
    early, late = sorted((peak + one * (1 - peak), peak + other * (1 - peak)))
    spec = plan(schedule=schedule)
    assert learning_rate_at(spec, late) <= learning_rate_at(spec, early) + 1e-15


def test_a_last_batch_of_one_sample_is_left_out() -> None:
    assert [steps_in(count, 32) for count in (31, 32, 33, 34, 65)] == [1, 1, 1, 2, 2]
    assert [samples_used(count, 32) for count in (1, 31, 32, 33, 34)] == [1, 31, 32, 32, 34]
    assert [steps_in(count, 1) for count in (1, 2, 3)] == [1, 2, 3]
