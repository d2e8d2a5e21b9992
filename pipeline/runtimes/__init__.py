"""The runtimes that execute exported files: which there are, what they compute, what they really execute."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import sys
from collections.abc import Mapping
from pathlib import Path

from pipeline.declare.words import RuntimeName
from pipeline.onboard import session as onboard
from pipeline.onboard.arrays import Arrays, Signature
from pipeline.onboard.cold import ColdStart
from pipeline.onboard.faults import FileRefused, OnboardFault
from pipeline.onboard.frames import Frame
from pipeline.onboard.memory import STATUS
from pipeline.onboard.session import Session, Timer
from pipeline.runtimes.boundary import GuardedSession, model_errors
from pipeline.runtimes.child import Child, ChildSession, Home, python_of
from pipeline.runtimes.executed import executed, steps_in_onnx

__all__ = [
    "ABSENT",
    "RUNTIMES",
    "Session",
    "Timer",
    "cold_start",
    "executed",
    "open_session",
    "peak_memory_bytes",
    "unavailable",
    "version",
]

RUNTIMES: tuple[RuntimeName, ...] = ("onnxruntime", "litert", "tflite-runtime")
ABSENT = "absent"
_DISTRIBUTIONS = {"onnxruntime": "onnxruntime", "litert": "ai-edge-litert", "tflite-runtime": "tflite-runtime"}
_TIMEOUT_S = 120


def open_session(
    path: Path,
    runtime: RuntimeName,
    *,
    threads: int = 1,
    signature: Signature | None = None,
    steps: Mapping[str, float] | None = None,
    exact: bool = False,
    apart: bool = False,
    home: Home | None = None,
) -> Session:
    """Load a model file into a runtime with so many threads.

    ``signature`` gives inputs and outputs their names and is checked against the file; without it the file's own names
    stand.  ``steps`` of quantized outputs are read from the file where they are not given.
    ``exact``: on x86 without VNNI, ONNX Runtime's kernels that cannot overflow in place of the fast ones: what a
    Raspberry Pi computes.
    ``apart``: in a process of its own; runtimes of TFLite believe a file, and a damaged one takes its process with it.
    ``home``: where the runtime lives, if it is not this machine's own.
    Raises ModelError, naming the file, when it is missing, corrupt, unknown to the runtime or not what is signed.
    """
    with model_errors():
        if not path.is_file():
            raise FileRefused("no such model file", where=str(path), remedy="run the export again")
        session: Session
        if runtime == "tflite-runtime" or apart or home is not None:
            session = ChildSession(path, runtime, threads, signature, home)
        else:
            session = onboard.open_session(
                path, runtime, threads=threads, signature=signature, steps=steps, exact=exact
            )
        if runtime != "onnxruntime":
            return GuardedSession(session)
        if steps is None:
            found = zip(session.signature.outputs, steps_in_onnx(path), strict=True)
            steps = {spec.name: step for spec, step in found if step}
        return GuardedSession(session, steps)


@functools.cache
def unavailable(runtime: RuntimeName) -> str | None:
    """Say why a runtime cannot be used on this machine; None when it can (tried out, not only imported)."""
    try:
        return _tried(runtime)[1]
    except OnboardFault as fault:
        return str(fault)


def version(runtime: RuntimeName) -> str:
    """Return the version of a runtime that is installed, "absent" where none is; read without loading it."""
    try:
        folders = sys.path if runtime != "tflite-runtime" else site_packages(python_of(runtime))
        found = importlib.metadata.distributions(name=_DISTRIBUTIONS[runtime], path=folders)
        return next((each.version for each in found), None) or _tried(runtime)[0]
    except OnboardFault:
        return ABSENT


def site_packages(python: Path) -> list[str]:
    """Return the folders of packages of the environment that a Python belongs to."""
    return [str(folder) for folder in sorted(python.parent.parent.glob("lib/python3*/site-packages"))]


@functools.cache
def _tried(runtime: RuntimeName) -> tuple[str, str | None]:
    """Return the version and why it cannot be used.  Raises RuntimeMissing or ProcessDied."""
    if runtime != "tflite-runtime":
        module = onboard.module_of(runtime)
        return module.version(runtime), module.why_not(runtime)
    with contextlib.closing(Child(runtime)) as child:
        found = child.ask("version", {"runtime": runtime}, timeout_s=_TIMEOUT_S).header["version"]
        return str(found), child.ask("why_not", {"runtime": runtime}, timeout_s=_TIMEOUT_S).header["reason"]


def peak_memory_bytes(path: Path, runtime: RuntimeName, *, threads: int) -> int | None:
    """Return the bytes that loading a file and running one sample adds to a process that has imported the runtime.

    Measured in a fresh process.  None on systems without /proc, where nothing trustworthy can be read.
    Raises ModelError when the file does not run.
    """
    if not STATUS.exists():
        return None
    words = {"path": str(path.resolve()), "runtime": runtime, "threads": threads}
    with model_errors(), contextlib.closing(Child(runtime)) as child:
        return int(child.ask("memory", words, timeout_s=_TIMEOUT_S).header["bytes"])


def cold_start(path: Path, runtime: RuntimeName, *, threads: int, sample: Arrays) -> ColdStart:
    """Return how long a fresh process takes to its first answer to one sample (1, …).

    Raises ModelError when the file does not run.
    """
    words = {"path": str(path.resolve()), "runtime": runtime, "threads": threads}
    with model_errors(), contextlib.closing(Child(runtime)) as child:
        return ColdStart(**_numbers(child.ask("cold", words, sample, timeout_s=_TIMEOUT_S)))


def _numbers(answer: Frame) -> dict[str, float]:
    return {name: float(value) for name, value in answer.header.items() if name != "ok"}
