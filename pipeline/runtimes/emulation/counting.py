"""How many instructions of each class one inference takes on an emulated processor, and how often it misses its caches.

QEMU runs the target's runtime with a plugin (``counting.c``) that counts between marks.  The counts belong to runtime and
QEMU runs the target's runtime with a plugin (``counting.c``) that counts between marks.  Counts belong to runtime and file
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.declare.words import RuntimeName
from pipeline.errors import EmulationError
from pipeline.onboard.arrays import Arrays, Signature
from pipeline.runtimes.boundary import model_errors
from pipeline.runtimes.child import ChildSession
from pipeline.runtimes.emulation.system import System, once

_SOURCE = Path(__file__).with_name("counting.c")
_REGIONS = (1, 3)  # inferences in each: what the second has more is two inferences


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What one inference takes: class of instructions, or kind of cache access → how many."""

    of: Mapping[str, float]

    @property
    def total(self) -> float:
        """Return all instructions."""
        return self.of["total"]


def count(
    path: Path, runtime: RuntimeName, system: System, inputs: Arrays, *, signature: Signature | None = None
) -> Counts:
    """Count one inference of prepared inputs (1, …), on one thread.

    Raises EmulationError where the emulator takes no plugin, and ModelError where the file cannot be run.
    """
    home = system.homes[runtime]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "counts.jsonl"
        plugin = f"{_plugin()},out={out},cache=on"
        emulator, *rest = home.command
        counted = replace(home, command=(emulator, "-plugin", plugin, *rest), environment={"PYTHONHASHSEED": "0"})
        with model_errors(), contextlib.closing(ChildSession(path, runtime, 1, signature, counted)) as session:
            session.mark(inputs, _REGIONS)
        regions = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    if len(regions) < len(_REGIONS):
        raise EmulationError(
            "this emulator counts nothing",
            where=emulator,
            remedy="QEMU's static builds take no plugins: apt install qemu-user",
        )
    first, second = regions[: len(_REGIONS)]
    more = _REGIONS[1] - _REGIONS[0]
    return Counts(of={name: max(0.0, (second[name] - first[name]) / more) for name in first if name != "region"})


def _plugin() -> Path:
    """Compile the plugin, or take it from the cache."""

    def make(folder: Path, scratch: Path) -> None:
        del scratch
        compiler = shutil.which("cc")
        if compiler is None:
            raise EmulationError("counting instructions needs a C compiler", remedy="install one: apt install gcc")
        command = [compiler, "-O2", "-shared", "-fPIC", str(_SOURCE), "-o", str(folder / "counting.so")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode:
            raise EmulationError(f"the counting plugin does not compile: {done.stderr.strip().splitlines()[-1:]}")

    return once("plugin", make, of=_SOURCE.read_text(encoding="utf-8")) / "counting.so"
