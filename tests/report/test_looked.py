"""What is looked into: the float reference and the file that ships, once for all targets that share them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from pipeline.artifacts.evidence import Answered, Beside, Matrix, Observed, Place
from pipeline.errors import StorageError
from pipeline.report import sentences
from pipeline.report.looked import look, looked_at
from pipeline.report.rows import answers_of, comparison_of
from pipeline.runs.store import Store
from tests.report.recorded import Recorded
from tests.report.variations import LAPTOP, PI, float_only, target_of, with_target, with_targets


def test_the_file_that_ships_is_looked_into(digits: Recorded) -> None:
    target = target_of(digits.outcome, PI)
    litert = next(
        each.way
        for each in digits.outcome.observed[0].answers
        if each.way.program == "litert" and each.way.variant.key == "tflite-int8"
    )
    verdict = dataclasses.replace(target.verdict, ship=litert)
    pair = looked_at(digits.outcome, dataclasses.replace(target, verdict=verdict))
    assert [each.way.key for each in pair] == ["torch-fp32 in torch", "tflite-int8 in litert"]


def test_where_float_ships_the_int8_file_is_still_looked_into(digits: Recorded) -> None:
    target = target_of(digits.outcome, PI)
    verdict = dataclasses.replace(target.verdict, ship=target.candidates[0])
    pair = looked_at(digits.outcome, dataclasses.replace(target, verdict=verdict))
    assert [each.way.key for each in pair] == ["torch-fp32 in torch", "onnx-int8 in onnxruntime"]


def test_without_int8_the_reference_stands_alone(digits: Recorded) -> None:
    run = float_only(digits)
    assert [each.way.key for each in looked_at(run.outcome, run.outcome.targets[0])] == ["torch-fp32 in torch"]
    (looked,) = run.looked()
    assert looked.titles == ("torch float",)


def test_figures_agree_with_the_comparison(digits: Recorded) -> None:
    run = with_targets(digits, PI)
    compared = comparison_of(run.outcome, run.outcome.targets[0])
    assert compared is not None
    matrices = [each for looked in run.looked() for each in looked.figures if isinstance(each, Matrix)]
    right = [np.trace(run.store.get_array(each.counts)) for each in matrices[:2]]
    found = compared.comparison
    assert np.array(right) / found.samples == pytest.approx([found.value_float, found.value_int8])


ALL = ("onnx-fp32", "onnx-int8", "tflite-fp32", "tflite-int8")


def emulated(digits: Recorded, *, differ: tuple[str, ...]) -> Observed:
    """Return five answers of each way of running as the target, emulated, gave them; ``differ``: files of which one is
    another than here.
    """  # noqa: D205
    here, place = digits.outcome.observed[0], Place(how="emulated", name="qemu cortex-a72", profile=PI)
    few = np.arange(5)

    def drawn(each: Answered) -> Answered:
        decisions, score = (digits.store.get_array(digest)[few] for digest in (each.decisions, each.score))
        return dataclasses.replace(
            each, place=place, samples=len(few), outputs={},
            decisions=digits.store.put_array(decisions), score=digits.store.put_array(score),
        )  # fmt: skip

    beside = tuple(
        Beside(
            way=each.way, other=here.place, samples=len(few), of=each.samples,
            same=0.8 if each.way.variant.key in differ else 1.0, identical=0.8, max_steps=0,
        )
        for each in here.answers
    )  # fmt: skip
    return dataclasses.replace(
        here, place=place, answers=tuple(map(drawn, here.answers)), beside=beside, timings=(), measurements=()
    )


@pytest.mark.parametrize("differ", [(), ALL])
def test_a_few_answers_of_the_target_are_not_drawn_beside_all_test_inputs(
    digits: Recorded, differ: tuple[str, ...]
) -> None:
    """Whether the few count for the verdict, since they differ, or not."""
    here, there = digits.outcome.observed[0], emulated(digits, differ=differ)
    run = digits.but(targets=(target_of(digits.outcome, PI),), observed=(here, there))
    (alone,) = digits.but(targets=(target_of(digits.outcome, PI),)).looked()
    (looked,) = run.looked()
    assert looked == alone


@pytest.mark.parametrize(
    ("differ", "said"),
    [
        (ALL, "accuracy of the files emulated on qemu cortex-a72, 5 of "),
        ((), "accuracy of the files as it is here: emulated on qemu cortex-a72 they decide alike, 5 of "),
        (("onnx-int8",), "accuracy of ONNX int8 in onnxruntime emulated on qemu cortex-a72, 5 of "),
    ],
)
def test_it_is_said_of_which_files_the_few_answers_count(digits: Recorded, differ: tuple[str, ...], said: str) -> None:
    outcome = digits.but(observed=(digits.outcome.observed[0], emulated(digits, differ=differ))).outcome
    target = target_of(outcome, PI)
    note = sentences.emulated_note(outcome, target)
    assert note.startswith(said)
    assert note.endswith(" (drawn) test inputs")
    ways = [each.way for each in answers_of(outcome, target)]
    assert ways == [each.way for each in answers_of(digits.outcome, target)]  # in the same order


def test_targets_with_the_same_pair_are_shown_once(digits: Recorded) -> None:
    twice = dataclasses.replace(target_of(digits.outcome, PI), target="another-board")
    run = digits.but(targets=(target_of(digits.outcome, PI), twice, target_of(digits.outcome, LAPTOP)))
    assert [each.targets for each in run.looked()] == [(PI, "another-board"), (LAPTOP,)]


def test_answers_that_are_gone_are_named(digits: Recorded, plane: Recorded) -> None:
    run = with_target(digits, target_of(digits.outcome, PI))
    with pytest.raises(StorageError):
        look(run.outcome, run.dataset.test, run.outcome.facts.classes, Store(plane.store.root))
