"""Which numbers stand for a target: its own, measured before emulated before estimated; never another machine's."""

from __future__ import annotations

import pytest

from pipeline.judging.case import estimated_memory, standing_for
from tests.judging.cases import FP32, INT8, measured, target

WAY = INT8.way


def test_another_machines_numbers_never_stand_for_a_target() -> None:
    elsewhere = measured("latency_p95_ms", WAY, 0.1, profile=None)
    other_board = measured("latency_p95_ms", WAY, 0.2, profile="board-2")
    assert standing_for(target(), (elsewhere, other_board)) == ()


def test_measured_comes_before_emulated_before_estimated() -> None:
    estimated = measured("latency_p95_ms", WAY, 3.0, how="estimated")
    emulated = measured("latency_p95_ms", WAY, 2.0, how="emulated")
    real = measured("latency_p95_ms", WAY, 1.0, how="measured")
    elsewhere = measured("latency_p95_ms", WAY, 0.1, profile=None)
    assert standing_for(target(), (estimated, emulated, elsewhere, real)) == (real,)
    assert standing_for(target(), (estimated, elsewhere, emulated)) == (emulated,)
    assert standing_for(target(), (elsewhere, estimated)) == (estimated,)


def test_every_quantity_and_way_has_its_own_number() -> None:
    found = (
        measured("latency_p95_ms", WAY, 1.0),
        measured("latency_p50_ms", WAY, 0.5),
        measured("latency_p95_ms", FP32.way, 2.0),
    )
    assert set(standing_for(target(), found)) == set(found)


@pytest.mark.parametrize(("asked", "value"), [(1, 1.0), (2, 2.0), (3, 2.0), (8, 4.0)])
def test_the_targets_number_of_threads_or_the_next_lower_one(asked: int, value: float) -> None:
    found = [measured("latency_p95_ms", WAY, float(threads), threads=threads) for threads in (4, 1, 2)]
    assert [each.value for each in standing_for(target(threads=asked), found)] == [value]


def test_times_with_more_threads_than_the_target_has_do_not_stand_for_it() -> None:
    assert standing_for(target(threads=1), [measured("latency_p95_ms", WAY, 1.0, threads=2)]) == ()


def test_memory_is_estimated_within_a_factor_of_two() -> None:
    found = estimated_memory(target(), measured("peak_memory_bytes", WAY, 1000.0, profile=None))
    assert (found.value, found.low, found.high) == (1000, 500, 2000)
    assert (found.place.how, found.place.profile) == ("estimated", "board")
    assert found.place.text == "estimated on the basis of Other, 2 cores, x86_64"
