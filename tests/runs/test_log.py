"""The log of a run: what happened when, for people who come back to it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from pipeline.artifacts.networks import NetworkRef
from pipeline.artifacts.training import Checkpoint
from pipeline.progress import Silent
from pipeline.runs.log import LOG_FILE, Logged
from pipeline.runs.run import Work, open_run, stage
from tests.runs.made import ACCURACY, NETWORK

TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d\d:\d\d  "


@stage(version=1)
def learn(work: Work, *, network: NetworkRef) -> Checkpoint:
    work.progress.start("train", 20)
    work.progress.advance(10, loss=0.5)
    work.progress.advance(0, epoch=1, epochs=2, loss=0.5, **{"val share": 0.75})
    work.progress.say("a remark")
    weights = work.store.put_array(np.zeros(4, np.float32))
    return Checkpoint(network=network, weights=weights, metric=ACCURACY, val_metric=0.5)


def test_stages_epochs_and_remarks_have_a_line_with_its_time(tmp_path: Path) -> None:
    with open_run(tmp_path / "run", progress=Silent(), command=("karui", "run", "digits")) as run:
        run.step("train", learn, network=NETWORK)
    lines = (tmp_path / "run" / LOG_FILE).read_text().splitlines()
    assert all(re.match(TIME, line) for line in lines)
    said = [" ".join(re.sub(TIME, "", line).split()) for line in lines]
    assert said[0] == "started: karui run digits"
    assert said[1:3] == ["train epoch 1/2 loss 0.5 val share 0.75", "a remark"]
    assert said[3].startswith("train 0.0 s")
    assert said[4:] == ["finished"]


def test_a_second_run_and_one_that_stops_are_added(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt), open_run(tmp_path / "run", progress=Silent()):
            raise KeyboardInterrupt
    lines = (tmp_path / "run" / LOG_FILE).read_text().splitlines()
    assert [re.sub(TIME, "", line).split(":")[0] for line in lines] == ["started", "stopped", "started", "stopped"]


def test_what_would_act_on_a_terminal_is_written_out(tmp_path: Path) -> None:
    Logged(watched=Silent(), file=tmp_path / LOG_FILE).say("two\nlines \x1b[31m")
    first, second = (tmp_path / LOG_FILE).read_text().splitlines()
    assert first.endswith("  two")
    assert second.endswith("  lines \\x1b[31m")
