"""The runs that all tests of this folder use, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.handed.made import make_runs
from tests.own_project import Karui, karui

__all__ = ["karui"]


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run small recipes in one folder and return it."""
    return make_runs(tmp_path_factory.mktemp("handed"))


@pytest.fixture
def at(runs: Path, karui: Karui, monkeypatch: pytest.MonkeyPatch) -> Karui:
    """Stand in the folder of the runs."""
    monkeypatch.chdir(runs)
    return karui
