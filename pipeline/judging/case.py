"""What a verdict is about: the files that could go to a target, and the numbers that stand for them there."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from pipeline.artifacts.evidence import (
    Answered,
    CannotRun,
    Compared,
    Comparison,
    How,
    Interval,
    Measurement,
    Metric,
    Observed,
    Place,
    Quantity,
)
from pipeline.artifacts.files import Exported, Way
from pipeline.declare.recipe import RecipeLimits
from pipeline.declare.target import TargetProfile
from pipeline.judging.speed import TimeRatio

_BEST_FIRST: tuple[How, ...] = ("measured", "emulated", "estimated")
# The same file in the same runtime holds the same weights and buffers everywhere; packed weights, scratch space and the
# allocator's grain differ with the processor.
_MEMORY_FACTOR = 2.0


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A file that could be shipped, as one runtime runs it, and the numbers that stand for it on the target."""

    way: Way
    file: Exported
    answered: Answered
    latency_p95_ms: Measurement | None
    peak_memory_bytes: Measurement | None

    @property
    def precision(self) -> str:
        """``int8`` or ``fp32``."""
        return self.way.variant.precision

    @property
    def label(self) -> str:
        """``onnxruntime 1.32.0``."""
        return f"{self.way.program} {self.answered.version}".rstrip()


@dataclass(frozen=True, kw_only=True)
class Case:
    """All that the verdict looks at."""

    target: TargetProfile
    limits: RecipeLimits
    metric: Metric
    fp32: Candidate | None
    int8: Candidate | None  # None: no such file, or nothing that ran it
    compared: tuple[Compared, ...]  # the int8 candidate against the float reference, one per metric
    same: float | None  # share of test inputs on which the int8 file decides as the network that was trained
    saturating_layers: int | None  # that can overflow where the target adds in 16 bits; None: not examined
    int8_time: TimeRatio | None  # the int8 candidate beside the float one
    others: tuple[Metric, ...] = ()  # further metrics of the task
    baselines: Mapping[str, float] = field(default_factory=dict)  # what is reached without looking at the inputs
    faster: TimeRatio | None = None  # another way that surely takes less time than the preferred one
    cannot_run: str = ""  # why no file of the target's format could be run at all
    failed: tuple[CannotRun, ...] = ()  # files that the target itself, or what stands for it, does not run

    def metric_of(self, name: str) -> Metric:
        """Return one of the task's metrics; of one that it does not measure, much is taken to be good."""
        known = (self.metric, *self.others)
        unknown = Metric(name=name, unit="", higher_is_better=True)
        return next((each for each in known if each.name == name), unknown)

    @property
    def comparison(self) -> Comparison | None:
        """Return the comparison in the task's own metric."""
        return self.compared_by(self.metric.name)

    def compared_by(self, metric: str) -> Comparison | None:
        """Return the comparison in one metric."""
        return next((each.comparison for each in self.compared if each.metric == metric), None)

    @property
    def timed_there(self) -> bool:
        """True where the time of int8 beside float was measured on the target itself, or estimated for it."""
        return self.int8_time is not None and self.int8_time.place.profile == self.target.name

    @property
    def slower_there(self) -> bool:
        """True where int8 is surely slower than float on the target itself."""
        return self.timed_there and self.int8_time is not None and self.int8_time.time.low > 1


def in_order_of_weight(observed: Iterable[Observed], target: str) -> tuple[Observed, ...]:
    """Sort by what counts first: the target's own answers, then those of other places.

    Of answers that were drawn, a way's count first only where one of them is another than elsewhere, and last
    otherwise: a few that are the same say nothing more than all those do.
    """
    first, others, last = list[Observed](), list[Observed](), list[Observed]()
    for each in observed:
        if each.place.profile != target:
            others.append(each)
        elif any(one.samples < one.of for one in each.beside):
            changed = {one.way for one in each.beside if one.changed}
            first.append(_of_ways(each, changed))
            last.append(replace(_of_ways(each, {one.way for one in each.answers} - changed), measurements=()))
        else:
            first.append(each)
    return (*first, *others, *last)


def _of_ways(observed: Observed, ways: Collection[Way]) -> Observed:
    """Return what some ways answered, with all that was measured."""
    return replace(
        observed,
        answers=tuple(each for each in observed.answers if each.way in ways),
        comparisons=tuple(each for each in observed.comparisons if each.second in ways),
        agreements=tuple(each for each in observed.agreements if each.second in ways),
    )


def standing_for(target: TargetProfile, found: Iterable[Measurement]) -> tuple[Measurement, ...]:
    """Return the best number for this target of every quantity and way: measured on it, emulated, estimated.

    Never another machine's.  With the target's number of threads, or the next lower one that there is.
    """
    best: dict[tuple[Quantity, Way], Measurement] = {}
    own = [each for each in found if each.place.profile == target.name and each.threads <= target.judged_threads]
    for each in sorted(own, key=lambda each: (_BEST_FIRST.index(each.place.how), -each.threads)):
        best.setdefault((each.quantity, each.way), each)
    return tuple(best.values())


def memory_elsewhere(peak_bytes: float) -> Interval:
    """Return between what a peak lies on other machines: within a factor of two, on either side."""
    return Interval(value=peak_bytes, low=peak_bytes / _MEMORY_FACTOR, high=peak_bytes * _MEMORY_FACTOR)


def estimated_memory(target: TargetProfile, elsewhere: Measurement) -> Measurement:
    """Estimate the target's peak memory from another machine's: within a factor of two, on either side."""
    return Measurement(
        quantity="peak_memory_bytes",
        way=elsewhere.way,
        threads=elsewhere.threads,
        place=Place(how="estimated", name=f"the basis of {elsewhere.place.name}", profile=target.name),
        value=elsewhere.value,
        low=memory_elsewhere(elsewhere.low).low,
        high=memory_elsewhere(elsewhere.high).high,
        basis=f"{elsewhere.place.text}; taken to be within a factor of {_MEMORY_FACTOR:g}",
    )
