"""A finished run with the four files of the small network, and the files alone."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

from pipeline.artifacts.files import Exported, ExportSet, FileFormat, Variant
from pipeline.declare.words import Precision
from pipeline.progress import Silent
from pipeline.runs.finished import store_of, write_outcome
from pipeline.runs.run import open_run
from tests.onboard.small_models import onnx_bytes, small_net, tflite_bytes
from tests.test_cli import SIGNATURE, _outcome

FORMATS: tuple[FileFormat, ...] = ("onnx", "tflite")
PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")


def content(file_format: FileFormat, precision: Precision) -> bytes:
    """Return one of the small network's files."""
    write = onnx_bytes if file_format == "onnx" else tflite_bytes
    return write(small_net(), int8=precision == "int8")


def small_file(folder: Path, file_format: FileFormat = "onnx", precision: Precision = "int8") -> Path:
    """Write one of the small network's files."""
    path = folder / f"small.{precision}.{file_format}"
    path.write_bytes(content(file_format, precision))
    return path


def small_run(folder: Path) -> Path:
    """Make a run folder as the pipeline leaves it."""
    with open_run(folder, progress=Silent()) as run:
        files = [
            Exported(
                variant=Variant(format=kind, precision=precision, weight_bits=8 if precision == "int8" else 32),
                file=run.store.put(content(kind, precision)),
                filename=f"small.{precision}.{kind}",
                size_bytes=len(content(kind, precision)),
                signature=SIGNATURE,
            )
            for precision, kind in itertools.product(PRECISIONS, FORMATS)
        ]
        exports = ExportSet(precision="fp32", weight_bits=32, files=tuple(files), layers=())
        write_outcome(folder, replace(_outcome(), exports=(exports,)))
    assert store_of(folder).is_whole(files[0].file)
    return folder
