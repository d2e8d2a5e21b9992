"""Every test loads its data anew: the last data set is kept per process."""

from __future__ import annotations

import pytest

from pipeline.data import load


@pytest.fixture(autouse=True)
def nothing_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget what another test has loaded."""
    monkeypatch.setattr(load, "_held", [])
