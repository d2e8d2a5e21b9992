"""bring: what was measured on the target itself, by ``karui bench`` and in a file, as numbers of the run's files."""

from __future__ import annotations

from pipeline.artifacts.evidence import Observed, Place
from pipeline.artifacts.files import Exported
from pipeline.artifacts.measured import Measurements
from pipeline.artifacts.networks import DataRef
from pipeline.declare.target import TargetProfile
from pipeline.instruments import brought
from pipeline.runs.run import Work, stage
from pipeline.tasks import named


@stage(version=1)
def bring(
    work: Work,
    *,
    data: DataRef,
    files: tuple[Exported, ...],
    found: Measurements,
    target: TargetProfile,
    place: Place,
) -> Observed:
    """Match what was measured with the files by their sha256.

    ``target``: without what only verdicts need; ``place``: the machine, as the target.
    Raises ConfigError where no file of these was measured.
    """
    del place
    return brought.observed(found, files, named(data.card.task).METRIC, target, work.store)
