"""estimate: how long the files take on a target that is not at hand, from what its processor executes."""

from __future__ import annotations

import numpy as np

from pipeline.artifacts.evidence import CannotRun, Observed, Place
from pipeline.artifacts.files import Exported
from pipeline.artifacts.networks import DataRef
from pipeline.data.load import load
from pipeline.declare.target import TargetProfile
from pipeline.instruments import counted, emulated
from pipeline.runs.run import Work, stage
from pipeline.runtimes.emulation.system import system_for
from pipeline.tasks import named


@stage(version=1)
def estimate(
    work: Work,
    *,
    data: DataRef,
    files: tuple[Exported, ...],
    target: TargetProfile,
    place: Place,
    runtimes: dict[str, str],
) -> Observed:
    """Count one inference of every file in every runtime of the target's system, and estimate its time.

    ``target``: without what only verdicts need; ``place``: the processor; ``runtimes``: name → version.
    Raises EmulationError where the system cannot be set up or nothing is counted.
    """
    del runtimes
    system = system_for(target)
    ways, not_usable = emulated.ways_there(files, system, work.store)
    cannot_run = list[CannotRun]()
    sample = load(data).test.read(np.arange(1)).inputs
    return Observed(
        place=place,
        metric=named(data.card.task).METRIC,
        measurements=tuple(
            counted.estimated(ways, sample, system, target, progress=work.progress, cannot_run=cannot_run)
        ),
        not_usable=not_usable,
        cannot_run=tuple(cannot_run),
    )
