"""report: the page and its machine-readable twin."""

from __future__ import annotations

from pathlib import Path

from pipeline.artifacts.networks import DataFacts, DataRef
from pipeline.artifacts.outcome import Outcome, ReportFiles
from pipeline.data.load import load
from pipeline.report.document import report_json
from pipeline.report.looked import look
from pipeline.report.page import render
from pipeline.report.places import passed_on, without_folders
from pipeline.runs.run import Work, stage


@stage(version=1)
def report(
    work: Work, *, outcome: Outcome, data: DataRef, facts: DataFacts, folder: str, command: tuple[str, ...]
) -> ReportFiles:
    """Draw the page of a run; ``folder`` and ``command`` as the user typed them.

    Both files can be passed on: they name no folder of this machine.
    """
    work.progress.start("report", 2)
    looked = look(outcome, load(data).test, facts.classes, work.store)
    work.progress.advance()
    shared, place = passed_on(outcome), Path(without_folders(folder))
    page = render(shared, work.store, place, looked, command=tuple(map(without_folders, command)))
    text = report_json(shared, place, tuple(figure for each in looked for figure in each.figures))
    work.progress.advance()
    return ReportFiles(html=work.store.put(page.encode()), json=work.store.put((text + "\n").encode()))
