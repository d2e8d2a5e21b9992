"""What stages hand on: frozen, keyword-only dataclasses that survive a round trip through JSON.

Large things (weights, predictions, model files) lie in the store under their sha256; artifacts carry the ``Digest``.
Fields marked ``NOT_IN_KEY`` say where something lies on this machine and do not make two artifacts different.

Shapes: N samples, C channels, H height, W width, K classes, L layers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pipeline.spec import DatasetCard, OptionValue, Precision, RuntimeName

Digest = str  # sha256 in hex of bytes in the store
FileFormat = Literal["onnx", "tflite"]
How = Literal["measured", "emulated", "estimated", "not measured"]

NOT_IN_KEY = {"in_key": False}


# ── inputs of stages ────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, kw_only=True)
class DataRef:
    """A data set on disk: its card, the sha256 over all its files, and where the card's relative paths start."""

    card: DatasetCard
    digest: Digest
    folder: Path = field(metadata=NOT_IN_KEY)


@dataclass(frozen=True, kw_only=True)
class NetworkRef:
    """A network file and what its ``build(input_shape, classes, **options)`` is called with."""

    sha256: Digest
    options: dict[str, OptionValue]
    input_shape: tuple[int, ...]  # of one sample: (C, H, W) or (F,)
    classes: int
    path: Path = field(metadata=NOT_IN_KEY)


@dataclass(frozen=True, kw_only=True)
class WeightsFile:
    """A weights file of the user's to start from."""

    sha256: Digest
    path: Path = field(metadata=NOT_IN_KEY)


@dataclass(frozen=True, kw_only=True)
class NetworkCheck:
    """A network that can be trained, pruned, quantized and written, seen before any training."""

    layers: int  # operations of the float files
    parameters: int


# ── checkpoints ─────────────────────────────────────────────────────────────────────────────────────────────────────


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
    val_accuracy: float  # 0 … 1
    duration_s: float


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A network and its weights: build ``network``, replay ``edits``, load ``weights`` (.safetensors in the store)."""

    network: NetworkRef
    weights: Digest
    edits: tuple[Edit, ...] = ()
    val_accuracy: float  # 0 … 1, of the kept epoch
    history: tuple[Epoch, ...] = field(default=(), metadata=NOT_IN_KEY)  # holds wall-clock times


@dataclass(frozen=True, kw_only=True)
class Start:
    """Weights to begin fine-tuning with, from another recipe, another run or a weights file."""

    label: str  # "recipe:printed-digits", "run:…", "weights:…"
    weights: Digest  # .safetensors in the store
    edits: tuple[Edit, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TransferPoint:
    """Test accuracy with so many labels per class, starting from the other network's weights and from nothing."""

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


@dataclass(frozen=True, kw_only=True)
class PruneStep:
    """One attempt of the pruning stage: kept only if the exported file really got faster and accuracy held."""

    index: int  # from 1
    macs_before: int
    macs_after: int
    parameters_before: int
    parameters_after: int
    latency_ratio: float  # after / before, ORT float file on this machine
    latency_ratio_low: float
    latency_ratio_high: float
    val_accuracy_before: float
    val_accuracy_after: float
    kept: bool
    why: str


@dataclass(frozen=True, kw_only=True)
class SparsityTrial:
    """What zeroing single weights would bring: measured, reported, never shipped."""

    sparsity: float  # 0 … 1
    val_accuracy: float
    latency_ratio: float  # sparse / dense
    size_ratio: float  # raw bytes
    compressed_size_ratio: float  # after zlib


@dataclass(frozen=True, kw_only=True)
class Pruned:
    """Result of pruning; ``steps`` is empty when the recipe asks for none."""

    checkpoint: Checkpoint
    steps: tuple[PruneStep, ...] = ()
    sparsity: SparsityTrial | None = None


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
    ptq_val_accuracy: float  # of the starting point, before any training
    layers: tuple[LayerQuality, ...]
    float_layers: tuple[str, ...]  # back to float because the margin was missed, worst first


# ── exported files ──────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """Name, element type and shape of a model's input or output; None stands for the batch."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True, kw_only=True)
class Exported:
    """One model file."""

    key: str  # "onnx-int8", "tflite-fp32" …
    file: Digest
    filename: str  # its readable name in the run folder
    format: FileFormat
    precision: Precision
    size_bytes: int
    input: TensorSpec
    output: TensorSpec
    opset: int | None  # ONNX only
    float_ops: tuple[str, ...] = ()  # int8 files: what stays float, "layer (op): reason"


@dataclass(frozen=True, kw_only=True)
class LayerCost:
    """One layer of the exported network."""

    layer: str
    op: str  # ONNX operator name
    output_shape: tuple[int, ...]  # without the batch
    parameters: int
    macs: int


