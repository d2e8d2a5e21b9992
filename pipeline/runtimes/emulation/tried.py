"""What an emulated target runs, found by asking each of its runtimes."""

from __future__ import annotations

import contextlib

from pipeline.declare.target import TargetProfile
from pipeline.onboard.faults import OnboardFault
from pipeline.runtimes.child import Child
from pipeline.runtimes.emulation.system import system_for

_TIMEOUT_S = 120  # an import takes seconds


def tried(target: TargetProfile) -> str:
    """Set a target's system up and say which runtimes it runs.  Raises EmulationError where it cannot be had."""
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
    absent = "".join(f"\n  {runtime}: {why}" for runtime, why in missing.items())
    return f"{target.name}: {name} runs {', '.join(found) or 'no runtime'}{absent}"
