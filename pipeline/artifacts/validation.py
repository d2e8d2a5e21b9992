"""What was found out about one model file of any origin."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.artifacts.evidence import Comparison, Interval, Metric, Place
from pipeline.artifacts.outcome import Check, State, worst_of


@dataclass(frozen=True, kw_only=True)
class There:
    """What the file answered on the target's own processor, beside what it answered here, and how long that takes."""

    place: Place
    samples: int
    of: int  # from which they were drawn; the same number where all were run
    value: Interval
    same: float  # share of decisions that are the same as here, 0 … 1
    identical: float  # share of the numbers that are
    max_steps: float  # largest difference in output steps
    instructions: float | None = None  # of one inference
    latency_ms: Interval | None = None  # estimated; None where nothing is known of such a processor
    basis: str = ""  # of the interval, or why there is none
    peak_memory_bytes: int | None = None  # in a machine with the target's memory; None: it was not booted, or no room
    machine: str = ""  # which one that is, or why there is none
    does_not_fit: str = ""  # what the machine says of a file that it does not run


@dataclass(frozen=True, kw_only=True)
class OnTarget:
    """How long the file takes on the target itself, measured there."""

    place: Place
    threads: int
    latency_p50_ms: Interval
    latency_p95_ms: Interval
    peak_memory_bytes: int | None
    basis: str


@dataclass(frozen=True, kw_only=True)
class ByModel:
    """How long the file takes on a target that nobody asked, by a model of its kernels."""

    place: Place
    latency_ms: Interval
    basis: str


@dataclass(frozen=True, kw_only=True)
class FileFacts:
    """What was found out about a file."""

    file: str
    runtime: str
    machine: str
    samples: int
    metric: Metric
    value: Interval
    others: dict[str, float]
    size_bytes: int
    latency_p50_ms: float
    latency_p95_ms: Interval
    peak_memory_bytes: int | None
    integer_nodes: int
    nodes: int
    float_nodes: dict[str, str]  # name → operation, of those that do not run on integers
    comparison: Comparison | None  # with the float file
    times_as_long: float | None  # as the float file
    checks: tuple[Check, ...]  # the target's limits
    there: There | None = None  # on the target's processor, emulated
    by_model: ByModel | None = None  # where its processor did not answer, emulated
    on_target: OnTarget | None = None  # None: nobody brought what was measured there
    hints: tuple[str, ...] = ()  # what could not be found out, and why

    @property
    def state(self) -> State:
        """Return the worst state of all limits; ``met`` where there are none."""
        return worst_of(each.state for each in self.checks)
