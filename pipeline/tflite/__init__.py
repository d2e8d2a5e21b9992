"""Writes .tflite files straight from ONNX graphs, float or QDQ int8."""

from pipeline.tflite.flatbuffer import read_ends
from pipeline.tflite.writer import write_tflite

__all__ = ["read_ends", "write_tflite"]
