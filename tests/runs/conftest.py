"""Every test of recall has a cache of its own."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let runs share an empty folder, in child processes too; return it."""
    folder = tmp_path_factory.mktemp("shared") / "cache"
    monkeypatch.setenv("KARUI_CACHE", str(folder))
    return folder
