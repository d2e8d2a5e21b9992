"""Recipes: one network on one data set and every stage's settings."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.declare.words import MOST, Fraction, OptionValue, Seed, Spec


class NetworkSpec(Spec):
    """Which network, and how it is built: ``models/networks/NAME.py``, a path of a .py or .onnx, or a name.

    ``timm:NAME`` and ``torchvision:NAME`` are networks of these packages, ``MODULE:FUNCTION`` is a function of the
    user's own.  ``network = "…"`` is short for a table with ``file`` alone.
    """

    file: str
    options: dict[str, OptionValue] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _a_word_is_the_file(cls, value: object) -> object:
        return {"file": value} if isinstance(value, str) else value


class AugmentSpec(Spec):
    """Seeded augmentation of a training batch (N, C, H, W); 0 or false turns each one off."""

    shift_px: int = Field(0, ge=0, le=MOST)  # whole-pixel shift in both axes, edges are repeated
    crop_padding_px: int = Field(0, ge=0, le=MOST)  # the same, as image recipes call it
    flip: bool = False  # mirror left-right with probability 1/2
    noise: float = Field(0.0, ge=0.0)  # standard deviation of Gaussian noise, in normalised units


class TrainSpec(Spec):
    """How to train; 0 epochs: the network is taken with the weights that it comes with."""

    epochs: int = Field(10, ge=0, le=MOST)
    batch_size: int = Field(128, ge=1, le=MOST)
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(1e-4, ge=0)
    momentum: float = Field(0.9, ge=0, lt=1)  # sgd only
    schedule: Literal["cosine", "one-cycle", "constant"] = "cosine"
    label_smoothing: Fraction = 0.0
    early_stop_epochs: int = Field(0, ge=0, le=MOST)  # stop after this many epochs without a better one; 0: never
    augment: AugmentSpec = AugmentSpec()


class _FinetuneTrainSpec(TrainSpec):
    epochs: int = Field(10, ge=1, le=MOST)


class FinetuneSpec(Spec):
    """Start from weights that exist: ``recipe:NAME``, ``run:FOLDER`` or ``weights:FILE`` (.safetensors, .npz, .pt)."""

    start: str = Field(pattern=r"^(recipe|run|weights):.+")
    mode: Literal["head", "all", "gradual"] = "all"
    train: _FinetuneTrainSpec = _FinetuneTrainSpec()
    compare_labels_per_class: tuple[Annotated[int, Field(ge=1, le=MOST)], ...] = (10, 30, 100)


class PruneSpec(Spec):
    """Structured pruning: take away ``amount`` of the MACs or of the latency, in steps with recovery training."""

    amount: Fraction = 0.0  # share taken away; 0 turns the stage off
    of: Literal["macs", "latency"] = "macs"
    steps: int = Field(1, ge=1, le=MOST)
    recovery_epochs: int = Field(2, ge=0, le=MOST)
    learning_rate: float = Field(1e-3, gt=0)
    # how much worse the metric on the validation split may get: percentage points, or per cent where it is no share
    margin_pp: float = Field(1.0, ge=0)
    decide_by: Literal["latency", "macs"] = "latency"  # what tells that a step paid: a measured time, or a count
    round_to: int = Field(8, ge=1, le=MOST)  # channel counts stay multiples of this where they can
    unstructured_sparsity: Fraction = 0.0  # share of single weights also tried at zero, reported, never shipped


class QuantizeSpec(Spec):
    """How to get to int8."""

    method: Literal["qat", "ptq", "none"] = "qat"
    calibration: Literal["min-max", "percentile", "mse"] = "mse"
    percentile: float = Field(99.99, gt=50, le=100)
    equalize: bool = True  # spread ranges over channels where that brings the integers nearer to float
    correct_biases: bool = True  # take the mean rounding error out of biases, likewise
    rounding: Literal["nearest", "adaround"] = "nearest"  # of weights; learned per weight: seconds per layer
    epochs: int = Field(3, ge=1, le=MOST)
    learning_rate: float = Field(1e-4, gt=0)
    ranges: Literal["ema", "lsq"] = "ema"  # moving average of min and max, or learned step size
    distill: float = Field(0.0, ge=0, le=1)  # weight of the float model's outputs against the labels
    margin_pp: float = Field(1.0, ge=0)  # worst layers go back to float until the validation metric is inside


class ExportSpec(Spec):
    """What the files take."""

    input: Literal["float", "uint8"] = "float"  # of int8 files; "uint8": raw bytes, with no preprocessing outside


class MetricLimits(Spec):
    """What one metric of the task must reach on the test split, in the metric's own unit (shares: 0 … 1)."""

    min: float | None = None
    max: float | None = None
    worse_by: float | None = Field(None, ge=0)  # int8 may be worse than float by this much
    worse_by_percent: float | None = Field(None, ge=0)  # the same, in per cent of float's value


class RecipeLimits(Spec):
    """What the recipe's author asks of the result on the test split, by the name of a metric of the task.

    ``accuracy_min`` and ``accuracy_drop_pp`` are short for ``metrics.accuracy``'s ``min`` and ``worse_by`` (in
    percentage points).
    """

    accuracy_min: float | None = Field(None, ge=0, le=1)
    accuracy_drop_pp: float | None = Field(None, ge=0)  # float minus int8, percentage points
    # share of test inputs on which int8 decides as float; None: what the task asks for, 0.9 for classes
    agreement_min: float | None = Field(None, ge=0, le=1)
    metrics: dict[str, MetricLimits] = Field(default_factory=dict)

    def of(self, metric: str) -> MetricLimits:
        """Return all limits of one metric, the short forms included."""
        found = self.metrics.get(metric, MetricLimits())
        if metric != "accuracy":
            return found
        short = {"min": self.accuracy_min, "worse_by": self.accuracy_drop_pp and self.accuracy_drop_pp / 100}
        return found.model_copy(update={key: value for key, value in short.items() if value is not None})

    @property
    def named(self) -> tuple[str, ...]:
        """Return the metrics that some limit is about."""
        short = self.accuracy_min is not None or self.accuracy_drop_pp is not None
        return tuple(dict.fromkeys((*(["accuracy"] if short else []), *self.metrics)))


class Recipe(Spec):
    """One network on one data set and every stage's settings."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")
    summary: str = ""
    data: str  # name of a card in calibration_data/, or a path to one
    seed: Seed = 0
    # of torch on the CPU; "auto": what is fastest for this network, measured once.  Weights depend on it.
    threads: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] = "auto"
    network: NetworkSpec
    train: TrainSpec = TrainSpec()
    finetune: FinetuneSpec | None = None
    prune: PruneSpec = PruneSpec()
    quantize: QuantizeSpec = QuantizeSpec()
    export: ExportSpec = ExportSpec()
    limits: RecipeLimits = RecipeLimits()
