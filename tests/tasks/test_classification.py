"""Losses against sums written out by hand, decisions, the paired comparison and the figures on a few samples."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.artifacts.evidence import Answers, Figure, Matrix, Pictures, Table
from pipeline.declare.recipe import TrainSpec
from pipeline.errors import ConfigError
from pipeline.judging import stats
from pipeline.tasks import classification as task
from tests.tasks.answered import Kept, answered, card, labelled

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 0.0, 3.0]])
LABELS = torch.tensor([0, 1])
TEMPERATURE = 3.0
CLASSES = ("cat", "dog", "cow")


def loss(outputs: Tensor, labels: Tensor, **settings: Any) -> Tensor:
    plan = TrainSpec(label_smoothing=settings.pop("smoothing", 0.0))
    (update,) = task.updates(plan, **settings)
    found: Tensor = update.loss(lambda _: outputs, LOGITS, {"class": labels})
    return found


def softmax(logits: Tensor) -> np.ndarray:
    powers = np.exp(logits.double().numpy())
    return np.asarray(powers / powers.sum(1, keepdims=True))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_spreads_a_share_of_each_label_over_all_classes(smoothing: float) -> None:
    wanted = np.eye(3)[LABELS] * (1 - smoothing) + smoothing / 3
    by_hand = -(wanted * np.log(softmax(LOGITS))).sum(1).mean()
    assert float(loss(LOGITS, LABELS, smoothing=smoothing)) == pytest.approx(by_hand, rel=1e-6)


class Doubling(nn.Module):
    """A teacher."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * x + torch.tensor([0.0, 1.0, 0.0])


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_distillation_mixes_labels_with_the_teachers_softened_outputs(weight: float) -> None:
    inputs = torch.tensor([[1.0, 0.5, -1.0], [0.2, -0.3, 0.1]])
    teacher = softmax(Doubling()(inputs) / TEMPERATURE)
    student = softmax(LOGITS / TEMPERATURE)
    divergence = (teacher * (np.log(teacher) - np.log(student))).sum(1).mean() * TEMPERATURE**2
    hard = -np.log(softmax(LOGITS))[[0, 1], LABELS].mean()
    (update,) = task.updates(TrainSpec(), teacher=Doubling(), weight=weight)
    found = update.loss(lambda _: LOGITS, inputs, {"class": LABELS})
    assert float(found) == pytest.approx(weight * divergence + (1 - weight) * hard, rel=1e-5)


def test_full_distillation_uses_no_labels_and_leaves_the_teacher_alone() -> None:
    teacher = nn.Linear(3, 3)
    logits = LOGITS.clone().requires_grad_()
    first, second = (loss(logits, labels, teacher=teacher, weight=1.0) for labels in (LABELS, LABELS.flip(0)))
    assert float(first.detach()) == float(second.detach())
    first.backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_a_student_that_equals_its_teacher_has_nothing_to_learn() -> None:
    assert float(loss(LOGITS, LABELS, teacher=nn.Identity(), weight=1.0)) == pytest.approx(0, abs=1e-6)


def test_all_of_a_network_is_trained_and_ships() -> None:
    network = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    (update,) = task.updates(TrainSpec())
    assert list(update.parameters(network)) == list(network.parameters())
    assert task.exported(network) is network


# ── what is asked of a network, and what is made of its outputs ─────────────────────────────────────────────────────


def test_one_output_per_class_is_asked_for() -> None:
    found = task.signature(card((3, 8, 6)), CLASSES, ())
    assert (found.input.name, found.input.shape, found.input.axes) == ("input", (3, 8, 6), "CHW")
    assert (found.output.name, found.output.shape, found.output.axes) == ("output", (3,), "K")


@pytest.mark.parametrize(
    ("classes", "wanted", "text"), [(("cat",), (), "not 1 classes"), (CLASSES, (4,), "not labels of shape (4,)")]
)
def test_a_card_that_cannot_be_meant_is_refused(classes: tuple[str, ...], wanted: tuple[int, ...], text: str) -> None:
    with pytest.raises(ConfigError, match="classification needs one of") as caught:
        task.signature(card((5,)), classes, wanted)
    assert text in caught.value.what


OUTPUTS = np.array([[0, 1, 1], [2, 2, 0], [0, 0, 5], [0, 9, 0], [0, 0, 1]], np.float32)


def test_the_answer_is_the_first_of_the_largest_outputs() -> None:
    answers, _ = answered(task, OUTPUTS, [1, 1, 2, 1, 0])
    assert answers.decisions.tolist() == [1, 0, 2, 1, 2]
    assert answers.score.tolist() == [1, 0, 1, 1, 0]
    assert answers.value == pytest.approx(3 / 5)
    assert answers.others["balanced accuracy"] == pytest.approx((0 + 2 / 3 + 1) / 3)
    assert answers.others["worst class recall"] == 0
    assert np.array_equal(answers.outputs["output"], OUTPUTS)
    assert task.choose(answers, labelled(task, OUTPUTS, [0] * 5)) == {}


