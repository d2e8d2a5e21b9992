"""What an emulated target is asked, and how that is compared."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.artifacts.evidence import Answers
from pipeline.instruments.answers import apart
from pipeline.instruments.emulated import affordable


def answers(outputs: list[list[float]]) -> Answers:
    found = np.array(outputs, np.float32)
    return Answers(
        outputs={"output": found}, decisions=found.argmax(1), score=np.ones(len(found)), value=0.0, others={}
    )


def test_all_samples_where_there_is_time() -> None:
    assert affordable(360, each_s=0.1, left_s=36.1, seed=0) is None


def test_as_many_as_there_is_time_for_in_their_order() -> None:
    chosen = affordable(1000, each_s=0.1, left_s=5.0, seed=0)
    assert chosen is not None
    assert len(chosen) == len(set(chosen.tolist())) == 50
    assert chosen.tolist() == sorted(chosen.tolist())
    again = affordable(1000, each_s=0.1, left_s=5.0, seed=0)
    assert again is not None
    assert chosen.tolist() == again.tolist()
    other = affordable(1000, each_s=0.1, left_s=5.0, seed=1)
    assert other is not None
    assert chosen.tolist() != other.tolist()


@pytest.mark.parametrize("left_s", [0.0, -3.0])
def test_a_few_however_long_they_take(left_s: float) -> None:
    chosen = affordable(1000, each_s=60.0, left_s=left_s, seed=0)
    assert chosen is not None
    assert len(chosen) == 32


def test_two_places_are_compared_number_by_number() -> None:
    here, there = answers([[0, 1], [2, 1], [3, 1], [0, 4]]), answers([[0, 1], [2, 2.5], [3, 1], [0, 3.5]])
    found = apart(there, here, {"output": 0.5})
    assert (found.same, found.identical, found.max_steps) == (0.75, 6 / 8, 3.0)
    assert found.different.tolist() == [1, 3]
