"""What is carried goes from step to step, and comes out with all steps in order."""

from __future__ import annotations

import numpy as np

from pipeline.onboard.arrays import Arrays, Signature, TensorSpec
from pipeline.onboard.stepping import first_step, stepping, steps

X, H, Y = (TensorSpec(name, "float32", (2,), "F") for name in ("x", "h", "y"))
SUMS = Signature((X, H), (Y, TensorSpec("hn", "float32", (2,), "F")), {"hn": "h"})
INPUTS = {"x": np.arange(12, dtype=np.float32).reshape(2, 3, 2), "h": np.array([[0, 0], [100, 100]], np.float32)}


def add(inputs: Arrays) -> Arrays:
    total = inputs["x"] + inputs["h"]
    return {"y": -total, "hn": total}


def test_a_running_sum_over_each_sequence() -> None:
    found = stepping(add, SUMS)(INPUTS)
    np.testing.assert_array_equal(found["hn"], np.cumsum(INPUTS["x"], 1) + INPUTS["h"][:, None])
    np.testing.assert_array_equal(found["y"], -found["hn"])


def test_what_goes_in_holds_the_state_by_then() -> None:
    states = [now["h"] for now, _ in steps(add, SUMS, INPUTS)]
    np.testing.assert_array_equal(
        states, [INPUTS["h"], INPUTS["h"] + INPUTS["x"][:, 0], INPUTS["h"] + INPUTS["x"][:, :2].sum(1)]
    )


def test_the_first_step_alone() -> None:
    found = first_step(INPUTS, SUMS)
    np.testing.assert_array_equal(found["x"], INPUTS["x"][:, 0])
    np.testing.assert_array_equal(found["h"], INPUTS["h"])


def test_where_nothing_is_carried_nothing_changes() -> None:
    plain = Signature((X,), (Y,))
    assert stepping(add, plain) is add
    assert first_step(INPUTS, plain) is INPUTS
