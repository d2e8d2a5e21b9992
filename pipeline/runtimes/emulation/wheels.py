"""Runtimes for another processor: wheels through pip, unpacked and never run here."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.declare.words import RuntimeName
from pipeline.errors import EmulationError
from pipeline.runtimes import ABSENT, version

_DISTRIBUTIONS: Mapping[RuntimeName, str] = {
    "onnxruntime": "onnxruntime",
    "litert": "ai-edge-litert",
    "tflite-runtime": "tflite-runtime",
}
_OLD_NUMPY = "numpy<2"  # what tflite-runtime was built with
_SYSTEMS_NUMPY = frozenset({"armv7l"})  # where numpy has no wheel: Debian's own is there
_OLDEST_GLIBC = 17  # that wheels are built for: 2.17
_TIMEOUT_S = 300


def wanted_wheels(runtime: RuntimeName, architecture: str) -> tuple[str, ...] | None:
    """Return what pip has to get so that a runtime is the same there as here; None for one that is not here."""
    found = version(runtime)
    if found == ABSENT:
        return None
    if architecture in _SYSTEMS_NUMPY:
        return (f"{_DISTRIBUTIONS[runtime]}=={found}",)
    numpy = _OLD_NUMPY if runtime == "tflite-runtime" else f"numpy=={importlib.metadata.version('numpy')}"
    return f"{_DISTRIBUTIONS[runtime]}=={found}", numpy


def unpack_wheels(folder: Path, wheels: Sequence[str], *, architecture: str, python: str, glibc_minor: int) -> None:
    """Unpack wheels for ``python`` ("3.11") on another processor into a folder.  Raises EmulationError in words."""
    platforms = [f"manylinux_2_{minor}_{architecture}" for minor in range(glibc_minor, _OLDEST_GLIBC - 1, -1)]
    platforms.append(f"manylinux2014_{architecture}")
    command = (
        *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"),
        *("--only-binary=:all:", "--implementation", "cp", "--python-version", python, "--target", str(folder)),
        *(part for platform in platforms for part in ("--platform", platform)),
        *(("--no-deps",) if architecture in _SYSTEMS_NUMPY else ()),
        *wheels,
    )
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)  # noqa: S603
    except subprocess.TimeoutExpired as error:
        raise EmulationError(f"pip did not finish in {_TIMEOUT_S} s", remedy="try again") from error
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if "ERROR" in line] or done.stderr.splitlines()
        raise EmulationError(f"pip: {errors[-1].removeprefix('ERROR: ') if errors else 'failed without a word'}")