def test_a_class_without_samples_has_no_recall() -> None:
    answers, _ = answered(task, OUTPUTS, [1, 1, 2, 1, 2])
    assert answers.others["worst class recall"] == pytest.approx(2 / 3)


def paired(first_right: Any, second_right: Any, groups: Any = None) -> tuple[Answers, Answers, Any]:
    """Return two ways of running on samples of class 0: right where told, else the other class."""
    outputs = [np.where(np.asarray(right)[:, None], [1, 0], [0, 1]) for right in (first_right, second_right)]
    (first, source), (second, _) = (answered(task, each, [0] * len(each), groups=groups) for each in outputs)
    return first, second, source


def test_comparison_of_a_table_by_hand() -> None:
    float_right = [True] * 90 + [False] * 10
    int8_right = [True] * 87 + [False] * 3 + [True] * 1 + [False] * 9
    got = task.compare(*paired(float_right, int8_right))
    assert (got.samples, got.value_float, got.value_int8, got.agreement) == (100, 0.9, 0.88, 0.96)
    assert got.difference == pytest.approx(-0.02)
    assert got.p == pytest.approx(10 / 16)  # 1 against 3: (1 + 4) * 2 / 2**4
    tango = stats.paired_difference_interval(1, 3, 100)
    bounds = stats.paired_difference_interval(1, 3, 100, confidence=0.90)
    assert (got.low, got.high, got.one_sided_low, got.one_sided_high) == (
        tango.low, tango.high, bounds.low, bounds.high
    )  # fmt: skip
    assert got.detectable == stats.detectable_gap(100, discordant=4)
    assert got.method == "exact McNemar test, Tango 1998"


def test_the_old_names_are_in_percentage_points() -> None:
    got = task.compare(*paired([True, True, False, True], [True, False, False, True]))
    names = task.legacy_names(got)
    assert list(names) == [
        "accuracy_float", "accuracy_int8", "difference_pp", "low_pp", "high_pp", "mcnemar_p", "detectable_pp",
    ]  # fmt: skip
    assert (names["accuracy_float"], names["accuracy_int8"], names["difference_pp"]) == (0.75, 0.5, -25.0)
    assert names["low_pp"] == pytest.approx(100 * got.low)
    assert (names["mcnemar_p"], names["detectable_pp"]) == (got.p, 100 * got.detectable)


def test_comparison_refuses_unequal_lengths_and_nothing() -> None:
    three, _ = answered(task, OUTPUTS[:3], [0, 0, 0])
    two, source = answered(task, OUTPUTS[:2], [0, 0])
    with pytest.raises(ValueError, match="paired answers of 3 and 2 samples"):
        task.compare(three, two, source)


def test_the_interval_is_wilsons() -> None:
    answers, source = answered(task, OUTPUTS, [1, 1, 2, 1, 0])
    assert task.interval(answers, source) == stats.wilson_interval(3, 5)


def test_samples_of_one_speaker_are_not_taken_for_independent() -> None:
    right = np.repeat([True, True, True, False], 25)  # one of four speakers is never understood
    other = np.repeat([True, True, False, False], 25)
    first, second, source = paired(right, other, groups=np.repeat(np.arange(4), 25))
    wide = task.interval(first, source)
    assert (wide.value, wide.low, wide.high) == (0.75, 0.25, 1.0)
    got = task.compare(first, second, source)
    assert got.method == "paired bootstrap of groups"
    assert got.p > 0.05  # one speaker lost is no proof; McNemar on 25 samples would say p = 1e-7
    assert stats.mcnemar_p(0, 25) < 1e-6


# ── figures ─────────────────────────────────────────────────────────────────────────────────────────────────────────

TRUE = np.array([0, 0, 1, 1, 2, 2])
BY_FLOAT = np.array([0, 0, 1, 2, 2, 0])
BY_INT8 = np.array([0, 1, 1, 1, 1, 1])
ONE_HOT = np.eye(3, dtype=np.float32)


def drawn(pictures: bool, *decisions: np.ndarray) -> tuple[dict[str, Figure], Kept]:
    """Return the figures by title, of samples that are pictures or rows."""
    shape = (6, 1, 4, 4) if pictures else (6, 20)
    inputs = np.arange(np.prod(shape)).reshape(shape).astype(np.uint8)
    source, kept = labelled(task, inputs, TRUE), Kept()
    titles = ("float", "int8")[: len(decisions)]
    ways = {title: answered(task, ONE_HOT[each], TRUE)[0] for title, each in zip(titles, decisions, strict=True)}
    return {figure.title: figure for figure in task.figures(ways, source, CLASSES, kept.put)}, kept


