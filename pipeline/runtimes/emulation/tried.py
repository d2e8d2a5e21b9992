"""What an emulated target runs, found by asking each of its runtimes."""

from __future__ import annotations

import contextlib

from pipeline.declare.target import TargetProfile
from pipeline.errors import EmulationError
from pipeline.onboard.faults import OnboardFault
from pipeline.runtimes.child import Child
from pipeline.runtimes.emulation.machine import prepare
from pipeline.runtimes.emulation.system import System, system_for

_TIMEOUT_S = 120  # an import takes seconds


def tried(target: TargetProfile) -> str:
    """Set a target up and say which runtimes it runs, and in which machine.  Raises EmulationError without a system."""
    system = system_for(target)
    found, missing = [], dict(system.not_usable)
    for runtime, home in system.homes.items():
        try:
            with contextlib.closing(Child(runtime, home)) as child:
                version = child.ask("version", {"runtime": runtime}, timeout_s=_TIMEOUT_S).header["version"]
                reason = child.ask("why_not", {"runtime": runtime}, timeout_s=_TIMEOUT_S).header["reason"]
        except OnboardFault as fault:  # it died: of an instruction that this processor does not have, for example
            missing[runtime] = str(fault)
            continue
        if reason:
            missing[runtime] = reason
        else:
            found.append(f"{runtime} {version}")
    name = f"{system.processor.name} (QEMU {system.emulator.version})"
    absent = [f"\n  {runtime}: {why}" for runtime, why in missing.items()]
    runs = f"{target.name}: {name} runs {', '.join(found) or 'no runtime'}"
    return "".join((runs, *absent, f"\n  its memory: {_machine(system, target)}"))


def _machine(system: System, target: TargetProfile) -> str:
    try:
        version = prepare(system, target).version
    except EmulationError as error:
        return " ".join(str(error).split())
    return f"a machine with {target.memory.size_bytes // (1 << 20):,} MiB (QEMU {version})"
