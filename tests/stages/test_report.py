"""report: from a whole outcome and its store to the page and its twin, the data set read once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.artifacts.outcome import ReportFiles
from pipeline.errors import StorageError
from pipeline.progress import Silent
from pipeline.runs.run import Work
from pipeline.runs.store import Store
from pipeline.stages.report import report
from tests.report.recorded import Recorded, recorded


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    return recorded("digits", tmp_path_factory.mktemp("digits") / "run")


def reported(run: Recorded, store: Store, folder: Path) -> ReportFiles:
    return report(
        Work(store=store, scratch=folder, progress=Silent()),
        outcome=run.outcome,
        data=run.data,
        facts=run.outcome.facts,
        folder="runs/digits",
        command=("karui", "run", "digits"),
    )


def test_the_page_and_its_twin_lie_in_the_store(run: Recorded, tmp_path: Path) -> None:
    files = reported(run, run.store, tmp_path)
    page, twin = (run.store.get(digest).decode() for digest in (files.html, files.json))
    assert page.startswith("<!DOCTYPE html>")
    assert page == run.page(("karui", "run", "digits"))
    assert json.loads(twin)["document"]["run"] == "digits"
    assert twin.endswith("}\n")
    assert [figure["kind"] for figure in json.loads(twin)["figures"]].count("matrix") >= 4
    assert reported(run, run.store, tmp_path) == files


def test_answers_that_are_gone_are_named(run: Recorded, tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        reported(run, Store(tmp_path / "empty"), tmp_path)
