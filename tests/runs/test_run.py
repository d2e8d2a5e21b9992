"""Steps are recalled when nothing that matters changed, and made again when something did or is damaged."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.artifacts.networks import NetworkRef
from pipeline.artifacts.outcome import StageNote
from pipeline.artifacts.training import Checkpoint, Epoch, Finetuned
from pipeline.declare.recipe import Recipe
from pipeline.errors import ConfigError, StorageError
from pipeline.progress import Silent
from pipeline.runs.run import Work, deferred, open_run, read_run, stage, stage_line
from pipeline.runs.sources import code_digest, local_imports
from pipeline.runs.store import Store
from tests.runs.made import ACCURACY, EPOCH, NETWORK, RECIPE

calls: list[str] = []


@pytest.fixture(autouse=True)
def _no_calls() -> None:
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
    assert "validation accuracy 100.0 %" in said_first[0]
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


@pytest.mark.parametrize(
    ("file", "text", "called"),
    [
        ("helper.py", "width = 9\n", ["make", "grow"]),
        ("deeper.py", "depth = 2\n", ["make", "grow"]),
        ("net.py", "import helper\nhelper.width += 1\n", ["make", "grow"]),
        ("helper.py", '"""How wide."""\nimport deeper\n\nwidth = 8  # channels\n', []),
        ("net.py", "# a network\nimport helper\n", []),
        ("unused.py", "width = 9\n", []),
    ],
)
def test_an_edit_of_what_a_network_imports(tmp_path: Path, file: str, text: str, called: list[str]) -> None:
    def network() -> NetworkRef:
        net = tmp_path / "net.py"
        imports = {name: code_digest(path.read_bytes()) for name, path in local_imports(net).items()}
        return replace(NETWORK, sha256=code_digest(net.read_bytes()), imports=imports)

    (tmp_path / "net.py").write_text("import helper\n")
    (tmp_path / "helper.py").write_text("import deeper\nwidth = 8\n")
    (tmp_path / "deeper.py").write_text("depth = 1\n")
    _both(tmp_path / "run", network=network())
    calls.clear()
    (tmp_path / file).write_text(text)
    _both(tmp_path / "run", network=network())
    assert calls == called


@pytest.mark.parametrize("damage", [lambda file: file.write_bytes(b"x"), Path.unlink], ids=["altered", "deleted"])
def test_a_damaged_file_is_made_again(tmp_path: Path, cache: Path, damage: Callable[[Path], object]) -> None:
    first, _ = _both(tmp_path / "run")
    damage(cache / "store" / first.checkpoint.weights)
    calls.clear()
    second, said = _both(tmp_path / "run")
    assert calls == ["grow"]
    assert second == first
    assert f"{first.checkpoint.weights} was altered or is gone" in "\n".join(said)


@pytest.mark.parametrize("text", ["", '{"step": "make"', "[]", "\udcff"])
def test_a_damaged_record_is_made_again(tmp_path: Path, cache: Path, text: str) -> None:
    first, _ = _both(tmp_path / "run")
    (record,) = (cache / "steps").glob("make-*.json")
    record.write_bytes(text.encode(errors="surrogateescape"))
    calls.clear()
    second, said = _both(tmp_path / "run")
    assert calls == ["make"]
    assert second == first
    assert said[0].startswith(f"make  runs again: its record {record} cannot be used")


def test_an_altered_record_is_not_believed(tmp_path: Path, cache: Path) -> None:
    first, _ = _both(tmp_path / "run")
    (file,) = (cache / "steps").glob("grow-*.json")
    file.write_text(file.read_text().replace('"val_metric": 1.0', '"val_metric": 0.5'))
    calls.clear()
    second, said = _both(tmp_path / "run")
    assert calls == ["grow"]
    assert second == first
    assert said[1] == f"grow  runs again: its record {file} cannot be used (it was altered after karui wrote it)"


def test_a_run_folder_goes_on_with_the_cache_it_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KARUI_CACHE")
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    first, _ = _both(Path("runs/dots"))
    calls.clear()
    monkeypatch.chdir(tmp_path / "there")
    assert _both(Path("../here/runs/dots"))[0] == first
    assert calls == []
    _both(Path("runs/dots"))  # another run folder, in a working folder of its own
    assert calls == ["make", "grow"]
    calls.clear()
    monkeypatch.setenv("KARUI_CACHE", str(tmp_path / "shared"))
    _both(Path("runs/dots"))
    assert calls == ["make", "grow"]


def test_a_record_under_another_name_is_not_believed(tmp_path: Path, cache: Path) -> None:
    _both(tmp_path / "run", seed=3)
    (third,) = (cache / "steps").glob("make-*.json")
    _both(tmp_path / "run", seed=4)
    (fourth,) = set((cache / "steps").glob("make-*.json")) - {third}
    fourth.write_bytes(third.read_bytes())
    calls.clear()
    _both(tmp_path / "run", seed=4)
    assert calls == ["make"]


def test_a_failed_stage_leaves_no_record_and_finds_its_scratch_again(tmp_path: Path, cache: Path) -> None:
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
    assert not list((cache / "work").iterdir())
    events = [json.loads(line) for line in (tmp_path / "run" / "journal.jsonl").read_text().splitlines()]
    told = [(event["event"], event.get("step")) for event in events]
    assert told[:3] == [("run started", None), ("started", "fragile"), ("failed", "fragile")]
    assert told[-2:] == [("finished", "fragile"), ("run finished", None)]
    assert events[2]["detail"] == "ValueError: no luck"


def test_a_result_that_could_not_be_recalled_is_not_recorded(tmp_path: Path, cache: Path) -> None:
    @stage(version=1)
    def single(work: Work) -> Checkpoint:
        return Checkpoint(network=NETWORK, weights="w", metric=ACCURACY, val_metric=np.float32(1))  # type: ignore[arg-type]

    @stage(version=1)
    def foreign(work: Work) -> Recipe:
        return RECIPE

    with open_run(tmp_path, progress=Silent()) as run:
        for wrong in (single, foreign):
            with pytest.raises(ValueError, match=r"serialize|no pipeline\.declare\.recipe\.Recipe"):
                run.step("wrong", wrong)
    assert not (cache / "steps").exists()


def test_wrong_use_is_told_to_the_programmer(tmp_path: Path) -> None:
    with open_run(tmp_path, progress=Silent()) as run:
        with pytest.raises(TypeError, match="by keyword"):
            run.step("Make it", make, network=NETWORK, seed=1)
        with pytest.raises(TypeError, match="not marked with @stage"):
            run.step("plain", lambda work: work)
        with pytest.raises(TypeError, match="not marked with @stage"):
            run.step("plain", deferred("pipeline.runs.keys", "canonical"))


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


def test_two_run_folders_share_steps(tmp_path: Path) -> None:
    first, _ = _both(tmp_path / "one")
    second, said = _both(tmp_path / "two")
    assert calls == ["make", "grow"]
    assert second == first
    assert all("recalled" in line for line in said)
    found = sorted(path.name for path in (tmp_path / "two").iterdir())
    assert found == ["journal.jsonl", "lock", "run.json", "run.log"]


def test_without_a_name_the_cache_lies_in_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KARUI_CACHE")
    monkeypatch.chdir(tmp_path)
    _both(Path("runs/dots"))
    assert list(Path("runs/.cache/steps").glob("make-*.json"))
    monkeypatch.setenv("KARUI_CACHE", "elsewhere/shared")
    _both(Path("runs/dots"))
    assert list(Path("elsewhere/shared/steps").glob("make-*.json"))
    assert calls == 2 * ["make", "grow"]


def test_fresh_begins_with_nothing(tmp_path: Path) -> None:
    seen: list[bool] = []

    @stage(version=1)
    def slow(work: Work, *, seed: int) -> Checkpoint:
        seen.append((work.scratch / "epoch").exists())
        (work.scratch / "epoch").write_text("1")
        if len(seen) in {1, 3}:
            raise KeyboardInterrupt
        return make(work, network=NETWORK, seed=seed)

    for fresh in (False, True, True, False):
        with contextlib.suppress(KeyboardInterrupt), open_run(tmp_path, progress=Silent(), fresh=fresh) as run:
            run.step("slow", slow, seed=1)
            run.step("slow", slow, seed=1)  # made since this run began: recalled
            assert [note.recalled for note in run.notes] == [not fresh, True]
    assert seen == [False, False, False]  # scratch of a killed process goes; the last run recalled what the second made


def test_fresh_replaces_the_record(tmp_path: Path, cache: Path) -> None:
    _both(tmp_path)
    (record,) = (cache / "steps").glob("make-*.json")
    finished = json.loads(record.read_text())["finished"]
    _both(tmp_path, fresh=True)
    assert json.loads(record.read_text())["finished"] > finished


def test_the_run_says_what_it_is(tmp_path: Path, cache: Path) -> None:
    _both(tmp_path / "dots")
    info = read_run(tmp_path / "dots")
    assert (info.name, info.recipe, info.command) == ("dots", RECIPE, ("karui", "run", "dots"))
    assert info.versions["karui"] != "absent"
    assert (tmp_path / "dots" / info.cache).resolve() == cache
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


def test_leftovers_of_killed_writers_go(tmp_path: Path, cache: Path) -> None:
    _both(tmp_path)
    for folder in (tmp_path, cache / "steps", cache / "store"):
        (folder / ".0123.tmp").write_text("half")
    with open_run(tmp_path / "other", progress=Silent()):
        assert not list(cache.glob("*/.*.tmp"))
        (cache / "store" / ".4567.tmp").write_text("another process is writing this")
        with open_run(tmp_path, progress=Silent()):
            assert not list(tmp_path.glob(".*.tmp"))
            assert (cache / "store" / ".4567.tmp").exists()


def test_stage_lines() -> None:
    with_summary = stage_line(_note(recalled=False, summary="validation accuracy 97.8 %"))
    assert with_summary.split() == ["train", "12.3", "s", "validation", "accuracy", "97.8", "%"]
    assert stage_line(_note(recalled=True, summary="")).split() == ["train", "recalled"]


def _note(*, recalled: bool, summary: str) -> StageNote:
    return StageNote(stage="train", recalled=recalled, duration_s=12.34, summary=summary)


# ── decisions by the clock ──────────────────────────────────────────────────────────────────────────────────────────


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


def test_recalling_is_quick(tmp_path: Path) -> None:
    _both(tmp_path)
    begin_s = time.perf_counter()
    _both(tmp_path)
    assert time.perf_counter() - begin_s < 0.5  # two steps take about 10 ms; ten of a real run must stay far below 3 s
