"""Decisions by the clock are taken once, and again where they were altered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.artifacts.training import Epoch
from pipeline.runs.run import Work
from pipeline.runs.store import Store
from tests.runs.made import EPOCH
from tests.runs.steps import Heard
from tests.runs.steps import no_calls as no_calls  # noqa: PLC0414  a fixture


def _work(folder: Path, heard: Heard) -> Work:
    folder.mkdir(exist_ok=True)
    return Work(store=Store(folder / "store"), scratch=folder, progress=heard)


def test_a_decision_is_taken_once(tmp_path: Path) -> None:
    taken: list[int] = []

    def take() -> Epoch:
        taken.append(1)
        return replace(EPOCH, train_loss=len(taken))  # a whole number, recalled as a float

    heard = Heard()
    first = _work(tmp_path, heard).decided("step-1", Epoch, take)
    again = _work(tmp_path, heard).decided("step-1", Epoch, take)
    assert (taken, heard.lines) == ([1], [])
    assert repr(first) == repr(again)
    assert _work(tmp_path, heard).decided("step-2", Epoch, take).train_loss == 2


@pytest.mark.parametrize("alter", [lambda text: text.replace("0.5", "0.6"), lambda text: text[:20], lambda _: "{}"])
def test_an_altered_decision_is_taken_again(tmp_path: Path, alter: Callable[[str], str]) -> None:
    heard = Heard()
    work = _work(tmp_path, heard)
    work.decided("step-1", Epoch, lambda: EPOCH)
    file = tmp_path / "step-1.json"
    file.write_text(alter(file.read_text()))
    assert work.decided("step-1", Epoch, lambda: replace(EPOCH, index=2)).index == 2
    assert heard.lines[0].startswith(f"step-1  is decided again: {file} cannot be used (")
    assert work.decided("step-1", Epoch, lambda: EPOCH).index == 2


def test_a_decision_that_fails_leaves_nothing(tmp_path: Path) -> None:
    work = _work(tmp_path, Heard())
    with pytest.raises(ZeroDivisionError):
        work.decided("step-1", Epoch, lambda: replace(EPOCH, train_loss=1 / 0))
    with pytest.raises(ValueError, match="serialize"):
        work.decided("step-1", Epoch, lambda: replace(EPOCH, train_loss=np.float32(1)))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="names are small letters"):
        work.decided("../step", Epoch, lambda: EPOCH)
    assert not list(tmp_path.iterdir())
