"""What the user declares: recipes, target profiles and data-set cards (TOML), each a frozen pydantic model.

Unknown keys are refused.  Units stand in the names; ``"512 KiB"`` is turned into bytes here and nowhere else.
``pipeline.catalog`` reads the files and turns a refusal into an error with file, table, key and the nearest valid key.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

OptionValue = bool | int | float | str
Precision = Literal["int8", "fp32"]
RuntimeName = Literal["onnxruntime", "litert", "tflite-runtime"]

_SIZE_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def _parse_size(value: object) -> object:
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"\s*([0-9.]+)\s*([A-Za-z]+)\s*", value)
    if not match or match[2].upper() not in _SIZE_UNITS:
        raise ValueError(f"'{value}' is not a size; write bytes or for example \"512 KiB\"")
    return int(float(match[1]) * _SIZE_UNITS[match[2].upper()])


SizeBytes = Annotated[int, BeforeValidator(_parse_size), Field(ge=0)]
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # what every random generator in use takes


def _each_once(names: tuple[str, ...]) -> tuple[str, ...]:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"'{twice[0]}' stands there twice")
    return names


Classes = Annotated[tuple[str, ...], AfterValidator(_each_once)]


class Spec(BaseModel):
    """Root of all declared things: immutable, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


# ── recipe ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class NetworkSpec(Spec):
    """Which network file to build and with which options: ``models/networks/NAME.py`` or a path."""

    file: str
    options: dict[str, OptionValue] = {}


class AugmentSpec(Spec):
    """Seeded augmentation of a training batch (N, C, H, W); 0 or false turns each one off."""

    shift_px: int = Field(0, ge=0)  # whole-pixel shift in both axes, edges are repeated
    crop_padding_px: int = Field(0, ge=0)  # the same, as image recipes call it
    flip: bool = False  # mirror left-right with probability 1/2
    noise: float = Field(0.0, ge=0.0)  # standard deviation of Gaussian noise, in normalised units


class TrainSpec(Spec):
    """How to train from scratch."""

    epochs: int = Field(10, ge=1)
    batch_size: int = Field(128, ge=1)
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(1e-4, ge=0)
    momentum: float = Field(0.9, ge=0, lt=1)  # sgd only
    schedule: Literal["cosine", "one-cycle", "constant"] = "cosine"
    label_smoothing: Fraction = 0.0
    early_stop_epochs: int = Field(0, ge=0)  # stop after this many epochs without a better one; 0: never
    augment: AugmentSpec = AugmentSpec()


class FinetuneSpec(Spec):
    """Start from weights that exist: ``recipe:NAME``, ``run:FOLDER`` or ``weights:FILE`` (.safetensors, .npz, .pt)."""

    start: str = Field(pattern=r"^(recipe|run|weights):.+")
    mode: Literal["head", "all", "gradual"] = "all"
    train: TrainSpec = TrainSpec()
    compare_labels_per_class: tuple[Annotated[int, Field(ge=1)], ...] = (10, 30, 100)


class PruneSpec(Spec):
    """Structured pruning: take away ``amount`` of the MACs or of the latency, in steps with recovery training."""

    amount: Fraction = 0.0  # share taken away; 0 turns the stage off
    of: Literal["macs", "latency"] = "macs"
    steps: int = Field(1, ge=1)
    recovery_epochs: int = Field(2, ge=0)
    learning_rate: float = Field(1e-3, gt=0)
    margin_pp: float = Field(1.0, ge=0)  # accuracy on the validation split may fall by this much, in percentage points
    round_to: int = Field(8, ge=1)  # channel counts stay multiples of this where they can
    unstructured_sparsity: Fraction = 0.0  # share of single weights also tried at zero, reported, never shipped


class QuantizeSpec(Spec):
    """How to get to int8."""

    method: Literal["qat", "ptq", "none"] = "qat"
    calibration: Literal["min-max", "percentile", "mse"] = "mse"
    percentile: float = Field(99.99, gt=50, le=100)
    epochs: int = Field(3, ge=1)
    learning_rate: float = Field(1e-4, gt=0)
    ranges: Literal["ema", "lsq"] = "ema"  # moving average of min and max, or learned step size
    distill: float = Field(0.0, ge=0, le=1)  # weight of the float model's outputs against the labels
    margin_pp: float = Field(1.0, ge=0)  # worst layers go back to float until validation accuracy is inside


class RecipeLimits(Spec):
    """What the recipe's author asks of the result on the test split."""

    accuracy_min: float | None = Field(None, ge=0, le=1)
    accuracy_drop_pp: float | None = Field(None, ge=0)  # float minus int8, percentage points


