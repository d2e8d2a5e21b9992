"""A target's whole machine, emulated: its memory is as large as the target's, and its kernel ends what does not fit.

QEMU boots Debian's own kernel for virtual machines from an image of the system that user mode runs, too.  The first and
only program is ``booted``.  Nothing is installed, no network is there, and no root is needed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import onboard
from pipeline.declare.target import TargetProfile
from pipeline.declare.words import RuntimeName
from pipeline.errors import EmulationError
from pipeline.onboard.faults import OnboardFault
from pipeline.runtimes.child import Child
from pipeline.runtimes.emulation import booted, debian
from pipeline.runtimes.emulation.system import Emulator, System, once

_ONBOARD = Path(onboard.__file__).parent
_INIT = Path(booted.__file__)
_ARCHITECTURE = "aarch64"
_MOUNTED = ("dev", "proc", "sys", "tmp", "job")
_MIB = 1 << 20
_IMPORT_TIMEOUT_S = 300
_LOOK_S = 0.1


@dataclass(frozen=True, kw_only=True)
class Load:
    """A file and the runtime that is to run it."""

    path: Path
    runtime: RuntimeName


@dataclass(frozen=True, kw_only=True)
class Weight:
    """What one inference of a file takes in the machine, or why there was none."""

    peak_bytes: int | None  # beside the runtime alone
    said: str = ""  # "was ended by SIGSEGV"; "" where it ran


def find_machine(target: TargetProfile) -> Emulator:
    """Return QEMU for a target's whole machine.  Raises EmulationError where there is none."""
    if target.cpu.architecture != _ARCHITECTURE:
        raise EmulationError(f"whole machines are emulated for {_ARCHITECTURE} alone")
    path = shutil.which(f"qemu-system-{_ARCHITECTURE}")
    if path is None:
        what = f"no emulator of whole {_ARCHITECTURE} machines is installed here"
        raise EmulationError(what, remedy="install it: apt install qemu-system-arm")
    said = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout  # noqa: S603
    found = re.search(r"version (\S+)", said)
    return Emulator(path=Path(path), version=found[1] if found else "?")


def prepare(system: System, target: TargetProfile) -> Emulator:
    """Set the machine up, or find it in the cache.  Raises EmulationError where it cannot be had."""
    return _prepared(system, target)[0]


