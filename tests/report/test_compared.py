"""Runs side by side: paired where the test inputs are the same, a warning where they are not."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from pipeline.report.compared import SideBySide, compared_document, side_by_side
from pipeline.report.table import print_comparison
from tests.report.recorded import Recorded
from tests.report.test_table import Paper
from tests.report.variations import float_only


def _pair(first: Recorded, second: Recorded) -> SideBySide:
    outcomes = [dataclasses.replace(each.outcome, data=each.data) for each in (first, second)]
    return side_by_side(outcomes, [first.store, second.store])


def test_a_run_beside_itself_differs_by_nothing(digits: Recorded) -> None:
    compared = _pair(digits, digits.but(run="again"))
    assert compared.warnings == ()
    assert [each.target for each in compared.differences] == [each.target for each in digits.outcome.targets]
    for each in compared.differences:
        assert each.second.startswith("again ")
        assert (each.comparison.difference, each.comparison.agreement) == (0, 1)
        assert each.comparison.low < 0 < each.comparison.high


def _with_mistakes(run: Recorded, count: int) -> Recorded:
    """Return the run as if what ships had decided wrongly on the first ``count`` inputs that it decided rightly on."""
    target = run.outcome.targets[0]
    seen = run.outcome.observed[0]
    ships = next(each for each in seen.answers if each.way == target.verdict.ship)
    score, decisions = run.store.get_array(ships.score).copy(), run.store.get_array(ships.decisions).copy()
    right = np.flatnonzero(score == 1)[:count]
    score[right] = 0
    decisions[right] = (decisions[right] + 1) % len(run.outcome.facts.classes)
    worse = dataclasses.replace(
        ships,
        score=run.store.put_array(score),
        decisions=run.store.put_array(decisions),
        value=float(score.mean()),
    )
    answers = tuple(worse if each is ships else each for each in seen.answers)
    return run.but(run="worse", observed=(dataclasses.replace(seen, answers=answers), *run.outcome.observed[1:]))


def test_a_worse_run_is_found_to_be_worse(digits: Recorded) -> None:
    compared = _pair(digits, _with_mistakes(digits, 12))
    found = compared.differences[0].comparison
    assert found.difference == pytest.approx(-12 / found.samples)
    assert found.high < 0
    assert found.p < 0.001
    assert found.agreement == pytest.approx(1 - 12 / found.samples)


def test_answers_that_are_gone_are_a_warning(digits: Recorded) -> None:
    compared = _pair(float_only(digits), digits)  # the recording holds what ships alone
    assert compared.differences == ()
    assert compared.warnings[0].startswith("no paired test: ")


def test_other_data_are_a_warning_and_no_test(digits: Recorded, plane: Recorded) -> None:
    compared = _pair(digits, plane)
    assert compared.differences == ()
    assert "plane and digits were not tested on the same data" in compared.warnings[0]
    paper = Paper()
    print_comparison(compared, paper.console)
    assert paper.text().startswith("! plane and digits were not tested on the same data")


def test_what_is_printed_and_what_programs_get(digits: Recorded) -> None:
    compared = _pair(digits.but(run="one"), digits.but(run="two"))
    paper = Paper(width=120)
    print_comparison(compared, paper.console)
    text = paper.text()
    assert "+0.00 pp [" in text or "0.00 pp [" in text
    assert "McNemar" in text
    for target in digits.outcome.targets:
        assert f"{target.target}: two " in text
    document = json.loads(compared_document(compared).to_json())
    assert [run["run"] for run in document["runs"]] == ["one", "two"]
    assert [target["name"] for target in document["runs"][0]["targets"]] == [t.target for t in digits.outcome.targets]
    assert all(way["low"] <= way["value"] <= way["high"] for way in document["runs"][0]["targets"][0]["ways"])
    assert document["differences"][0]["difference"] == 0