class Recipe(Spec):
    """One network on one data set and every stage's settings."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")
    summary: str = ""
    data: str  # name of a card in calibration_data/, or a path to one
    seed: Seed = 0
    network: NetworkSpec
    train: TrainSpec = TrainSpec()
    finetune: FinetuneSpec | None = None
    prune: PruneSpec = PruneSpec()
    quantize: QuantizeSpec = QuantizeSpec()
    limits: RecipeLimits = RecipeLimits()


# ── target ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class CpuSpec(Spec):
    """The processor of a target, as its data sheet says."""

    architecture: Literal["aarch64", "armv7l", "x86_64"]
    model: str
    isa: tuple[str, ...] = ()  # as the kernel prints them: neon, asimddp, avx2, avx512_vnni …
    cores: int = Field(ge=1)
    clock_mhz: int = Field(ge=1)
    l1d_bytes: SizeBytes = 0
    l2_bytes: SizeBytes = 0
    l3_bytes: SizeBytes = 0


class MemorySpec(Spec):
    """The memory of a target."""

    size_bytes: SizeBytes
    bandwidth_bytes_per_s: SizeBytes = 0


class TargetLimits(Spec):
    """What must hold for a model to pass on this target; a missing limit is no limit."""

    latency_p95_ms: float | None = Field(None, gt=0)
    size_bytes: SizeBytes | None = None
    peak_memory_bytes: SizeBytes | None = None
    accuracy_drop_pp: float | None = Field(None, ge=0)


class TargetProfile(Spec):
    """A device that a model is made for."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")
    title: str
    aliases: tuple[str, ...] = ()
    cpu: CpuSpec
    memory: MemorySpec
    os: str
    python: str
    runtime: RuntimeName = "onnxruntime"
    threads: int = Field(1, ge=1)
    precision: Precision = "int8"  # what to ship when it passes; fp32 otherwise
    weight_bits: Literal[7, 8] = 8  # 7 where 8-bit weights saturate: x86 AVX2 without VNNI
    limits: TargetLimits = TargetLimits()
    sources: tuple[str, ...] = ()  # where the figures come from

    @property
    def saturates_int16(self) -> bool:
        """True where u8 x s8 products are added pairwise in 16 bits (x86 ``vpmaddubsw``, no VNNI)."""
        return self.cpu.architecture == "x86_64" and not any("vnni" in flag for flag in self.cpu.isa)


# ── data set ────────────────────────────────────────────────────────────────────────────────────────────────────────


class FileSpec(Spec):
    """One file of a data set; ``path`` is relative to the card, to ``$KARUI_DATA`` or absolute."""

    path: str
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    url: str | None = None  # its public address, fetched only when the file is nowhere on disk


class InputSpec(Spec):
    """Shape of one sample as the network sees it and how raw values become its input: (raw / divide - mean) / std."""

    # (C, H, W) for pictures, (F,) for tables
    shape: tuple[Annotated[int, Field(ge=1)], ...] = Field(min_length=1, max_length=3)
    divide: float = Field(1.0, gt=0)
    mean: tuple[float, ...] = (0.0,)  # one value, or one per channel (first axis)
    std: tuple[Annotated[float, Field(gt=0)], ...] = (1.0,)

    @model_validator(mode="after")
    def _lengths(self) -> InputSpec:
        for key in ("mean", "std"):
            if len(getattr(self, key)) not in (1, self.shape[0]):
                raise ValueError(f"'{key}' needs one value or one per channel ({self.shape[0]})")
        return self


class SplitSpec(Spec):
    """How samples are divided: by the source's own splits where it has them, else by a seeded stratified draw."""

    seed: Seed = 0
    val: float | int = 0.1  # share (< 1) or number of training samples held out for validation
    test: float | int = 0.2  # the same for the test split; unused where the source brings one


class CalibrationSpec(Spec):
    """Which training samples stand for the data when ranges are measured."""

    samples: int = Field(256, ge=1)
    indices: str | None = None  # .npy of indices into the training split, beside the card; else a seeded draw


class DatasetCard(Spec):
    """One data set: where it is, what is in it, what may be done with it."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")
    title: str
    kind: Literal["npz", "idx", "image-folder", "csv", "printed-digits"]
    task: Literal["classification"] = "classification"
    licence: str = ""
    source: str = ""
    classes: Classes = Field((), max_length=10_000)  # empty: taken from the data (folders, CSV)
    input: InputSpec
    files: dict[str, FileSpec] = {}  # role → file; npz: "all" or "train"+"test"; idx: "train-images" …; csv: "all"
    folder: str | None = None  # image-folder: FOLDER/CLASS/*.png, or FOLDER/{train,val,test}/CLASS/*.png
    label_column: str | None = None  # csv
    split: SplitSpec = SplitSpec()
    calibration: CalibrationSpec = CalibrationSpec()
    samples: int = Field(0, ge=0)  # printed-digits: how many to draw
