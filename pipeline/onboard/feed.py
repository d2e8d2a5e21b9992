"""What the sessions of all runtimes share: names and shapes checked, samples cut into portions, inferences timed.

n samples; specs hold shapes without the batch.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Callable

import numpy as np
from numpy.typing import DTypeLike, NDArray

from pipeline.onboard.arrays import Arrays, Predict, Signature, TensorSpec, concatenated, length
from pipeline.onboard.faults import FileRefused, InputRefused
from pipeline.onboard.session import Timer

BATCH = 256  # samples per call: enough to keep the kernels busy, little enough to stay in memory
FREE = -1  # the size of an axis that a file leaves open

# axes of a derived signature, by rank: a file says nothing about their meaning
_INPUT_AXES = {0: "", 1: "F", 2: "TF", 3: "CHW"}
_OUTPUT_AXES = {0: "", 1: "K", 2: "TK", 3: "KHW"}


# ── names and shapes ────────────────────────────────────────────────────────────────────────────────────────────────


def signature_for(
    path: Path, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], given: Signature | None
) -> Signature:
    """Return the signature of a file with these tensors, in their order, under the names that were given.

    Names are matched by name where the file has all of them, else by position.
    Raises FileRefused where number or shapes differ.
    """
    if given is None:
        return Signature(tuple(inputs), tuple(outputs))
    return Signature(_matched(path, inputs, given.inputs), _matched(path, outputs, given.outputs), dict(given.carried))


def input_spec(name: str, dtype: DTypeLike, shape: Sequence[int]) -> TensorSpec:
    """Describe an input of a file that comes without a signature."""
    return TensorSpec(name, np.dtype(dtype).name, tuple(shape), _INPUT_AXES.get(len(shape), "?" * len(shape)))


def output_spec(name: str, dtype: DTypeLike, shape: Sequence[int]) -> TensorSpec:
    """Describe an output of a file that comes without a signature."""
    return TensorSpec(name, np.dtype(dtype).name, tuple(shape), _OUTPUT_AXES.get(len(shape), "?" * len(shape)))


def _matched(path: Path, own: Sequence[TensorSpec], given: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
    if len(own) != len(given):
        raise FileRefused(f"the file has {_listed(own)}, its signature {_listed(given)}", where=str(path))
    by_name = {spec.name: spec for spec in given}
    same_names = by_name.keys() == {spec.name for spec in own}
    found = tuple(by_name[spec.name] for spec in own) if same_names else tuple(given)
    for mine, theirs in zip(own, found):
        if not _fits(mine.shape, theirs.shape):
            raise FileRefused(
                f"'{theirs.name}' has the shape {mine.shape} in the file and {theirs.shape} in its signature",
                where=str(path),
            )
    return found


def _fits(shape: Sequence[int], wanted: Sequence[int]) -> bool:
    return len(shape) == len(wanted) and all(FREE in pair or pair[0] == pair[1] for pair in zip(shape, wanted))


def _listed(specs: Sequence[TensorSpec]) -> str:
    return f"{len(specs)} tensor{'s' * (len(specs) != 1)} ({', '.join(spec.name for spec in specs)})"


# ── arrays ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def checked_length(path: Path, inputs: Arrays, specs: Sequence[TensorSpec]) -> int:
    """Return n.  Raises InputRefused where an input is missing, unknown, of another shape or of another length."""
    wanted = sorted(spec.name for spec in specs)
    if sorted(inputs) != wanted:
        raise InputRefused(f"inputs {sorted(inputs)} were given, {wanted} are wanted", where=str(path))
    count = length(inputs)
    for spec in specs:
        shape = np.shape(inputs[spec.name])
        if not _fits(shape, (count, *spec.shape)):
            sizes = ", ".join("any" if size == FREE else str(size) for size in (count, *spec.shape))
            raise InputRefused(f"input '{spec.name}' has the shape {shape}, ({sizes}) is wanted", where=str(path))
    return count


def as_wanted(x: NDArray[Any], dtype: DTypeLike) -> NDArray[Any]:
    """Return an array in the type that a file asks for, C-contiguous: floats are rounded and saturate in integers."""
    if np.issubdtype(dtype, np.integer) and np.issubdtype(x.dtype, np.floating):
        info = np.iinfo(np.dtype(dtype).name)
        x = np.clip(np.rint(x, dtype=np.float64), info.min, info.max)  # float32 has no 2**31 - 1
    return np.ascontiguousarray(x, dtype)


def as_given(y: NDArray[Any]) -> NDArray[Any]:
    """Return an output as callers get it: any float as float32."""
    return np.asarray(y, np.float32) if np.issubdtype(y.dtype, np.floating) else np.asarray(y)


def none_of(specs: Sequence[TensorSpec]) -> dict[str, NDArray[Any]]:
    """Return the outputs of no samples: (0, …)."""
    return {spec.name: np.zeros((0, *(max(0, size) for size in spec.shape)), spec.dtype) for spec in specs}


def in_portions(run: Predict, inputs: Arrays, size: int, *, fill: bool) -> dict[str, NDArray[Any]]:
    """Run n ≥ 1 samples in portions of ``size``; ``fill``: the last one must be as long as the others."""
    count = length(inputs)
    parts: list[Arrays] = []
    for start in range(0, count, size):
        portion = {name: array[start : start + size] for name, array in inputs.items()}
        missing = max(0, start + size - count) if fill else 0
        outputs = run({name: _filled(x, missing) for name, x in portion.items()})
        parts.append({name: array[: count - start] for name, array in outputs.items()})
    return concatenated(parts)


def _filled(x: NDArray[Any], missing: int) -> NDArray[Any]:
    return np.concatenate([x, np.repeat(x[-1:], missing, axis=0)]) if missing else x


# ── time ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def timer_of(call: Callable[[], object], *, before: Callable[[], object] = lambda: None) -> Timer:
    """Return a timer of ``call``; ``before`` runs ahead of each one, untimed.  The garbage collector is off."""

    def times_ms(count: int) -> list[float]:
        clock = time.perf_counter_ns
        was_on = gc.isenabled()
        gc.disable()
        try:
            before()
            call()  # not timed: brings code and weights back into the caches, as in a loop on the device
            found = []
            for _ in range(count):
                before()
                start = clock()
                call()
                found.append((clock() - start) / 1e6)
            return found
        finally:
            if was_on:
                gc.enable()

    return times_ms


def steps_under_names(outputs: Sequence[TensorSpec], steps: Mapping[str, float]) -> dict[str, float]:
    """Return the steps of these outputs; others and zeros are left out."""
    return {spec.name: float(steps[spec.name]) for spec in outputs if steps.get(spec.name)}
