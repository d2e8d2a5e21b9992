"""Exported model files, and which network of a run each of them holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from pipeline.artifacts.networks import Digest
from pipeline.declare.words import Precision, RuntimeName
from pipeline.onboard.about import About
from pipeline.onboard.arrays import Signature

FileFormat = Literal["onnx", "tflite"]
Program = Literal["torch", "onnxruntime", "litert", "tflite-runtime"]  # what runs a network

RUNTIME_OF_FORMAT: dict[FileFormat, tuple[RuntimeName, ...]] = {
    "onnx": ("onnxruntime",),
    "tflite": ("litert", "tflite-runtime"),
}


@dataclass(frozen=True, kw_only=True, order=True)
class Variant:
    """Which of a run's networks: nobody takes a key apart again."""

    format: Literal["torch", "onnx", "tflite"]
    precision: Precision
    weight_bits: int = 32  # 32 for float
    unpruned: bool = False  # as it was before channels were taken away: what others are compared with, never shipped

    @property
    def key(self) -> str:
        """``onnx-int8``, ``onnx-int8-w7``, ``torch-fp32``, ``onnx-fp32-unpruned``."""
        narrow = f"-w{self.weight_bits}" if self.weight_bits not in (8, 32) else ""
        return f"{self.format}-{self.precision}{narrow}{'-unpruned' if self.unpruned else ''}"


@dataclass(frozen=True, kw_only=True, order=True)
class Way:
    """A network and what runs it."""

    variant: Variant
    program: Program

    @property
    def key(self) -> str:
        """``onnx-int8 in onnxruntime``."""
        return f"{self.variant.key} in {self.program}"


@dataclass(frozen=True, kw_only=True)
class Exported:
    """One model file."""

    variant: Variant
    file: Digest
    filename: str  # its readable name in the run folder
    size_bytes: int
    signature: Signature  # in the layout of the trained network
    steps: dict[str, float] = field(default_factory=dict)  # output → one step of it; {} where float all the way
    opset: int | None = None  # ONNX only
    float_ops: tuple[str, ...] = ()  # int8 files: what stays float, "layer (op): reason"
    about: About | None = None  # what it says about itself
    checked_in: Program | None = None  # the runtime in which it was run and compared with torch; None: none is here


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
    """The files of one set of weights, one per format, and its layers."""

    precision: Precision
    weight_bits: int  # 32 for float
    files: tuple[Exported, ...]
    layers: tuple[LayerCost, ...]

    @property
    def summary(self) -> str:
        """Name the files and their sizes."""
        return ", ".join(f"{file.variant.key} {file.size_bytes / 1024:.1f} KiB" for file in self.files)
