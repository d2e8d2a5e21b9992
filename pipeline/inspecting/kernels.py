"""What the kernels of a model file have to do, whatever its format."""

from __future__ import annotations

from pathlib import Path

from pipeline.declare.words import Precision
from pipeline.estimating.work import Work
from pipeline.inspecting.onnx_file import inspect_onnx
from pipeline.inspecting.tflite_file import inspect_tflite


def kernels_in(path: Path, file_format: str, precision: Precision) -> list[tuple[Work, ...]]:
    """Return the work of each layer of an ONNX or a TFLite file.  Raises ModelError for what is none."""
    inspected = inspect_onnx(path) if file_format == "onnx" else inspect_tflite(path)
    return [layer.works.get(precision, ()) for layer in inspected.layers]
