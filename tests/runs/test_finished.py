"""Runs that are done are found and read; an outcome that was altered is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.artifacts.outcome import Judged, Verdict
from pipeline.errors import ConfigError
from pipeline.progress import Silent
from pipeline.runs.finished import (
    OUTCOME_FILE,
    RUNS,
    again,
    cache_of,
    find_run,
    load_outcome,
    store_of,
    write_outcome,
)
from pipeline.runs.run import open_run
from tests.runs.made import OUTCOME, RECIPE

JUDGED = Judged(
    target="board",
    title="Board",
    weight_bits=8,
    threads=1,
    candidates=(),
    compared=None,
    measurements=(),
    verdict=Verdict(target="board", checks=(), ship=None, why="too slow"),
)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with a finished run, sharing what lies in the usual place."""
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("KARUI_CACHE")
    command = ("karui", "run", "dots", "--until", "report", "--fresh")
    with open_run(RUNS / "dots", progress=Silent(), recipe=RECIPE, command=command) as run:
        run.store.put(b"weights")
        write_outcome(run.folder, OUTCOME)
    return folder


def test_a_run_is_found_by_path_and_by_name(here: Path) -> None:
    assert find_run("dots") == RUNS / "dots"
    assert find_run("runs/dots") == RUNS / "dots"
    assert find_run(str(here / "runs/dots")) == here / "runs/dots"
    with pytest.raises(ConfigError, match="there is no run 'dos'; did you mean 'dots'\\?"):
        find_run("dos")
    with pytest.raises(ConfigError, match=r"there is no run '\.cache'"):
        find_run(".cache")
    with pytest.raises(ConfigError) as caught:
        find_run("zzz")
    assert "cache" not in str(caught.value)


def test_an_outcome_comes_back(here: Path) -> None:
    assert load_outcome(RUNS / "dots") == OUTCOME
    write_outcome(RUNS / "dots", replace(OUTCOME, targets=(JUDGED,)))
    assert load_outcome(RUNS / "dots").targets == (JUDGED,)
    with (RUNS / "dots" / OUTCOME_FILE).open() as file:
        assert json.load(file)["targets"][0]["target"] == "board"


@pytest.mark.parametrize(
    "alter",
    [
        lambda plain: plain["trained"].update(val_metric=0.99),
        lambda plain: plain["targets"][0]["verdict"].update(why="fast enough"),
        lambda plain: plain.update(digest="0" * 64),
        lambda plain: plain.pop("digest"),
    ],
)
def test_an_altered_outcome_is_refused(here: Path, alter: Callable[[dict[str, Any]], object]) -> None:
    write_outcome(RUNS / "dots", replace(OUTCOME, targets=(JUDGED,)))
    file = RUNS / "dots" / OUTCOME_FILE
    plain = json.loads(file.read_text())
    alter(plain)
    file.write_text(json.dumps(plain))
    with pytest.raises(ConfigError) as caught:
        load_outcome(RUNS / "dots")
    assert str(caught.value) == (
        "runs/dots/outcome.json: cannot be believed: it was altered after karui wrote it\n"
        "  make it anew: karui run dots"
    )
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("text", ["", "{", '{"a": 1}', "\0"])
def test_a_damaged_outcome_is_refused(here: Path, text: str) -> None:
    (RUNS / "dots" / OUTCOME_FILE).write_text(text)
    with pytest.raises(ConfigError, match=r"runs/dots/outcome\.json: cannot be read: it is damaged"):
        load_outcome(RUNS / "dots")


def test_a_run_that_has_not_finished(here: Path) -> None:
    (RUNS / "dots" / OUTCOME_FILE).unlink()
    with pytest.raises(ConfigError, match="this run has not finished") as caught:
        load_outcome(RUNS / "dots")
    assert caught.value.remedy == "finish it: karui run dots"
    with pytest.raises(ConfigError, match="is no run folder"):
        load_outcome(RUNS)


def test_the_command_that_makes_a_run_again(here: Path) -> None:
    assert again(RUNS / "dots") == "karui run dots"
    with open_run(Path("out put"), progress=Silent(), recipe=RECIPE):
        pass
    assert again(Path("out put")) == "karui run dots --out 'out put'"


def test_a_run_finds_its_cache_after_the_project_has_moved(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moved = here.parent / "moved"
    here.rename(moved)
    monkeypatch.chdir(here.parent)
    assert cache_of(moved / "runs/dots").resolve() == moved / "runs/.cache"
    assert [file.name for file in store_of(moved / "runs/dots").root.iterdir()]


def test_a_run_finds_a_cache_that_lies_elsewhere(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KARUI_CACHE", str(here.parent / "shared"))
    with open_run(RUNS / "other", progress=Silent()):
        pass
    monkeypatch.delenv("KARUI_CACHE")
    shutil.move(RUNS / "other", here.parent / "other")
    assert cache_of(here.parent / "other") == here.parent / "shared"
    assert cache_of(RUNS / "dots").resolve() == here / "runs/.cache"
    shutil.rmtree(here.parent / "shared")
    assert cache_of(here.parent / "other") == Path("runs/.cache")  # gone: today's
