"""The shared folder lies where it should, knows its run folders, and lets one process at a time hold a lock."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.errors import RunBusyError, StorageError
from pipeline.runs.cache import Cache, cache_folder, hold, place_from


@pytest.mark.parametrize(
    ("named", "folder"),
    [
        (None, Path("runs/.cache")),
        ("", Path("runs/.cache")),
        ("shared", Path("shared")),
        ("/big/disk", Path("/big/disk")),
        ("~/karui", Path.home() / "karui"),
    ],
)
def test_where_the_cache_lies(monkeypatch: pytest.MonkeyPatch, named: str | None, folder: Path) -> None:
    if named is None:
        monkeypatch.delenv("KARUI_CACHE")
    else:
        monkeypatch.setenv("KARUI_CACHE", named)
    assert cache_folder() == folder


def test_a_place_is_told_so_that_it_stays_true(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    assert place_from(Path("runs/dots"), Path("runs/.cache")) == Path("../.cache")
    assert place_from(Path("out/a/b"), Path("runs/.cache")) == Path("../../../runs/.cache")
    assert place_from(Path("runs/dots"), tmp_path / "shared") == tmp_path / "shared"
    assert place_from(tmp_path / "out", Path("runs/.cache")) == tmp_path / "project/runs/.cache"


def test_run_folders_are_known_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cache = Cache(root=Path("runs/.cache"))
    assert cache.run_folders() == {}
    for folder in (Path("runs/dots"), tmp_path / "runs/dots", Path("runs/../runs/dots"), Path("other")):
        cache.register(folder)
    assert set(cache.run_folders()) == {tmp_path / "runs/dots", tmp_path / "other"}


def test_a_lock_is_held_once_and_names_its_holder(tmp_path: Path) -> None:
    heard: list[str] = []

    def busy(owner: str) -> None:
        heard.append(owner)
        raise RunBusyError("is in use")

    file = tmp_path / "locks" / "train-1"
    with hold(file, busy=busy), pytest.raises(RunBusyError), hold(file, busy=busy):
        pass
    assert heard == [f"another karui process (pid {os.getpid()})"]
    with hold(file, busy=busy):
        (tmp_path / "locks" / "train-1.pid").unlink()  # as if it had not been written yet
        with pytest.raises(RunBusyError), hold(file, busy=busy):
            pass
    assert heard[1] == "another karui process"
    with hold(file, busy=busy):
        pass
    assert [path.name for path in (tmp_path / "locks").iterdir()] == ["train-1"]


def test_a_lock_that_cannot_be_made_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "locks").write_text("a file")
    with (
        pytest.raises(StorageError, match="a file lies where a folder is needed"),
        hold(tmp_path / "locks" / "train", busy=print),
    ):
        pass
    (tmp_path / "busy").write_text("a file")
    with pytest.raises(StorageError, match=r"busy.*cannot be written or read"), Cache(root=tmp_path).in_use():
        pass


def test_runs_side_by_side_are_seen_and_keep_others_from_being_alone(tmp_path: Path) -> None:
    cache = Cache(root=tmp_path)
    with cache.in_use(), cache.in_use():
        assert cache.pids_at_work() == (os.getpid(), os.getpid())
        with pytest.raises(RunBusyError, match="a run is in progress here"), cache.alone():
            pass
    assert cache.pids_at_work() == ()
    with cache.alone():
        assert not list((tmp_path / "busy").glob("*.run"))


def test_what_was_written_anew_is_not_what_was_seen(tmp_path: Path) -> None:
    cache = Cache(root=tmp_path)
    assert cache.seen() == frozenset()
    cache.steps.mkdir()
    (cache.steps / "a").write_text("1")
    (cache.steps / "b").write_text("1")
    before = cache.seen()
    assert cache.seen() == before
    (tmp_path / "new").write_text("1")
    (tmp_path / "new").replace(cache.steps / "a")
    assert {name for name, _, _ in cache.seen() - before} == {"a"}
