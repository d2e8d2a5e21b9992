"""Which processor QEMU has to be for a target, and what a kernel says of it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pipeline.declare.target import CpuSpec

_ARM_CORE = re.compile(r"Cortex-A(\d+)\b")
_PARTS = {"cortex-a53": 0xD03, "cortex-a72": 0xD08, "cortex-a76": 0xD0B}  # as Arm numbers them
_X86 = "Haswell"  # AVX2, FMA and nothing beyond
_ARM_32, _PART_32 = (
    "cortex-a7",
    0xC07,
)  # QEMU has no later core that runs 32-bit code alone; every Raspberry Pi runs its


@dataclass(frozen=True, kw_only=True)
class Processor:
    """A processor by QEMU's name for it; ``cpuinfo``: what runtimes read in /proc/cpuinfo, "" where QEMU tells it."""

    architecture: str
    name: str
    cpuinfo: str = ""


def processor_of(cpu: CpuSpec) -> Processor | str:
    """Return the processor that stands for a target's, or why none does."""
    if cpu.architecture == "x86_64":
        if any(flag.startswith("avx512") for flag in cpu.isa):
            return "QEMU emulates no AVX-512"
        return Processor(architecture="x86_64", name=_X86)
    if cpu.architecture == "armv7l":
        return Processor(architecture="armv7l", name=_ARM_32, cpuinfo=_cpuinfo(_PART_32, cpu, version=7))
    core = _ARM_CORE.search(cpu.model)
    name = f"cortex-a{core[1]}" if core else ""
    if name not in _PARTS:
        return f"'{cpu.model}' names no core that is known: {', '.join(_PARTS)}"
    return Processor(architecture="aarch64", name=name, cpuinfo=_cpuinfo(_PARTS[name], cpu, version=8))


def _cpuinfo(part: int, cpu: CpuSpec, *, version: int) -> str:
    """Write /proc/cpuinfo as Linux does on ARM."""
    each = (
        "BogoMIPS\t: 108.00",
        f"Features\t: {' '.join(cpu.isa)}",
        "CPU implementer\t: 0x41",
        f"CPU architecture: {version}",
        "CPU variant\t: 0x0",
        f"CPU part\t: {part:#05x}",
        "CPU revision\t: 3",
    )
    return "".join("\n".join((f"processor\t: {number}", *each)) + "\n\n" for number in range(cpu.cores))
