"""What real processes do to each other: killed, beside each other in one cache, after an edit of a helper."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.errors import RunBusyError
from pipeline.progress import Silent
from pipeline.runs.cache import Cache
from pipeline.runs.run import open_run

_STAGES = """
import random
import sys
import time
from dataclasses import replace
from pathlib import Path
from pipeline.artifacts.networks import NetworkRef
from pipeline.artifacts.training import Checkpoint, Epoch
from pipeline.runs.run import Work, stage
from tests.runs.made import ACCURACY, EPOCH

@stage(version=1)
def train(work: Work, *, network: NetworkRef, epochs: int, start: str) -> Checkpoint:
    done = [int(file.name) for file in work.scratch.iterdir()]
    print("resumed after", max(done, default=0), flush=True)
    for epoch in range(max(done, default=0) + 1, epochs + 1):
        time.sleep(0.05)
        while epoch > 3 and network.options["width"] == 2 and Path("hold").exists():
            time.sleep(0.01)
        (work.scratch / str(epoch)).touch()
        print(network.options["width"], epoch, flush=True)
    weights = work.store.put(f"{start}{epochs}".encode())
    return Checkpoint(network=network, weights=weights, metric=ACCURACY, val_metric=1.0)

@stage(version=1)
def prune(work: Work, *, network: NetworkRef) -> Checkpoint:
    losses = []
    for step in ("step-1", "step-2", "step-3"):
        print("deciding", step, flush=True)
        time.sleep(0.2)
        decision = work.decided(step, Epoch, lambda: replace(EPOCH, train_loss=random.random()))
        print("decided", step, decision.train_loss, flush=True)
        losses.append(decision.train_loss)
    return Checkpoint(network=network, weights=work.store.put(repr(losses).encode()), metric=ACCURACY, val_metric=1.0)
"""

_MAIN = """
import sys
from dataclasses import replace
from pathlib import Path
from pipeline.progress import Silent
from pipeline.runs.run import deferred, open_run
from tests.runs.made import NETWORK

class Loud(Silent):
    def say(self, text):
        print("said:", text, flush=True)

train, prune = deferred("toystages.train", "train"), deferred("toystages.train", "prune")
first, second = (replace(NETWORK, options={"width": width}) for width in (1, 2))
words = sys.argv[2:]
with open_run(Path(sys.argv[1]), progress=Loud(), fresh="fresh" in words) as run:
    one = run.step("one", train, network=first, epochs=2, start="")
    two = run.step("two", train, network=second, epochs=20, start=one.weights)
    last = run.step("prune", prune, network=first) if "prune" in words else two
