"""Steps are recalled when nothing that matters changed, and made again when something did or is damaged."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.artifacts import Checkpoint, Finetuned, NetworkRef, StageNote
from pipeline.errors import ConfigError, RunBusyError, StorageError
from pipeline.progress import Silent
from pipeline.run import Work, deferred, open_run, read_run, stage, stage_line
from pipeline.spec import NetworkSpec, Recipe

NETWORK = NetworkRef(sha256="b" * 64, options={}, input_shape=(4,), classes=3, path=Path("net.py"))
RECIPE = Recipe(name="dots", data="dots", network=NetworkSpec(file="mlp"))

calls: list[str] = []


@pytest.fixture(autouse=True)
def _no_calls() -> None:
    calls.clear()


@stage(version=1)
def make(work: Work, *, network: NetworkRef, seed: int) -> Checkpoint:
    calls.append("make")
    (work.scratch / "half").write_text("half")
    weights = work.store.put_array(np.full(4, seed, np.float32))
    return Checkpoint(network=network, weights=weights, val_accuracy=1)  # a whole number, recalled as 1.0


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


def _both(
    folder: Path, *, seed: int = 3, factor: float = 2.0, fresh: bool = False, network: NetworkRef = NETWORK
) -> tuple[Finetuned, list[str]]:
    """Run both steps; return the result and what was said."""
    heard = Heard()
    with open_run(folder, progress=heard, fresh=fresh, recipe=RECIPE, command=("karui", "run", "dots")) as run:
        made = run.step("make", make, network=network, seed=seed)
        grown = run.step("grow", grow, start=made, factor=factor)
        assert [note.stage for note in run.notes] == ["make", "grow"]
    return grown, heard.lines


def test_the_second_time_everything_is_recalled(tmp_path: Path) -> None:
    first, said_first = _both(tmp_path / "run")
    second, said_second = _both(tmp_path / "run")
    assert calls == ["make", "grow"]
    assert second == first
    assert "100.0 % validation accuracy" in said_first[0]
    assert "recalled" not in said_first[0]
    assert "recalled" in said_second[0]
    assert "recalled" in said_second[1]


@pytest.mark.parametrize(
    ("change", "called"),
    [({"seed": 4}, ["make", "grow"]), ({"factor": 3.0}, ["grow"]), ({"fresh": True}, ["make", "grow"]), ({}, [])],
)
def test_a_change_runs_only_what_depends_on_it(tmp_path: Path, change: dict[str, Any], called: list[str]) -> None:
    _both(tmp_path / "run")
    calls.clear()
    _both(tmp_path / "run", **change)
    assert calls == called
    calls.clear()
    _both(tmp_path / "run")  # the first way is still known, unless it was to be forgotten
    assert calls == []


def test_a_moved_network_file_is_recalled_with_its_new_place(tmp_path: Path) -> None:
    _both(tmp_path / "run")
    moved = replace(NETWORK, path=tmp_path / "moved.py")
    grown, _ = _both(tmp_path / "run", network=moved)
    assert calls == ["make", "grow"]
    assert grown.checkpoint.network == moved


@pytest.mark.parametrize("damage", [lambda file: file.write_bytes(b"x"), Path.unlink], ids=["altered", "deleted"])
def test_a_damaged_file_is_made_again(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    first, _ = _both(tmp_path / "run")
    damage(tmp_path / "run" / "store" / first.checkpoint.weights)
    calls.clear()
    second, said = _both(tmp_path / "run")
    assert calls == ["grow"]
    assert second == first
    assert f"{first.checkpoint.weights} was altered or is gone" in "\n".join(said)


@pytest.mark.parametrize("text", ["", '{"step": "make"', "[]", "\udcff"])
def test_a_damaged_record_is_made_again(tmp_path: Path, text: str) -> None:
    first, _ = _both(tmp_path / "run")
    (record,) = (tmp_path / "run" / "steps").glob("make-*.json")
    record.write_bytes(text.encode(errors="surrogateescape"))
    calls.clear()
    second, said = _both(tmp_path / "run")
    assert calls == ["make"]
    assert second == first
    assert said[0].startswith(f"make  runs again: its record {record} cannot be read")


def test_a_record_of_an_unknown_kind_is_made_again(tmp_path: Path) -> None:
    _both(tmp_path / "run")
    (file,) = (tmp_path / "run" / "steps").glob("make-*.json")
    file.write_text(file.read_text().replace('"artifact_type": "Checkpoint"', '"artifact_type": "Path"'))
    calls.clear()
    _both(tmp_path / "run")
    assert calls == ["make"]


def test_a_failed_stage_leaves_no_record_and_finds_its_scratch_again(tmp_path: Path) -> None:
    seen: list[bool] = []

    @stage(version=1)
    def fragile(work: Work) -> Checkpoint:
        seen.append((work.scratch / "epoch").exists())
        (work.scratch / "epoch").write_text("1")
        if len(seen) == 1:
            raise ValueError("no luck")
        return make(work, network=NETWORK, seed=0)

    with pytest.raises(ValueError, match="no luck"), open_run(tmp_path / "run", progress=Silent()) as run:
        run.step("fragile", fragile)
    with open_run(tmp_path / "run", progress=Silent()) as run:
        run.step("fragile", fragile)
    assert seen == [False, True]
    assert not list((tmp_path / "run" / "work").iterdir())
    events = [json.loads(line) for line in (tmp_path / "run" / "journal.jsonl").read_text().splitlines()]
    told = [(event["event"], event.get("step")) for event in events]
    assert told[:3] == [("run started", None), ("started", "fragile"), ("failed", "fragile")]
    assert told[-2:] == [("finished", "fragile"), ("run finished", None)]
    assert events[2]["detail"] == "ValueError: no luck"


def test_a_result_that_could_not_be_recalled_is_not_recorded(tmp_path: Path) -> None:
    @stage(version=1)
    def single(work: Work) -> Checkpoint:
        return Checkpoint(network=NETWORK, weights="w", val_accuracy=np.float32(1))  # type: ignore[arg-type]

    @stage(version=1)
    def foreign(work: Work) -> Recipe:
        return RECIPE

    with open_run(tmp_path, progress=Silent()) as run:
        for wrong in (single, foreign):
            with pytest.raises(ValueError, match=r"serialize|no Recipe"):
                run.step("wrong", wrong)
    assert not (tmp_path / "steps").exists()


def test_wrong_use_is_told_to_the_programmer(tmp_path: Path) -> None:
    with open_run(tmp_path, progress=Silent()) as run:
        with pytest.raises(TypeError, match="by keyword"):
            run.step("Make it", make, network=NETWORK, seed=1)
        with pytest.raises(TypeError, match="not marked with @stage"):
            run.step("plain", lambda work: work)
        with pytest.raises(TypeError, match="not marked with @stage"):
            run.step("plain", deferred("pipeline.keys", "canonical"))


def test_a_full_disk_inside_a_stage_is_a_storage_error(tmp_path: Path) -> None:
    @stage(version=1)
    def full(work: Work) -> Checkpoint:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(work.scratch / "big"))

    with open_run(tmp_path, progress=Silent()) as run, pytest.raises(StorageError, match=r"big.*no space left"):
        run.step("full", full)


def test_a_file_in_the_place_of_the_folder_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(StorageError, match="a file lies where a folder is needed"):
        _both(tmp_path / "run")


def test_the_run_says_what_it_is(tmp_path: Path) -> None:
    _both(tmp_path / "dots")
    info = read_run(tmp_path / "dots")
    assert (info.name, info.recipe, info.command) == ("dots", RECIPE, ("karui", "run", "dots"))
    assert info.versions["karui"] != "absent"
    with pytest.raises(ConfigError, match="is no run folder"):
        read_run(tmp_path)
    (tmp_path / "dots" / "run.json").write_text("{")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_run(tmp_path / "dots")


def test_the_journal_goes_on_after_a_torn_line(tmp_path: Path) -> None:
    _both(tmp_path)
    journal = tmp_path / "journal.jsonl"
    journal.write_text(journal.read_text() + '{"when": "20')
    _both(tmp_path)
    lines = journal.read_text().splitlines()
    torn = lines.index('{"when": "20')
    assert json.loads(lines[torn + 1])["event"] == "run started"


def test_stage_lines() -> None:
    with_summary = stage_line(_note(recalled=False, summary="97.8 % validation accuracy"))
    assert with_summary.split() == ["train", "12.3", "s", "97.8", "%", "validation", "accuracy"]
    assert stage_line(_note(recalled=True, summary="")).split() == ["train", "recalled"]


def _note(*, recalled: bool, summary: str) -> StageNote:
    return StageNote(stage="train", recalled=recalled, duration_s=12.34, summary=summary)


# ── real processes ──────────────────────────────────────────────────────────────────────────────────────────────────

_STAGES = """
import time
from pipeline.artifacts import Checkpoint, NetworkRef
from pipeline.run import Work, stage

