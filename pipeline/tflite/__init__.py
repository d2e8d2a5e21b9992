"""Writes .tflite files straight from ONNX graphs, float or QDQ int8."""

from pipeline.tflite.writer import write_tflite

__all__ = ["write_tflite"]