@dataclass(frozen=True, kw_only=True)
class ExportSet:
    """The files of one network (four, or the two float ones when int8 is off) and its layers."""

    weight_bits: int
    files: tuple[Exported, ...]
    layers: tuple[LayerCost, ...]


# ── validation ──────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One number, how it came about and where; ``value`` is None when it is ``not measured``."""

    what: str  # "accuracy", "latency_p50", "latency_p95", "peak_memory", "file_size", "same_class" …
    artifact: str  # "onnx-int8" …, "torch-fp32", "torch-fake-quant"
    runtime: str
    value: float | None
    unit: str
    how: How
    where: str  # machine or device
    low: float | None = None  # 95 % interval
    high: float | None = None


@dataclass(frozen=True, kw_only=True)
class Column:
    """One way of running the network over the whole test split."""

    artifact: str  # "torch-fp32", "torch-fake-quant", "onnx-fp32" …
    runtime: str  # "torch", "onnxruntime 1.32.0" …
    accuracy: float
    low: float  # 95 % Wilson interval
    high: float
    outputs: Digest  # .npy (N, K) float32 in the store
    output_scale: float | None  # one output step; None for float files


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How far two ways of running the int8 network agree."""

    first: str
    second: str
    same_class: float  # share of test inputs, 0 … 1
    max_steps: float  # largest difference in output steps


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Float against int8 on the same test inputs (paired)."""

    samples: int
    accuracy_float: float
    accuracy_int8: float
    difference_pp: float  # int8 - float
    low_pp: float  # 95 % interval of the difference
    high_pp: float
    mcnemar_p: float
    detectable_pp: float  # smallest gap that this test set would show with 80 % power
    agreement: float  # share of inputs with the same class, float and int8


@dataclass(frozen=True, kw_only=True)
class ExecutedOp:
    """One node of the graph that a runtime really executes (after its own optimisation)."""

    name: str
    op: str
    integer: bool  # int8/uint8 in, int8/uint8 (or the final dequantize) out
    reason: str = ""  # why not, for those that are not


@dataclass(frozen=True, kw_only=True)
class SaturationRow:
    """Whether a layer's weights can overflow 16-bit pairwise addition (x86 AVX2 without VNNI)."""

    layer: str
    largest_pair: int  # largest |sum| of two adjacent same-sign int8 weights times 255
    can_saturate: bool


@dataclass(frozen=True, kw_only=True)
class LatencySamples:
    """Single-inference times of interleaved runs."""

    artifact: str
    runtime: str
    threads: int
    samples_ms: Digest  # .npy (R,) float64 in the store


@dataclass(frozen=True, kw_only=True)
class Check:
    """One limit and what was found; ``passed`` is None where nothing could be measured."""

    name: str
    limit: float
    got: float | None
    unit: str
    passed: bool | None


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """May this model go to this target, and which file."""

    target: str
    checks: tuple[Check, ...]
    ship: str | None  # key of the exported file; None: not fit
    why: str

    @property
    def passed(self) -> bool:
        """True when no limit was missed (a limit that could not be measured is not a miss)."""
        return self.ship is not None and all(check.passed is not False for check in self.checks)


@dataclass(frozen=True, kw_only=True)
class Validated:
    """All that was found out for one target."""

    target: str
    machine: str  # where it was measured
    machine_is_target: bool
    columns: tuple[Column, ...]
    comparison: Comparison | None  # None when there is no int8 file
    agreements: tuple[Agreement, ...]
    per_class: tuple[tuple[str, int, float, float | None], ...]  # class, samples, recall float, recall int8
    measurements: tuple[Measurement, ...]
    latencies: tuple[LatencySamples, ...]
    executed: dict[str, tuple[ExecutedOp, ...]]  # artifact → nodes
    saturation: tuple[SaturationRow, ...]
    skipped_runtimes: tuple[tuple[str, str], ...]  # runtime, why it could not be used
    verdict: Verdict


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


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A whole run: everything that the report and the command line show."""

    run: str  # the run folder's name
    recipe: str
    summary: str
    data: DataRef
    network: NetworkRef
    trained: Checkpoint | None  # from scratch, here: the recipe's own network, or the one that fine-tuning starts from
    finetuned: Finetuned | None
    pruned: Pruned | None  # None, {} and () where --until stopped earlier
    quantized: dict[int, Quantized]  # weight bits → result
    exports: dict[int, ExportSet]  # weight bits → files
    targets: tuple[Validated, ...]
    target_bits: dict[str, int]  # target → weight bits
    notes: tuple[StageNote, ...] = field(metadata=NOT_IN_KEY)
    versions: dict[str, str]

    @property
    def passed(self) -> bool:
        """True when every target's limits are met."""
        return all(target.verdict.passed for target in self.targets)


RUNTIME_OF_FORMAT: dict[FileFormat, tuple[RuntimeName, ...]] = {
    "onnx": ("onnxruntime",),
    "tflite": ("litert", "tflite-runtime"),
}
