"""The recorded runs, read once."""

from __future__ import annotations

import pytest

from tests.report.recorded import Recorded, recorded


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """Classes of pictures, for raspberry-pi-4b (8 bits), x86-laptop-avx2 (7 bits) and the recording machine."""
    return recorded("digits", tmp_path_factory.mktemp("digits") / "run")


@pytest.fixture(scope="session")
def whole(digits: Recorded) -> str:
    """Return the page of the run for three targets."""
    return digits.page()


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """Numbers from a table, judged by RMSE, for raspberry-pi-4b."""
    return recorded("plane", tmp_path_factory.mktemp("plane") / "run")
