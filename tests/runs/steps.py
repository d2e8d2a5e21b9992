"""Two small steps, one after the other, and what they say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.artifacts.networks import NetworkRef
from pipeline.artifacts.training import Checkpoint, Finetuned
from pipeline.progress import Silent
from pipeline.runs.run import Work, open_run, stage
from tests.runs.made import ACCURACY, NETWORK, RECIPE

calls: list[str] = []


@pytest.fixture(autouse=True)
def no_calls() -> None:
    calls.clear()


@stage(version=1)
def make(work: Work, *, network: NetworkRef, seed: int) -> Checkpoint:
    calls.append("make")
    (work.scratch / "half").write_text("half")
    weights = work.store.put_array(np.full(4, seed, np.float32))
    return Checkpoint(
        network=network, weights=weights, metric=ACCURACY, val_metric=1
    )  # a whole number, recalled as 1.0


@stage(version=1)
def grow(work: Work, *, start: Checkpoint, factor: float) -> Finetuned:
    calls.append("grow")
    weights = work.store.put_array(factor * work.store.get_array(start.weights))
    return Finetuned(checkpoint=replace(start, weights=weights), start="run:make", replaced_head=(), transfer=())


class Heard(Silent):
    """Keeps what was said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        """Keep it."""
        self.lines.append(text)


def both(
    folder: Path, *, seed: int = 3, factor: float = 2.0, fresh: bool = False, network: NetworkRef = NETWORK
) -> tuple[Finetuned, list[str]]:
    """Run both steps; return the result and what was said."""
    heard = Heard()
    with open_run(folder, progress=heard, fresh=fresh, recipe=RECIPE, command=("karui", "run", "dots")) as run:
        made = run.step("make", make, network=network, seed=seed)
        grown = run.step("grow", grow, start=made, factor=factor)
        assert [note.stage for note in run.notes] == ["make", "grow"]
    return grown, heard.lines
