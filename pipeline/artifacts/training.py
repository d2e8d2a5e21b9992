"""Weights on their way: trained, fine-tuned, pruned, quantized.

``val_metric`` is the task's metric on the validation split, in the metric's own unit (shares: 0 … 1).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from pipeline.artifacts.evidence import Metric, Place
from pipeline.artifacts.networks import NOT_IN_KEY, Digest, NetworkRef
from pipeline.declare.words import Precision


@dataclass(frozen=True, kw_only=True)
class Edit:
    """One structural change: these output or input channels of this layer were taken away (replayed in order)."""

    layer: str
    side: Literal["out", "in"]
    indices: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One line of a learning curve; ``phase`` names the part of a stage it belongs to (for example ``recovery 1``)."""

    phase: str
    index: int  # from 1
    learning_rate: float
    train_loss: float
    val_metric: float
    duration_s: float


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A network and its weights: build ``network``, replay ``edits``, load ``weights`` (.safetensors in the store)."""

    network: NetworkRef
    weights: Digest
    edits: tuple[Edit, ...] = ()
    metric: Metric
    val_metric: float  # of the kept epoch
    history: tuple[Epoch, ...] = field(default=(), metadata=NOT_IN_KEY)  # holds wall-clock times

    @property
    def summary(self) -> str:
        """Say what it reached."""
        return f"validation {self.metric.name} {self.metric.text(self.val_metric)}"


@dataclass(frozen=True, kw_only=True)
class Start:
    """Weights to begin fine-tuning with, from another recipe, another run or a weights file."""

    label: str  # "recipe:printed-digits", "run:…", "weights:…"
    weights: Digest  # .safetensors in the store
    edits: tuple[Edit, ...] = ()

    @property
    def summary(self) -> str:
        """Say where it comes from."""
        return self.label


@dataclass(frozen=True, kw_only=True)
class TransferPoint:
    """The metric on the test split with so many labels per class, from the other network's weights and from nothing."""

    labels_per_class: int | None  # None: all there are
    transferred: float
    from_scratch: float


@dataclass(frozen=True, kw_only=True)
class Finetuned:
    """Result of fine-tuning: the network, where it started, and what the start was worth."""

    checkpoint: Checkpoint
    start: str
    replaced_head: tuple[str, ...]  # tensors that did not fit and were made anew
    transfer: tuple[TransferPoint, ...]

    @property
    def summary(self) -> str:
        """Say what it reached, from where."""
        head = f", new {', '.join(self.replaced_head)}" if self.replaced_head else ""
        return f"{self.checkpoint.summary}, from {self.start}{head}"


@dataclass(frozen=True, kw_only=True)
class Paid:
    """Whether a pruning step made the exported file cheaper: a decision, taken once and kept."""

    ratio: float  # cost after / before
    low: float
    high: float
    of: Literal["latency", "macs"]
    place: Place  # where the latency was measured, or that it was counted

    @property
    def cheaper(self) -> bool:
        """True when the whole interval says so."""
        return self.high < 1


@dataclass(frozen=True, kw_only=True)
class PruneStep:
    """One attempt of the pruning stage: kept only if the exported file really got cheaper and the metric held."""

    index: int  # from 1
    macs_before: int
    macs_after: int
    parameters_before: int
    parameters_after: int
    paid: Paid | None  # None: nothing could be taken away
    val_metric_before: float
    val_metric_after: float
    kept: bool
    why: str


@dataclass(frozen=True, kw_only=True)
class SparsityTrial:
    """What zeroing single weights would bring: measured, reported, never shipped."""

    sparsity: float  # 0 … 1
    val_metric: float
    latency_ratio: float  # sparse / dense; of multiply-accumulates where no clock was asked
    size_ratio: float  # raw bytes
    compressed_size_ratio: float  # after zlib
    place: Place | None = None  # where the first ratio is from; None: in a record of an earlier version


@dataclass(frozen=True, kw_only=True)
class Pruned:
    """Result of pruning; ``steps`` is empty when the recipe asks for none."""

    checkpoint: Checkpoint
    steps: tuple[PruneStep, ...] = ()
    sparsity: SparsityTrial | None = None

    @property
    def summary(self) -> str:
        """Say how much went."""
        if not self.steps:
            return "nothing to prune"
        kept = [step for step in self.steps if step.kept]
        macs = kept[-1].macs_after / self.steps[0].macs_before if kept else 1.0
        left = f"{len(kept)} of {len(self.steps)} steps kept, {100 * macs:.0f} % of the MACs left"
        return f"{left}, {self.checkpoint.summary}"


@dataclass(frozen=True, kw_only=True)
class LayerQuality:
    """How well one layer stands 8 bits, on the calibration samples; decibels, higher is better."""

    layer: str
    weight_sqnr_db: float | None  # None: no weights
    activation_sqnr_db: float | None  # None: its output keeps its input's scale
    output_sqnr_db: float  # of the network's output when this layer alone is quantized
    precision: Precision


@dataclass(frozen=True, kw_only=True)
class Quantized:
    """Result of quantization: weights and ranges of the fake-quantized network."""

    checkpoint: Checkpoint  # weights: of the prepared network, ranges included
    method: Literal["qat", "ptq", "none"]
    weight_bits: int
    ptq_val_metric: float  # of the starting point, before any training
    layers: tuple[LayerQuality, ...]
    float_layers: tuple[str, ...]  # back to float because the margin was missed, worst first

    @property
    def summary(self) -> str:
        """Say how, and what it reached."""
        if self.method == "none":
            return "int8 is off"
        back = f", {len(self.float_layers)} layers stay float" if self.float_layers else ""
        return f"{self.method}, {self.weight_bits}-bit weights, {self.checkpoint.summary}{back}"
