"""What ``karui bench`` found out about files on the machine at hand: the content of ``measurements.json``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipeline.artifacts.evidence import Interval, Place
from pipeline.artifacts.files import RUNTIME_OF_FORMAT
from pipeline.artifacts.networks import Digest
from pipeline.declare.words import RuntimeName
from pipeline.onboard.sustained import Point
from pipeline.onboard.usage import Conditions


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Single inferences in fresh sessions, in ms; each quantile with the interval for other sessions."""

    p50: Interval
    p90: Interval
    p95: Interval
    p99: Interval
    session_medians_ms: tuple[float, ...]  # (S,): in the order of the other files' sessions
    inferences: int  # in all sessions together


@dataclass(frozen=True, kw_only=True)
class Cold:
    """Medians over fresh processes of what a first answer takes: library, file, inference."""

    library_ms: float
    start_ms: Interval  # file and inference
    processes: int


@dataclass(frozen=True, kw_only=True)
class KeptUp:
    """One inference after the other, without a pause."""

    seconds: float
    inferences: int
    per_second: float
    drift: Interval | None  # time of an inference in the last tenth / in the first; None: too short to tell
    joules_each: float | None  # of the whole processor; None: it does not tell
    points: tuple[Point, ...]


@dataclass(frozen=True, kw_only=True)
class Benched:
    """One file in one runtime, with so many threads."""

    file: str
    sha256: Digest
    size_bytes: int
    runtime: RuntimeName
    version: str
    threads: int
    latency: Latency
    ratio: Interval | None  # its time / that of the first file with as many threads; None: it is the first
    cold: Cold
    peak_memory_bytes: int | None  # that it adds to a process with the runtime; None: the system does not tell
    kept_up: KeptUp

    @property
    def name(self) -> str:
        """``net.int8.tflite in litert``: runtimes of one format have to be told apart."""
        several = len(next((each for each in RUNTIME_OF_FORMAT.values() if self.runtime in each), ())) > 1
        return f"{self.file} in {self.runtime}" if several else self.file


@dataclass(frozen=True, kw_only=True)
class Measurements:
    """All files, the machine, and what it was like."""

    karui: Literal["measurements"] = "measurements"
    place: Place
    started: str  # ISO 8601, UTC
    seconds: float  # that all of it took
    files: tuple[Benched, ...]
    conditions: Conditions
    troubles: tuple[str, ...]  # what spoils it, in sentences

    @property
    def summary(self) -> str:
        """Say how many, and where."""
        return f"{len(self.files)} times, {self.place.text}"


# ── counts ──────────────────────────────────────────────────────────────────────────────────────────────────────────

_NO_CLASSES = ("total", "accesses", "l1d_miss", "l2_miss", "bytes_ld", "bytes_st")


@dataclass(frozen=True, kw_only=True)
class Counted:
    """One inference of a file in one runtime."""

    file: str
    sha256: Digest
    runtime: RuntimeName
    counts: dict[str, float]  # class of instructions, or kind of cache access → how many
    ratio: float  # its instructions / those of the first file

    @property
    def classes(self) -> dict[str, float]:
        """Return the classes of instructions that there are, the largest first."""
        found = {name: each for name, each in self.counts.items() if each and name not in _NO_CLASSES}
        return dict(sorted(found.items(), key=lambda each: -each[1]))


@dataclass(frozen=True, kw_only=True)
class CountsBeside:
    """Files beside the first of them."""

    target: str
    processor: str
    files: tuple[Counted, ...]

    @property
    def most(self) -> float:
        """Return how many times the first one's instructions the largest of the others takes; 1 without others."""
        return max((each.ratio for each in self.files[1:]), default=1.0)
