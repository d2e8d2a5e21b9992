"""What an emulated target is asked, and how that is compared."""

from __future__ import annotations

import dataclasses
import signal
import sys
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from pipeline.artifacts.evidence import Answers, CannotRun, Place
from pipeline.data.source import ArraySource
from pipeline.errors import ModelError
from pipeline.instruments.answers import apart
from pipeline.instruments.emulated import affordable, drawn
from pipeline.instruments.here import FileWay
from pipeline.instruments.passing import Bench, noted
from pipeline.runs.run import Work
from pipeline.runs.store import Store
from pipeline.runtimes import version
from pipeline.runtimes.child import Home
from pipeline.tasks import named
from tests.instruments.test_here import exported
from tests.onboard.small_models import inputs


def answers(outputs: list[list[float]]) -> Answers:
    found = np.array(outputs, np.float32)
    return Answers(
        outputs={"output": found}, decisions=found.argmax(1), score=np.ones(len(found)), value=0.0, others={}
    )


def test_all_samples_where_there_is_time() -> None:
    assert affordable(360, each_s=0.1, left_s=36.1, seed=0) is None


def test_as_many_as_there_is_time_for_in_their_order() -> None:
    chosen = affordable(1000, each_s=0.1, left_s=5.0, seed=0)
    assert chosen is not None
    assert len(chosen) == len(set(chosen.tolist())) == 50
    assert chosen.tolist() == sorted(chosen.tolist())
    again = affordable(1000, each_s=0.1, left_s=5.0, seed=0)
    assert again is not None
    assert chosen.tolist() == again.tolist()
    other = affordable(1000, each_s=0.1, left_s=5.0, seed=1)
    assert other is not None
    assert chosen.tolist() != other.tolist()


@pytest.mark.parametrize("left_s", [0.0, -3.0])
def test_a_few_however_long_they_take(left_s: float) -> None:
    chosen = affordable(1000, each_s=60.0, left_s=left_s, seed=0)
    assert chosen is not None
    assert len(chosen) == 32


def test_two_places_are_compared_number_by_number() -> None:
    here, there = answers([[0, 1], [2, 1], [3, 1], [0, 4]]), answers([[0, 1], [2, 2.5], [3, 1], [0, 3.5]])
    found = apart(there, here, {"output": 0.5})
    assert (found.same, found.identical, found.max_steps) == (0.75, 6 / 8, 3.0)
    assert found.different.tolist() == [1, 3]


def dying(number: signal.Signals) -> Home:
    """Return a home whose Python ends itself, as one does whose processor lacks an instruction."""
    return Home(command=(sys.executable, "-c", f"import os; os.kill(os.getpid(), {int(number)})"))


def test_a_runtime_that_dies_is_a_result_and_the_rest_goes_on(tmp_path: Path) -> None:
    store = Store(tmp_path)
    runs, dies, crashes = (FileWay(file=f, runtime="onnxruntime", path=store.path(f.file)) for f in exported(store)[:3])
    dies = dataclasses.replace(dies, home=dying(signal.SIGILL))
    crashes = dataclasses.replace(crashes, runtime="litert", home=dying(signal.SIGSEGV))
    bench = Bench(
        work=cast("Work", None),
        task=named("classification"),
        test=ArraySource(inputs={"picture": inputs(40)}),
        references=(),
        place=Place(how="emulated", name="cortex-a53", profile="board"),
    )
    cannot_run: list[CannotRun] = []
    chosen, left = drawn(bench, [dies, runs, crashes], budget_s=60, seed=0, cannot_run=cannot_run)
    assert chosen is None
    assert left == (runs,)
    assert [(each.way.key, each.said) for each in cannot_run] == [
        ("onnx-int8 in onnxruntime", f"onnxruntime {version('onnxruntime')} was ended by SIGILL"),
        ("tflite-fp32 in litert", f"litert {version('litert')} was ended by SIGSEGV"),
    ]


def test_on_this_machine_a_file_that_fails_is_an_error(tmp_path: Path) -> None:
    store = Store(tmp_path)
    file = exported(store)[0]
    way = FileWay(file=file, runtime="onnxruntime", path=store.path(file.file), home=dying(signal.SIGILL))
    with pytest.raises(ModelError, match="was ended by SIGILL"), noted(way, None):
        way.open(threads=1)