def boot(
    loads: Sequence[Load], system: System, target: TargetProfile, *, threads: int, budget_s: float
) -> Generator[Weight, None, None]:
    """Boot the machine once and yield what each file takes, in order, as soon as it is known; fewer when time is up.

    Raises EmulationError where the machine cannot be set up, or ends before the first answer.
    """
    qemu, kernel, image = _prepared(system, target)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        answers = folder / "answers"
        answers.write_bytes(bytes(_MIB))
        _job(folder / "job", loads, threads)
        _disk(folder / "job.img", folder / "job")
        command = (
            *(str(qemu.path), "-M", "virt", "-cpu", system.processor.name, "-smp", str(threads)),
            *("-m", str(target.memory.size_bytes // _MIB), "-nic", "none", "-display", "none", "-monitor", "none"),
            *("-no-reboot", "-serial", f"file:{folder / 'console'}", "-kernel", str(kernel / "vmlinuz")),
            *("-append", _command_line(target)),
            *_disks(image / "system.img", folder / "job.img", answers),
        )
        machine = subprocess.Popen(  # noqa: S603  # found above
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        try:
            yield from _answered(machine, answers, target, count=len(loads), until=time.monotonic() + budget_s)
            if not _lines(answers):
                how = f"gave no answer in {budget_s:.0f} s" if machine.poll() is None else "ended without an answer"
                machine.kill()
                raise EmulationError(f"the machine {how}: {_last_words(machine, folder / 'console')}")
        finally:
            machine.kill()
            machine.communicate()


def _command_line(target: TargetProfile) -> str:
    """Return what the kernel is told: the first program is the target's own Python, with ``booted``."""
    python = f"/usr/bin/python{target.python}"
    return (
        "root=/dev/nvme0n1 rootfstype=ext4 ro rootwait console=ttyAMA0 quiet panic=-1 PYTHONHASHSEED=0 "
        f"init={python} -- -I /{_INIT.name}"
    )


def _disks(system: Path, job: Path, answers: Path) -> Iterator[str]:
    """Name the disks in the order in which the machine numbers them; only the last one is written to."""
    yield from ("-device", "nvme,serial=disks,id=disks")
    for number, image in enumerate((system, job, answers), start=1):
        read_only = "off" if image == answers else "on"
        file = str(image).replace(",", ",,")
        yield from ("-drive", f"if=none,id=disk{number},format=raw,readonly={read_only},file={file}")
        yield from ("-device", f"nvme-ns,drive=disk{number},bus=disks,nsid={number}")


def _job(folder: Path, loads: Sequence[Load], threads: int) -> None:
    """Lay out the files, what is asked of each, and the code that answers."""
    folder.mkdir()
    asked = []
    for number, load in enumerate(loads):
        name = f"{number}{load.path.suffix}"
        shutil.copyfile(load.path, folder / name)
        asked.append({"file": name, "runtime": load.runtime, "site": f"/wheels/{load.runtime}", "threads": threads})
    (folder / "job.json").write_text(json.dumps(asked))
    shutil.copytree(_ONBOARD, folder / "pipeline" / "onboard", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "pipeline" / "__init__.py").touch()


# ── what it answers ─────────────────────────────────────────────────────────────────────────────────────────────────


def _answered(
    machine: subprocess.Popen[bytes], answers: Path, target: TargetProfile, *, count: int, until: float
) -> Iterator[Weight]:
    told = 0
    while told < count:
        ended = machine.poll() is not None  # asked first: what it wrote last is still read
        for line in _lines(answers)[told:]:
            yield _weight(json.loads(line), target)
            told += 1
        if ended or time.monotonic() > until:
            return
        time.sleep(_LOOK_S)


def _lines(answers: Path) -> list[str]:
    """Return the lines that are whole."""
    return answers.read_bytes().rstrip(b"\0").decode().split("\n")[:-1]


def _weight(found: Mapping[str, Any], target: TargetProfile) -> Weight:
    if "bytes" in found:
        return Weight(peak_bytes=found["bytes"])
    memory = f"{target.memory.size_bytes // _MIB:,} MiB"
    if found["out_of_memory"]:
        return Weight(peak_bytes=None, said=f"needs more than {memory} of memory: the kernel ended it")
    if found["signal"]:
        return Weight(peak_bytes=None, said=f"was ended by {signal.Signals(found['signal']).name}")
    return Weight(peak_bytes=None, said=f"failed beside {memory} of memory: {found['said']}")


def _last_words(machine: subprocess.Popen[bytes], console: Path) -> str:
    said = machine.communicate()[1]
    written = console.read_bytes() if console.exists() else b""
    lines = (said + b"\n" + written).decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")


# ── set up once ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _prepared(system: System, target: TargetProfile) -> tuple[Emulator, Path, Path]:
    """Return the emulator, the folder with the kernel and that with the disk of the system."""
    return find_machine(target), _kernel(debian.suite_of(target.os)), _image(system, target)


def _kernel(suite: str) -> Path:
    def make(folder: Path, scratch: Path) -> None:
        debian.unpack_kernel(folder, scratch, suite=suite)

    return once(f"kernel-{suite}", make, of=debian.KERNEL)


def _image(system: System, target: TargetProfile) -> Path:
    """Make one disk of a target's packages, its runtimes and the first program."""
    assert system.root is not None  # noqa: S101  (only this machine's own processor has none)
    root, sites = system.root, {runtime: home.sites[0] for runtime, home in system.homes.items()}

    def make(folder: Path, scratch: Path) -> None:
        _compile(system)
        tree = scratch / "tree"
        _linked(root, tree)
        for name in _MOUNTED:
            (tree / name).mkdir(exist_ok=True)
        for runtime, site in sites.items():
            _linked(Path(site), tree / "wheels" / runtime)
        shutil.copyfile(_INIT, tree / _INIT.name)
        _disk(folder / "system.img", tree)

    of = (str(root), *sites.values(), target.python, _INIT.read_text(encoding="utf-8"))
    return once("image", make, of="\0".join(of))


def _compile(system: System) -> None:
    """Import every runtime in user mode, which leaves compiled modules behind: the machine would compile them anew."""
    for runtime, home in system.homes.items():
        with contextlib.suppress(OnboardFault), contextlib.closing(Child(runtime, home)) as child:
            child.ask("why_not", {"runtime": runtime}, timeout_s=_IMPORT_TIMEOUT_S)


def _linked(source: Path, target: Path) -> None:
    """Copy a folder of the cache within it: no file takes its place twice."""
    shutil.copytree(source, target, symlinks=True, copy_function=os.link)


def _disk(image: Path, folder: Path) -> None:
    """Write a folder as a disk with a file system."""
    maker = shutil.which("mke2fs", path=os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin")))
    if maker is None:
        raise EmulationError("mke2fs, which makes disks, is missing here", remedy="install it: apt install e2fsprogs")
    files = [path.lstat().st_size for path in folder.rglob("*")]
    mib = 16 + int(1.15 * sum(size + 4096 for size in files)) // _MIB
    command = (maker, "-q", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-b", "4096", "-N", str(len(files) + 1024))
    done = subprocess.run(  # noqa: S603  # found above
        (*command, "-d", str(folder), str(image), f"{mib}M"), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise EmulationError(f"mke2fs: {(done.stderr.strip().splitlines() or ['failed without a word'])[-1]}")
