"""A network's two files, written and compared with the network itself in every runtime that is usable here.

The limits of a comparison follow from how rounding grows through this very network: every rounding of the integers is
shaken, and a file may be as far off as that moves the output, times a factor.  A wrong writer is far beyond.

Shapes: N samples.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from pipeline.artifacts.files import RUNTIME_OF_FORMAT, FileFormat
from pipeline.declare.words import RuntimeName
from pipeline.errors import ModelError
from pipeline.graph.ends import apart
from pipeline.graph.params import UINT8
from pipeline.onboard.about import KEY, About, to_text
from pipeline.onboard.arrays import Signature, TensorSpec, chosen
from pipeline.quant.frozen import FrozenQuantizer, shaken_outputs
from pipeline.quant.grids import steps_of
from pipeline.quant.raw import with_bytes_in
from pipeline.quant.to_onnx import to_bytes, write_onnx
from pipeline.runtimes import open_session, unavailable
from pipeline.runtimes.ends import Ends, ends_of
from pipeline.tflite import metadata, write_tflite

CHECK_SAMPLES = 8  # of the calibration samples: enough to meet every kernel, few enough to take no time
# Runtimes multiply and add in another order than torch, so that values near the middle between two steps fall to the
# other side: about 1 % do in ONNX Runtime and LiteRT, up to 5 % where a runtime rounds twice (tflite-runtime).
_SHAKEN_SHARE = 0.05
_SHAKES = 2  # times that roundings are shaken, each with draws of its own; and once all ties are broken the other way
_FACTOR = 3.0  # a largest difference of few samples is known no better than to a small factor
# never stricter than this, in output steps: rounding the output itself the other way, in every runtime, takes as much
_LEAST_MEAN_STEPS, _LEAST_MOST_STEPS = 1.001, 2.001  # a step of float32 is no whole one
# of the outputs' largest value: kernels approximate exp and tanh to a few units in the last place
_LEAST_FLOAT = 2e-5
# float32 sums in another order are as far from each other as both are from float64, but for the luck of few samples
_FLOAT_FACTOR = 16.0
_TINY = float(np.finfo(np.float32).tiny)  # for outputs that are zero throughout

Describe = Callable[[Ends], About]  # tensors of a file → what it says about itself


@dataclass(frozen=True, kw_only=True, eq=False)
class Written:
    """The files of one graph, and what they are compared with."""

    reference: nn.Module  # the folded graph, or the frozen integers
    contents: dict[FileFormat, bytes]
    outputs: tuple[TensorSpec, ...]
    steps: dict[str, float]  # output → one step of it; {} where the file's output is float all the way
    opset: int
    abouts: dict[FileFormat, About] = field(default_factory=dict)  # what each file says about itself

    @property
    def int8(self) -> bool:
        """Whether the network computes with integers."""
        return any(isinstance(module, FrozenQuantizer) for module in self.reference.modules())


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How far a file's outputs may lie from the reference's, as real numbers."""

    mean: float
    most: float
    unit: float  # one output step, or the outputs' largest value: what differences are told in
    word: str  # what that is


def write(
    graph: fx.GraphModule,
    reference: nn.Module,
    *,
    name: str,
    signature: Signature,
    describe: Describe | None = None,
    bytes_in: bool = False,
) -> Written:
    """Write a folded (float) or prepared (int8) graph in both formats.

    ``describe``: says what stands in each file about itself; ``bytes_in``: the integers of the input go in as they are.
    Raises UnsupportedOpError (operation, layer, what to do)
    for what the writers do not know, and ModelError when the same graph gives other bytes the second time.
    """
    model = write_onnx(graph, name=name)
    contents = _contents(model, {}, bytes_in=bytes_in)
    ends = ends_of(with_bytes_in(model) if bytes_in else model, contents)
    abouts = {} if describe is None else {each: describe(found) for each, found in ends.items()}
    contents = _contents(model, abouts, bytes_in=bytes_in)
    if contents != _contents(write_onnx(graph, name=name), abouts, bytes_in=bytes_in):
        raise ModelError("writing the same network twice gave different bytes", where=name)
    return Written(
        reference=reference,
        contents=contents,
        outputs=signature.outputs,
        steps=steps_of(graph, signature),
        opset=model.opset_import[0].version,
        abouts=abouts,
    )


def _contents(model: onnx.ModelProto, abouts: Mapping[FileFormat, About], *, bytes_in: bool) -> dict[FileFormat, bytes]:
    """Return the files, each with what it says about itself."""
    return {
        "onnx": to_bytes(_saying(with_bytes_in(model) if bytes_in else model, abouts.get("onnx"))),
        "tflite": _tflite(model, abouts.get("tflite"), bytes_in=bytes_in),
    }


