"""What a test's runs share is the test's own."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give every test a cache of its own, shared by its runs alone; return where it lies."""
    folder = tmp_path_factory.mktemp("shared") / "cache"
    monkeypatch.setenv("KARUI_CACHE", str(folder))
    return folder
