"""The verdict for a target, and a whole run: everything that the report and the command line show."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from pipeline.artifacts.evidence import Measurement, Metric, Observed, Place, Predicted, Spread
from pipeline.artifacts.files import Exported, ExportSet, Variant, Way
from pipeline.artifacts.networks import NOT_IN_KEY, DataFacts, DataRef, Digest, NetworkRef, Threads
from pipeline.artifacts.training import Checkpoint, Finetuned, Pruned, Quantized

Bound = Literal["at least", "at most"]
State = Literal["met", "missed", "uncertain", "open"]
_WORST_FIRST: tuple[State, ...] = ("missed", "open", "uncertain", "met")


def worst_of(states: Iterable[State]) -> State:
    """Return the worst state there is; ``met`` where there are none."""
    there = set(states)
    return next((each for each in _WORST_FIRST if each in there), "met")


_ROUNDING = 1e-9  # 0.97 - 0.96 is not 0.01 in binary


@dataclass(frozen=True, kw_only=True)
class Check:
    """One limit and what was found; ``low`` and ``high`` are one-sided 95 % bounds, equal to ``got`` where exact."""

    quantity: str  # "mIoU", "mIoU drop", "file size", "latency p95" …
    variant: Variant
    bound: Bound
    limit: float
    unit: str  # "share", "pp", "%", "bytes", "ms", "dB", "bits", ""
    got: float | None  # None: nobody knows
    low: float | None
    high: float | None
    surely: bool = False  # an estimate that chance could turn does not meet it
    samples: int | None = None  # test samples that the bounds come from; None where they come from something else

    @property
    def name(self) -> str:
        """``mIoU drop (int8)``."""
        return f"{self.quantity} ({self.variant.precision})"

    @property
    def state(self) -> State:
        """Say whether the limit is met; ``uncertain``: it lies inside the interval, ``open``: nobody knows."""
        if self.got is None or self.low is None or self.high is None:
            return "open"
        met = [self._meets(end) for end in (self.low, self.high)]
        return "met" if all(met) else "uncertain" if any(met) else "missed"

    @property
    def holds(self) -> bool | None:
        """Tell whether the estimate meets the limit (and its interval, where ``surely``); None where nobody knows."""
        if self.got is None:
            return None
        return self.state == "met" if self.surely else self._meets(self.got)

    @property
    def settled_by(self) -> int | None:
        """Return about how many test samples would settle an uncertain limit; None where no number would.

        Bounds close in on what was found with the square root of the number of samples.
        """
        if self.state != "uncertain" or self.samples is None or self.got is None:
            return None
        bound = self.low if self._meets(self.got) == (self.bound == "at least") else self.high
        apart = abs(self.got - self.limit)
        if bound is None or apart <= _ROUNDING * max(1.0, abs(self.limit)):
            return None
        return math.ceil(self.samples * ((bound - self.got) / apart) ** 2)

    def _meets(self, value: float) -> bool:
        slack = _ROUNDING * max(1.0, abs(self.limit))
        return value >= self.limit - slack if self.bound == "at least" else value <= self.limit + slack


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """May this model go to this target, and which file."""

    target: str
    checks: tuple[Check, ...]
    ship: Way | None  # the file and its runtime; None: not fit
    why: str

    @property
    def state(self) -> State:
        """Sum up the checks: ``missed`` where nothing ships or what was found is on the wrong side of a limit."""
        if self.ship is None or any(check.holds is False for check in self.checks):
            return "missed"
        return worst_of(check.state for check in self.checks)

    @property
    def passed(self) -> bool:
        """True when there is something to ship and every limit is surely met."""
        return self.state == "met"


@dataclass(frozen=True, kw_only=True)
class Judged:
    """The verdict for one target and the numbers it stands on; opens no file."""

    target: str
    title: str
    weight_bits: int
    threads: int  # that the numbers are for: those of the target's profile, 1 where it leaves them open
    candidates: tuple[Way, ...]  # its files in its runtime: float, then int8, as far as there are
    compared: tuple[Way, Way] | None  # float and int8 of this target's comparison; None without int8
    measurements: tuple[Measurement, ...]  # those that stand for this target; none of another machine
    verdict: Verdict
    spread: Spread | None = None  # None: the target's profile says how many threads

    @property
    def ship_threads(self) -> int:
        """Return how many threads the file that ships is run with."""
        return self.spread.threads if self.spread else self.threads

    @property
    def summary(self) -> str:
        """Say what to ship."""
        return f"ship {self.verdict.ship.variant.key}" if self.verdict.ship else self.verdict.why


@dataclass(frozen=True, kw_only=True)
class StageNote:
    """What a stage did, for the console and the report."""

    stage: str
    recalled: bool
    duration_s: float
    summary: str


@dataclass(frozen=True, kw_only=True)
class ReportFiles:
    """The report page and its machine-readable twin."""

    html: Digest
    json: Digest

    @property
    def summary(self) -> str:
        """Nothing to add."""
        return ""


@dataclass(frozen=True, kw_only=True)
class Commit:
    """What git says of the user's folder."""

    sha: str  # the first characters of the hash
    changed: bool | None  # whether files differ from it; None: not asked

    @property
    def text(self) -> str:
        """``commit 1a2b3c4d5e, with uncommitted changes``."""
        return f"commit {self.sha}{', with uncommitted changes' if self.changed else ''}"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A whole run."""

    run: str  # the run folder's name
    recipe: str
    summary: str
    task: str
    metric: Metric
    data: DataRef
    facts: DataFacts
    network: NetworkRef
    threads: Threads
    trained: Checkpoint | None  # from scratch, here: the recipe's own network, or the one that fine-tuning starts from
    finetuned: Finetuned | None
    pruned: Pruned | None  # None, {} and () where --until stopped earlier
    quantized: dict[int, Quantized]  # weight bits → result
    exports: tuple[ExportSet, ...]  # float first, then int8 by weight bits, the widest first
    predicted: tuple[Predicted, ...]  # torch references, in the order of ``exports``
    observed: tuple[Observed, ...]  # one per instrument and place
    targets: tuple[Judged, ...]
    notes: tuple[StageNote, ...] = field(metadata=NOT_IN_KEY)
    versions: dict[str, str]
    unpruned: ExportSet | None = None  # the float files of the network before pruning; None where nothing was pruned
    settings: dict[str, str] = field(default_factory=dict)  # the recipe's in effect: "train.epochs" → "12"
    started: str = field(default="", metadata=NOT_IN_KEY)  # ISO 8601, UTC
    commit: Commit | None = None  # None: the user's folder is in no repository
    hints: tuple[str, ...] = ()  # worth a look; no limit depends on it

    @property
    def state(self) -> State:
        """Return the worst state of all targets; ``met`` where there are none."""
        return worst_of(target.verdict.state for target in self.targets)

    @property
    def files(self) -> tuple[Exported, ...]:
        """Return every exported file that could ship."""
        return tuple(file for each in self.exports for file in each.files)

    @property
    def compared_files(self) -> tuple[Exported, ...]:
        """Return the files that were run: first those before pruning, as far as they were, then what could ship."""
        seen = {each.way.variant for one in self.observed for each in one.answers}
        before = self.unpruned.files if self.unpruned else ()
        return (*(file for file in before if file.variant in seen), *self.files)

    @property
    def places(self) -> tuple[Place, ...]:
        """Return where numbers come from, each place once."""
        return tuple(dict.fromkeys(each.place for each in self.observed))
