"""Confusion matrices and telling inputs, on outputs small enough to check by eye."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from pipeline.report.evidence import Evidence, compared_columns, gather
from pipeline.report.views import evidence_views
from tests.report.builder import make

LABELS = np.array([0, 0, 1, 1, 2, 2])
BY_FLOAT = np.array([0, 0, 1, 2, 2, 0])
BY_INT8 = np.array([0, 1, 1, 1, 1, 1])


def evidence() -> Evidence:
    return Evidence(
        float_artifact="torch-fp32",
        int8_artifact="onnx-int8",
        labels=LABELS,
        by_float=BY_FLOAT,
        by_int8=BY_INT8,
        classes=3,
    )


def test_confusion_counts_true_down_predicted_across() -> None:
    assert evidence().confusion(BY_FLOAT).tolist() == [[2, 0, 0], [0, 1, 1], [1, 0, 1]]
    assert evidence().confusion(BY_INT8).tolist() == [[1, 1, 0], [0, 2, 0], [0, 2, 0]]


def test_disagreements_lost_first_then_gained_then_both_wrong() -> None:
    assert [each.index for each in evidence().disagreements()] == [1, 4, 3, 5]


def test_shared_errors_are_the_same_wrong_class() -> None:
    assert evidence().shared_errors() == ()
    alone = dataclasses.replace(evidence(), int8_artifact=None, by_int8=None)
    assert [each.index for each in alone.shared_errors()] == [3, 5]
    assert alone.disagreements() == ()


def test_the_file_that_ships_is_looked_into(tmp_path: Path) -> None:
    target = make(tmp_path).outcome.targets[0]
    verdict = dataclasses.replace(target.verdict, ship="tflite-int8")
    by_float, by_int8 = compared_columns(dataclasses.replace(target, verdict=verdict))
    assert by_float is not None
    assert by_int8 is not None
    assert (by_float.artifact, by_int8.artifact, by_int8.runtime) == ("torch-fp32", "tflite-int8", "litert 2.3.0")


def test_matrices_agree_with_the_comparison(tmp_path: Path) -> None:
    made = make(tmp_path)
    comparison = made.outcome.targets[0].comparison
    found = gather(made.outcome.targets[0], made.store, made.samples)
    assert found is not None
    assert found.by_int8 is not None
    assert comparison is not None
    assert np.trace(found.confusion(found.by_int8)) / comparison.samples == pytest.approx(comparison.accuracy_int8)
    assert len(found.disagreements()) == round((1 - comparison.agreement) * comparison.samples)


def test_outputs_of_another_test_split_are_refused(tmp_path: Path) -> None:
    made = make(tmp_path)
    fewer = dataclasses.replace(made.samples, labels=made.samples.labels[:-1])
    with pytest.raises(ValueError, match=r"outputs of torch-fp32: \(360, 10\), labels ask for \(359, 10\)"):
        gather(made.outcome.targets[0], made.store, fewer)


def test_targets_with_the_same_outputs_are_shown_once(tmp_path: Path) -> None:
    made = make(tmp_path, targets=(("raspberry-pi-4b", 8), ("raspberry-pi-5", 8), ("x86-laptop-avx2", 7)))
    views = evidence_views(made.outcome, made.store, made.samples)
    assert [view.targets for view in views] == [("raspberry-pi-4b", "raspberry-pi-5"), ("x86-laptop-avx2",)]


def test_no_more_inputs_than_a_page_can_bear(tmp_path: Path) -> None:
    made = make(tmp_path, class_names=[f"class {n}" for n in range(100)], samples=2000, separation=0.0)
    view = evidence_views(made.outcome, made.store, made.samples)[0]
    assert len(view.disagreements) == 48 < view.disagreements_in_all
    assert len(view.shared_errors) == 16 < view.shared_errors_in_all


def test_rows_of_a_table_are_shown_as_numbers(tmp_path: Path) -> None:
    made = make(tmp_path, class_names=("good", "bad"), sample_shape=(20,), samples=400)
    view = evidence_views(made.outcome, made.store, made.samples)[0]
    first = (view.disagreements + view.shared_errors)[0]
    assert first.picture == ""
    assert first.values.endswith("… (20 values)")
    assert first.values.count(",") == 16
