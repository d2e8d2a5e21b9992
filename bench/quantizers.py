"""Quantizers of others, each given the same float file and the same calibration samples as ours.

What is in the folder already is not made again.

onnxruntime's quantize_static comes with karui; NNCF and ai-edge-quantizer are asked only where they are installed:

    pip install -c constraints.txt nncf ai-edge-quantizer

Shapes: N samples of (C, H, W).
"""

from __future__ import annotations

import contextlib
import importlib
import io
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

Samples = NDArray[np.float32]

STATIC = "quantize_static"
_TYPES = {
    "U8S8": (QuantType.QUInt8, False),
    "S8S8": (QuantType.QInt8, False),
    "U8S7": (QuantType.QUInt8, True),  # 7-bit weights are advised for x86 without VNNI
}
_CALIBRATIONS = {
    "min-max": CalibrationMethod.MinMax,
    "percentile": CalibrationMethod.Percentile,
    "entropy": CalibrationMethod.Entropy,
}


class Reader(CalibrationDataReader):  # type: ignore[misc]
    """Hand the calibration samples to ONNX Runtime, one by one."""

    def __init__(self, inputs: Samples, name: str) -> None:
        self.left: Iterator[Samples] = iter(inputs[:, None])
        self.name = name

    def get_next(self) -> dict[str, Samples] | None:
        """Return the next sample, None at the end."""
        sample = next(self.left, None)
        return None if sample is None else {self.name: sample}


def quantize_statically(float_file: Path, calibration: Samples, folder: Path) -> dict[str, Path]:
    """Quantize a float ONNX file as ONNX Runtime's documentation advises: pre-process, QDQ, per channel."""
    prepared = folder / "prepared.onnx"
    quant_pre_process(str(float_file), str(prepared))
    name = onnx.load(prepared).graph.input[0].name
    made = {}
    for types, (activations, reduced) in _TYPES.items():
        for words, method in _CALIBRATIONS.items():
            path = made[f"{STATIC} {types} {words}"] = folder / f"static-{types}-{words}.onnx"
            if path.exists():
                continue
            quantize_static(
                str(prepared),
                str(path),
                Reader(calibration, name),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=activations,
                weight_type=QuantType.QInt8,
                reduce_range=reduced,
                calibrate_method=method,
            )
    return made


def quantize_by_nncf(float_file: Path, calibration: Samples, folder: Path) -> dict[str, Path]:
    """Quantize a float ONNX file by NNCF's post-training quantization, with both of its presets; {} without NNCF."""
    nncf = _installed("nncf")
    if nncf is None:
        return {}
    model = onnx.load(float_file)
    name = model.graph.input[0].name
    made = {}
    for preset in ("performance", "mixed"):
        path = made[f"NNCF {preset}"] = folder / f"nncf-{preset}.onnx"
        if path.exists():
            continue
        quantized = nncf.quantize(
            model,
            nncf.Dataset([{name: sample[None]} for sample in calibration]),
            preset=nncf.QuantizationPreset(preset),
            subset_size=len(calibration),
        )
        onnx.save(quantized, path)
    return made


def quantize_by_ai_edge(float_file: Path, calibration: Samples, folder: Path) -> dict[str, Path]:
    """Quantize a float TFLite file by ai-edge-quantizer's static int8 recipe; {} where it is not installed."""
    if _installed("ai_edge_quantizer") is None:
        return {}
    path = folder / "ai-edge.tflite"
    if path.exists():
        return {"ai-edge-quantizer": path}
    quantizer: Any = importlib.import_module("ai_edge_quantizer.quantizer")
    recipe: Any = importlib.import_module("ai_edge_quantizer.recipe")
    interpreters: Any = importlib.import_module("ai_edge_litert.interpreter")
    signatures = interpreters.Interpreter(str(float_file)).get_signature_list()
    ((signature, ends),) = signatures.items()
    (name,) = ends["inputs"]
    samples = np.ascontiguousarray(np.moveaxis(calibration, 1, -1))  # (N, H, W, C)
    asked = quantizer.Quantizer(str(float_file), recipe.static_wi8_ai8())
    with contextlib.redirect_stderr(io.StringIO()):  # bars
        found = asked.calibrate({signature: [{name: sample[None]} for sample in samples]}, num_threads=1)
        asked.quantize(found).export_model(str(path))
    return {"ai-edge-quantizer": path}


def missing() -> tuple[str, ...]:
    """Return which of the quantizers are not installed."""
    return tuple(name for name in ("nncf", "ai_edge_quantizer") if _installed(name) is None)


def _installed(name: str) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        return None
