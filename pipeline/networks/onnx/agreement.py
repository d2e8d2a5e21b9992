"""Whether a network gives what ONNX Runtime makes of the file that it was read from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import TensorProto

from pipeline.errors import ModelError
from pipeline.graph.ends import apart, joined_arrays
from pipeline.networks.onnx.constants import MOST_ELEMENTS
from pipeline.networks.onnx.ends import Input
from pipeline.networks.onnx.files import OnnxFile
from pipeline.networks.onnx.modules import OnnxNetwork, Quantizer
from pipeline.onboard.faults import first_line
from pipeline.onboard.onnx_session import options

_SILENT = 4  # what ONNX Runtime refuses is told in an error, and need not be printed
_BATCH = 3
_LARGEST = 1e-4  # difference allowed, of the largest output
_LARGEST_HALF = 2e-2  # where the file computes in 16 bits
_MEAN_QUANTIZED = 2e-2  # where it rounds: a value between two steps may fall either way
Array = NDArray[np.generic]


def check_same(network: OnnxNetwork, file: OnnxFile, given: Sequence[Input], *, whole: bool) -> str:
    """Return what was found, in words: "differs from the file by 2e-06, batch 3 tried".

    Samples go through the file one by one, and together where it takes several.  Raises ModelError where the network
    gives something else.
    """
    session = _session(file)
    kinds = {each.name: each.type for each in session.get_inputs()}
    rounding = [each for each in network.modules() if isinstance(each, Quantizer)]
    first = session.get_inputs()[0].shape[:1]
    fixed = first[0] if first and isinstance(first[0], int) and not whole else None
    if (fixed or 1) * math.prod(network.sample_shape) > MOST_ELEMENTS:
        raise ModelError(f"is made for {fixed} samples at once: an impossible size", where=str(file.path))
    calls = [1] if whole or fixed == 1 else [fixed or 1] if fixed else [1, _BATCH]
    worst, compared = 0.0, False
    drawn = (_samples(each.sample_shape, kinds[each.name], max(_BATCH, *calls)) for each in given)
    for samples in zip(*drawn, strict=False):  # whole numbers are drawn in one way only
        for quantizer in rounding:
            quantizer.rounds = True
        found = apart(network.outputs, _computed(network, samples, file))
        for quantizer in rounding:
            quantizer.rounds = False
        fed = {each.name: _in_file(x, each, kinds[each.name]) for each, x in zip(given, samples, strict=True)}
        for size in calls:
            expected = _of_file(session, network, fed, size=size, whole=whole)
            for name, wanted in ({} if expected is None else expected).items():
                difference = _difference(file, found[name][: len(wanted)], wanted, mean=bool(rounding))
                compared |= difference is not None
                worst = max(worst, difference or 0.0)
    if not compared:
        raise ModelError("gives no finite number for random input: it cannot be compared", where=str(file.path))
    together = "one sample at a time" if calls[-1] == 1 else f"batch {calls[-1]} tried"
    return f"differs from the file by {worst:.0e}, {together}"


def _session(file: OnnxFile) -> onnxruntime.InferenceSession:
    settings = options(1)
    settings.log_severity_level = _SILENT
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return onnxruntime.InferenceSession(str(file.path), settings, providers=["CPUExecutionProvider"])
    except Exception as error:  # the library's own classes come straight from it
        raise ModelError(
            f"ONNX Runtime {onnxruntime.__version__} cannot load this file: {first_line(error)}", where=str(file.path)
        ) from error


def _samples(shape: Sequence[int], kind: str, count: int) -> list[Array]:
    """Return random samples: around zero, and from 0 to 1 for what has no value below."""
    random = np.random.default_rng(0)
    if "float" in kind or "double" in kind:
        around = random.standard_normal((count, *shape)).astype(np.float32)
        return [around, random.random((count, *shape), np.float32)]
    return [random.integers(0, 127, (count, *shape)).astype(np.float32)]


@torch.no_grad()
def _computed(network: OnnxNetwork, samples: Sequence[Array], file: OnnxFile) -> NDArray[np.float32]:
    joined = joined_arrays({str(place): each for place, each in enumerate(samples)})
    try:
        result: NDArray[np.float32] = network.eval()(torch.from_numpy(joined)).numpy()
    except RuntimeError as error:
        raise ModelError(f"cannot be run: {first_line(error)}", where=str(file.path)) from error
    return result


def _in_file(samples: Array, given: Input, kind: str) -> Array:
    """Return samples as the file has them."""
    return np.ascontiguousarray(samples if given.order is None else samples.transpose(given.order), _dtype(kind))


def _of_file(
    session: onnxruntime.InferenceSession, network: OnnxNetwork, fed: Mapping[str, Array], *, size: int, whole: bool
) -> dict[str, Array] | None:
    """Return what the file gives in calls of this size; None where it refuses more than one."""
    names = [each.name for each in network.outputs]
    results: list[list[Array]] = []
    for start in range(0, len(next(iter(fed.values()))) - size + 1, size):
        part = {name: x[start : start + size] for name, x in fed.items()}
        try:
            found = session.run(names, {name: x[0] for name, x in part.items()} if whole else part)
        except Exception as error:  # the library's own classes come straight from it
            if size > 1 and all(each.shape for each in network.outputs):
                return None
            raise ModelError(f"ONNX Runtime cannot run this file: {first_line(error)}") from error
        results.append([y[None] if whole or y.ndim == 0 or len(y) != size else y for y in found])
    return {name: np.concatenate(parts) for name, parts in zip(names, zip(*results, strict=True), strict=True)}


def _dtype(kind: str) -> np.dtype[np.generic]:
    names = {TensorProto.DataType.Name(each).lower(): each for each in (1, 2, 3, 6, 7, 10, 11)}
    return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(names[kind.removeprefix("tensor(").removesuffix(")")]))


def _difference(file: OnnxFile, found: Array, expected: Array, *, mean: bool) -> float | None:
    """Return the difference over the largest output; None where nothing is finite.  Raises ModelError."""
    if found.shape != expected.shape:
        raise _other(file, f"gives {found.shape[1:]} where the file gives {expected.shape[1:]}")
    with np.errstate(all="ignore"):
        wide = expected.astype(np.float64)
        finite = np.isfinite(wide)
        if not np.array_equal(finite, np.isfinite(found)):
            raise _other(file, "gives numbers where the file gives none")
        if not finite.any():
            return None
        apart = np.abs(found.astype(np.float64) - wide)[finite]
        largest = max(float(np.abs(wide[finite]).max()), 1e-6)
    difference = float(apart.mean() if mean else apart.max()) / largest
    allowed = _MEAN_QUANTIZED if mean else _LARGEST_HALF if expected.dtype == np.float16 else _LARGEST
    if difference > allowed:
        raise _other(file, f"differs from the file by {difference:.0e} of its largest output")
    return difference


def _other(file: OnnxFile, what: str) -> ModelError:
    return ModelError(
        f"what karui reads from this file {what}",
        where=str(file.path),
        remedy="its results cannot be trusted, so it is not used; please report it with the file",
    )
