"""Published single-thread times of networks on boards, and what one inference of each takes: what estimates rest on.

``reference.csv``: times of ncnn are those of its benchmark (Tencent/ncnn, benchmark/README.md), those of LiteRT are
named in ``bench/count_published.py``; counts are of the same networks in the same runtime on emulated processors.
"""

from __future__ import annotations

import csv
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_REFERENCE = Path(__file__).with_name("reference.csv")
_WORDS = ("cpu", "clock_mhz", "board", "runtime", "model", "precision", "published_ms")


@dataclass(frozen=True, kw_only=True)
class Row:
    """A network that somebody timed on a board."""

    cpu: str  # "cortex-a72"
    clock_mhz: int
    board: str
    runtime: str
    model: str
    precision: str
    published_ms: float
    counts: Mapping[str, float]  # of one inference


@functools.cache
def reference() -> tuple[Row, ...]:
    """Return all rows."""
    with _REFERENCE.open(encoding="utf-8", newline="") as file:
        return tuple(_row(each) for each in csv.DictReader(file))


def _row(words: Mapping[str, str]) -> Row:
    return Row(
        cpu=words["cpu"],
        clock_mhz=int(words["clock_mhz"]),
        board=words["board"],
        runtime=words["runtime"],
        model=words["model"],
        precision=words["precision"],
        published_ms=float(words["published_ms"]),
        counts={name: float(value) for name, value in words.items() if name not in _WORDS},
    )
