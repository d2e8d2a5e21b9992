"""Single-thread times of networks on boards, and what one inference of each takes: what estimates rest on.

``reference.csv``: published times. Those of ncnn are of its benchmark (Tencent/ncnn, benchmark/README.md), those of
LiteRT are named in ``bench/count_published.py``; counts are of the same networks in the same runtime on emulated
processors.  Behind them come rows of the user's own, from ``karui estimate --add``, in a file of the same form.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import io
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from pipeline.errors import ConfigError
from pipeline.runs.store import storing, write_atomic

REFERENCE = Path(__file__).with_name("reference.csv")
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

    @property
    def subject(self) -> tuple[str, ...]:
        """Return what was timed, and where."""
        return (self.cpu, self.board, self.runtime, self.model, self.precision)


def reference() -> tuple[Row, ...]:
    """Return all rows, the published ones first.  Raises ConfigError where the user's own cannot be read."""
    return (*published(), *own())


@functools.cache
def published() -> tuple[Row, ...]:
    """Return the rows that come with karui."""
    return _rows(REFERENCE.read_bytes(), REFERENCE)


def own() -> tuple[Row, ...]:
    """Return the user's own rows.  Raises ConfigError where they cannot be read."""
    return _rows(_own_bytes(), own_file())


def own_version() -> str:
    """Return what tells one state of the user's own rows from another; "" where there are none."""
    data = _own_bytes()
    return hashlib.sha256(data).hexdigest()[:16] if data else ""


def own_file() -> Path:
    """Return where the user's own rows lie."""
    return Path(platformdirs.user_data_path("karui", appauthor=False)) / "latency.csv"


def add(rows: Iterable[Row]) -> None:
    """Add rows to the user's own; what was timed before on the same board is replaced.  Raises StorageError."""
    known = {row.subject: row for row in (*own(), *rows)}
    names = tuple(published()[0].counts)
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow((*_WORDS, *names))
    for row in known.values():
        table.writerow((*(getattr(row, word) for word in _WORDS), *(round(row.counts.get(name, 0)) for name in names)))
    write_atomic(own_file(), text.getvalue().encode())


def _own_bytes() -> bytes:
    file = own_file()
    with storing(file):
        return file.read_bytes() if file.is_file() else b""


def _rows(data: bytes, file: Path) -> tuple[Row, ...]:
    try:
        lines = csv.DictReader(io.StringIO(data.decode("utf-8"), newline=""))
        return tuple(_row(each) for each in lines)
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        what = f"is no table of latencies: {type(error).__name__}: {error}"
        raise ConfigError(what, where=str(file), remedy="correct that line, or delete the file") from error


def _row(words: Mapping[str, str]) -> Row:
    row = Row(
        cpu=words["cpu"],
        clock_mhz=int(words["clock_mhz"]),
        board=words["board"],
        runtime=words["runtime"],
        model=words["model"],
        precision=words["precision"],
        published_ms=float(words["published_ms"]),
        counts={name: float(value) for name, value in words.items() if name not in _WORDS},
    )
    if row.clock_mhz < 1 or not 0 < row.published_ms < math.inf or not all(map(math.isfinite, row.counts.values())):
        raise ValueError(f"{row.model} {row.precision} has a number that cannot be")
    return row
