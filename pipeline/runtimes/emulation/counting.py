"""How many instructions of each class one inference takes on an emulated processor, and how often it misses its caches.

QEMU runs the target's runtime with a plugin (``counting.c``) that counts between marks.  Counts follow from runtime and
file alone: no load of this machine changes them.
"""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Self

from pipeline.declare.words import RuntimeName
from pipeline.errors import EmulationError
from pipeline.onboard.arrays import Arrays, Signature
from pipeline.runtimes.boundary import model_errors
from pipeline.runtimes.child import ChildSession, Home, reusing_children
from pipeline.runtimes.emulation.system import System, once

_SOURCE = Path(__file__).with_name("counting.c")
_ENOUGH, _MOST = 2e6, 64  # instructions beside which those of Python's own loop are nothing, and inferences for them
# now and then a million instructions more fall into a region, of Python or the runtime at work beside: of several the
# smallest counts, unless an inference is so long that such a million is nothing
_TRIES, _LONG = 5, 3e8


Counts = Mapping[str, float]  # class of instructions, or kind of cache access → how many one inference takes


class Counting:
    """Counts inferences on an emulated processor; a process for each runtime, until the end of the block."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._homes: dict[RuntimeName, tuple[Home, Path]] = {}
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self._folder = Path(self._open.enter_context(tempfile.TemporaryDirectory()))
        self._open.enter_context(reusing_children())
        return self

    def __exit__(self, *raised: object) -> None:
        self._open.close()

    def count(
        self,
        path: Path,
        runtime: RuntimeName,
        inputs: Arrays,
        *,
        signature: Signature | None = None,
        more: int | None = None,
    ) -> Counts:
        """Count one inference of prepared inputs (1, …), on one thread.

        ``more``: so many inferences are averaged, by default as many as an inference's own count asks for; 0: of a
        large network one region is enough, with what Python does around it.
        Raises EmulationError where the emulator takes no plugin, and ModelError where the file cannot be run.
        """
        home, out = self._home(runtime)
        with model_errors(), contextlib.closing(ChildSession(path, runtime, 1, signature, home)) as session:
            if more == 0:
                (both,) = _marked(session, inputs, (1,), out)  # one that warms up, and one
                return {name: number / 2 for name, number in both.items() if name != "region"}
            tries = 2
            if more is None:
                (alone,) = _marked(session, inputs, (1,), out)
                more = max(1, min(_MOST, math.ceil(_ENOUGH / alone["total"])))
                tries = _TRIES if alone["total"] < _LONG else 1
            regions = _marked(session, inputs, (1, 1 + more) * tries, out)
        first, second = (min(regions[size::2], key=lambda each: each["total"]) for size in (0, 1))
        # what the second region has more is inferences and nothing else
        return {name: max(0.0, (second[name] - first[name]) / more) for name in first if name != "region"}

    def _home(self, runtime: RuntimeName) -> tuple[Home, Path]:
        if runtime not in self._homes:
            home, out = self._system.homes[runtime], self._folder / f"{runtime}.jsonl"
            emulator, *rest = home.command
            _check_takes_plugins(emulator)
            command = (emulator, "-plugin", f"{_plugin()},out={out},cache=on", *rest)
            self._homes[runtime] = replace(home, command=command, environment={"PYTHONHASHSEED": "0"}), out
        return self._homes[runtime]


def _marked(session: ChildSession, inputs: Arrays, sizes: tuple[int, ...], out: Path) -> list[dict[str, float]]:
    """Return what was counted in regions of so many inferences."""
    before = len(_lines(out))
    session.mark(inputs, sizes)
    regions = [json.loads(line) for line in _lines(out)[before:]]
    if len(regions) != len(sizes):
        raise EmulationError(f"the emulator counted {len(regions)} of {len(sizes)} regions", where=str(out))
    return regions


def _check_takes_plugins(emulator: str) -> None:
    """Refuse builds without plugins, as the static ones are: they would end at once, and not say it is they."""
    said = subprocess.run([emulator, "-h"], capture_output=True, text=True, check=False).stdout  # noqa: S603
    if "-plugin" not in said:
        what = "this emulator takes no plugins, with which instructions are counted"
        raise EmulationError(what, where=emulator, remedy="install one that does: apt install qemu-user")


def _lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []


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
