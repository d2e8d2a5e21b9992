"""ONNX files in ONNX Runtime, on the CPU."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as state

from pipeline.onboard.arrays import Arrays, Signature
from pipeline.onboard.faults import FileRefused, InputRefused, first_line
from pipeline.onboard.feed import (
    BATCH,
    FREE,
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
from pipeline.onboard.session import Timer

_PROVIDERS = ["CPUExecutionProvider"]
# would turn layers that were left float on purpose into int8 ones, between two quantized neighbours
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
_NAMES = ("float16", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "bool")
_DTYPES = {**{f"tensor({name})": name for name in _NAMES}, "tensor(float)": "float32", "tensor(double)": "float64"}


class OnnxSession:
    """One ONNX file."""

    runtime = "onnxruntime"
    version: str = onnxruntime.__version__

    def __init__(
        self,
        path: Path,
        *,
        threads: int,
        signature: Signature | None,
        steps: Mapping[str, float] | None,
        exact: bool,
    ) -> None:
        self._path = path
        self._session = _loaded(path, options(threads, exact=exact))
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        self.signature = signature_for(
            path,
            [input_spec(each.name, _dtype(path, each), _sample_shape(path, each)) for each in inputs],
            [output_spec(each.name, _dtype(path, each), _sample_shape(path, each)) for each in outputs],
            signature,
        )
        self.steps = steps_under_names(self.signature.outputs, steps or {})
        self._inputs = list(zip(self.signature.inputs, inputs))
        self._outputs = [each.name for each in outputs]
        fixed = [each.shape[0] for each in inputs if isinstance(each.shape[0], int)]
        self._batch: int | None = fixed[0] if fixed else None  # None: any

    @property
    def label(self) -> str:
        """Runtime and version."""
        return f"{self.runtime} {self.version}"

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Return outputs (n, …) of inputs (n, …)."""
        if checked_length(self._path, inputs, self.signature.inputs) == 0:
            return none_of(self.signature.outputs)
        return in_portions(self._run_portion, inputs, self._batch or BATCH, fill=self._batch is not None)

    def _run_portion(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        try:
            found = self._session.run(self._outputs, self._fed(inputs))
        except _REFUSALS as error:
            shapes = ", ".join(f"{name} {array.shape}" for name, array in inputs.items())
            raise InputRefused(
                f"ONNX Runtime {self.version} refuses {shapes}: {first_line(error)}", where=str(self._path)
            ) from error
        named = {spec.name: as_given(y) for spec, y in zip(self.signature.outputs, found)}
        for name, y in named.items():
            if y.ndim == 0 or len(y) != len(next(iter(inputs.values()))):
                raise FileRefused(f"output '{name}' has the shape {y.shape}: not one per sample", where=str(self._path))
        return named

    def timer(self, inputs: Arrays) -> Timer:
        """Return a timer with inputs and outputs already bound: no conversion or allocation in Python."""
        checked_length(self._path, inputs, self.signature.inputs)
        fed = self._fed(inputs)
        try:
            made = self._session.run(self._outputs, fed)
        except _REFUSALS as error:
            raise InputRefused(first_line(error), where=str(self._path)) from error
        binding = self._session.io_binding()
        for name, array in fed.items():
            binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(array))
        for name, array in zip(self._outputs, made):
            binding.bind_ortvalue_output(name, onnxruntime.OrtValue.ortvalue_from_numpy(array))
        return timer_of(functools.partial(self._session.run_with_iobinding, binding))

    def _fed(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        return {each.name: as_wanted(inputs[spec.name], _dtype(self._path, each)) for spec, each in self._inputs}

    def close(self) -> None:
        """Let go of the file."""
        del self._session


def open_file(
    path: Path,
    runtime: str,
    *,
    threads: int,
    signature: Signature | None,
    steps: Mapping[str, float] | None,
    exact: bool,
) -> OnnxSession:
    """Load a file.  Raises FileRefused."""
    del runtime  # there is only one for these files
    return OnnxSession(path, threads=threads, signature=signature, steps=steps, exact=exact)


def version(runtime: str = OnnxSession.runtime) -> str:
    """Return the version that is installed."""
    del runtime
    return OnnxSession.version


def load(runtime: str = OnnxSession.runtime) -> None:
    """Do nothing: the library was loaded with this module."""
    del runtime


def why_not(runtime: str = OnnxSession.runtime) -> str | None:
    """Run a model of one ReLU; say what is wrong, None when nothing is."""
    try:
        session = onnxruntime.InferenceSession(_ONE_RELU, options(1), providers=_PROVIDERS)
        (y,) = session.run(None, {"x": np.array([[-1.0]], np.float32)})
    except _REFUSALS as error:
        return f"{runtime} does not start: {first_line(error)}"
    return None if y.item() == 0 else f"{runtime} gives wrong results for a ReLU"


def options(threads: int, *, exact: bool = False) -> onnxruntime.SessionOptions:
    """Return the options that all sessions have.

    ``exact``: on x86 without VNNI the fast kernels add products of 8-bit numbers in 16 bits and may overflow; others,
    and all kernels on ARM, never do.
    """
    made = onnxruntime.SessionOptions()
    made.intra_op_num_threads = threads
    made.inter_op_num_threads = 1
    made.log_severity_level = 3
    # idle worker threads would spin on the cores that the other file of a comparison is timed on
    made.add_session_config_entry("session.force_spinning_stop", "1")
    if exact:
        made.add_session_config_entry("session.x64quantprecision", "1")
    return made


def write_optimised(path: Path, to: Path) -> None:
    """Write the graph as ONNX Runtime optimises it for this machine: to be read, not to be shipped.

    Raises FileRefused.
    """
    made = options(1)
    made.optimized_model_filepath = str(to)
    _loaded(path, made)


def _dtype(path: Path, end: onnxruntime.NodeArg) -> str:
    if end.type not in _DTYPES:
        raise FileRefused(f"'{end.name}' is a {end.type}, no tensor of numbers", where=str(path))
    return _DTYPES[end.type]


def _sample_shape(path: Path, end: onnxruntime.NodeArg) -> tuple[int, ...]:
    if not end.shape:
        raise FileRefused(f"'{end.name}' has no axis for samples", where=str(path))
    return tuple(size if isinstance(size, int) else FREE for size in end.shape[1:])


def _loaded(path: Path, settings: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    try:
        return onnxruntime.InferenceSession(str(path), settings, providers=_PROVIDERS, disabled_optimizers=_DISABLED)
    except _REFUSALS as error:
        raise FileRefused(
            f"ONNX Runtime {onnxruntime.__version__} cannot load this file: {first_line(error)}",
            where=str(path),
            remedy="export it again; if it was copied, compare its sha256",
        ) from error


# x (n, 1) → Relu → y (n, 1), opset 13
_ONE_RELU = bytes.fromhex(
    "08083a3d0a0c0a0178120179220452656c751201675a140a0178120f0a0d080112090a0312016e0a02080162140a0179120f0a0d0801"
    "12090a0312016e0a02080142040a00100d"
)
