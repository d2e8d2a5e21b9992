"""What drawn layers and whole networks take in the runtimes on emulated processors: events, and what kernels had to do.

``layers.csv``: what the cost model is fitted on; ``networks.csv``: what it is judged by and never sees.  Both are
written by ``bench/count_layers.py``.
"""

from __future__ import annotations

import csv
import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.estimating.fit import EVENTS
from pipeline.estimating.work import Work

_FOLDER = Path(__file__).parent
LAYERS, NETWORKS = _FOLDER / "layers.csv", _FOLDER / "networks.csv"
COLUMNS = ("network", "precision", "runtime", "cpu", "total", *EVENTS, "works")


@dataclass(frozen=True, kw_only=True)
class Counted:
    """One inference of a network."""

    network: str
    precision: str
    runtime: str
    cpu: str
    instructions: float
    events: Mapping[str, float]
    works: tuple[Work, ...]


@functools.cache
def counted(path: Path) -> tuple[Counted, ...]:
    """Return all rows of a table."""
    with path.open(encoding="utf-8", newline="") as file:
        return tuple(_row(each) for each in csv.DictReader(file))


def networks() -> tuple[Counted, ...]:
    """Return the rows that judge the model; in float ONNX Runtime executes the same on both processors."""
    rows = counted(NETWORKS)
    shared = [row for row in rows if row.runtime == "onnxruntime" and row.precision == "fp32"]
    return (*rows, *(replace(row, cpu="cortex-a76") for row in shared if row.cpu == "cortex-a72"))


def _row(words: Mapping[str, str]) -> Counted:
    return Counted(
        network=words["network"],
        precision=words["precision"],
        runtime=words["runtime"],
        cpu=words["cpu"],
        instructions=float(words["total"]),
        events={kind: float(words[kind]) for kind in EVENTS},
        works=tuple(Work.parse(text) for text in words["works"].split("; ") if text),
    )
