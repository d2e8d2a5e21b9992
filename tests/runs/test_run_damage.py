"""What is damaged, altered or half done is made again, and nothing of it believed."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.artifacts.training import Checkpoint
from pipeline.declare.recipe import Recipe
from pipeline.errors import StorageError
from pipeline.progress import Silent
from pipeline.runs.run import Work, open_run, stage
from tests.runs.made import ACCURACY, NETWORK, RECIPE
from tests.runs.steps import both, calls, make
from tests.runs.steps import no_calls as no_calls  # noqa: PLC0414  a fixture


@pytest.mark.parametrize("damage", [lambda file: file.write_bytes(b"x"), Path.unlink], ids=["altered", "deleted"])
def test_a_damaged_file_is_made_again(tmp_path: Path, cache: Path, damage: Callable[[Path], object]) -> None:
    first, _ = both(tmp_path / "run")
    damage(cache / "store" / first.checkpoint.weights)
    calls.clear()
    second, said = both(tmp_path / "run")
    assert calls == ["grow"]
    assert second == first
    assert f"{first.checkpoint.weights} was altered or is gone" in "\n".join(said)


@pytest.mark.parametrize("text", ["", '{"step": "make"', "[]", "\udcff"])
def test_a_damaged_record_is_made_again(tmp_path: Path, cache: Path, text: str) -> None:
    first, _ = both(tmp_path / "run")
    (record,) = (cache / "steps").glob("make-*.json")
    record.write_bytes(text.encode(errors="surrogateescape"))
    calls.clear()
    second, said = both(tmp_path / "run")
    assert calls == ["make"]
    assert second == first
    assert said[0].startswith(f"make  runs again: its record {record} cannot be used")


def test_an_altered_record_is_not_believed(tmp_path: Path, cache: Path) -> None:
    first, _ = both(tmp_path / "run")
    (file,) = (cache / "steps").glob("grow-*.json")
    file.write_text(file.read_text().replace('"val_metric": 1.0', '"val_metric": 0.5'))
    calls.clear()
    second, said = both(tmp_path / "run")
    assert calls == ["grow"]
    assert second == first
    assert said[1] == f"grow  runs again: its record {file} cannot be used (it was altered after karui wrote it)"


def test_a_record_under_another_name_is_not_believed(tmp_path: Path, cache: Path) -> None:
    both(tmp_path / "run", seed=3)
    (third,) = (cache / "steps").glob("make-*.json")
    both(tmp_path / "run", seed=4)
    (fourth,) = set((cache / "steps").glob("make-*.json")) - {third}
    fourth.write_bytes(third.read_bytes())
    calls.clear()
    both(tmp_path / "run", seed=4)
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


def test_a_full_disk_inside_a_stage_is_a_storage_error(tmp_path: Path) -> None:
    @stage(version=1)
    def full(work: Work) -> Checkpoint:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(work.scratch / "big"))

    with open_run(tmp_path, progress=Silent()) as run, pytest.raises(StorageError, match=r"big.*no space left"):
        run.step("full", full)


def test_a_file_in_the_place_of_the_folder_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(StorageError, match="a file lies where a folder is needed"):
        both(tmp_path / "run")


def test_the_journal_goes_on_after_a_torn_line(tmp_path: Path) -> None:
    both(tmp_path)
    journal = tmp_path / "journal.jsonl"
    journal.write_text(journal.read_text() + '{"when": "20')
    both(tmp_path)
    lines = journal.read_text().splitlines()
    torn = lines.index('{"when": "20')
    assert json.loads(lines[torn + 1])["event"] == "run started"


def test_leftovers_of_killed_writers_go(tmp_path: Path, cache: Path) -> None:
    both(tmp_path)
    for folder in (tmp_path, cache / "steps", cache / "store"):
        (folder / ".0123.tmp").write_text("half")
    with open_run(tmp_path / "other", progress=Silent()):
        assert not list(cache.glob("*/.*.tmp"))
        (cache / "store" / ".4567.tmp").write_text("another process is writing this")
        with open_run(tmp_path, progress=Silent()):
            assert not list(tmp_path.glob(".*.tmp"))
            assert (cache / "store" / ".4567.tmp").exists()
