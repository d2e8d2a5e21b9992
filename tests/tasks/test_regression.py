"""Numbers: losses, errors and their bootstrap against formulas on a few samples."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.artifacts.evidence import Lines, Table
from pipeline.declare.recipe import TrainSpec
from pipeline.errors import ConfigError
from pipeline.tasks import regression as task
from tests.tasks.answered import Kept, answered, card, labelled

OUTPUTS = np.array([[1.0, 0.0], [2.0, 5.0], [4.0, 5.0]], np.float32)
WANTED = np.array([[1.0, 1.0], [2.0, 3.0], [3.0, 5.0]], np.float32)


def test_the_loss_is_the_mean_squared_error() -> None:
    (update,) = task.updates(TrainSpec())
    found = update.loss(nn.Identity(), torch.from_numpy(OUTPUTS), {"number": torch.from_numpy(WANTED)})
    assert float(found) == pytest.approx((1 + 4 + 1) / 6)


@pytest.mark.parametrize("weight", [0.0, 0.25, 1.0])
def test_distillation_mixes_in_the_distance_to_the_teacher(weight: float) -> None:
    teacher = nn.Linear(2, 2)
    (update,) = task.updates(TrainSpec(), teacher=teacher, weight=weight)
    inputs, wanted = torch.from_numpy(OUTPUTS).requires_grad_(), torch.from_numpy(WANTED)
    found = update.loss(nn.Identity(), inputs, {"number": wanted})
    soft = ((OUTPUTS - teacher(inputs).detach().numpy()) ** 2).mean()
    assert float(found.detach()) == pytest.approx(weight * soft + (1 - weight) * 1.0, rel=1e-5)
    found.backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_one_output_per_target_is_asked_for() -> None:
    found = task.signature(card((13,)), (), (2,))
    assert (found.output.shape, found.output.axes) == ((2,), "T")


@pytest.mark.parametrize("wanted", [(), (4, 4)])
def test_labels_that_are_no_row_of_numbers_are_refused(wanted: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="one number per target"):
        task.signature(card((13,)), (), wanted)


def test_the_answer_by_hand() -> None:
    answers, source = answered(task, OUTPUTS, WANTED)
    assert np.array_equal(answers.decisions, OUTPUTS)
    assert answers.score == pytest.approx([0.5, 2.0, 0.5])
    assert answers.value == pytest.approx(1.0)
    assert answers.others["MAE"] == pytest.approx((1 + 2 + 1) / 6)
    # target 1: errors 0, 0, 1 around 1 0 1; target 2: errors 1, 4, 0 around 4, 0, 4
    assert answers.others["R2"] == pytest.approx(((1 - 1 / 2) + (1 - 5 / 8)) / 2)
    assert task.choose(answers, source) == {}


def test_a_constant_target_has_no_r_squared() -> None:
    assert math.isnan(task.r_squared(np.array([[1.0], [2.0]]), np.array([[3.0], [3.0]])))


def test_outputs_within_a_twentieth_of_the_standard_deviation_agree() -> None:
    wanted = np.tile([[-10.0], [10.0]], (2, 1))
    first, source = answered(task, np.zeros((4, 1)), wanted)
    second, _ = answered(task, np.array([[0.0], [0.45], [0.55], [-2.0]]), wanted)
    assert task.compare(first, second, source).agreement == 0.5


def test_errors_are_compared_on_resampled_samples() -> None:
    rng = np.random.default_rng(0)
    wanted = rng.normal(size=(400, 1))
    noise = rng.normal(0, 0.5, (400, 1))
    (first, source), (second, _) = (answered(task, wanted + factor * noise, wanted) for factor in (1.0, 1.02))
    got = task.compare(first, second, source)
    assert got.method == "paired bootstrap"
    assert got.value_float == pytest.approx(float(np.sqrt((noise**2).mean())), rel=1e-5)
    assert got.difference == pytest.approx(0.02 * got.value_float, rel=1e-3)  # larger is worse
    assert got.low > 0  # every resample is 2 % worse
    assert got.p < 0.002
    assert (got.low, got.high) == pytest.approx((0.02 * 0.5, 0.02 * 0.5), rel=0.2)


def test_the_interval_is_the_delta_methods() -> None:
    rng = np.random.default_rng(1)
    errors = rng.normal(0, 2, (500, 1))
    answers, source = answered(task, errors, np.zeros((500, 1)))
    got = task.interval(answers, source)
    error = answers.score.std() / math.sqrt(500) / (2 * answers.value)
    assert got.value == pytest.approx(answers.value)
    assert got.high - got.low == pytest.approx(2 * 1.96 * error, rel=0.08)


def test_machines_are_resampled_whole() -> None:
    rng = np.random.default_rng(2)
    errors = np.repeat(rng.normal(0, 1, (20, 1)), 10, 0)
    answers, source = answered(task, errors, np.zeros((200, 1)), groups=np.repeat(np.arange(20), 10))
    _, apart = answered(task, errors, np.zeros((200, 1)))
    grouped, alone = task.interval(answers, source), task.interval(answers, apart)
    assert grouped.high - grouped.low > 2 * (alone.high - alone.low)  # sqrt(10) = 3.2 times


def test_figures_of_two_targets() -> None:
    source, kept = labelled(task, np.zeros((3, 4), np.float32), WANTED), Kept()
    ways = {"float": answered(task, OUTPUTS, WANTED)[0], "int8": answered(task, OUTPUTS + 1, WANTED)[0]}
    figures = task.figures(ways, source, ("width", "height"), kept.put)
    assert [each.title for each in figures] == [
        "Predicted against true, width", "Errors, width", "Predicted against true, height", "Errors, height",
        "Largest errors",
    ]  # fmt: skip
    against, errors = figures[2], figures[3]
    assert isinstance(against, Lines)
    assert isinstance(errors, Lines)
    assert against.dots
    assert kept[against.series["float"]].tolist() == [[1, 0], [3, 5], [5, 5]]
    assert kept[errors.series["int8"]].tolist() == [[1, 0], [3, 3], [5, 1]]
    table = figures[4]
    assert isinstance(table, Table)
    assert table.columns == ("sample", "true", "float", "int8")
    assert table.rows[0] == ("#1", "2, 3", "2, 5", "3, 6")


def test_a_single_target_needs_no_name_and_many_samples_are_thinned() -> None:
    wanted = np.arange(4000.0)[:, None]
    source, kept = labelled(task, np.zeros((4000, 4), np.float32), wanted), Kept()
    against, *_ = task.figures({"float": answered(task, wanted, wanted)[0]}, source, (), kept.put)
    assert isinstance(against, Lines)
    assert against.title == "Predicted against true"
    assert kept[against.series["float"]].shape == (1500, 2)


def test_the_baseline_is_the_error_of_the_mean() -> None:
    wanted = np.array([[1.0], [3.0], [5.0]], np.float32)
    found = task.baselines(labelled(task, np.zeros((3, 4), np.float32), wanted))
    assert found == {"mean of all": pytest.approx((8 / 3) ** 0.5)}
