"""What was found out about networks and files, each number with the place it comes from.

Shapes: N samples of a split, R timing rounds, S sessions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.files import Variant, Way
from pipeline.artifacts.networks import Digest
from pipeline.onboard.arrays import Arrays

How = Literal["measured", "emulated", "estimated"]
_INSTRUMENTS: Mapping[How, str] = {"measured": "here", "emulated": "emulated"}
Quantity = Literal["latency_p50_ms", "latency_p95_ms", "peak_memory_bytes", "cold_start_ms", "instructions"]


# ── the task's metric ───────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An estimate with the ends of its confidence interval, in the estimate's unit."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Metric:
    """What a task is judged by; decides words, directions and limits everywhere."""

    name: str  # "mIoU", "AUC", "RMSE"
    unit: Literal["share", "dB", "bits", ""]
    higher_is_better: bool

    def better(self, value: float, than: float) -> bool:
        """Tell whether a value is better than another one; what is no number is never better."""
        if math.isnan(value) or math.isnan(than):
            return math.isnan(than) and not math.isnan(value)
        return value > than if self.higher_is_better else value < than

    def worse_by(self, value: float, reference: float) -> float:
        """Return by how much ``value`` is worse than ``reference``, in the metric's unit; negative where better."""
        return reference - value if self.higher_is_better else value - reference

    def worse_by_points(self, value: float, reference: float) -> float:
        """Return the same in percentage points of a share, and in per cent of the reference for all others."""
        worse = self.worse_by(value, reference)
        return 100 * (worse if self.unit == "share" else worse / max(abs(reference), 1e-12))

    def text(self, value: float, decimals: int = 1) -> str:
        """Write a value: ``97.5 %`` for shares, ``0.4312`` or ``31.2 dB`` for others."""
        if not math.isfinite(value):
            return "—"
        if self.unit == "share":
            return f"{100 * value:.{decimals}f} %"
        return f"{value:.4g} {self.unit}".rstrip()


@dataclass(frozen=True, kw_only=True, eq=False)
class Answers:
    """What one way of running gave on a split; lives in memory, ``Answered`` is what is kept of it."""

    outputs: Arrays  # (N, …) each
    decisions: NDArray[Any]  # (N, …): what a device would do: class, mask, number, action
    score: NDArray[np.float64]  # (N,): what pairs two ways, sample by sample: right or not, squared error …
    value: float  # the metric over all
    others: Mapping[str, float] = field(default_factory=dict)  # further metrics of the task by name


@dataclass(frozen=True, kw_only=True)
class Answered:
    """One way of running the network over the whole test split."""

    way: Way
    version: str  # of what ran it: "2.13.0"
    place: Place
    samples: int
    value: float  # the task's metric
    low: float  # its 95 % interval
    high: float
    others: dict[str, float]  # further metrics of the task
    outputs: dict[str, Digest]  # output → .npy (N, …) float32
    decisions: Digest  # .npy (N, …)
    score: Digest  # .npy (N,) float64
    steps: dict[str, float]  # output → one step of it; {} where float all the way


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One way against a reference on the same samples (paired), in the metric's unit; ``method`` names the test."""

    samples: int
    value_float: float
    value_int8: float
    difference: float  # int8 - float
    low: float  # 95 % interval of the difference
    high: float
    p: float
    detectable: float  # smallest gap that this test set would show with 80 % power
    agreement: float  # share of samples with the same decision
    method: str  # "exact McNemar test, Tango 1998", "paired bootstrap"
    one_sided_low: float  # the difference is above it, and below the other, with 95 % confidence each: for limits
    one_sided_high: float
    agreement_min: float = 0.9  # with less, int8 is another network, whatever the metric says


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A comparison and what was compared; ``metric`` names it where a task has more than one."""

    metric: str
    first: Way  # the float reference
    second: Way
    comparison: Comparison


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How far two ways of running the int8 network agree."""

    first: Way
    second: Way
    same: float  # share of test inputs with the same decision, 0 … 1
    max_steps: float  # largest difference in output steps
    mean_steps: float


# ── figures: data; ``pipeline.report`` draws each kind ──────────────────────────────────────────────────────────────


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """Counts or shares in rows and columns."""

    title: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    counts: Digest  # .npy (rows, columns)
    signed: bool = False  # a difference: colours for both directions
    kind: Literal["matrix"] = "matrix"


@dataclass(frozen=True, kw_only=True)
class Lines:
    """Curves, or points where ``dots`` says so."""

    title: str
    x: str
    y: str
    series: dict[str, Digest]  # name → .npy (R, 2)
    dots: bool = False
    kind: Literal["lines"] = "lines"


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """A grid of pictures with a caption each; several images stand side by side in one cell where ``columns`` > 1."""

    title: str
    images: Digest  # .npy (M, C, H, W) uint8, C 1 or 3
    captions: tuple[str, ...]  # M
    note: str = ""
    kind: Literal["pictures"] = "pictures"


