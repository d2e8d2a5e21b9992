"""weigh: how much memory the files take in a target's whole machine, emulated, and which of them do not fit."""

from __future__ import annotations

from pipeline.artifacts.evidence import CannotRun, Observed, Place
from pipeline.artifacts.files import Exported
from pipeline.artifacts.networks import DataRef
from pipeline.declare.target import TargetProfile
from pipeline.declare.words import RuntimeName
from pipeline.instruments import emulated
from pipeline.instruments.weighed import weighed
from pipeline.runs.run import Work, stage
from pipeline.runtimes.emulation.system import system_for
from pipeline.tasks import named


@stage(version=1)
def weigh(
    work: Work,
    *,
    data: DataRef,
    files: tuple[Exported, ...],
    target: TargetProfile,
    place: Place,
    programs: tuple[RuntimeName, ...],
    threads: int,
    budget_s: float,
    runtimes: dict[str, str],
) -> Observed:
    """Run every file in a machine with the target's memory.

    ``target``: without what only verdicts need; ``place``: the machine; ``programs``: the runtimes that would run the
    files there; ``runtimes``: name → version.
    Raises EmulationError where the machine cannot be set up or does not start.
    """
    del runtimes
    system = system_for(target)
    ways, not_usable = emulated.ways_there(files, system, work.store)
    cannot_run = list[CannotRun]()
    found = weighed(
        [each for each in ways if each.runtime in programs],
        system,
        target,
        threads=threads,
        budget_s=budget_s,
        progress=work.progress,
        cannot_run=cannot_run,
    )
    return Observed(
        place=place,
        metric=named(data.card.task).METRIC,
        measurements=tuple(found),
        not_usable=not_usable,
        cannot_run=tuple(cannot_run),
    )
