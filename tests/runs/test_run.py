"""Steps are recalled when nothing that matters changed, and made again when something did."""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.artifacts.networks import NetworkRef
from pipeline.artifacts.outcome import StageNote
from pipeline.artifacts.training import Checkpoint
from pipeline.errors import ConfigError
from pipeline.progress import Silent
from pipeline.runs.run import Work, deferred, open_run, read_run, stage, stage_line
from pipeline.runs.sources import code_digest, local_imports
from tests.runs.made import NETWORK, RECIPE
from tests.runs.steps import both, calls, make
from tests.runs.steps import no_calls as no_calls  # noqa: PLC0414  a fixture


def test_the_second_time_everything_is_recalled(tmp_path: Path) -> None:
    first, said_first = both(tmp_path / "run")
    second, said_second = both(tmp_path / "run")
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
    both(tmp_path / "run")
    calls.clear()
    both(tmp_path / "run", **change)
    assert calls == called
    calls.clear()
    both(tmp_path / "run")  # the first way is still known, unless it was to be forgotten
    assert calls == []


def test_a_moved_network_file_is_recalled_with_its_new_place(tmp_path: Path) -> None:
    both(tmp_path / "run")
    moved = replace(NETWORK, path=tmp_path / "moved.py")
    grown, _ = both(tmp_path / "run", network=moved)
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
    both(tmp_path / "run", network=network())
    calls.clear()
    (tmp_path / file).write_text(text)
    both(tmp_path / "run", network=network())
    assert calls == called


def test_a_run_folder_goes_on_with_the_cache_it_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KARUI_CACHE")
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    first, _ = both(Path("runs/dots"))
    calls.clear()
    monkeypatch.chdir(tmp_path / "there")
    assert both(Path("../here/runs/dots"))[0] == first
    assert calls == []
    both(Path("runs/dots"))  # another run folder, in a working folder of its own
    assert calls == ["make", "grow"]
    calls.clear()
    monkeypatch.setenv("KARUI_CACHE", str(tmp_path / "shared"))
    both(Path("runs/dots"))
    assert calls == ["make", "grow"]


def test_wrong_use_is_told_to_the_programmer(tmp_path: Path) -> None:
    with open_run(tmp_path, progress=Silent()) as run:
        with pytest.raises(TypeError, match="by keyword"):
            run.step("Make it", make, network=NETWORK, seed=1)
        with pytest.raises(TypeError, match="not marked with @stage"):
            run.step("plain", lambda work: work)
        with pytest.raises(TypeError, match="not marked with @stage"):
            run.step("plain", deferred("pipeline.runs.keys", "canonical"))


def test_two_run_folders_share_steps(tmp_path: Path) -> None:
    first, _ = both(tmp_path / "one")
    second, said = both(tmp_path / "two")
    assert calls == ["make", "grow"]
    assert second == first
    assert all("recalled" in line for line in said)
    found = sorted(path.name for path in (tmp_path / "two").iterdir())
    assert found == ["journal.jsonl", "lock", "run.json", "run.log"]


def test_without_a_name_the_cache_lies_in_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KARUI_CACHE")
    monkeypatch.chdir(tmp_path)
    both(Path("runs/dots"))
    assert list(Path("runs/.cache/steps").glob("make-*.json"))
    monkeypatch.setenv("KARUI_CACHE", "elsewhere/shared")
    both(Path("runs/dots"))
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
    both(tmp_path)
    (record,) = (cache / "steps").glob("make-*.json")
    finished = json.loads(record.read_text())["finished"]
    both(tmp_path, fresh=True)
    assert json.loads(record.read_text())["finished"] > finished


def test_the_run_says_what_it_is(tmp_path: Path, cache: Path) -> None:
    both(tmp_path / "dots")
    info = read_run(tmp_path / "dots")
    assert (info.name, info.recipe, info.command) == ("dots", RECIPE, ("karui", "run", "dots"))
    assert info.versions["karui"] != "absent"
    assert (tmp_path / "dots" / info.cache).resolve() == cache
    with pytest.raises(ConfigError, match="is no run folder"):
        read_run(tmp_path)
    (tmp_path / "dots" / "run.json").write_text("{")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_run(tmp_path / "dots")


def test_stage_lines() -> None:
    with_summary = stage_line(_note(recalled=False, summary="validation accuracy 97.8 %"))
    assert with_summary.split() == ["train", "12.3", "s", "validation", "accuracy", "97.8", "%"]
    assert stage_line(_note(recalled=True, summary="")).split() == ["train", "recalled"]


def _note(*, recalled: bool, summary: str) -> StageNote:
    return StageNote(stage="train", recalled=recalled, duration_s=12.34, summary=summary)


def test_recalling_is_quick(tmp_path: Path) -> None:
    both(tmp_path)
    begin_s = time.perf_counter()
    both(tmp_path)
    assert time.perf_counter() - begin_s < 0.5  # two steps take about 10 ms; ten of a real run must stay far below 3 s
