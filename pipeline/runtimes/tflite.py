"""TFLite files in LiteRT (``ai-edge-litert``) and in its predecessor ``tflite-runtime``: one interpreter, two packages.

Files are NHWC inside; samples come and go as torch sees them, (N, C, H, W).
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts import ExecutedOp
from pipeline.errors import ModelError
from pipeline.runtimes.executed import why_float_in_tflite
from pipeline.runtimes.session import BATCH, Floats
from pipeline.spec import RuntimeName

_PACKAGES: dict[RuntimeName, str] = {"litert": "ai_edge_litert", "tflite-runtime": "tflite_runtime"}
_REFUSALS = (ValueError, RuntimeError, SystemError, ImportError, OSError)


@dataclass(frozen=True, kw_only=True)
class _End:
    """Input or output of the graph."""

    index: int
    shape: tuple[int, ...]  # of a batch of 1
    dtype: np.dtype[Any]
    scale: float  # 0: not quantized
    zero_point: int


class TfliteSession:
    """One TFLite file with one input and one output."""

    def __init__(self, path: Path, runtime: RuntimeName, *, threads: int) -> None:
        self._path = path
        self._runtime = runtime
        self._threads = threads
        self._interpreter = self._open()
        self._batch = 1
        self._can_batch = True
        self._input = _end(self._interpreter.get_input_details()[0])
        self._output = _end(self._interpreter.get_output_details()[0])

    @property
    def label(self) -> str:
        """Runtime and version."""
        return f"{self._runtime} {importlib.import_module(_PACKAGES[self._runtime]).__version__}"

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of one sample as torch sees it: (H, W, C) of the file becomes (C, H, W)."""
        shape = self._input.shape[1:]
        return (shape[2], shape[0], shape[1]) if len(shape) == 3 else shape

    @property
    def output_scale(self) -> float | None:
        """Scale of the int8 output tensor."""
        return self._output.scale or None

    def run(self, x: Floats) -> Floats:
        """Return outputs (N, K) of inputs (N, *sample_shape), in batches where the file's graph can be resized."""
        if x.shape[1:] != self.sample_shape:
            raise ModelError(f"samples of shape {x.shape[1:]} given, {self.sample_shape} wanted", where=str(self._path))
        try:
            self._resize(min(BATCH, len(x)))
            starts = range(0, len(x), self._batch)
            return np.concatenate([self._run_batch(x[start : start + self._batch]) for start in starts])
        except _REFUSALS as error:
            raise ModelError(f"{self.label} cannot run this file: {error}", where=str(self._path)) from error

    def _run_batch(self, x: Floats) -> Floats:
        wanted = len(x)
        if wanted < self._batch:  # the last one: filled up rather than resized, which would allocate anew
            x = np.concatenate([x, np.repeat(x[-1:], self._batch - wanted, axis=0)])
        self._interpreter.reset_all_variables()  # an LSTM's state would leak into the next samples
        self._interpreter.set_tensor(self._input.index, _quantize(_to_nhwc(x), self._input))
        self._interpreter.invoke()
        y = _dequantize(self._interpreter.get_tensor(self._output.index), self._output)
        return y.reshape(self._batch, -1)[:wanted]  # (n, K)

    def _resize(self, batch: int) -> None:
        if batch == self._batch or not self._can_batch:
            return
        try:
            self._interpreter.resize_tensor_input(self._input.index, [batch, *self._input.shape[1:]])
            self._interpreter.allocate_tensors()
            self._batch = batch
        except _REFUSALS:  # a shape is written into the graph: one sample at a time, then
            self._interpreter = self._open()
            self._batch, self._can_batch = 1, False

    def executed(self) -> tuple[ExecutedOp, ...]:
        """Operators with the types of their tensors, then the parts that a delegate took over as a whole."""
        interpreter = self._open()
        tensors = {each["index"]: each for each in interpreter.get_tensor_details()}
        ends = {self._input.index, self._output.index}
        rows, delegates = [], 0
        for op in interpreter._get_ops_details():  # the only way to see what runs
            made = int(op["outputs"][0])
            reads = [int(index) for index in op["inputs"] if index >= 0]  # -1: an input that is left out
            delegates += op["op_name"] == "DELEGATE"
            name = f"delegate {delegates}" if op["op_name"] == "DELEGATE" else str(tensors[made]["name"])
            types = [tensors[index]["dtype"] for index in reads]
            at_end = not ends.isdisjoint([made, *reads])
            reason = why_float_in_tflite(op["op_name"], types, tensors[made]["dtype"], at_end=at_end)
            rows.append(ExecutedOp(name=name, op=op["op_name"], integer=not reason, reason=reason))
        return tuple(rows)

    def invoker(self, x: Floats) -> Callable[[], None]:
        """One inference in an interpreter of its own, its input set beforehand."""
        interpreter = self._open()
        interpreter.set_tensor(self._input.index, _quantize(_to_nhwc(x), self._input))
        return cast("Callable[[], None]", interpreter.invoke)

    def _open(self) -> Any:  # the packages are untyped
        try:
            with _quiet():
                interpreter = _interpreter_class(self._runtime)(model_path=str(self._path), num_threads=self._threads)
                interpreter.allocate_tensors()
        except _REFUSALS as error:
            raise ModelError(
                f"{self._runtime} cannot load this file: {' '.join(str(error).split())}",
                where=str(self._path),
                remedy="export it again; if it was copied, compare its sha256",
            ) from error
        return interpreter


