"""The runtimes that execute exported files: a dict of functions that open a file, and a probe of each."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import onnxruntime

from pipeline.errors import ModelError
from pipeline.runtimes import tflite
from pipeline.runtimes.ort import OrtSession
from pipeline.runtimes.session import Session
from pipeline.spec import RuntimeName

__all__ = ["RUNTIMES", "Session", "open_session", "unavailable"]


def _open_ort(path: Path, threads: int) -> Session:
    return OrtSession(path, threads=threads)


def _open_litert(path: Path, threads: int) -> Session:
    return tflite.TfliteSession(path, "litert", threads=threads)


def _open_tflite_runtime(path: Path, threads: int) -> Session:
    return tflite.TfliteSession(path, "tflite-runtime", threads=threads)


RUNTIMES: dict[RuntimeName, Callable[[Path, int], Session]] = {
    "onnxruntime": _open_ort,
    "litert": _open_litert,
    "tflite-runtime": _open_tflite_runtime,
}


def open_session(path: Path, runtime: RuntimeName, *, threads: int) -> Session:
    """Load a model file into a runtime with so many threads.

    Raises ModelError, naming the file, when it is missing, corrupt or unknown to the runtime.
    """
    if not path.is_file():
        raise ModelError("no such model file", where=str(path), remedy="run the export again")
    return RUNTIMES[runtime](path, threads)


@functools.cache
def unavailable(runtime: RuntimeName) -> str | None:
    """Say why a runtime cannot be used on this machine; None when it can (tried out, not only imported)."""
    if runtime == "onnxruntime":
        return None if "CPUExecutionProvider" in onnxruntime.get_available_providers() else "built without its CPU part"
    return tflite.why_not(runtime)
