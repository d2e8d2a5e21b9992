"""export: the four files (ONNX and TFLite, float and int8) from one network and one table of quantization rules."""

from __future__ import annotations

import numpy as np
import onnx
import torch
from torch import fx, nn

from pipeline.artifacts import Checkpoint, Exported, ExportSet, FileFormat, Quantized, TensorSpec
from pipeline.checkpoints import restore_float, restore_prepared
from pipeline.errors import ModelError
from pipeline.quant.costs import layer_costs
from pipeline.quant.prepare import float_reasons, fold, freeze
from pipeline.quant.scheme import ACTIVATION_MAX, ACTIVATION_MIN
from pipeline.quant.to_onnx import to_bytes, write_onnx
from pipeline.run import Work, stage
from pipeline.runtimes import open_session, unavailable
from pipeline.runtimes.session import Floats
from pipeline.spec import Precision, RuntimeName
from pipeline.tflite import read_ends, write_tflite

_CHECK_BATCHES = (1, 3)  # the batch is dynamic: both must run
_FLOAT_TOLERANCE = 1e-4  # of the largest logit; kernels sum in another order than torch
# output steps: runtimes round some sums the other way, and deep networks carry that on; a wrong writer is far off
_INT8_MEAN_STEPS, _INT8_MOST_STEPS = 1.0, 16.0
_CHECK_RUNTIME: dict[FileFormat, RuntimeName] = {"onnx": "onnxruntime", "tflite": "litert"}


@stage(version=1)
def export(work: Work, *, name: str, checkpoint: Checkpoint, quantized: Quantized) -> ExportSet:
    """Write, check and store the files.

    Each file passes its format's checker, is written twice with the same bytes, loads in its runtime, runs with two
    batch sizes and gives what torch gives.  Raises UnsupportedOpError (operation, layer, what to do) for what the
    writers do not know, ModelError when a written file does not compute what the network computes.
    """
    shape = checkpoint.network.input_shape
    folded = fold(restore_float(checkpoint, work.store), shape)
    networks: list[tuple[Precision, fx.GraphModule, nn.Module]] = [("fp32", folded, folded)]
    if quantized.method != "none":
        prepared = restore_prepared(quantized, work.store)
        networks.append(("int8", prepared, freeze(prepared)))
    files: list[Exported] = []
    work.progress.start("export", 2 * len(networks))
    for precision, graph, reference in networks:
        model = write_onnx(graph, name=name)
        contents: dict[FileFormat, bytes] = {"onnx": to_bytes(model), "tflite": write_tflite(model)}
        if contents != {"onnx": to_bytes(write_onnx(graph, name=name)), "tflite": write_tflite(model)}:
            raise ModelError("writing the same network twice gave different bytes", where="export")
        ends: dict[FileFormat, tuple[TensorSpec, TensorSpec]] = {
            "onnx": (_tensor_spec(model.graph.input[0]), _tensor_spec(model.graph.output[0])),
            "tflite": read_ends(contents["tflite"]),
        }
        for file_format, content in contents.items():
            exported = Exported(
                key=f"{file_format}-{precision}",
                file=work.store.put(content),
                filename=_filename(name, precision, file_format, quantized.weight_bits),
                format=file_format,
                precision=precision,
                size_bytes=len(content),
                input=ends[file_format][0],
                output=ends[file_format][1],
                opset=model.opset_import[0].version if file_format == "onnx" else None,
                float_ops=float_reasons(graph) if precision == "int8" else (),
            )
            _check(work, exported, reference, shape)
            files.append(exported)
            work.progress.advance()
    return ExportSet(weight_bits=quantized.weight_bits, files=tuple(files), layers=layer_costs(folded))


def _filename(name: str, precision: Precision, file_format: FileFormat, weight_bits: int) -> str:
    width = "-w7" if precision == "int8" and weight_bits == 7 else ""
    return f"{name}.{precision}{width}.{file_format}"


def _tensor_spec(value: onnx.ValueInfoProto) -> TensorSpec:
    dimensions = value.type.tensor_type.shape.dim
    return TensorSpec(
        name=value.name,
        dtype="float32",
        shape=tuple(None if side.dim_param else side.dim_value for side in dimensions),
    )


def _check(work: Work, exported: Exported, reference: nn.Module, shape: tuple[int, ...]) -> None:
    """Run the stored file with two batch sizes and compare with torch."""
    runtime = _CHECK_RUNTIME[exported.format]
    missing = unavailable(runtime)
    if missing:
        work.progress.say(f"{exported.key} not checked: {runtime} {missing}")
        return
    session = open_session(work.store.path(exported.file), runtime, threads=1)
    for batch in _CHECK_BATCHES:
        inputs = np.random.default_rng(batch).standard_normal((batch, *shape), np.float32)
        with torch.no_grad():
            wanted = reference(torch.from_numpy(inputs)).numpy()
        got = session.run(inputs)
        step = session.output_scale
        if step is None and exported.precision == "int8":  # a float layer makes the output of integers
            step = float(np.ptp(wanted)) / (ACTIVATION_MAX - ACTIVATION_MIN)
        if got.shape != wanted.shape or not _close(got, wanted, step):
            raise ModelError(
                f"the written file computes something else than the network: largest difference "
                f"{np.abs(got - wanted).max():.3g} of {np.abs(wanted).max():.3g} (batch {batch}, {session.label})",
                where=exported.filename,
                remedy="this is a bug in karui's writers; please report it with the network file",
            )


def _close(got: Floats, wanted: Floats, step: float | None) -> bool:
    difference = np.abs(got - wanted)
    if step is None:
        return bool(difference.max() <= _FLOAT_TOLERANCE * max(1.0, np.abs(wanted).max()))
    return bool(difference.mean() <= _INT8_MEAN_STEPS * step and difference.max() <= _INT8_MOST_STEPS * step)
