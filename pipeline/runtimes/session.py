"""What every runtime offers: one Protocol.

N samples, K outputs.  Inputs are what the torch network sees: (N, C, H, W) or (N, F), float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts import ExecutedOp

Floats = NDArray[np.float32]

BATCH = 256  # samples per call: enough to keep the kernels busy, little enough to stay in memory


class Session(Protocol):
    """A model file, loaded and ready to run."""

    @property
    def label(self) -> str:
        """Runtime and version, for example ``onnxruntime 1.32.0``."""

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of one sample as the torch network sees it: (C, H, W) or (F,)."""

    @property
    def output_scale(self) -> float | None:
        """One step of the quantized output; None where the output is float all the way."""

    def run(self, x: Floats) -> Floats:
        """Return outputs (N, K) float32, dequantized, of inputs (N, *sample_shape).

        Raises ModelError when the runtime refuses the inputs.
        """

    def executed(self) -> tuple[ExecutedOp, ...]:
        """List the nodes that this runtime really executes, after its own optimisation, in order."""

    def invoker(self, x: Floats) -> Callable[[], None]:
        """Return a call that runs one inference of the single sample ``x`` (1, *sample_shape) and nothing else."""
