"""report: the page and its machine-readable twin."""

from __future__ import annotations

from pathlib import Path

from pipeline.artifacts import DataRef, Outcome, ReportFiles
from pipeline.data.load import load
from pipeline.report.document import report_json
from pipeline.report.evidence import Samples
from pipeline.report.page import render
from pipeline.run import Work, stage


@stage(version=1)
def report(work: Work, *, outcome: Outcome, data: DataRef, folder: str, command: tuple[str, ...]) -> ReportFiles:
    """Draw the page of a run; ``folder`` and ``command`` as the user typed them."""
    dataset = load(data)
    samples = Samples(labels=dataset.test.labels, class_names=dataset.classes, read=dataset.test.read)
    page = render(outcome, work.store, Path(folder), samples, command=command)
    return ReportFiles(
        html=work.store.put(page.encode()),
        json=work.store.put((report_json(outcome, Path(folder)) + "\n").encode()),
    )
