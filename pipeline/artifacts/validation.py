"""What was found out about one model file of any origin."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.artifacts.evidence import Comparison, Interval, Metric
from pipeline.artifacts.outcome import Check, State, worst_of


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

    @property
    def state(self) -> State:
        """Return the worst state of all limits; ``met`` where there are none."""
        return worst_of(each.state for each in self.checks)
