"""TFLite files in LiteRT (``ai-edge-litert``) and in its predecessor ``tflite-runtime``: one interpreter, two packages.

Files keep tensors of four axes as (n, H, W, C); they come and go as the trained network has them, (n, C, H, W).
"""

from __future__ import annotations

import contextlib
import importlib
import math
import os
import re
import struct
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.onboard.arrays import Arrays, Signature, chosen, length
from pipeline.onboard.faults import FileRefused, RuntimeMissing, first_line
from pipeline.onboard.feed import (
    BATCH,
    as_given,
    as_wanted,
    checked_length,
    in_portions,
    input_spec,
    none_of,
    output_spec,
    signature_for,
    steps_under_names,
    timer_of,
)
from pipeline.onboard.old_scales import with_own_axes
from pipeline.onboard.session import Timer

_PACKAGES = {"litert": "ai_edge_litert", "tflite-runtime": "tflite_runtime"}
_REFUSALS = (ValueError, RuntimeError, SystemError, ImportError, OSError, TypeError)
# of the largest value: float32 sums in another order; samples that run into each other differ by far more
_FLOAT_NOISE = 1e-4
_LONGEST_REASON = 300  # characters; the library repeats itself for every tensor
_MOST_VALUES = 1 << 26  # of one input


@dataclass(frozen=True)
class _End:
    """An input or output of the graph."""

    name: str
    index: int
    shape: tuple[int, ...]  # of one sample, as in the file
    dtype: np.dtype[Any]
    scale: float  # 0: not quantized
    zero_point: int

    @property
    def trained_shape(self) -> tuple[int, ...]:
        """(H, W, C) of the file as (C, H, W)."""
        return (self.shape[2], self.shape[0], self.shape[1]) if len(self.shape) == 3 else self.shape

    @property
    def trained_dtype(self) -> np.dtype[Any]:
        """Type outside of the file: what is quantized, and any float, is float32."""
        return np.dtype(np.float32) if self.scale or self.dtype.kind == "f" else self.dtype


@dataclass(frozen=True)
class ListedOp:
    """One operator that the interpreter runs, and the types of its tensors."""

    name: str  # of the tensor that it makes
    op: str
    reads: tuple[str, ...]
    writes: str
    at_end: bool  # it reads an input of the graph or makes an output


