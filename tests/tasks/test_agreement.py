"""Agreement with a float network: loss, share of what is still there, and its comparison, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.artifacts.evidence import Answers, Lines, Table
from pipeline.data.source import ArraySource
from pipeline.declare.recipe import TrainSpec
from pipeline.errors import ConfigError
from pipeline.graph.ends import Outputs
from pipeline.tasks import agreement as task
from tests.tasks.answered import Kept, answered, card

WANTED = np.array([[1.0, 0.0], [3.0, 4.0], [2.0, 5.0]], np.float32)  # the mean is 2, 3
OUTPUTS = np.array([[1.0, 0.0], [3.0, 3.0], [2.0, 5.0]], np.float32)
AROUND = 1 + 9 + 1 + 1 + 0 + 4


def test_the_loss_is_the_squared_distance_to_the_float_network() -> None:
    (update,) = task.updates(TrainSpec(), teacher=nn.Identity(), weight=0.5)
    found = update.loss(nn.Identity(), torch.from_numpy(OUTPUTS), {"output": torch.from_numpy(WANTED)})
    assert float(found) == pytest.approx(1 / 6)


def test_several_outputs_count_alike_in_the_loss() -> None:
    (update,) = task.updates(TrainSpec())
    network = nn.Sequential(Outputs(("a", "b"), ((1,), (2,))))
    wanted = {"output": torch.tensor([[1.0, 1000.0, 1000.0]])}
    small, large = torch.tensor([[1.1, 1000.0, 1000.0]]), torch.tensor([[1.0, 1100.0, 1100.0]])
    found = [float(update.loss(network, each, wanted)) for each in (small, large)]
    assert found == pytest.approx([0.01, 0.01], rel=1e-3)


@pytest.mark.parametrize(("shape", "axes"), [((), ""), ((5,), "T"), ((4, 5), "CT"), ((2, 4, 5), "CHW")])
def test_outputs_of_any_shape_are_asked_for(shape: tuple[int, ...], axes: str) -> None:
    found = task.signature(card((3, 8, 8)), (), shape)
    assert (found.output.shape, found.output.axes) == (shape, axes)


def test_too_many_axes_are_refused() -> None:
    with pytest.raises(ConfigError, match="too many axes"):
        task.signature(card((3, 8, 8)), (), (1, 2, 3, 4, 5))


def test_the_answer_by_hand() -> None:
    answers, source = answered(task, OUTPUTS, WANTED)
    assert answers.score.tolist() == [0, 1, 0]
    assert answers.value == pytest.approx(1 - 1 / AROUND)
    assert answers.others["same largest output"] == pytest.approx(2 / 3)  # of equal ones the first
    assert answers.others["error"] == pytest.approx(math.sqrt(1 / float((WANTED**2).sum())))
    assert answers.decisions.tolist() == [0, 0, 1]
    assert task.choose(answers, source) == {}


def test_one_output_decides_for_itself() -> None:
    answers, _ = answered(task, OUTPUTS[:, :1], WANTED[:, :1])
    assert answers.decisions.tolist() == OUTPUTS[:, :1].tolist()


def test_the_same_outputs_agree_wholly_and_their_mean_not_at_all() -> None:
    same, source = answered(task, WANTED, WANTED)
    mean, _ = answered(task, np.broadcast_to(WANTED.mean(0), WANTED.shape), WANTED)
    assert same.value == 1.0
    assert mean.value == pytest.approx(task.baselines(source)["mean of all"])


def test_the_comparison_resamples_both_together() -> None:
    random = np.random.default_rng(0)
    wanted = random.normal(size=(60, 3)).astype(np.float32)
    first, source = answered(task, wanted, wanted)
    second, _ = answered(task, wanted + 0.1 * random.normal(size=wanted.shape), wanted)
    found = task.compare(first, second, source)
    assert found.value_float == 1.0
    assert found.value_int8 == pytest.approx(second.value)
    assert found.agreement == pytest.approx(second.others["same largest output"])
    interval = task.interval(second, source)
    assert interval.low < second.value < interval.high < 1


@pytest.mark.parametrize(("shape", "positions"), [((2, 3, 3), 9), ((5, 2), 5), ((2, 5), 5), ((4,), 1)])
def test_maps_decide_at_each_position(shape: tuple[int, ...], positions: int) -> None:
    wanted = np.random.default_rng(0).normal(size=(6, *shape)).astype(np.float32)
    found = wanted.copy()
    found[0] = -found[0]  # a sixth of all decisions
    answers, _ = answered(task, found, wanted)
    assert answers.decisions.reshape(6, -1).shape == (6, positions)
    assert answers.others["same largest output"] == pytest.approx(5 / 6)


def of_two(errors: tuple[float, float]) -> tuple[Answers, ArraySource]:
    """Return answers of two outputs, the second a thousand times as large, each off by a share of its spread."""
    random = np.random.default_rng(0)
    wanted = random.normal(size=(40, 6)).astype(np.float32) * [1, 1, 1000, 1000, 1000, 1000]
    found = wanted + random.normal(size=(40, 6)) * [errors[0]] * 1 * np.array([1, 1, 0, 0, 0, 0])
    found = found + random.normal(size=(40, 6)) * 1000 * errors[1] * np.array([0, 0, 1, 1, 1, 1])
    source = ArraySource(inputs={"input": found}, labels={"output": wanted.astype(np.float32)})
    predict = lambda x: {"a": x["input"][:, :2], "b": x["input"][:, 2:].reshape(-1, 2, 2)}  # noqa: E731
    return task.answer(predict, source, lambda x: x), source


def test_of_several_outputs_the_worst_counts() -> None:
    first, _ = of_two((0.3, 0.01))
    second, source = of_two((0.01, 0.3))
    assert first.value == pytest.approx(second.value, abs=0.05)
    assert first.value == pytest.approx(1 - 0.3**2, abs=0.04)
    assert first.others["error"] == pytest.approx(0.3, abs=0.06)
    assert first.decisions.shape == (40, 3)  # of two values, and of each column of 2x2
    assert task.interval(first, source).value == pytest.approx(first.value)
    found = task.compare(first, second, source)
    assert (found.value_float, found.value_int8) == (first.value, second.value)
    _, each, _ = task.figures({"float": first, "int8": second}, source, (), Kept().put)
    assert isinstance(each, Table)
    assert [row[0] for row in each.rows] == ["a", "b"]
    assert "dB" in each.rows[0][1]


def test_the_card_says_the_shapes_of_several_outputs() -> None:
    declared = card((3, 8, 8)).model_copy(update={"outputs": {"a": (2,), "b": (2, 2)}})
    assert [(each.name, each.shape) for each in task.signature(declared, (), (6,)).outputs] == [
        ("a", (2,)),
        ("b", (2, 2)),
    ]
    with pytest.raises(ConfigError, match="have 6 values, y has 7"):
        task.signature(declared, (), (7,))


def test_figures_show_outputs_and_what_is_furthest_off() -> None:
    answers, source = answered(task, OUTPUTS, WANTED)
    kept = Kept()
    lines, table = task.figures({"float": answers, "int8": answers}, source, (), kept.put)
    assert isinstance(lines, Lines)
    assert isinstance(table, Table)
    assert kept[lines.series["int8"]].shape == (6, 2)
    assert table.rows[0] == ("#1", "20 %", "20 %")  # 1 of a length of 5