def why_not(runtime: RuntimeName) -> str | None:
    """Say why this runtime cannot be used here, None when it can.

    Runs a model of one ReLU: ``tflite-runtime`` under numpy 2 imports well and fails at its first interpreter.
    """
    try:
        with _quiet():
            interpreter = _interpreter_class(runtime)(model_content=_ONE_RELU)
            interpreter.allocate_tensors()
            interpreter.set_tensor(0, np.array([[-1.0]], np.float32))
            interpreter.invoke()
            works = interpreter.get_tensor(1).item() == 0
    except ImportError as error:
        return f"not installed ({error})"
    except _REFUSALS as error:
        numpy_2 = " under numpy 2 (it needs numpy 1)" if runtime == "tflite-runtime" and np.__version__ > "2" else ""
        return f"does not start{numpy_2}: {' '.join(str(error.__cause__ or error).split())}"
    return None if works else "gives wrong results for a ReLU"


def load_library(runtime: RuntimeName) -> None:
    """Import the package, so that its memory is not counted as a model's."""
    _interpreter_class(runtime)


def _interpreter_class(runtime: RuntimeName) -> Any:  # the packages are untyped
    return importlib.import_module(f"{_PACKAGES[runtime]}.interpreter").Interpreter


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the C++ side's "INFO: Created … delegate" off the user's terminal; errors come as exceptions."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _end(details: dict[str, Any]) -> _End:
    scale, zero_point = details["quantization"]
    return _End(
        index=int(details["index"]),
        shape=tuple(int(size) for size in details["shape"]),
        dtype=np.dtype(details["dtype"]),
        scale=float(scale),
        zero_point=int(zero_point),
    )


def _to_nhwc(x: Floats) -> Floats:
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1)) if x.ndim == 4 else x  # (N, H, W, C)


def _quantize(x: Floats, end: _End) -> NDArray[np.generic]:
    if not end.scale:
        return np.ascontiguousarray(x, end.dtype)
    # in float32, round half to even and saturate, as ONNX defines QuantizeLinear
    steps = np.rint(x / np.float32(end.scale)) + end.zero_point
    info = np.iinfo(end.dtype)
    return np.asarray(np.clip(steps, info.min, info.max), end.dtype)


def _dequantize(y: NDArray[np.generic], end: _End) -> Floats:
    if not end.scale:
        return np.asarray(y, np.float32)
    return np.asarray((y.astype(np.int32) - end.zero_point).astype(np.float32) * np.float32(end.scale), np.float32)


# x (1, 1) → RELU → y (1, 1)
_ONE_RELU = bytes.fromhex(
    "1800000054464c3300000e00140010000c000800000004000e000000100000001c000000000100000300000001000000080000000400"
    "040004000000010000001400000000000e001800140010000c00080004000e000000140000001c000000480000004c00000050000000"
    "040000006d61696e00000000010000001000000000000a000c000000080004000a000000080000000c00000001000000010000000100"
    "00000000000001000000010000000100000000000000020000004400000004000000daffffff00000001080000000c00000001000000"
    "790000000200000001000000010000000000160010000c00000000000800000000000000000007001600000000000001080000000c00"
    "0000010000007800000002000000010000000100000001000000100000000c000c000b000000000004000c0000001300000000000013"
)
