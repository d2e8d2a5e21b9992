"""Emulated targets that were set up before: tests never leave this machine."""

from __future__ import annotations

import os
import shutil
from functools import cache
from pathlib import Path
from typing import NoReturn

import platformdirs
import pytest

from pipeline import catalog
from pipeline.declare.target import TargetProfile
from pipeline.errors import EmulationError
from pipeline.runtimes.emulation.system import System, system_for

THIRTY_TWO_BITS = str(Path(__file__).with_name("thirty-two-bits.toml"))


@cache
def _found(name: str) -> System | str:
    target = catalog.load_target(name)
    systems = Path(platformdirs.user_cache_path("karui", appauthor=False)) / "systems"
    own = f"{target.cpu.architecture}-*-????????????????"
    if target.cpu.architecture != "x86_64" and not any(systems.glob(own)):
        return "it was not set up: make emulated"
    try:
        return system_for(target)
    except EmulationError as error:
        return " ".join(str(error).split())


def emulated_machine(name: str) -> tuple[TargetProfile, System]:
    """Return a target that can be booted, and its emulated system; skip (in CI: fail) where there is none."""
    kernels = Path(platformdirs.user_cache_path("karui", appauthor=False)) / "systems"
    if not any(kernels.glob("kernel-*-????????????????")):
        _leave(f"{name} cannot be booted: it was not set up: make emulated")
    if shutil.which("qemu-system-aarch64") is None:
        _leave(f"{name} cannot be booted: apt install qemu-system-arm")
    return emulated_target(name)


def _leave(reason: str) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def emulated_target(name: str) -> tuple[TargetProfile, System]:
    """Return a target and its emulated system; skip (in CI: fail) where there is none."""
    found = _found(name)
    if isinstance(found, str):
        _leave(f"{name} is not emulated: {found}")
    return catalog.load_target(name), found
