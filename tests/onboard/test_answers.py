"""Outputs in, answers out, for every task."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipeline.onboard.about import NUMBERS, PROBABILITIES
from pipeline.onboard.answers import Answer, answers_of
from tests.onboard.test_metadata import ABOUT


def answer(
    values: list[object], task: str, *labels: str, holds: str = "scores", times: float = 1.0, **chosen: float
) -> Answer:
    """Answer for one sample."""
    output = replace(ABOUT.outputs[0], holds=holds, times=times)
    about = replace(ABOUT, task=task, labels=labels, outputs=(output,))
    (found,) = answers_of({"output": np.array([values], np.float32)}, about, chosen)
    return found


def test_scores_become_probabilities() -> None:
    found = answer([0.0, np.log(6), np.log(2), np.log(1)], "classification", "a", "b", "c", "d")
    assert found.label == "b"
    assert [label for label, _ in found.top] == ["b", "c", "a"]
    assert [share for _, share in found.top] == pytest.approx([0.6, 0.2, 0.1])


def test_probabilities_stay() -> None:
    found = answer([0.1, 0.7, 0.2], "classification", "a", "b", "c", holds=PROBABILITIES)
    assert dict(found.top) == pytest.approx({"b": 0.7, "c": 0.2, "a": 0.1})
    assert found.words["top"][0] == {"class": "b", "probability": 0.7}


def test_yes_begins_at_the_threshold() -> None:
    assert answer([0.4], "binary", "no", "yes").label == "yes"
    assert answer([0.4], "binary", "no", "yes", threshold=0.5).label == "no"
    assert answer([0.4], "binary", "no", "yes", holds=PROBABILITIES).label == "no"
    assert dict(answer([0.0], "binary", "no", "yes").top) == {"no": 0.5, "yes": 0.5}


def test_numbers_have_names_and_units() -> None:
    assert answer([0.5, 2.0], "regression", "kg", "m", holds=NUMBERS, times=10).numbers == {"kg": 5.0, "m": 20.0}
    assert answer([0.5, 2.0], "regression").numbers == {"output 0": 0.5, "output 1": 2.0}
    assert answer([0.5], "some-task-of-ones-own").words == {"numbers": {"output 0": 0.5}}


def test_a_mask_says_what_share_each_class_has() -> None:
    maps = [[[0.0, 9.0], [0.0, 0.0]], [[1.0, 1.0], [1.0, 1.0]]]  # (K, H, W)
    found = answer(maps, "segmentation", "sky", "sea")  # type: ignore[arg-type]
    assert found.numbers == {"sky": 0.25, "sea": 0.75}
    assert found.mask is not None
    assert found.mask.tolist() == [[1, 0], [1, 1]]
    assert found.words == {"shares": {"sky": 0.25, "sea": 0.75}}