class TfliteSession:
    """One TFLite file."""

    def __init__(self, path: Path, runtime: str, *, threads: int, signature: Signature | None) -> None:
        self.runtime = runtime
        self.version = version(runtime)
        self._path = path
        self._threads = threads
        self._single = _loaded(path, runtime, threads)
        self._inputs = [_end(path, each) for each in self._single.get_input_details()]
        self._outputs = [_end(path, each) for each in self._single.get_output_details()]
        self.signature = signature_for(
            path,
            [input_spec(each.name, each.trained_dtype, each.trained_shape) for each in self._inputs],
            [output_spec(each.name, each.trained_dtype, each.trained_shape) for each in self._outputs],
            signature,
        )
        scales = {spec.name: end.scale for spec, end in zip(self.signature.outputs, self._outputs)}
        self.steps = steps_under_names(self.signature.outputs, scales)
        self._many: Any = None  # an interpreter for _batch samples at once
        self._batch = 1
        self._trusted: bool | None = None  # whether many at once give what single ones do; None: not yet tried

    @property
    def label(self) -> str:
        """Runtime and version."""
        return f"{self.runtime} {self.version}"

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Return outputs (n, …) of inputs (n, …), many at once where the file's graph can be resized."""
        count = checked_length(self._path, inputs, self.signature.inputs)
        if count == 0:
            return none_of(self.signature.outputs)
        try:
            if count > 1 and self._trusted is not False and self._resized(min(BATCH, count)):
                if self._trusted is None:
                    self._trusted = self._agree(chosen(inputs, slice(self._batch)))
                if self._trusted:
                    return in_portions(self._run_many, inputs, self._batch, fill=True)
            return in_portions(self._run_single, inputs, 1, fill=False)
        except _REFUSALS as error:
            raise FileRefused(
                f"{self.label} cannot run this file: {first_line(error)}", where=str(self._path)
            ) from error

    def _run_single(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        return self._invoked(self._single, inputs)

    def _run_many(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        return self._invoked(self._many, inputs)

    def _invoked(self, interpreter: Any, inputs: Arrays) -> dict[str, NDArray[Any]]:
        self._set(interpreter, inputs)
        interpreter.reset_all_variables()  # an LSTM's state would leak into the next samples
        interpreter.invoke()
        named = zip(self.signature.outputs, self._outputs)
        return {spec.name: _taken(interpreter.get_tensor(end.index), end) for spec, end in named}

    def _set(self, interpreter: Any, inputs: Arrays) -> None:
        for spec, end in zip(self.signature.inputs, self._inputs):
            interpreter.set_tensor(end.index, _put(inputs[spec.name], end))

    def _resized(self, batch: int) -> bool:
        """Tell whether there is an interpreter for so many samples at once: some graphs have their shape written in."""
        if batch == self._batch:
            return True
        try:
            self._many = self._many or _loaded(self._path, self.runtime, self._threads)
            for end in self._inputs:
                self._many.resize_tensor_input(end.index, [batch, *end.shape])
            self._many.allocate_tensors()
        except (FileRefused, *_REFUSALS):
            self._many, self._batch, self._trusted = None, 1, False
            return False
        self._batch = batch
        return True

    def _agree(self, inputs: Arrays) -> bool:
        """Tell whether a few samples come out of a batch as they do one by one.

        A graph with a batch of 1 in a reshape or in a recurrent state takes more, and mixes the samples up.
        """
        count = length(inputs)
        some = sorted({0, 1, count // 2, count - 1})
        try:
            together = chosen(self._run_many(inputs), some)
        except (*_REFUSALS, IndexError):
            return False
        single = in_portions(self._run_single, chosen(inputs, some), 1, fill=False)
        return all(
            together[name].shape == y.shape and _same(together[name], y, self.steps.get(name, 0.0))
            for name, y in single.items()
        )

    def timer(self, inputs: Arrays) -> Timer:
        """Return a timer in an interpreter of its own, its inputs set beforehand."""
        checked_length(self._path, inputs, self.signature.inputs)
        interpreter = _loaded(self._path, self.runtime, self._threads)
        try:
            self._set(interpreter, inputs)
        except _REFUSALS as error:
            raise FileRefused(first_line(error), where=str(self._path)) from error
        return timer_of(interpreter.invoke, before=interpreter.reset_all_variables)

    def close(self) -> None:
        """Let go of the file."""
        del self._single
        self._many = None


def open_file(
    path: Path,
    runtime: str,
    *,
    threads: int,
    signature: Signature | None,
    steps: Mapping[str, float] | None,
    exact: bool,
) -> TfliteSession:
    """Load a file.  Raises FileRefused."""
    del steps, exact  # the file has them; all its kernels add in 32 bits
    return TfliteSession(path, runtime, threads=threads, signature=signature)


def version(runtime: str) -> str:
    """Return the version that is installed.  Raises RuntimeMissing."""
    try:
        return str(importlib.import_module(_PACKAGES[runtime]).__version__)
    except ImportError as error:
        raise RuntimeMissing(f"{runtime} is not installed here ({error})") from error


def load(runtime: str) -> None:
    """Load the library; its package alone does not.  Raises RuntimeMissing."""
    try:
        _interpreter_class(runtime)
    except ImportError as error:
        raise RuntimeMissing(f"{runtime} is not installed here ({error})") from error


def why_not(runtime: str) -> str | None:
    """Run a model of one ReLU; say what is wrong, None when nothing is.

    ``tflite-runtime`` under numpy 2 imports well and fails at its first interpreter.
    """
    try:
        with _quiet():
            interpreter = _interpreter_class(runtime)(model_content=_ONE_RELU)
            interpreter.allocate_tensors()
            interpreter.set_tensor(0, np.array([[-1.0]], np.float32))
            interpreter.invoke()
            works = interpreter.get_tensor(1).item() == 0
    except ImportError as error:
        return f"{runtime} is not installed ({error})"
    except _REFUSALS as error:
        numpy_2 = " under numpy 2 (it needs numpy 1)" if runtime == "tflite-runtime" and np.__version__ > "2" else ""
        return f"{runtime} does not start{numpy_2}: {first_line(error.__cause__ or error)}"
    return None if works else f"{runtime} gives wrong results for a ReLU"


def listed_ops(path: Path, runtime: str) -> list[ListedOp]:
    """List the operators that the interpreter runs, then the parts that a delegate took over as a whole.

    Raises FileRefused.
    """
    interpreter = _loaded(path, runtime, 1)
    tensors = {each["index"]: each for each in interpreter.get_tensor_details()}
    ends = {int(each["index"]) for each in (*interpreter.get_input_details(), *interpreter.get_output_details())}
    found: list[ListedOp] = []
    for op in interpreter._get_ops_details():  # the only way to see what runs
        made = int(op["outputs"][0])
        reads = [int(index) for index in op["inputs"] if index >= 0]  # -1: an input that is left out
        delegates = sum(each.op == "DELEGATE" for each in found)
        found.append(
            ListedOp(
                name=f"delegate {delegates + 1}" if op["op_name"] == "DELEGATE" else str(tensors[made]["name"]),
                op=str(op["op_name"]),
                reads=tuple(np.dtype(tensors[index]["dtype"]).name for index in reads),
                writes=np.dtype(tensors[made]["dtype"]).name,
                at_end=not ends.isdisjoint([made, *reads]),
            )
        )
    return found


def _loaded(path: Path, runtime: str, threads: int) -> Any:  # the packages are untyped
    try:
        try:
            return _opened(path, runtime, model_path=str(path), num_threads=threads)
        except ValueError as error:
            if "quantized_dimension" not in str(error):
                raise
            return _opened(path, runtime, model_content=with_own_axes(path.read_bytes()), num_threads=threads)
    except (IndexError, struct.error, *_REFUSALS) as error:
        raise _not_loaded(path, runtime, " ".join(str(error).split())) from error


def _opened(path: Path, runtime: str, **given: Any) -> Any:  # the packages are untyped
    with _quiet():
        interpreter = _interpreter_class(runtime)(**given)
        _check_sizes(interpreter, path)
        interpreter.allocate_tensors()
    return interpreter


def _not_loaded(path: Path, runtime: str, reason: str) -> FileRefused:
    custom = re.search(r"unresolved custom op: (\w+)", reason)
    if custom:
        return FileRefused(
            f"needs the operation {custom.group(1)}, which {runtime} has not",
            where=str(path),
            remedy="it is one that the file's author added: run it with the runtime that has it, or convert without it",
        )
    return FileRefused(
        f"{runtime} cannot load this file: {reason[:_LONGEST_REASON]}",
        where=str(path),
        remedy="export it again; if it was copied, compare its sha256",
    )


def _check_sizes(interpreter: Any, path: Path) -> None:
    """Refuse a file that declares inputs of absurd sizes: all memory would be taken for what is computed from them."""
    for each in interpreter.get_input_details():
        sizes = [int(size) for size in each["shape"]]
        if math.prod(sizes) > _MOST_VALUES:
            raise FileRefused(f"its input '{each['name']}' has the shape {sizes}, too large to mean", where=str(path))


def _interpreter_class(runtime: str) -> Any:  # the packages are untyped
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


# ── tensors of the file ─────────────────────────────────────────────────────────────────────────────────────────────


def _end(path: Path, details: dict[str, Any]) -> _End:
    name = str(details["name"])
    sizes = [int(size) for size in details["shape"]]
    if not sizes:
        raise FileRefused(f"'{name}' has no axis for samples", where=str(path))
    scale, zero_point = details["quantization"]
    return _End(
        name, int(details["index"]), tuple(sizes[1:]), np.dtype(details["dtype"]), float(scale), int(zero_point)
    )


def _put(x: NDArray[Any], end: _End) -> NDArray[Any]:
    """Return (n, C, H, W) as the file has it: (n, H, W, C), quantized; bytes for bytes go in as they are."""
    x = x.transpose(0, 2, 3, 1) if x.ndim == 4 else x
    if not end.scale or (x.dtype == np.uint8 and end.dtype == np.uint8):
        return as_wanted(x, end.dtype)
    # in float32, round half to even and saturate, as ONNX defines QuantizeLinear
    return as_wanted(np.rint(np.asarray(x, np.float32) / np.float32(end.scale)) + end.zero_point, end.dtype)


def _taken(y: NDArray[Any], end: _End) -> NDArray[Any]:
    """Return (n, H, W, C) of the file as (n, C, H, W), dequantized."""
    y = np.ascontiguousarray(y.transpose(0, 3, 1, 2)) if y.ndim == 4 else y
    if not end.scale:
        return as_given(y)
    return np.asarray((y.astype(np.int32) - end.zero_point).astype(np.float32) * np.float32(end.scale), np.float32)


def _same(first: NDArray[Any], second: NDArray[Any], step: float) -> bool:
    if second.dtype.kind != "f":
        return bool(np.array_equal(first, second))
    # a kernel for many samples may round the other way: one step
    allowed = 1.01 * step or _FLOAT_NOISE * float(np.abs(second[np.isfinite(second)]).max(initial=0.0))
    return bool(np.allclose(first, second, rtol=0, atol=allowed, equal_nan=True))


# x (1, 1) → RELU → y (1, 1)
_ONE_RELU = bytes.fromhex(
    "1800000054464c3300000e00140010000c000800000004000e000000100000001c000000000100000300000001000000080000000400"
    "040004000000010000001400000000000e001800140010000c00080004000e000000140000001c000000480000004c00000050000000"
    "040000006d61696e00000000010000001000000000000a000c000000080004000a000000080000000c00000001000000010000000100"
    "00000000000001000000010000000100000000000000020000004400000004000000daffffff00000001080000000c00000001000000"
    "790000000200000001000000010000000000160010000c00000000000800000000000000000007001600000000000001080000000c00"
    "0000010000007800000002000000010000000100000001000000100000000c000c000b000000000004000c0000001300000000000013"
)
