"""A target's system and runtimes on this machine: set up once, kept in the user's cache, started through QEMU.

::

    systems/ARCHITECTURE-SUITE-DIGEST/      unpacked packages
    systems/wheels-DIGEST/                  one runtime and what it needs
    systems/processor-DIGEST/               the packages seen from one processor: with its own /proc/cpuinfo
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import platformdirs
from filelock import FileLock

from pipeline.declare.target import TargetProfile
from pipeline.declare.words import RuntimeName
from pipeline.errors import EmulationError
from pipeline.onboard.faults import OnboardFault
from pipeline.runtimes import RUNTIMES, site_packages, unavailable
from pipeline.runtimes.child import Home, python_of
from pipeline.runtimes.emulation import debian
from pipeline.runtimes.emulation.processors import Processor, processor_of
from pipeline.runtimes.emulation.wheels import unpack_wheels, wanted_wheels

_QEMUS_NAMES = {"armv7l": "arm"}


@dataclass(frozen=True, kw_only=True)
class Emulator:
    """QEMU for one architecture."""

    path: Path
    version: str


@dataclass(frozen=True, kw_only=True)
class System:
    """A processor and what runs on it."""

    processor: Processor
    emulator: Emulator
    homes: Mapping[RuntimeName, Home]
    not_usable: Mapping[RuntimeName, str]  # runtime → why
    root: Path | None = None  # its unpacked packages; None: it is this machine's own system


def find_emulator(architecture: str) -> Emulator:
    """Return QEMU's user mode for an architecture.  Raises EmulationError where it is not installed."""
    own_name = _QEMUS_NAMES.get(architecture, architecture)
    for name in (f"qemu-{own_name}", f"qemu-{own_name}-static"):
        path = shutil.which(name)
        if path:
            said = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout  # noqa: S603
            found = re.search(r"version (\S+)", said)
            return Emulator(path=Path(path), version=found[1] if found else "?")
    raise EmulationError(
        f"no emulator of {architecture} processors is installed here", remedy="install it: apt install qemu-user"
    )


def stand_in(target: TargetProfile) -> tuple[Processor, Emulator]:
    """Return what stands for a target's processor, before anything is set up.  Raises EmulationError in words."""
    processor = processor_of(target.cpu)
    if isinstance(processor, str):
        raise EmulationError(f"{target.name} cannot be emulated: {processor}")
    if processor.architecture != "x86_64":
        debian.suite_of(target.os)
    return processor, find_emulator(processor.architecture)


def system_for(target: TargetProfile) -> System:
    """Set up what stands for a target, or take it from the cache.  Raises EmulationError in words."""
    processor, emulator = stand_in(target)
    if processor.architecture == "x86_64":
        return _this_system(processor, emulator)
    suite = debian.suite_of(target.os)
    wanted = {runtime: wanted_wheels(runtime, processor.architecture) for runtime in target.runtimes}
    wheels = {runtime: some for runtime, some in wanted.items() if some}
    with ThreadPoolExecutor() as pool:  # what takes long is the network
        packages = pool.submit(_packages, suite, processor.architecture)
        found = {
            name: pool.submit(_wheels, each, suite, processor.architecture, target.python)
            for name, each in wheels.items()
        }
        root = _seen_from(processor, packages.result())
    python = root / "usr" / "bin" / f"python{target.python}"
    if not python.exists():
        raise EmulationError(
            f"{suite} has no Python {target.python}", remedy=f"{target.name}'s python says which one its os has"
        )
    homes, why = dict[RuntimeName, Home](), dict[RuntimeName, str]()
    command = (str(emulator.path), "-cpu", processor.name, "-L", str(root), str(python), "-I")
    for runtime, future in found.items():
        try:
            homes[runtime] = Home(command=command, sites=(str(future.result()),))
        except EmulationError as error:
            why[runtime] = str(error)
    return System(processor=processor, emulator=emulator, homes=homes, not_usable=why, root=packages.result())


def _this_system(processor: Processor, emulator: Emulator) -> System:
    """Let this machine's own Pythons run on another processor of its kind."""
    if sys.platform != "linux":
        raise EmulationError("QEMU's user mode runs on Linux")
    homes, why = dict[RuntimeName, Home](), dict[RuntimeName, str]()
    for runtime in RUNTIMES:
        reason = unavailable(runtime)
        if reason:
            why[runtime] = reason
            continue
        try:
            home = Home.of(runtime)
        except OnboardFault as fault:
            why[runtime] = str(fault)
            continue
        command = (str(emulator.path), "-cpu", processor.name, str(python_of(runtime).resolve()), *home.command[1:])
        # an interpreter that is started by its own path does not know of its environment
        homes[runtime] = Home(command=command, sites=(*home.sites, *site_packages(python_of(runtime))))
    return System(processor=processor, emulator=emulator, homes=homes, not_usable=why)


# ── set up once ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _packages(suite: str, architecture: str) -> Path:
    def make(folder: Path, scratch: Path) -> None:
        debian.unpack_system(folder, scratch, suite=suite, architecture=architecture)

    return once(f"{architecture}-{suite}", make, of="\0".join(debian.packages_of(architecture)))


def _wheels(wheels: tuple[str, ...], suite: str, architecture: str, python: str) -> Path:
    def make(folder: Path, scratch: Path) -> None:
        del scratch
        glibc = debian.glibc_minor(suite)
        unpack_wheels(folder, wheels, architecture=architecture, python=python, glibc_minor=glibc)

    return once("wheels", make, of="\0".join((*wheels, suite, architecture, python)))


def _seen_from(processor: Processor, packages: Path) -> Path:
    """Return the packages as one processor sees them: runtimes read in /proc/cpuinfo which one it is."""

    def make(folder: Path, scratch: Path) -> None:
        del scratch
        for each in sorted(packages.iterdir()):
            if each.name != "proc":
                (folder / each.name).symlink_to(each)
        (folder / "proc").mkdir()
        (folder / "proc" / "cpuinfo").write_text(processor.cpuinfo)

    return once("processor", make, of=f"{packages}\0{processor.cpuinfo}")


def once(kind: str, make: Callable[[Path, Path], None], *, of: str) -> Path:
    """Let ``make`` fill a folder of the cache, given an empty one beside for what it needs; the next time it is there.

    ``of``: what its content follows from.  Raises EmulationError where the disk refuses it.
    """
    systems = Path(platformdirs.user_cache_path("karui", appauthor=False)) / "systems"
    name = f"{kind}-{hashlib.sha256(of.encode()).hexdigest()[:16]}"
    folder = systems / name
    try:
        systems.mkdir(parents=True, exist_ok=True)
        with FileLock(systems / f"{name}.lock"):
            if not folder.is_dir():
                with tempfile.TemporaryDirectory(dir=systems) as place:
                    new, scratch = Path(place) / "new", Path(place) / "scratch"
                    new.mkdir()
                    scratch.mkdir()
                    make(new, scratch)
                    new.rename(folder)
    except OSError as error:
        raise EmulationError(f"cannot be set up: {error}", where=str(systems)) from error
    return folder
