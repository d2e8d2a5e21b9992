"""The pipeline on one screen: stage after stage, each recalled or run; it fans out over weight widths and targets."""

from __future__ import annotations

from dataclasses import replace

from pipeline.artifacts.outcome import Outcome
from pipeline.flow.asked import RunRequest as RunRequest
from pipeline.flow.asked import asked_of
from pipeline.flow.job import job_of
from pipeline.flow.kept import hand_over, outcome_of, write_report
from pipeline.flow.made import make
from pipeline.flow.stages import STAGES as STAGES
from pipeline.flow.stages import StageName as StageName
from pipeline.flow.validated import Validated, validate
from pipeline.progress import Progress
from pipeline.runs.finished import RUNS, write_outcome
from pipeline.runs.run import open_run


def run_recipe(request: RunRequest, progress: Progress) -> Outcome:
    """Run a recipe for its targets, up to ``request.until``, and return all that was found out.

    Raises ConfigError, DataError, ModelError … as the stages do; what was done before is recalled next time.
    """
    progress.start("looking at the data", 1)  # to know a large folder again takes a while
    asked = asked_of(request, progress)
    folder = request.out or RUNS / asked.recipe.name
    with open_run(
        folder,
        progress=progress,
        fresh=request.fresh,
        recipe=asked.recipe,
        command=request.command,
        tensorboard=request.tensorboard,
    ) as run:
        job = job_of(run, asked)
        network = make(job)
        outcome = outcome_of(job, network, validate(job, network) if job.wants("validate") else Validated())
        hand_over(job, outcome)
        if job.wants("report"):
            write_report(job, outcome)
        outcome = replace(outcome, notes=tuple(run.notes))
        write_outcome(run.folder, outcome)
        return outcome