def test_confusion_counts_true_down_and_decided_across() -> None:
    figures, kept = drawn(False, BY_FLOAT, BY_INT8)
    matrices = {title: figure for title, figure in figures.items() if isinstance(figure, Matrix)}
    by_float, by_int8, difference = matrices.values()
    assert list(matrices) == ["Confusion, float", "Confusion, int8", "Difference, int8 − float"]
    assert kept[by_float.counts].tolist() == [[2, 0, 0], [0, 1, 1], [1, 0, 1]]
    assert kept[by_int8.counts].tolist() == [[1, 1, 0], [0, 2, 0], [0, 2, 0]]
    assert kept[difference.counts].tolist() == [[-1, 1, 0], [0, 1, -1], [-1, 2, -1]]
    assert (by_float.rows, by_float.signed, difference.signed) == (CLASSES, False, True)


def test_the_pairs_confused_most_come_first() -> None:
    figures, _ = drawn(False, BY_FLOAT, BY_INT8)
    table = figures["Most confused"]
    assert isinstance(table, Table)
    assert table.columns == ("true", "taken for", "float", "int8")
    assert table.rows == (
        ("cow", "dog", "0", "2"), ("cat", "dog", "0", "1"), ("dog", "cow", "1", "0"), ("cow", "cat", "1", "0"),
    )  # fmt: skip


def test_recall_per_class() -> None:
    figures, _ = drawn(False, BY_FLOAT, BY_INT8)
    table = figures["Recall per class"]
    assert isinstance(table, Table)
    assert table.columns == ("class", "samples", "float", "int8")
    assert table.rows[0] == ("cat", "2", "100.0 %", "50.0 %")
    assert table.rows[2] == ("cow", "2", "50.0 %", "0.0 %")


def test_disagreements_show_what_int8_lost_first_then_what_it_gained() -> None:
    assert task.disagreements(BY_FLOAT, BY_INT8, TRUE).tolist() == [1, 4, 3, 5]
    figures, kept = drawn(True, BY_FLOAT, BY_INT8)
    shown = figures["Float and int8 disagree"]
    assert isinstance(shown, Pictures)
    assert kept[shown.images].shape == (4, 1, 4, 4)
    assert kept[shown.images].dtype == np.uint8
    assert shown.captions[0] == "#1: cat; float cat, int8 dog"
    assert shown.note.startswith("4 of 4, out of 6 test samples; first those lost by int8")
    assert "Both are wrong" not in figures


def test_rows_are_shown_as_numbers() -> None:
    figures, _ = drawn(False, BY_FLOAT, BY_INT8)
    table = figures["Float and int8 disagree"]
    assert isinstance(table, Table)
    assert table.rows[0] == ("#1: cat; float cat, int8 dog", ", ".join(map(str, range(20, 36))) + ", … (20 values)")


def test_without_int8_the_errors_of_float_are_shown() -> None:
    figures, _ = drawn(True, BY_FLOAT)
    errors = figures["Float is wrong"]
    assert isinstance(errors, Pictures)
    assert errors.captions == ("#3: dog; float cow", "#5: cow; float cat")
    assert not {"Float and int8 disagree", "Difference, int8 − float", "Confusion, int8"} & set(figures)


def test_shared_errors_are_the_same_wrong_class() -> None:
    assert task.shared_errors(BY_FLOAT, BY_INT8, TRUE).tolist() == []
    assert task.shared_errors(BY_FLOAT, BY_FLOAT, TRUE).tolist() == [3, 5]


def test_no_more_than_48_disagreements_are_shown() -> None:
    labels, inputs = np.zeros(60, int), np.zeros((60, 1, 2, 2), np.uint8)
    first, second = (answered(task, np.tile(row, (60, 1)), labels)[0] for row in ([1, 0], [0, 1]))
    kept = Kept()
    figures = task.figures({"float": first, "int8": second}, labelled(task, inputs, labels), ("a", "b"), kept.put)
    (shown,) = (figure for figure in figures if isinstance(figure, Pictures))
    assert (len(shown.captions), len(kept[shown.images])) == (48, 48)
    assert shown.note.startswith("48 of 60, out of 60")


def test_a_perfect_network_leaves_nothing_to_show_but_the_matrix_and_recall() -> None:
    figures, _ = drawn(True, TRUE, TRUE)
    assert list(figures) == ["Confusion, float", "Confusion, int8", "Recall per class"]


def test_baselines_are_lots_and_the_most_frequent_class() -> None:
    labels = [0, 1, 1, 1, 2]
    assert task.baselines(labelled(task, np.zeros((5, 3), np.float32), labels)) == {
        "chance": pytest.approx(1 / 3),
        "most frequent class": 0.6,
    }
