"""The instrument that is a target's whole machine, emulated: what each file takes of its memory, if it fits."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from pipeline.artifacts.evidence import CannotRun, Measurement, Place
from pipeline.declare.target import TargetProfile
from pipeline.instruments.here import FileWay
from pipeline.instruments.passing import how_it_failed
from pipeline.progress import Progress
from pipeline.runtimes.emulation.machine import Load, boot, find_machine
from pipeline.runtimes.emulation.system import System, stand_in


def place(target: TargetProfile) -> Place:
    """Say that numbers come from a machine with a target's processor and memory.  Raises EmulationError without one."""
    processor, _ = stand_in(target)
    machine = find_machine(target)
    memory = f"{target.memory.size_bytes // (1 << 20):,} MiB"
    return Place(how="emulated", name=f"a {processor.name} with {memory} (QEMU {machine.version})", profile=target.name)


def weighed(
    ways: Sequence[FileWay],
    system: System,
    target: TargetProfile,
    *,
    threads: int,
    budget_s: float,
    progress: Progress,
    cannot_run: list[CannotRun],
) -> Iterator[Measurement]:
    """Return the peak memory of every way that fits, as far as there is time.

    ``cannot_run``: takes down the others.  Raises EmulationError where the machine cannot be had.
    """
    if not ways:
        return
    own = place(target)
    progress.start("the target's whole machine", len(ways))
    loads = [Load(path=each.path, runtime=each.runtime) for each in ways]
    with contextlib.closing(boot(loads, system, target, threads=threads, budget_s=budget_s)) as found:
        for way, each in zip(ways, found, strict=False):  # fewer when time is up
            progress.advance()
            if each.peak_bytes is None:
                cannot_run.append(CannotRun(way=way.way, said=how_it_failed(way.runtime, each.said)))
                continue
            peak = float(each.peak_bytes)
            yield Measurement(
                quantity="peak_memory_bytes", way=way.way, threads=threads, place=own, value=peak, low=peak, high=peak
            )