@dataclass(frozen=True, kw_only=True)
class Table:
    """Words and numbers in rows; the first column names the row."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    kind: Literal["table"] = "table"


@dataclass(frozen=True, kw_only=True)
class Passage:
    """Text."""

    title: str
    text: str
    kind: Literal["passage"] = "passage"


Figure = Matrix | Lines | Pictures | Table | Passage


# ── numbers and where they come from ────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a number comes from; part of the key of whatever it decides."""

    how: How
    name: str  # "AMD EPYC, 2 cores, x86_64", "qemu cortex-a72", "pi@garden"
    profile: str | None = None  # the target profile that it is, or stands for; None: another machine

    @property
    def code_in_use(self) -> tuple[str, ...]:
        """Return the module of the instrument that tells numbers in this way."""
        name = _INSTRUMENTS.get(self.how, "modelled" if self.profile else "counts")
        return (f"pipeline.instruments.{name}",)

    @property
    def text(self) -> str:
        """``measured on AMD EPYC, 2 cores, x86_64``."""
        return f"{self.how} on {self.name}"


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One number of one file in one runtime at one place; what nobody measured is no Measurement."""

    quantity: Quantity
    way: Way
    threads: int
    place: Place
    value: float
    low: float
    high: float
    basis: str = ""  # "13.2 M instructions; same-runtime error ±20 %", "38 °C, not throttled"


@dataclass(frozen=True, kw_only=True)
class CannotRun:
    """A file that a runtime does not run at a place: its process dies there, or the place has too little memory."""

    way: Way
    said: str  # "litert 2.3.0 was ended by SIGSEGV"


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Single-inference times of one way, from fresh sessions that were opened in turn with those of all others."""

    way: Way
    version: str
    threads: int
    session_medians_ms: tuple[float, ...]  # (S,): one per session, in the order of the others' sessions
    samples_ms: Digest  # .npy (S, R) float64


@dataclass(frozen=True, kw_only=True)
class Tried:
    """Single inferences with more threads, timed in turn with those of fewer."""

    threads: int
    than: int
    ratio: Interval  # time with more / time with fewer


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Over how many threads a file is run: a decision, taken once and kept."""

    threads: int
    tried: tuple[Tried, ...]  # none where there is one core, or the runtime is not usable here
    place: Place

    @property
    def summary(self) -> str:
        """Say how many, and how much faster the last of them were."""
        said = [
            f"{each.threads} threads take {each.ratio.value:.2f} times as long as {each.than}"
            for each in self.tried[-1:]
        ]
        return "; ".join([f"{self.threads} thread{'s' if self.threads > 1 else ''}", *said])


@dataclass(frozen=True, kw_only=True)
class ExecutedOp:
    """One node of the graph that a runtime really executes (after its own optimisation)."""

    name: str
    op: str
    integer: bool  # int8/uint8 in, int8/uint8 (or the final dequantize) out
    reason: str = ""  # why not, for those that are not


@dataclass(frozen=True, kw_only=True)
class Executed:
    """All nodes that a runtime executes of one file."""

    way: Way
    nodes: tuple[ExecutedOp, ...]


@dataclass(frozen=True, kw_only=True)
class SaturationRow:
    """Whether a layer's weights can overflow 16-bit pairwise addition (x86 AVX2 without VNNI)."""

    layer: str
    largest_pair: int  # largest |sum| of two adjacent same-sign int8 weights times 255
    can_saturate: bool


@dataclass(frozen=True, kw_only=True)
class Saturation:
    """The layers of one int8 file."""

    variant: Variant
    rows: tuple[SaturationRow, ...]


@dataclass(frozen=True, kw_only=True)
class Beside:
    """One way of running at two places, on the same samples: what a target's own code changes."""

    way: Way
    other: Place  # that it is compared with
    samples: int
    of: int  # test samples, of which these were drawn; the same number where all were run
    same: float  # share of decisions that are the same, 0 … 1
    identical: float  # share of the numbers that are the same bit by bit
    max_steps: float  # largest difference in output steps; of float outputs 1/255 of their range is one
    first_layer: str = ""  # after which numbers differ first; "" where none does, or nobody looked

    @property
    def changed(self) -> int:
        """Count the samples that are decided otherwise."""
        return round(self.samples * (1 - self.same))


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """What torch gives on the test split: the reference of all files with these weights."""

    metric: Metric
    answered: Answered
    chosen: dict[str, float]  # settings of the decision, chosen on the validation split ("threshold"); {} for most
    others: tuple[Metric, ...] = ()  # further metrics of the task
    baselines: dict[str, float] = field(default_factory=dict)  # what is reached without looking at the inputs, by name

    @property
    def summary(self) -> str:
        """Say what it reached."""
        return f"test {self.metric.name} {self.metric.text(self.answered.value, 2)}"


@dataclass(frozen=True, kw_only=True)
class Observed:
    """All that one instrument found out about a set of files; what it does not look for stays empty."""

    place: Place
    metric: Metric
    answers: tuple[Answered, ...] = ()
    # every file against the float reference, then against the network before pruning where there is one
    comparisons: tuple[Compared, ...] = ()
    agreements: tuple[Agreement, ...] = ()  # int8 files against the network that was trained, and against each other
    measurements: tuple[Measurement, ...] = ()
    timings: tuple[Timing, ...] = ()
    executed: tuple[Executed, ...] = ()
    saturation: tuple[Saturation, ...] = ()
    not_usable: dict[str, str]  # runtime → why
    beside: tuple[Beside, ...] = ()  # what the same files gave elsewhere
    cannot_run: tuple[CannotRun, ...] = ()

    @property
    def summary(self) -> str:
        """Say where, and how many ways."""
        failed = f", {len(self.cannot_run)} that cannot run" if self.cannot_run else ""
        ways = {each.way for each in self.answers} or {each.way for each in self.measurements}
        return f"{len(ways)} ways of running{failed}, {self.place.text}"
