"""A check's state, and what a verdict makes of all of them."""

from __future__ import annotations

import dataclasses

import pytest

from pipeline.artifacts.files import Variant, Way
from pipeline.artifacts.outcome import Bound, Check, State, Verdict

INT8 = Variant(format="onnx", precision="int8", weight_bits=8)
SHIPPED = Way(variant=INT8, program="onnxruntime")


def check(bound: Bound, limit: float, got: float | None, low: float | None, high: float | None) -> Check:
    return Check(
        quantity="drop", variant=INT8, bound=bound, limit=limit, unit="pp", got=got, low=low, high=high, samples=100
    )


MET, MISSED = check("at most", 1, 0, -0.5, 0.5), check("at most", 1, 3, 2, 4)
UNSURE, UNLUCKY = check("at most", 1, 0.5, -1, 2), check("at most", 1, 1.5, 0, 3)
OPEN = check("at most", 1, None, None, None)


@pytest.mark.parametrize(
    ("each", "state", "holds"),
    [
        (MET, "met", True),
        (MISSED, "missed", False),
        (UNSURE, "uncertain", True),
        (UNLUCKY, "uncertain", False),
        (OPEN, "open", None),
        (check("at least", 0.03, 0.1 - 0.07, 0.1 - 0.07, 0.1 - 0.07), "met", True),  # 0.03 but for binary rounding
    ],
)
def test_the_state_follows_from_the_bounds(each: Check, state: State, holds: bool | None) -> None:
    assert (each.state, each.holds) == (state, holds)


@pytest.mark.parametrize(
    ("each", "samples"),
    [
        (UNSURE, 900),  # the bound is 1.5 away and must come as near as 0.5: a third, nine times the samples
        (UNLUCKY, 900),  # the same from the other side: surely missed then
        (check("at least", 1, 1.5, 0, 3), 900),
        (check("at most", 1, 1, 0, 2), None),  # found is the limit itself
        (dataclasses.replace(UNSURE, samples=None), None),  # bounds that samples do not narrow
        (MET, None),
        (OPEN, None),
    ],
)
def test_how_many_samples_would_settle_it(each: Check, samples: int | None) -> None:
    assert each.settled_by == samples


@pytest.mark.parametrize(
    ("checks", "state"),
    [
        ((), "met"),
        ((MET, MET), "met"),
        ((MET, UNSURE), "uncertain"),
        ((UNSURE, OPEN), "open"),
        ((OPEN, MISSED, MET), "missed"),
        ((UNLUCKY, MET), "missed"),  # what was found counts
    ],
)
def test_a_verdict_is_as_good_as_its_worst_check(checks: tuple[Check, ...], state: State) -> None:
    verdict = Verdict(target="board", checks=checks, ship=SHIPPED, why="")
    assert (verdict.state, verdict.passed) == (state, state == "met")
    assert dataclasses.replace(verdict, ship=None).state == "missed"
