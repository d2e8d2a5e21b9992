"""Emulated targets that were set up before: tests never leave this machine."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import platformdirs
import pytest

from pipeline import catalog
from pipeline.declare.target import TargetProfile
from pipeline.errors import EmulationError
from pipeline.runtimes.emulation.system import System, system_for


@cache
def _found(name: str) -> System | str:
    target = catalog.load_target(name)
    systems = Path(platformdirs.user_cache_path("karui", appauthor=False)) / "systems"
    if target.cpu.architecture != "x86_64" and not any(systems.glob("processor-????????????????")):
        return "it was not set up: make emulated"
    try:
        return system_for(target)
    except EmulationError as error:
        return " ".join(str(error).split())


def emulated_target(name: str) -> tuple[TargetProfile, System]:
    """Return a target and its emulated system; skip (in CI: fail) where there is none."""
    found = _found(name)
    if isinstance(found, str):
        reason = f"{name} is not emulated: {found}"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return catalog.load_target(name), found
