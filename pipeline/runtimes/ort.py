"""ONNX files in ONNX Runtime."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper
from onnxruntime.capi import onnxruntime_pybind11_state as state

from pipeline.artifacts import ExecutedOp
from pipeline.errors import ModelError
from pipeline.runtimes.executed import executed_in_onnx
from pipeline.runtimes.session import BATCH, Floats

_PROVIDERS = ["CPUExecutionProvider"]
# would turn layers that were left float to keep the accuracy margin into int8 ones, between two quantized neighbours
_DISABLED = ["WeightBiasQuantization"]
# what the library raises, all straight from Exception
_REFUSALS = (
    state.Fail,
    state.InvalidArgument,
    state.InvalidGraph,
    state.InvalidProtobuf,
    state.NoSuchFile,
    state.NotImplemented,
    state.RuntimeException,
    RuntimeError,
    ValueError,
)


class OrtSession:
    """One ONNX file with one float input and one output, on the CPU."""

    def __init__(self, path: Path, *, threads: int) -> None:
        self._path = path
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), _options(threads), providers=_PROVIDERS, disabled_optimizers=_DISABLED
            )
        except _REFUSALS as error:
            raise ModelError(
                f"ONNX Runtime {onnxruntime.__version__} cannot load this file: {_first_line(error)}",
                where=str(path),
                remedy="export it again; if it was copied, compare its sha256",
            ) from error
        self._input = self._session.get_inputs()[0]
        self._output = self._session.get_outputs()[0].name

    @property
    def label(self) -> str:
        """Runtime and version."""
        return f"onnxruntime {onnxruntime.__version__}"

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of one sample, as in the file."""
        return tuple(int(size) for size in self._input.shape[1:])

    @functools.cached_property
    def output_scale(self) -> float | None:
        """Scale of the DequantizeLinear that makes the output."""
        graph = onnx.load(self._path).graph
        scales = {tensor.name: tensor for tensor in graph.initializer}
        for node in graph.node:
            if node.op_type == "DequantizeLinear" and self._output in node.output and node.input[1] in scales:
                return float(numpy_helper.to_array(scales[node.input[1]]).item())
        return None

    def run(self, x: Floats) -> Floats:
        """Return outputs (N, K) of inputs (N, *sample_shape)."""
        try:
            parts = [self._run_batch(x[start : start + BATCH]) for start in range(0, len(x), BATCH)]
        except _REFUSALS as error:
            raise ModelError(
                f"ONNX Runtime refuses inputs of shape {x.shape}: {_first_line(error)}", where=str(self._path)
            ) from error
        return np.concatenate(parts)

    def _run_batch(self, x: Floats) -> Floats:
        (y,) = self._session.run([self._output], {self._input.name: np.ascontiguousarray(x, np.float32)})
        return np.asarray(y, np.float32).reshape(len(x), -1)  # (n, K)

    def executed(self) -> tuple[ExecutedOp, ...]:
        """Nodes of the graph as optimised for this machine (read back from a temporary file, never shipped)."""
        with tempfile.TemporaryDirectory() as folder:
            optimised = Path(folder) / "optimised.onnx"
            options = _options(1)
            options.optimized_model_filepath = str(optimised)
            onnxruntime.InferenceSession(str(self._path), options, providers=_PROVIDERS, disabled_optimizers=_DISABLED)
            return executed_in_onnx(onnx.load(optimised))

    def invoker(self, x: Floats) -> Callable[[], None]:
        """Return one inference with input and output already bound: no conversion or allocation in Python."""
        binding = self._session.io_binding()
        given = onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(x, np.float32))
        made = onnxruntime.OrtValue.ortvalue_from_numpy(self._session.run([self._output], {self._input.name: x})[0])
        binding.bind_ortvalue_input(self._input.name, given)
        binding.bind_ortvalue_output(self._output, made)
        return functools.partial(self._session.run_with_iobinding, binding)


def _options(threads: int) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # idle worker threads would spin on the cores that the other file of a comparison is timed on
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
