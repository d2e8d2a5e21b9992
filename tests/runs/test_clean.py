"""Cleaning frees what no run uses, all of it, and nothing else; the sizes it names are those of the files."""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.artifacts.training import Checkpoint
from pipeline.errors import RunBusyError
from pipeline.progress import Silent
from pipeline.runs.clean import plan_cleaning
from pipeline.runs.finished import load_outcome, write_outcome
from pipeline.runs.run import Work, open_run, stage
from tests.runs.made import CHECKPOINT, OUTCOME

WEIGHTS_BYTES = 100_000


@stage(version=1)
def make(work: Work, *, seed: int) -> Checkpoint:
    return replace(CHECKPOINT, weights=work.store.put(bytes([seed]) * WEIGHTS_BYTES))


@stage(version=1)
def broken(work: Work, *, seed: int) -> Checkpoint:
    (work.scratch / "half").write_bytes(bytes(WEIGHTS_BYTES // 2))
    raise ZeroDivisionError


def _run(folder: Path, *seeds: int) -> list[bool]:
    """Run a step per seed; return which of them were recalled."""
    with open_run(folder, progress=Silent()) as run:
        for seed in seeds:
            run.step("make", make, seed=seed)
        return [note.recalled for note in run.notes]


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _shared(cache: Path) -> int:
    return sum(_size(cache / name) for name in ("steps", "store", "work"))


def test_what_runs_use_stays(tmp_path: Path, cache: Path) -> None:
    _run(tmp_path / "one", 1, 2)
    _run(tmp_path / "two", 2, 3)
    plan = plan_cleaning(cache)
    assert (plan.records, plan.objects, plan.scratch, plan.size_bytes) == ((), (), (), 0)
    assert plan.kept_bytes == _shared(cache) > 3 * WEIGHTS_BYTES
    assert plan.summary == f"{cache}: {_shared(cache) / 1024:.1f} KiB; 2 runs use it; nothing to free"
    assert plan.carry_out().size_bytes == 0
    assert _run(tmp_path / "three", 1, 2, 3) == [True, True, True]


def test_what_the_latest_run_did_not_use_goes(tmp_path: Path, cache: Path) -> None:
    _run(tmp_path / "one", 1, 2)
    _run(tmp_path / "one", 2)
    before = _shared(cache)
    plan = plan_cleaning(cache)
    assert (len(plan.records), len(plan.objects)) == (1, 1)
    assert _shared(cache) == before  # a plan deletes nothing
    assert plan.summary.endswith("KiB can be freed: 1 finished step, 1 stored file (no run uses them)")
    done = plan.carry_out()
    assert done.size_bytes == plan.size_bytes == before - _shared(cache) > WEIGHTS_BYTES
    assert _run(tmp_path / "one", 2, 1) == [True, False]


def test_a_run_folder_that_is_gone_uses_nothing(tmp_path: Path, cache: Path) -> None:
    _run(tmp_path / "one", 1, 2)
    _run(tmp_path / "two", 2)
    shutil.rmtree(tmp_path / "one")
    plan = plan_cleaning(cache)
    assert (len(plan.records), len(plan.objects), plan.runs) == (1, 1, 1)
    plan.carry_out()
    assert len(list((cache / "runs").iterdir())) == 1
    shutil.rmtree(tmp_path / "two")
    plan_cleaning(cache).carry_out()
    assert _size(cache) < 100  # a lock's pid, if anything
    assert plan_cleaning(cache).summary == f"{cache}: 0 bytes; 0 runs use it; nothing to free"


def test_a_run_that_failed_keeps_what_it_and_the_finished_one_before_used(tmp_path: Path, cache: Path) -> None:
    _run(tmp_path / "one", 1)
    with contextlib.suppress(ZeroDivisionError), open_run(tmp_path / "one", progress=Silent()) as run:
        run.step("make", make, seed=2)
        run.step("broken", broken, seed=2)
    plan = plan_cleaning(cache)
    assert plan.size_bytes == 0
    _run(tmp_path / "one", 1)  # without the step that was broken off
    plan = plan_cleaning(cache)
    assert (len(plan.records), len(plan.objects), len(plan.scratch)) == (1, 1, 1)
    before = _shared(cache)
    assert plan.carry_out().size_bytes == before - _shared(cache) > 1.5 * WEIGHTS_BYTES
    assert not list((cache / "work").iterdir())


def test_what_an_outcome_speaks_of_stays(tmp_path: Path, cache: Path) -> None:
    with open_run(tmp_path / "one", progress=Silent()) as run:
        checkpoint = run.step("make", make, seed=1)
        write_outcome(run.folder, replace(OUTCOME, trained=checkpoint))
    (tmp_path / "one" / "journal.jsonl").unlink()
    plan = plan_cleaning(cache)
    assert (len(plan.records), len(plan.objects)) == (1, 0)
    plan.carry_out()
    with open_run(tmp_path / "two", progress=Silent()) as run:
        assert run.store.is_whole(checkpoint.weights)
    assert load_outcome(tmp_path / "one").trained == checkpoint


def test_everything_goes_when_asked_for(tmp_path: Path, cache: Path) -> None:
    _run(tmp_path / "one", 1, 2)
    (cache / "store" / ".0123.tmp").write_bytes(b"left by a killed writer")
    plan = plan_cleaning(cache, everything=True)
    assert plan.size_bytes == _shared(cache)
    assert (len(plan.records), len(plan.objects), plan.kept_bytes) == (2, 3, 0)
    assert "(everything, also what runs use)" in plan.summary
    plan.carry_out()
    assert _shared(cache) == 0
    assert _run(tmp_path / "one", 1, 2) == [False, False]


def test_nothing_is_deleted_while_a_run_is_in_progress(tmp_path: Path, cache: Path) -> None:
    _run(tmp_path / "one", 1, 2)
    plan = plan_cleaning(cache, everything=True)
    before = _shared(cache)
    with open_run(tmp_path / "two", progress=Silent()):
        with pytest.raises(RunBusyError, match=r"a run is in progress here \(pid \d+\)") as caught:
            plan.carry_out()
        assert caught.value.where == str(cache)
        assert _shared(cache) == before
    assert plan.carry_out().size_bytes == before


def test_what_came_into_use_since_the_plan_stays(tmp_path: Path, cache: Path) -> None:
    _run(tmp_path / "one", 1, 2)
    _run(tmp_path / "one", 2)
    plan = plan_cleaning(cache)
    assert len(plan.objects) == 1
    _run(tmp_path / "two", 1)
    done = plan.carry_out()
    assert (done.records, done.objects, done.size_bytes) == ((), (), 0)
    assert _run(tmp_path / "two", 1, 2) == [True, True]


def test_where_nothing_was_ever_run(tmp_path: Path) -> None:
    plan = plan_cleaning(tmp_path / "none")
    assert plan.carry_out() == plan
    assert not (tmp_path / "none").exists()


def test_an_altered_record_names_nothing(tmp_path: Path, cache: Path) -> None:
    _run(tmp_path / "one", 1)
    (record,) = (cache / "steps").iterdir()
    record.write_text(record.read_text().replace("0.975", "0.5"))
    plan = plan_cleaning(cache)
    assert (len(plan.records), len(plan.objects)) == (0, 1)
