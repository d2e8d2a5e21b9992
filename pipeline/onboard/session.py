"""What every runtime offers: named arrays in and out, in the layout of the network that was trained.

n samples at once.  Pictures and maps come and go as (n, C, H, W), quantized outputs dequantized, whatever the file
keeps inside.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Callable, Protocol, cast

from numpy.typing import NDArray

from pipeline.onboard.arrays import Arrays, Signature
from pipeline.onboard.faults import FileRefused, RuntimeMissing

Timer = Callable[[int], list[float]]  # so many single inferences → milliseconds of each


class Session(Protocol):
    """A model file, loaded and ready to run."""

    @property
    def runtime(self) -> str:
        """Name of the runtime: ``onnxruntime``, ``litert``, ``tflite-runtime``."""

    @property
    def version(self) -> str:
        """Version of the runtime."""

    @property
    def label(self) -> str:
        """Runtime and version: ``onnxruntime 1.32.0``."""

    @property
    def signature(self) -> Signature:
        """Names, types and shapes (without the batch) of what goes in and comes out."""

    @property
    def steps(self) -> Mapping[str, float]:
        """One step of each quantized output; outputs that are float all the way are not there."""

    def run(self, inputs: Arrays, /) -> dict[str, NDArray[Any]]:
        """Return the outputs (n, …) of inputs (n, …); float ones as float32, quantized ones dequantized to it.

        Raises InputRefused for inputs that do not fit and FileRefused where the runtime cannot run the file.
        """

    def timer(self, inputs: Arrays, /) -> Timer:
        """Return a function that times single inferences of one sample (1, …), bound beforehand.

        Every call of it runs one inference untimed and then as many as it is asked for.
        """

    def close(self) -> None:
        """Let go of the file; the session cannot be used afterwards."""


class RuntimeModule(Protocol):
    """What a module of this package offers for a runtime."""

    def open_file(
        self,
        path: Path,
        runtime: str,
        /,
        *,
        threads: int,
        signature: Signature | None,
        steps: Mapping[str, float] | None,
        exact: bool,
    ) -> Session:
        """Load a file.  Raises FileRefused."""

    def version(self, runtime: str, /) -> str:
        """Return the version that is installed.  Raises RuntimeMissing."""

    def load(self, runtime: str, /) -> None:
        """Load the runtime's library, all of it that a file needs.  Raises RuntimeMissing."""

    def why_not(self, runtime: str, /) -> str | None:
        """Say why the runtime cannot be used here, None when it can: tried out, not only imported."""


# by name and not by import: a device has one runtime only
MODULES: Mapping[str, str] = {
    "onnxruntime": "pipeline.onboard.onnx_session",
    "litert": "pipeline.onboard.tflite_session",
    "tflite-runtime": "pipeline.onboard.tflite_session",
}


def module_of(runtime: str) -> RuntimeModule:
    """Import the module that works with a runtime.  Raises RuntimeMissing when it is unknown or not installed."""
    if runtime not in MODULES:
        raise RuntimeMissing(f"there is no runtime '{runtime}'", remedy=f"known: {', '.join(MODULES)}")
    try:
        return cast("RuntimeModule", importlib.import_module(MODULES[runtime]))
    except ImportError as error:
        raise RuntimeMissing(f"{runtime} is not installed here ({error})") from error


def open_session(
    path: Path,
    runtime: str,
    *,
    threads: int = 1,
    signature: Signature | None = None,
    steps: Mapping[str, float] | None = None,
    exact: bool = False,
) -> Session:
    """Load a model file into a runtime with so many threads.

    ``signature`` gives inputs and outputs their names and is checked against the file; without it, the file's own names
    stand.  ``steps``: one step of each quantized output, where the file cannot be asked for it (ONNX).
    ``exact``: no sum of 8-bit products may overflow, whatever that costs in time: what other processors compute.
    Raises FileRefused for a file that is missing, damaged or unknown to the runtime, and RuntimeMissing.
    """
    if not Path(path).is_file():
        raise FileRefused("no such model file", where=str(path))
    return module_of(runtime).open_file(
        Path(path), runtime, threads=threads, signature=signature, steps=steps, exact=exact
    )
