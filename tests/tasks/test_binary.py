"""Areas under the ROC curve by counting pairs, DeLong's test against brute force, thresholds by trying all."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.artifacts.evidence import Answers, Figure, Lines, Matrix, Table
from pipeline.data.source import ArraySource
from pipeline.declare.recipe import TrainSpec
from pipeline.errors import ConfigError
from pipeline.judging import stats
from pipeline.tasks import binary as task
from tests.tasks.answered import Kept, answered, card, labelled

CLASSES = ("benign", "malignant")


def counted_auc(logits: Any, labels: Any) -> float:
    """Every pair of a positive and a negative sample, one by one."""
    positive, negative = (np.asarray(logits)[np.asarray(labels) == k] for k in (1, 0))
    return float(np.mean([(p > q) + (p == q) / 2 for p in positive for q in negative]))


def drawn(seed: int, samples: int = 200, noise: float = 0.3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels and the logits of two ways that mostly agree; rounded, so that there are ties."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(samples) < 0.4).astype(int)
    first = labels * 1.5 + rng.normal(size=samples)
    return labels, first.round(1), (first + rng.normal(0, noise, samples)).round(1)


def of(logits: Any, labels: Any, **settings: Any) -> tuple[Answers, ArraySource]:
    return answered(task, np.asarray(logits, np.float32)[:, None], labels, **settings)


# ── training ────────────────────────────────────────────────────────────────────────────────────────────────────────

LOGITS = torch.tensor([[2.0], [-1.0], [0.5]])
LABELS = torch.tensor([1, 1, 0])
TEMPERATURE = 3.0


def sigmoid(logits: Tensor) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-logits[:, 0].double().numpy())))


def entropy_between(wanted: np.ndarray, found: np.ndarray) -> float:
    return float(-(wanted * np.log(found) + (1 - wanted) * np.log(1 - found)).mean())


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_with_smoothed_labels(smoothing: float) -> None:
    (update,) = task.updates(TrainSpec(label_smoothing=smoothing))
    wanted = LABELS.numpy() * (1 - smoothing) + smoothing / 2
    found = update.loss(lambda _: LOGITS, LOGITS, {"class": LABELS})
    assert float(found) == pytest.approx(entropy_between(wanted, sigmoid(LOGITS)), rel=1e-6)


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_distillation_mixes_labels_with_the_teachers_softened_outputs(weight: float) -> None:
    inputs, teacher = torch.tensor([[0.3], [1.0], [-2.0]]), nn.Identity()
    (update,) = task.updates(TrainSpec(), teacher=teacher, weight=weight)
    soft = entropy_between(sigmoid(inputs / TEMPERATURE), sigmoid(LOGITS / TEMPERATURE)) * TEMPERATURE**2
    hard = entropy_between(LABELS.numpy(), sigmoid(LOGITS))
    found = update.loss(lambda _: LOGITS, inputs, {"class": LABELS})
    assert float(found) == pytest.approx(weight * soft + (1 - weight) * hard, rel=1e-5)


def test_a_student_that_equals_its_teacher_stays_as_it_is() -> None:
    logits = LOGITS.clone().requires_grad_()
    (update,) = task.updates(TrainSpec(), teacher=nn.Identity(), weight=1.0)
    update.loss(lambda _: logits, LOGITS, {"class": LABELS}).backward()
    assert logits.grad is not None
    assert logits.grad.abs().max() < 1e-6


# ── answers ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_one_output_is_asked_for() -> None:
    found = task.signature(card((30,)), CLASSES, ())
    assert (found.input.shape, found.input.axes, found.output.shape) == ((30,), "F", (1,))


@pytest.mark.parametrize("classes", [(), ("a",), ("a", "b", "c")])
def test_anything_but_two_classes_is_refused(classes: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match=f"one of exactly two classes per sample, not {len(classes)} classes"):
        task.signature(card((30,)), classes, ())


def test_area_by_hand_with_ties() -> None:
    # positives 3, 1, 1; negatives 0, 1, 2: 3 beats all; each 1 beats 0, ties with 1, loses to 2
    assert task.auc(np.array([3, 1, 1, 0, 1, 2.0]), np.array([1, 1, 1, 0, 0, 0])) == pytest.approx((3 + 1.5 + 1.5) / 9)


@pytest.mark.parametrize("seed", range(5))
def test_area_is_the_share_of_pairs_in_order(seed: int) -> None:
    labels, logits, _ = drawn(seed, samples=60)
    assert task.auc(logits, labels) == pytest.approx(counted_auc(logits, labels))


def test_area_of_one_class_alone_is_no_number() -> None:
    assert np.isnan(task.auc(np.array([1.0, 2.0]), np.array([1, 1])))


def test_decisions_are_yes_from_the_chosen_threshold_on() -> None:
    logits, labels = [2.0, 0.5, 0.4, -1.0], [1, 0, 1, 0]
    plain, _ = of(logits, labels)
    assert plain.decisions.tolist() == [1, 1, 1, 0]  # from 0 on: probability ½
    assert plain.score.tolist() == [1, 0, 1, 1]
    assert plain.others == pytest.approx({"F1": 2 * 2 / (3 + 2), "accuracy": 0.75})
    strict, _ = of(logits, labels, chosen={"threshold": 1.0})
    assert strict.decisions.tolist() == [1, 0, 0, 0]
    assert strict.value == plain.value == pytest.approx(0.75)  # the area knows no threshold
    assert strict.others == pytest.approx({"F1": 2 * 1 / (1 + 2), "accuracy": 0.75})


def test_f1_of_nothing_found_is_zero() -> None:
    nothing = np.zeros(3, int)
    assert task.f1(nothing, np.array([0, 1, 0])) == task.f1(nothing, nothing) == 0


@pytest.mark.parametrize("seed", range(5))
def test_the_threshold_is_the_best_of_all(seed: int) -> None:
    labels, logits, _ = drawn(seed, samples=80)
    answers, source = of(logits, labels)
    chosen = task.choose(answers, source)
    got, _ = of(logits, labels, chosen=chosen)
    every = [task.f1((logits >= at).astype(int), labels) for at in np.arange(-5, 6, 0.05)]
    assert got.others["F1"] == pytest.approx(max(every))


def test_the_threshold_lies_half_way_between_two_logits() -> None:
    answers, source = of([-2.0, -1.0, 1.0, 2.0], [0, 0, 1, 1])
    assert task.choose(answers, source) == {"threshold": 0.0}


def test_where_all_are_positive_everything_is_above_the_threshold() -> None:
    answers, source = of([3.0, 4.0], [1, 1])
    assert task.choose(answers, source)["threshold"] < 3.0


# ── comparing ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_delongs_interval_is_what_the_bootstrap_finds() -> None:
    labels, logits, _ = drawn(0, samples=300)
    answers, source = of(logits, labels)
    got = task.interval(answers, source)
    rng = np.random.default_rng(0)
    picks = [rng.integers(0, 300, 300) for _ in range(1500)]
    resampled = [task.auc(logits[pick], labels[pick]) for pick in picks]
    assert got.value == pytest.approx(counted_auc(logits.astype(np.float32), labels))
    assert got.high - got.low == pytest.approx(2 * 1.96 * np.std(resampled), rel=0.08)


def test_delongs_test_of_two_ways_is_what_the_paired_bootstrap_finds() -> None:
    labels, first_logits, second_logits = drawn(1, samples=300, noise=0.8)
    (first, source), (second, _) = of(first_logits, labels), of(second_logits, labels)
    got = task.compare(first, second, source)
    rng = np.random.default_rng(0)
    gaps = []
    for _ in range(1500):
        pick = rng.integers(0, 300, 300)
        gaps.append(task.auc(second_logits[pick], labels[pick]) - task.auc(first_logits[pick], labels[pick]))
    error = float(np.std(gaps))
    assert got.method == "DeLong 1988"
    assert (got.value_float, got.value_int8, got.samples) == (first.value, second.value, 300)
    assert got.difference == pytest.approx(second.value - first.value)
    assert got.high - got.low == pytest.approx(2 * 1.96 * error, rel=0.08)
    assert got.one_sided_high - got.difference == pytest.approx(1.645 * error, rel=0.08)
    assert got.detectable == pytest.approx(2.8 * error, rel=0.08)
    assert got.agreement == pytest.approx(np.mean((first_logits >= 0) == (second_logits >= 0)))


def test_delongs_covariance_by_hand() -> None:
    """Placements of 2 positives and 2 negatives, written out: only one of the four pairs is out of order."""
    answers, source = of([1.0, 3.0, 0.0, 2.0], [1, 1, 0, 0])
    placed = task._placed([answers.outputs["output"][:, 0]], np.array([1, 1, 0, 0]))
    assert placed is not None
    assert placed.positive.tolist() == [[0.5, 1.0]]
    assert placed.negative.tolist() == [[1.0, 0.5]]
    assert placed.covariance[0, 0] == pytest.approx(0.125 / 2 + 0.125 / 2)
    got = task.interval(answers, source)
    assert (got.value, got.high) == (0.75, 1.0)  # never above 1
    assert got.low == pytest.approx(0.75 - 1.959964 * np.sqrt(0.125))


def test_true_differences_are_missed_by_one_interval_in_twenty() -> None:
    hits = 0
    for seed in range(300):
        labels, first_logits, second_logits = drawn(seed + 100, noise=0.5)
        (first, source), (second, _) = of(first_logits, labels), of(second_logits, labels)
        got = task.compare(first, second, source)
        hits += got.low <= -0.0343 <= got.high
    assert 0.91 <= hits / 300 <= 0.985  # 95 %, 2.5 standard errors of 300 draws (1.3 pp)


def test_equal_ways_do_not_differ_and_less_than_one_pair_never_shows() -> None:
    answers, source = of([2.0, 3.0, 0.0, 1.0, 1.0], [1, 1, 0, 0, 0])
    got = task.compare(answers, answers, source)
    assert (got.difference, got.low, got.high, got.p, got.agreement) == (0, 0, 0, 1, 1)
    assert got.detectable == pytest.approx(1 / 6)  # 2 · 3 pairs


def test_a_perfect_order_is_not_certain() -> None:
    answers, source = of([2.0] * 20 + [0.0] * 50, [1] * 20 + [0] * 50)
    got = task.interval(answers, source)
    assert (got.value, got.high) == (1, 1)
    assert got.low == pytest.approx(stats.wilson_interval(20, 20).low)


def test_groups_are_resampled_whole() -> None:
    labels, first_logits, second_logits = drawn(3, samples=40)
    together = np.repeat(np.arange(40), 5)  # five equal samples of each patient
    (first, source), (second, _) = (
        of(np.repeat(logits, 5), np.repeat(labels, 5), groups=together) for logits in (first_logits, second_logits)
    )
    (lone_first, lone), (lone_second, _) = of(first_logits, labels), of(second_logits, labels)
    got, alone = task.compare(first, second, source), task.compare(lone_first, lone_second, lone)
    assert got.method == "paired bootstrap of groups"
    assert got.difference == pytest.approx(alone.difference)
    assert got.detectable == pytest.approx(alone.detectable, rel=0.15)  # not a fifth's worth of certainty more
    apart = task.interval(first, source)
    assert apart.high - apart.low == pytest.approx(np.ptp([*vars(task.interval(lone_first, lone)).values()]), rel=0.2)


def test_resampled_areas_count_every_drawn_pair() -> None:
    labels, logits, _ = drawn(4, samples=30)
    counts = np.random.default_rng(0).integers(0, 4, (20, 30)).astype(float)
    counts[0] = np.where(labels == 1, 0.0, 1.0)  # no positive sample was drawn
    areas = task._Curve(logits, labels).areas(counts)
    assert np.isnan(areas[0])
    repeated = [counted_auc(np.repeat(logits, each), np.repeat(labels, each)) for each in counts[1:].astype(int)]
    assert areas[1:] == pytest.approx(repeated)


def test_a_single_positive_sample_is_compared_by_the_bootstrap() -> None:
    (first, source), (second, _) = of([1.0, 0.0, 2.0], [1, 0, 0]), of([3.0, 0.0, 2.0], [1, 0, 0])
    assert task.compare(first, second, source).method == "paired bootstrap"
    assert task.interval(first, source).value == 0.5


def test_there_are_no_old_names() -> None:
    answers, source = of([2.0, 3.0, 0.0, 1.0], [1, 1, 0, 0])
    assert task.legacy_names(task.compare(answers, answers, source)) == {}


# ── figures ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_curve_by_hand() -> None:
    curve = task.roc(np.array([3.0, 2.0, 2.0, 1.0]), np.array([1, 1, 0, 0]))
    assert curve.tolist() == [[0, 0], [0, 0.5], [0.5, 1], [1, 1]]  # the tie is one slanted step


def test_the_area_under_the_drawn_curve_is_the_metric() -> None:
    labels, logits, _ = drawn(5, samples=150)
    curve = task.roc(logits, labels)
    trapezoids = np.diff(curve[:, 0]) * (curve[1:, 1] + curve[:-1, 1]) / 2
    assert trapezoids.sum() == pytest.approx(task.auc(logits, labels))


def test_a_long_curve_is_thinned_and_keeps_its_ends() -> None:
    rng = np.random.default_rng(0)
    curve = task.roc(rng.normal(size=5000), rng.integers(0, 2, 5000))
    assert len(curve) == 400
    assert (curve[0].tolist(), curve[-1].tolist()) == ([0, 0], [1, 1])


def test_figures_of_float_and_int8() -> None:
    labels, first_logits, second_logits = drawn(6)
    source, kept = labelled(task, np.zeros((200, 3), np.float32), labels), Kept()
    ways = {"float": of(first_logits, labels)[0], "int8": of(second_logits, labels)[0]}
    figures: dict[str, Figure] = {each.title: each for each in task.figures(ways, source, CLASSES, kept.put)}
    curves, matrix = figures["ROC curve"], figures["Confusion, float"]
    histogram, table = figures["Logits of each class, float"], figures["Float and int8 disagree"]
    assert isinstance(curves, Lines)
    assert list(curves.series) == ["float", "int8"]
    assert kept[curves.series["int8"]].shape[1] == 2
    assert isinstance(matrix, Matrix)
    assert matrix.rows == CLASSES
    assert kept[matrix.counts].sum() == 200
    assert isinstance(histogram, Lines)
    assert [kept[histogram.series[name]][:, 1].sum() for name in CLASSES] == [(labels == 0).sum(), (labels == 1).sum()]
    assert isinstance(table, Table)
    assert len(table.rows) == min(48, int(((first_logits >= 0) != (second_logits >= 0)).sum()))
    assert "float" in table.rows[0][0]


def test_the_baseline_is_an_order_by_lot() -> None:
    assert task.baselines(labelled(task, np.zeros((4, 3), np.float32), [0, 0, 0, 1])) == {"chance": 0.5}
