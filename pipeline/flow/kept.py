"""What is kept of a run: its outcome, what goes along with the files, the report."""

from __future__ import annotations

from pipeline.artifacts.handover import MODEL_FILE, handover_of
from pipeline.artifacts.outcome import Outcome
from pipeline.declare.settings import settings_of
from pipeline.flow.job import Job
from pipeline.flow.made import Network
from pipeline.flow.stages import report
from pipeline.flow.validated import Validated
from pipeline.onboard.about import LABELS_FILE, labels_text
from pipeline.runs.finished import (
    REPORT_FILE,
    REPORT_JSON_FILE,
)
from pipeline.runs.keys import library_versions
from pipeline.runs.records import to_json
from pipeline.runs.store import write_atomic


def outcome_of(job: Job, network: Network, validated: Validated) -> Outcome:
    """Return all that was found out."""
    return Outcome(
        run=job.run.folder.resolve().name,
        recipe=job.recipe.name,
        summary=job.recipe.summary,
        task=job.asked.data.card.task,
        metric=job.asked.task.METRIC,
        data=job.asked.data,
        facts=job.facts,
        network=job.network,
        threads=job.threads,
        trained=network.trained,
        finetuned=network.finetuned,
        pruned=network.pruned,
        quantized={each.weight_bits: each for each in network.quantized},
        exports=network.exports,
        predicted=validated.predicted,
        observed=validated.observed,
        targets=validated.targets,
        notes=tuple(job.run.notes),
        versions=library_versions(),
        unpruned=network.unpruned_export,
        settings=_settings(job),
        started=job.asked.started,
        commit=job.asked.commit,
        hints=(*job.checked.hints, *job.facts.hints, *validated.hints),
    )


def _settings(job: Job) -> dict[str, str]:
    """Return the recipe's settings, and how the network that fine-tuning starts from was trained here."""
    settings = settings_of(job.recipe)
    if job.recipe.finetune and job.scratch:
        start = settings_of(job.scratch.recipe).items()
        settings |= {f"start.{name}": value for name, value in start if name.startswith(("data", "seed", "train."))}
    return settings


def hand_over(job: Job, outcome: Outcome) -> None:
    """Write what goes along with the model files for whoever gets them."""
    handover = handover_of(outcome)
    if handover is None:
        return
    write_atomic(job.run.folder / MODEL_FILE, to_json(handover, indent=1) + b"\n")
    if handover.labels:
        write_atomic(job.run.folder / LABELS_FILE, labels_text(handover.labels).encode())


def write_report(job: Job, outcome: Outcome) -> None:
    """Write the page and its twin for programs."""
    files = job.run.step(
        "report",
        report,
        outcome=outcome,
        data=job.asked.data,
        facts=job.facts,
        folder=job.run.folder.as_posix(),
        command=job.asked.command,
    )
    write_atomic(job.run.folder / REPORT_FILE, job.run.store.get(files.html))
    write_atomic(job.run.folder / REPORT_JSON_FILE, job.run.store.get(files.json))
