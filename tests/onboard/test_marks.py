"""Marks between which an emulator counts."""

from __future__ import annotations

import platform

import pytest

from pipeline.onboard.marks import Marks


def test_off_arm64_they_do_nothing() -> None:
    if platform.machine() == "aarch64":
        pytest.skip("this machine is ARM64")
    marks = Marks()
    assert (marks.simulate(), marks.start(), marks.stop()) == (None, None, None)
