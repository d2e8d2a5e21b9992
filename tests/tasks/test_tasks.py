"""What all tasks share: batches, labels, figures of single samples, and that none of them loads torch."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import pipeline
from pipeline.artifacts.evidence import Pictures, Table
from pipeline.data.source import ArraySource
from pipeline.errors import ConfigError, DataError
from pipeline.onboard.arrays import Arrays
from pipeline.tasks import TASKS, Task, batched, named
from pipeline.tasks.confusion import confusion, matrices, recalls, share_text, shares
from pipeline.tasks.inputs import as_bytes, samples_figure
from pipeline.tasks.protocol import input_spec, labels_of, mean_of
from tests.tasks.answered import Kept, answered, card


@pytest.mark.parametrize("name", TASKS)
def test_a_task_has_every_name_of_the_protocol(name: str) -> None:
    wanted = {key for key in vars(Task) if not key.startswith("_") and callable(getattr(Task, key))}
    wanted |= set(Task.__annotations__)
    assert not [key for key in sorted(wanted) if not hasattr(TASKS[name], key)]
    assert named(name) is TASKS[name]


@pytest.mark.parametrize("name", TASKS)
def test_a_task_says_what_it_does_in_its_own_words(name: str) -> None:
    task = TASKS[name]
    functions = [value for key, value in vars(task).items() if key in vars(Task) and inspect.isfunction(value)]
    assert all(function.__doc__ for function in functions)
    assert task.METRIC.name


@pytest.mark.parametrize(
    ("name", "shape", "labels"),
    [
        ("agreement", (4, 2, 3), np.arange(24.0).reshape(4, 2, 3)),
        ("binary", (4, 1), [0, 1, 1, 0]),
        ("classification", (4, 2), [0, 1, 1, 0]),
        ("regression", (4, 1), [[0.0], [1], [2], [3]]),
        ("segmentation", (4, 2, 3, 5), np.zeros((4, 3, 5))),
    ],
)
def test_a_task_names_every_metric_that_it_measures(name: str, shape: tuple[int, ...], labels: object) -> None:
    outputs = np.random.default_rng(0).normal(size=shape)
    answers, source = answered(TASKS[name], outputs, labels)
    assert list(answers.others) == [metric.name for metric in TASKS[name].OTHERS]
    assert TASKS[name].interval(answers, source).value == pytest.approx(answers.value)


def test_an_unknown_task_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match="there is no task 'regresion'; did you mean 'regression'") as caught:
        named("regresion")
    assert "task = " in caught.value.remedy


def test_no_task_loads_torch_until_it_trains() -> None:
    code = (
        "import sys, pipeline.tasks\n"
        "from pipeline.declare.recipe import TrainSpec\n"
        "assert 'torch' not in sys.modules, 'torch was imported'\n"
        "pipeline.tasks.named('binary').updates(TrainSpec())\n"
        "assert 'torch' in sys.modules\n"
    )
    root = Path(pipeline.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# ── batches and labels ──────────────────────────────────────────────────────────────────────────────────────────────


def test_batched_runs_portions_in_order_of_prepared_inputs() -> None:
    source = ArraySource(inputs={"input": np.arange(10, dtype=np.uint8)[:, None]})
    seen: list[int] = []

    def predict(inputs: Arrays) -> Arrays:
        seen.append(len(inputs["input"]))
        return {"output": inputs["input"] * 10, "state": inputs["input"][:, 0]}

    def prepare(inputs: Arrays) -> Arrays:
        return {"input": inputs["input"] + 0.5}

    outputs = batched(predict, source, prepare, portion=4)
    assert seen == [4, 4, 2]
    assert outputs["output"][:, 0].tolist() == [10 * (i + 0.5) for i in range(10)]
    assert outputs["state"].shape == (10,)


def test_a_source_without_samples_is_refused() -> None:
    with pytest.raises(ValueError, match="no parts"):
        batched(lambda inputs: inputs, ArraySource(inputs={"input": np.zeros((0, 2))}), lambda inputs: inputs)


def test_labels_of_another_kind_are_refused_in_words() -> None:
    source = ArraySource(inputs={"input": np.zeros((2, 2))}, labels={"class": np.array([0, 1])})
    assert labels_of(source, "class").tolist() == [0, 1]
    with pytest.raises(DataError, match="no 'number' label"):
        labels_of(source, "number")


@pytest.mark.parametrize(("shape", "axes"), [((5,), "F"), ((6, 100), "CT"), ((3, 8, 8), "CHW")])
def test_the_axes_of_an_input(shape: tuple[int, ...], axes: str) -> None:
    assert input_spec(card(shape)).axes == axes


def test_the_mean_of_resamples() -> None:
    counts = np.array([[1.0, 1, 1], [0, 3, 0], [2, 0, 1]])
    assert mean_of(np.array([1.0, 2, 6]), counts) == pytest.approx([3, 2, 8 / 3])


# ── shared parts of figures ─────────────────────────────────────────────────────────────────────────────────────────


def test_confusion_of_any_shape() -> None:
    true, decided = np.array([[0, 1], [1, 2]], np.uint8), np.array([[0, 1], [2, 2]], np.uint8)
    counts = confusion(true, decided, 3)
    assert counts.tolist() == [[1, 0, 0], [0, 1, 1], [0, 0, 1]]
    assert recalls(counts) == pytest.approx([1, 0.5, 1])
    assert confusion(np.array([200], np.uint8), np.array([199], np.uint8), 201)[200, 199] == 1  # beyond a byte


def test_shares_of_nothing_are_no_number() -> None:
    assert np.isnan(shares(np.array([0, 1]), np.array([0, 2]))).tolist() == [True, False]
    assert [share_text(share) for share in (0.975, 1.0, float("nan"))] == ["97.5 %", "100.0 %", "—"]


def test_equal_matrices_have_no_difference() -> None:
    counts = np.eye(2, dtype=np.int64)
    assert len(matrices({"float": counts, "int8": counts}, ("a", "b"), Kept().put)) == 2


def test_bytes_that_use_most_of_a_byte_stay_and_all_else_is_stretched() -> None:
    dark, bright = np.array([0, 8, 16], np.uint8), np.array([0, 8, 200], np.uint8)
    assert as_bytes(bright).tolist() == [0, 8, 200]
    assert as_bytes(dark).tolist() == [0, 128, 255]
    assert as_bytes(np.array([-1.0, 1.0])).tolist() == [0, 255]
    assert as_bytes(np.full(3, 7.0)).tolist() == [0, 0, 0]


def test_samples_are_pictures_or_rows() -> None:
    pictures = ArraySource(inputs={"input": np.zeros((4, 3, 2, 2), np.uint8)})
    rows = ArraySource(inputs={"input": np.array([[1.0, 2.5], [3, 1e6]])})
    kept, indices = Kept(), np.array([1, 0])
    drawn = samples_figure("Shown", pictures, indices, ["b", "a"], kept.put, note="two")
    listed = samples_figure("Shown", rows, indices, ["b", "a"], kept.put)
    assert isinstance(drawn, Pictures)
    assert (drawn.captions, drawn.note, kept[drawn.images].shape) == (("b", "a"), "two", (2, 3, 2, 2))
    assert isinstance(listed, Table)
    assert listed.rows == (("b", "3, 1e+06"), ("a", "1, 2.5"))


def test_of_several_inputs_the_first_is_shown() -> None:
    source = ArraySource(inputs={"camera": np.zeros((2, 1, 2, 2), np.uint8), "speed": np.ones((2, 1))})
    assert isinstance(samples_figure("Shown", source, np.array([0]), ["a"], Kept().put), Pictures)
