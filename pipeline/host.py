"""This machine as a target profile, read from /proc and /sys (elsewhere from what Python knows), in a few milliseconds.

Every reader takes ``root``, the folder in which ``proc``, ``sys`` and ``etc`` lie, so that a copy of another machine's
files describes that machine.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.declare.target import CpuSpec, MemorySpec, TargetProfile
from pipeline.errors import ConfigError

Architecture = Literal["aarch64", "armv7l", "x86_64"]

ROOT = Path("/")
_ARCHITECTURES: dict[str, Architecture] = {
    "aarch64": "aarch64",
    "arm64": "aarch64",
    "armv7l": "armv7l",
    "armv8l": "armv7l",
    "x86_64": "x86_64",
    "amd64": "x86_64",
}
# Arm's core numbers (MIDR_EL1, part number), for the kernels that print no model name
_ARM_CORES = {
    "0xc07": "Cortex-A7",
    "0xd03": "Cortex-A53",
    "0xd04": "Cortex-A35",
    "0xd05": "Cortex-A55",
    "0xd07": "Cortex-A57",
    "0xd08": "Cortex-A72",
    "0xd09": "Cortex-A73",
    "0xd0a": "Cortex-A75",
    "0xd0b": "Cortex-A76",
    "0xd0c": "Neoverse-N1",
    "0xd40": "Neoverse-V1",
    "0xd49": "Neoverse-N2",
}
# what vendors put around a name that their data sheets do not
_NOISE = re.compile(r"\((?:r|tm)\)|\bcpu\b|\bprocessor\b|\brev \S+|@.*", re.IGNORECASE)
_REMARK = re.compile(r"\s*(\(.*?\)|,.*)")  # "(4 GB)"


@dataclass(frozen=True, kw_only=True)
class _Processor:
    """What could be read about the processor."""

    model: str
    board: str  # the board's own name, "Raspberry Pi 4 Model B Rev 1.4"; empty on PCs
    isa: tuple[str, ...]
    clock_mhz: int
    cache_bytes: dict[str, int]  # "1 Data", "2 Unified" … → bytes of one instance


@functools.cache
def host_profile(root: Path = ROOT) -> TargetProfile:
    """Describe this machine as a target named ``host``.

    Raises ConfigError on an architecture that karui knows nothing about.
    """
    architecture = _architecture()
    found = _processor(root)
    profile = TargetProfile(
        name="host",
        title=f"This machine ({found.board or found.model})",
        cpu=CpuSpec(
            architecture=architecture,
            model=found.model,
            isa=found.isa,
            cores=usable_cores(),
            clock_mhz=found.clock_mhz,
            l1d_bytes=found.cache_bytes.get("1 Data", 0),
            l2_bytes=found.cache_bytes.get("2 Unified", 0),
            l3_bytes=found.cache_bytes.get("3 Unified", 0),
        ),
        memory=MemorySpec(size_bytes=_memory_bytes(root)),
        os=_os_name(root),
        python=".".join(platform.python_version_tuple()[:2]),
        sources=("detected",),
    )
    return profile.model_copy(update={"weight_bits": 7 if profile.saturates_int16 else 8})


def machine_name(root: Path = ROOT) -> str:
    """Name this machine in a few stable words, for example ``AMD EPYC, 2 cores, x86_64``."""
    profile = host_profile(root)
    board = _board(root)
    names = [re.sub(r" Rev \S+$", "", board)] if board else []
    cores = f"{profile.cpu.cores} core{'s' if profile.cpu.cores != 1 else ''}"
    return ", ".join([*names, _plain(profile.cpu.model), cores, profile.cpu.architecture])


def is_this_machine(target: TargetProfile, root: Path = ROOT) -> bool:
    """Tell whether numbers measured here are numbers of ``target``.

    True for the target named ``host``, and for a profile with this architecture, no instruction set that is missing
    here, and this processor's model (or this board's name).  When in doubt, False: better no latency than a wrong one.
    """
    if target.name == "host":
        return True
    here = host_profile(root)
    if target.cpu.architecture != here.cpu.architecture or not set(target.cpu.isa) <= set(here.cpu.isa):
        return False
    board = _key(_board(root))
    if board:
        return _key(target.title) == board
    return _key(target.cpu.model) == _key(here.cpu.model)


def usable_cores() -> int:
    """Count the cores that this process may use (containers and ``taskset`` give fewer than there are)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def training_device(wanted: str, root: Path = ROOT) -> Literal["cpu", "cuda"]:
    """Turn ``auto``, ``cpu`` or ``cuda`` into where torch will train, without importing torch.

    ``auto`` is ``cuda`` where the driver is loaded and the installed torch was built with CUDA.  Raises ConfigError
    when CUDA is asked for and absent.
    """
    if wanted == "cpu":
        return "cpu"
    if _has_cuda(root):
        return "cuda"
    if wanted == "cuda":
        raise ConfigError("no CUDA device here", where="--device cuda", remedy="use --device auto or --device cpu")
    return "cpu"