@stage(version=1)
def train(work: Work, *, network: NetworkRef, epochs: int, start: str) -> Checkpoint:
    done = [int(file.name) for file in work.scratch.iterdir()]
    print("resumed after", max(done, default=0), flush=True)
    for epoch in range(max(done, default=0) + 1, epochs + 1):
        time.sleep(0.05)
        (work.scratch / str(epoch)).touch()
        print(network.classes, epoch, flush=True)
    return Checkpoint(network=network, weights=work.store.put(f"{start}{epochs}".encode()), val_accuracy=1.0)
"""

_MAIN = """
import sys
from pathlib import Path
from pipeline.artifacts import NetworkRef
from pipeline.progress import Silent
from pipeline.run import deferred, open_run

train = deferred("toystages.train", "train")
first = NetworkRef(sha256="b" * 64, options={}, input_shape=(4,), classes=1, path=Path("net.py"))
second = NetworkRef(sha256="b" * 64, options={}, input_shape=(4,), classes=2, path=Path("net.py"))
with open_run(Path(sys.argv[1]), progress=Silent()) as run:
    one = run.step("one", train, network=first, epochs=2, start="")
    two = run.step("two", train, network=second, epochs=20, start=one.weights)
print("toystages.train" in sys.modules, "torch" in sys.modules, one.weights, two.weights)
"""


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    (tmp_path / "toystages").mkdir()
    (tmp_path / "toystages" / "__init__.py").touch()
    (tmp_path / "toystages" / "train.py").write_text(_STAGES)
    (tmp_path / "main.py").write_text(_MAIN)
    return tmp_path


def _start(folder: Path, run: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "main.py", run], cwd=folder, stdout=subprocess.PIPE, text=True)


def _finish(folder: Path, run: str) -> list[str]:
    with _start(folder, run) as process:
        lines = process.communicate()[0].splitlines()
    assert process.returncode == 0
    return lines


def _kill_at(folder: Path, run: str, line: str) -> None:
    with _start(folder, run) as process:
        assert process.stdout is not None
        assert any(said.strip() == line for said in process.stdout)
        process.send_signal(signal.SIGKILL)


def test_kill_9_loses_at_most_the_stage_in_progress(toy: Path) -> None:
    undisturbed = _finish(toy, "undisturbed")[-1].split()
    _kill_at(toy, "killed", "1 1")
    _kill_at(toy, "killed", "2 7")
    lines = _finish(toy, "killed")
    assert int(lines[0].removeprefix("resumed after ")) >= 7  # inside the second stage; the first was recalled
    assert "2 20" in lines
    assert lines[-1].split()[2:] == undisturbed[2:]
    assert _finish(toy, "killed") == [f"False False {undisturbed[2]} {undisturbed[3]}"]  # recalled: nothing loaded


def test_a_second_process_in_the_same_folder_is_told_who_is_there(toy: Path) -> None:
    with _start(toy, "run") as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(RunBusyError, match=f"run: is in use by another karui process \\(pid {process.pid}\\)"):
            _both(toy / "run")
        process.send_signal(signal.SIGKILL)
    _both(toy / "run")  # a killed process holds nothing


def test_recalling_is_quick(tmp_path: Path) -> None:
    _both(tmp_path)
    begin_s = time.perf_counter()
    _both(tmp_path)
    assert time.perf_counter() - begin_s < 0.5  # two steps take about 10 ms; ten of a real run must stay far below 3 s