def _tflite(model: onnx.ModelProto, about: About | None, *, bytes_in: bool = False) -> bytes:
    if about is None:
        return write_tflite(model, bytes_in=bytes_in)
    content = write_tflite(_saying(model, about), {metadata.NAME: metadata.metadata_of(about)}, bytes_in=bytes_in)
    return metadata.with_files(content, metadata.files_of(about))


def _saying(model: onnx.ModelProto, about: About | None) -> onnx.ModelProto:
    if about is not None:
        onnx.helper.set_model_props(model, {KEY: to_text(about)})
    return model


@torch.no_grad()
def limits_of(written: Written, inputs: Tensor) -> dict[str, Limits]:
    """Return what rounding alone may change of each output on these samples (N, …)."""
    wanted: Tensor = written.reference(inputs)
    if written.int8:
        others = shaken_outputs(written.reference, inputs, share=_SHAKEN_SHARE, times=_SHAKES)
    else:
        others = copy.deepcopy(written.reference).double()(inputs.double())[None]
    found, moved = (apart(written.outputs, each) for each in (wanted, others))
    return {
        name: _limits_int8(y, moved[name], step=written.steps.get(name)) if written.int8 else _limits(y, moved[name][0])
        for name, y in found.items()
    }


def _limits(wanted: Tensor, exact: Tensor) -> Limits:
    largest = max(float(exact.abs().max()), _TINY)
    most = max(_LEAST_FLOAT * largest, _FLOAT_FACTOR * float((exact - wanted).abs().max()))
    return Limits(mean=most, most=most, unit=largest, word="of the largest output")


def _limits_int8(wanted: Tensor, shaken: Tensor, *, step: float | None) -> Limits:
    of_range = float(wanted.max() - wanted.min()) / UINT8.steps  # where a float layer makes the output of integers
    step = max(step or of_range, _TINY)
    moved = (shaken - wanted).abs()  # (times, N, …)
    return Limits(
        mean=max(_LEAST_MEAN_STEPS * step, _FACTOR * float(moved.flatten(1).mean(1).max())),
        most=max(_LEAST_MOST_STEPS * step, _FACTOR * float(moved.max())),
        unit=step,
        word="output steps",
    )


@torch.no_grad()
def check_file(
    written: Written,
    file_format: FileFormat,
    path: Path,
    inputs: Tensor,
    limits: Mapping[str, Limits],
    *,
    signature: Signature,
    raw: NDArray[Any] | None = None,
) -> RuntimeName | None:
    """Run a file (at ``path``) in every usable runtime of its format with two batch sizes.

    ``raw``: the same samples as ``inputs`` (N, …) before preprocessing, for a file that takes those.  Return the first
    of them, None when there is none here.  Raises ModelError when a runtime refuses the file, and when it computes
    something else than the network.
    """
    checked: RuntimeName | None = None
    wanted = apart(signature.outputs, written.reference(inputs).numpy())
    given = apart(signature.inputs, inputs.numpy()) if raw is None else {signature.input.name: raw}
    for runtime in RUNTIME_OF_FORMAT[file_format]:
        if unavailable(runtime):
            continue
        # exact: what a file computes where this processor's fast kernels overflow is no fault of the file
        session = open_session(path, runtime, threads=1, signature=signature, steps=written.steps, exact=True)
        for part in (slice(0, 1), slice(0, len(inputs))):  # the batch is dynamic: both must run
            got = session.run(chosen(given, part))
            for name, output in wanted.items():
                _compare(got[name], output[part], limits[name], label=session.label)
        session.close()
        checked = checked or runtime
    return checked


def _compare(got: NDArray[np.float32], wanted: NDArray[np.float32], limits: Limits, *, label: str) -> None:
    if got.shape != wanted.shape:
        raise ModelError(f"gives outputs of shape {got.shape} where the network gives {wanted.shape} ({label})")
    difference = np.abs(got - wanted)
    most, mean = float(difference.max()), float(difference.mean())
    alone = len(got) == 1  # the mean of a single sample's few outputs is no mean
    if not (most <= limits.most and (alone or mean <= limits.mean)):  # not a number is never inside
        raise ModelError(
            f"the written file computes something else than the network: {most / limits.unit:.3g} {limits.word} at "
            f"most, {mean / limits.unit:.3g} on average, where rounding explains {limits.most / limits.unit:.3g} and "
            f"{limits.mean / limits.unit:.3g} ({label})",
            remedy="this is a bug in karui's writers; please report it with the network file",
        )