def _has_cuda(root: Path) -> bool:
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None or not (root / "proc/driver/nvidia/version").exists():
        return False
    return any((Path(spec.origin).parent / "lib").glob("*torch_cuda*"))


# ── readers ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _architecture() -> Architecture:
    machine = platform.machine().lower()
    if machine not in _ARCHITECTURES:
        raise ConfigError(
            f"processors of the kind '{machine}' are not known",
            where="this machine",
            remedy=f"name a target that is one of {', '.join(sorted(set(_ARCHITECTURES.values())))}",
        )
    return _ARCHITECTURES[machine]


def _processor(root: Path) -> _Processor:
    text = _text(root / "proc/cpuinfo")
    return _from_proc(text, root) if text else _from_platform()


def _from_proc(text: str, root: Path) -> _Processor:
    first: dict[str, str] = {}
    for line in text.splitlines():
        key, found, value = line.partition(":")
        if found:
            first.setdefault(key.strip().lower(), value.strip())
    model = first.get("model name", "")
    if not model or model.startswith(("ARMv7", "ARMv8")):
        part = first.get("cpu part", "")
        model = _ARM_CORES.get(part, f"Arm core {part}" if part else "unknown processor")
    flags = first.get("flags") or first.get("features") or ""
    return _Processor(
        model=model,
        board=_board(root),
        isa=tuple(sorted(set(flags.split()))),
        clock_mhz=_clock_mhz(root, first),
        cache_bytes=_caches(root),
    )


def _clock_mhz(root: Path, cpuinfo: dict[str, str]) -> int:
    """Nominal clock; 1 where nothing tells it (some virtual machines)."""
    frequency_khz = _text(root / "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq")
    if frequency_khz.isdigit():
        return max(1, int(frequency_khz) // 1000)
    printed = re.search(r"@ ([0-9.]+)GHz", cpuinfo.get("model name", ""))
    if printed:
        return round(float(printed[1]) * 1000)
    # what the kernel prints moves with the load: rounded, so that the profile stays the same
    return max(1, round(float(cpuinfo.get("cpu mhz", 0)) / 100) * 100)


def _from_platform() -> _Processor:
    """Ask the standard library, where there is no /proc: it knows the name and nothing of the instruction sets."""
    model = platform.processor() or platform.machine() or "unknown processor"
    return _Processor(model=model, board="", isa=(), clock_mhz=1, cache_bytes={})


def _caches(root: Path) -> dict[str, int]:
    sizes = {}
    for folder in sorted((root / "sys/devices/system/cpu/cpu0/cache").glob("index*")):
        size = re.fullmatch(r"(\d+)([KM]?)", _text(folder / "size"))
        if size:
            factor = {"": 1, "K": 2**10, "M": 2**20}[size[2]]
            sizes[f"{_text(folder / 'level')} {_text(folder / 'type')}"] = int(size[1]) * factor
    return sizes


def _board(root: Path) -> str:
    return _text(root / "proc/device-tree/model").strip("\0 ")


def _memory_bytes(root: Path) -> int:
    total = re.search(r"^MemTotal:\s+(\d+) kB", _text(root / "proc/meminfo"), re.MULTILINE)
    if total:
        return int(total[1]) * 1024
    names = os.sysconf_names if hasattr(os, "sysconf") else {}
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if "SC_PHYS_PAGES" in names else 0


def _os_name(root: Path) -> str:
    for place in ("etc/os-release", "usr/lib/os-release"):
        name = re.search(r'^PRETTY_NAME="?([^"\n]+)', _text(root / place), re.MULTILINE)
        if name:
            return name[1]
    return f"{platform.system()} {platform.release()}"


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:  # not there, or not for us to read: the caller has a next best source
        return ""


def _plain(model: str) -> str:
    return " ".join(_NOISE.sub(" ", model).split())


def _key(model: str) -> str:
    """Reduce a name to what must be equal: no trademark, case, revision or remark; the kernel writes "B+" "B Plus"."""
    key = _REMARK.sub("", _plain(model.replace("+", " Plus")).lower())
    return key.removesuffix(" model b")  # a Raspberry Pi 5 calls itself "5 Model B"
