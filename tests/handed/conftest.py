"""The runs that all tests of this folder use, made once."""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path

import pytest

from tests.handed.made import make_runs
from tests.own_project import Karui, karui

__all__ = ["karui"]


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with small runs, a copy of its own for each worker of the suite; one of them makes them."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return make_runs(tmp_path_factory.mktemp("handed"))
    together = tmp_path_factory.getbasetemp().parent
    made = together / "handed-runs"
    with (together / "handed-runs.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.is_dir():
            make_runs(making := tmp_path_factory.mktemp("handed"))
            shutil.copytree(making, made)
            return making
    own = tmp_path_factory.mktemp("handed")
    shutil.copytree(made, own, dirs_exist_ok=True)
    return own


@pytest.fixture
def at(runs: Path, karui: Karui, monkeypatch: pytest.MonkeyPatch) -> Karui:
    """Stand in the folder of the runs."""
    monkeypatch.chdir(runs)
    return karui
