"""Runs that really happened, as ``record.py`` kept them: their outcome, and the arrays that a report reads."""

from __future__ import annotations

import dataclasses
import shutil
from dataclasses import dataclass
from pathlib import Path

from pipeline.artifacts.networks import DataRef
from pipeline.artifacts.outcome import Outcome
from pipeline.data.load import load, reference
from pipeline.data.source import Dataset
from pipeline.report.document import report_json
from pipeline.report.looked import Looked, look
from pipeline.report.page import render
from pipeline.runs.records import from_json
from pipeline.runs.store import Store

RECORDINGS = Path(__file__).with_name("recordings")
SHIPPED = Path(__file__).parents[2] / "calibration_data"
OUTCOME, STORE = "outcome.json", "store"
FOLDER = Path("runs/digits")  # as a user would type it


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """A run and what is needed to report it; ``store`` is a copy that may be written to."""

    outcome: Outcome
    store: Store
    data: DataRef  # the data set as it lies here
    dataset: Dataset

    def looked(self) -> tuple[Looked, ...]:
        """Return the task's figures."""
        return look(self.outcome, self.dataset.test, self.outcome.facts.classes, self.store)

    def page(self, command: tuple[str, ...] = ()) -> str:
        """Return the report page."""
        return render(self.outcome, self.store, FOLDER, self.looked(), command=command)

    def json(self) -> str:
        """Return ``report.json``."""
        return report_json(self.outcome, FOLDER, tuple(figure for each in self.looked() for figure in each.figures))

    def but(self, **changes: object) -> Recorded:
        """Return the same run with other fields of its outcome."""
        return dataclasses.replace(self, outcome=dataclasses.replace(self.outcome, **changes))  # type: ignore[arg-type]


def recorded(name: str, folder: Path) -> Recorded:
    """Read a recording; what is written to its store goes to ``folder``."""
    shutil.copytree(RECORDINGS / name / STORE, folder / STORE)
    outcome = from_json(Outcome, (RECORDINGS / name / OUTCOME).read_bytes())
    own = RECORDINGS / name / "data"
    data = reference(outcome.data.card, own if own.is_dir() else SHIPPED)
    return Recorded(outcome=outcome, store=Store(folder / STORE), data=data, dataset=load(data))