print("toystages.train" in sys.modules, "torch" in sys.modules, one.weights, two.weights, last.weights)
"""


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    (tmp_path / "toystages").mkdir()
    (tmp_path / "toystages" / "__init__.py").touch()
    (tmp_path / "toystages" / "train.py").write_text(_STAGES)
    (tmp_path / "main.py").write_text(_MAIN)
    return tmp_path


def _start(folder: Path, run: str, *words: str) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "main.py", run, *words]
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)


def _ended(process: subprocess.Popen[str]) -> list[str]:
    lines = process.communicate(timeout=60)[0].splitlines()
    assert process.returncode == 0
    return lines


def _finish(folder: Path, run: str, *words: str) -> list[str]:
    with _start(folder, run, *words) as process:
        return _ended(process)


def _weights(lines: list[str]) -> list[str]:
    return lines[-1].split()[2:]


def _read_until(process: subprocess.Popen[str], wanted: Callable[[str], bool]) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if wanted(line.strip()):
            return line.strip()
    raise AssertionError("the process ended before that")


def _kill_at(folder: Path, run: str, start_of_line: str, *words: str) -> str:
    with _start(folder, run, *words) as process:
        line = _read_until(process, lambda line: line.startswith(start_of_line))
        process.send_signal(signal.SIGKILL)
    return line


def test_kill_9_loses_at_most_the_stage_in_progress(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    undisturbed = _weights(_finish(toy, "undisturbed"))
    monkeypatch.setenv("KARUI_CACHE", "another")
    _kill_at(toy, "killed", "1 1")
    _kill_at(toy, "killed", "2 7")
    lines = _finish(toy, "killed")
    resumed = next(line for line in lines if line.startswith("resumed"))
    assert int(resumed.removeprefix("resumed after ")) >= 7  # inside the second stage; the first was recalled
    assert "2 20" in lines
    assert _weights(lines) == undisturbed
    recalled = _finish(toy, "killed")
    assert recalled[-1] == " ".join(("False", "False", *undisturbed))  # recalled: nothing loaded
    assert not list((toy / "another" / "work").iterdir())


def test_another_run_folder_goes_on_where_a_killed_one_was(toy: Path) -> None:
    _kill_at(toy, "killed", "2 7")
    resumed = [line for line in _finish(toy, "other") if line.startswith("resumed")]
    assert len(resumed) == 1
    assert int(resumed[0].removeprefix("resumed after ")) >= 7


def test_kill_9_inside_a_decision_keeps_those_that_were_taken(toy: Path) -> None:
    first = _kill_at(toy, "run", "decided step-1", "prune")
    second = _kill_at(toy, "run", "decided step-2", "prune")
    _kill_at(toy, "run", "deciding step-3", "prune")
    lines = _finish(toy, "run", "prune")
    assert first in lines
    assert second in lines
    assert len({line for line in lines if line.startswith("decided")}) == 3
    assert _finish(toy, "run", "prune")[-1].split()[4] == lines[-1].split()[4]
    assert _weights(_finish(toy, "run", "prune", "fresh"))[2] != _weights(lines)[2]  # the clock is asked again


def test_a_second_process_in_the_same_folder_is_told_who_is_there(toy: Path) -> None:
    with _start(toy, "run") as process:
        _read_until(process, lambda line: line.startswith("resumed"))
        with (
            pytest.raises(RunBusyError, match=f"run: is in use by another karui process \\(pid {process.pid}\\)"),
            open_run(toy / "run", progress=Silent()),
        ):
            pass
        process.send_signal(signal.SIGKILL)
    with open_run(toy / "run", progress=Silent()):  # a killed process holds nothing
        pass


def test_two_processes_at_once_make_a_step_once(toy: Path) -> None:
    (toy / "hold").touch()  # in the second step, after three epochs
    with _start(toy, "first") as first:
        _read_until(first, lambda line: line == "2 3")
        with _start(toy, "second") as second:
            told = _read_until(second, lambda line: "waits" in line)
            (toy / "hold").unlink()
            made, waited = _ended(first), _ended(second)
    assert " ".join(told.split()) == (
        f"said: two waits for another karui process (pid {first.pid}), which is at this step"
    )
    assert made[0] == "2 4"
    assert [line.split()[1:3] for line in waited[:-1]] == [["two", "recalled"]]  # it made nothing, and said so once
    assert _weights(made) == _weights(waited)
    assert _events(toy / "second") == [
        ("run started", None),
        ("recalled", "one"),
        ("waiting", "two"),
        ("recalled", "two"),
        ("run finished", None),
    ]


def _events(folder: Path) -> list[tuple[str, str | None]]:
    lines = (folder / "journal.jsonl").read_text().splitlines()
    return [(event["event"], event.get("step")) for event in map(json.loads, lines)]


def test_who_waits_for_a_process_that_is_killed_goes_on_with_its_work(toy: Path) -> None:
    (toy / "hold").touch()
    with _start(toy, "first") as first:
        _read_until(first, lambda line: line == "2 3")
        with _start(toy, "second") as second:
            _read_until(second, lambda line: "waits" in line)
            first.send_signal(signal.SIGKILL)
            (toy / "hold").unlink()
            lines = _ended(second)
    assert lines[0] == "resumed after 3"
    assert "2 20" in lines


def test_fresh_beside_another_run_harms_neither(toy: Path) -> None:
    undisturbed = _weights(_finish(toy, "first"))
    (toy / "hold").touch()
    with _start(toy, "second", "fresh") as fresh:
        _read_until(fresh, lambda line: line == "2 3")
        beside = _finish(toy, "first")
        assert _weights(beside) == undisturbed
        assert not [line for line in beside if line.startswith("resumed")]  # recalled while the other makes it anew
        (toy / "hold").unlink()
        lines = _ended(fresh)
    assert lines[0] == "2 4"
    assert _weights(lines) == undisturbed


def test_marks_of_runs_go_with_their_processes(toy: Path, cache: Path) -> None:
    with _start(toy, "run") as process:
        _read_until(process, lambda line: line.startswith("resumed"))
        assert Cache(root=cache).pids_at_work() == (process.pid,)
        process.send_signal(signal.SIGKILL)
    assert len(list((cache / "busy").glob("*.run"))) == 1
    with open_run(toy / "other", progress=Silent()) as run:
        assert run.cache.pids_at_work() == (os.getpid(),)
    assert not list((cache / "busy").glob("*.run"))


# ── code that changes between runs ──────────────────────────────────────────────────────────────────────────────────


def test_an_edit_of_a_stage(toy: Path) -> None:
    first = _finish(toy, "run")
    stages = toy / "toystages" / "train.py"
    for old, new, runs in (
        ("@stage", '"""Stages."""\n# of a test\n@stage', False),
        ("    losses = []", '    """Prune."""\n    losses = []', False),
        ("repr(losses)", "str(losses)", True),
    ):
        assert old in _STAGES
        stages.write_text(_STAGES.replace(old, new))
        lines = _finish(toy, "run")
        assert bool([line for line in lines if line.startswith("resumed")]) == runs
        assert _weights(lines) == _weights(first)
