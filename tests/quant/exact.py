"""ONNX Runtime with the arithmetic that a file asks for, on every processor: tells a wrong file from a narrow machine.

On x86 without VNNI its fast kernels add uint8 x int8 products pairwise in 16 bits and may overflow (``saturation``).
What a file computes *there* is observed and judged; whether the file is right is asked without that.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

# would turn layers that were left float into int8 ones, between two quantized neighbours
_DISABLED = ["WeightBiasQuantization"]


def exact_session(content: bytes) -> onnxruntime.InferenceSession:
    """Load an ONNX file, one thread.  Raises what ONNX Runtime raises for a file that it refuses."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.x64quantprecision", "1")
    return onnxruntime.InferenceSession(
        content, options, providers=["CPUExecutionProvider"], disabled_optimizers=_DISABLED
    )


def run_exactly(content: bytes, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the only output (n, …) of the only input (n, …)."""
    session = exact_session(content)
    output: Any = session.run(None, {session.get_inputs()[0].name: inputs})[0]
    return np.asarray(output, np.float32)
