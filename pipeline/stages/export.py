"""export: the two files (ONNX and TFLite) of one set of weights, from one graph and one table of quantization rules."""

from __future__ import annotations

import functools
import importlib.metadata

import torch
from torch import fx, nn

from pipeline import tasks
from pipeline.artifacts.files import Exported, ExportSet, FileFormat, Variant
from pipeline.artifacts.networks import DataFacts, DataRef
from pipeline.artifacts.training import Checkpoint, Quantized
from pipeline.data.load import load
from pipeline.data.raw import raws_of
from pipeline.data.source import Dataset
from pipeline.declare.recipe import ExportSpec
from pipeline.declare.words import Precision
from pipeline.errors import ModelError
from pipeline.graph.costs import layer_costs
from pipeline.networks.checkpoints import restore_float, restore_prepared
from pipeline.networks.from_torch import folded_graph
from pipeline.onboard.about import NUMBERS, About, Input, Output
from pipeline.onboard.arrays import Signature
from pipeline.quant.prepare import float_reasons, freeze
from pipeline.quant.raw import takes_bytes
from pipeline.quant.samples import calibration_inputs, calibration_raw, values_of
from pipeline.runs.run import Work, stage
from pipeline.runtimes.ends import Ends
from pipeline.runtimes.written import CHECK_SAMPLES, check_file, limits_of, write
from pipeline.training.batches import hold
from pipeline.training.devices import using_threads
from pipeline.training.loop import evaluate

# between what weights reached in training and what they reach when they are restored: sums in another order (threads,
# a graphics card) move single samples over the edge
_RECALL_POINTS = 0.5


@stage(version=1)
def export(
    work: Work,
    *,
    name: str,
    data: DataRef,
    facts: DataFacts,
    weights: Checkpoint | Quantized,
    runtimes: dict[str, str],
    spec: ExportSpec | None = None,
    unpruned: bool = False,
) -> ExportSet:
    """Write, check and store the files: float ones of a checkpoint, int8 ones of a quantized network.

    Before, the restored network must reach on the validation split what its checkpoint says.  Each file passes its
    format's checker, is written twice with the same bytes, loads in its runtimes, runs with two batch sizes and gives
    what torch gives on calibration samples.  ``runtimes``: which there are here (name → version, or why not), for the
    key alone: a file that could not be checked is checked when its runtime is there.  ``spec``: what int8 files take;
    ``unpruned``: these weights are those before pruning, which others are compared with.

    Raises UnsupportedOpError (operation, layer, what to do) for what the writers do not know, ModelError when the
    restored network or a written file computes something else than what was trained.
    """
    del runtimes
    with using_threads(1):
        dataset = load(data)
        graph, reference = _restored(work, weights)
        _check_recall(reference, dataset, facts, weights)
        taking = None
        if isinstance(weights, Quantized) and spec is not None and spec.input == "uint8":
            taking = _taking_bytes(work, graph, dataset, facts)
        return _export(
            work,
            name,
            taking or graph,
            reference,
            data=data,
            dataset=dataset,
            facts=facts,
            weights=weights,
            unpruned=unpruned,
            bytes_in=taking is not None,
        )


def _taking_bytes(work: Work, graph: fx.GraphModule, dataset: Dataset, facts: DataFacts) -> fx.GraphModule | None:
    """Return the graph whose input's integers are raw bytes; None, and say why, where there is none."""
    values = values_of(dataset, facts.frontend)
    found = None if values is None else takes_bytes(graph, values)
    if found is None:
        why = "raw samples are no bytes" if values is None else "they are not read by integers, or clipped"
        work.progress.say(f"the int8 files take prepared floats, not uint8 as export.input says: {why}")
    return found


def _restored(work: Work, weights: Checkpoint | Quantized) -> tuple[fx.GraphModule, nn.Module]:
    """Return the graph that is written, and the network that its files are compared with."""
    if isinstance(weights, Quantized):
        prepared = restore_prepared(weights, work.store)
        return prepared, freeze(prepared)
    folded = folded_graph(restore_float(weights, work.store), weights.network.input_shape)
    return folded, folded


def _check_recall(network: nn.Module, dataset: Dataset, facts: DataFacts, weights: Checkpoint | Quantized) -> None:
    checkpoint = weights.checkpoint if isinstance(weights, Quantized) else weights
    task, val = tasks.named(dataset.card.task), hold(dataset.val, facts.frontend, torch.device("cpu"))
    signature, metric = checkpoint.network.signature, checkpoint.metric
    found = evaluate(network, val, task, signature=signature).value
    if abs(metric.worse_by_points(found, checkpoint.val_metric)) <= _RECALL_POINTS + 100 / max(len(val), 1):
        return
    raise ModelError(
        f"the network file, or something that it imports or reads, computes something else than when it was trained: "
        f"validation {metric.name} {metric.text(checkpoint.val_metric, 2)} then, {metric.text(found, 2)} now",
        where=str(checkpoint.network.path),
        remedy="undo the change, or train again: run the same command with --fresh",
    )


def _export(
    work: Work,
    name: str,
    graph: fx.GraphModule,
    reference: nn.Module,
    *,
    data: DataRef,
    dataset: Dataset,
    facts: DataFacts,
    weights: Checkpoint | Quantized,
    unpruned: bool,
    bytes_in: bool,
) -> ExportSet:
    precision: Precision = "int8" if isinstance(weights, Quantized) else "fp32"
    bits = weights.weight_bits if isinstance(weights, Quantized) else 32
    checkpoint = weights.checkpoint if isinstance(weights, Quantized) else weights
    signature = checkpoint.network.signature
    inputs = calibration_inputs(dataset, facts.frontend, reference, most=CHECK_SAMPLES)
    raw = calibration_raw(dataset, most=CHECK_SAMPLES)[signature.input.name] if bytes_in else None
    describe = functools.partial(
        _about, name=name, data=data, dataset=dataset, signature=signature, prepared=not bytes_in
    )
    written = write(graph, reference, name=name, signature=signature, describe=describe, bytes_in=bytes_in)
    limits = limits_of(written, inputs)
    files: list[Exported] = []
    work.progress.start("export", len(written.contents))
    for file_format, content in written.contents.items():
        variant = Variant(format=file_format, precision=precision, weight_bits=bits, unpruned=unpruned)
        file, filename = work.store.put(content), _filename(name, variant, file_format)
        try:
            path = work.store.path(file)
            checked = check_file(written, file_format, path, inputs, limits, signature=signature, raw=raw)
        except ModelError as error:
            where = ": ".join(filter(None, (filename, error.where)))
            raise type(error)(error.what, where=where, remedy=error.remedy) from error
        if checked is None:
            work.progress.say(f"{filename} could not be checked: none of its runtimes is usable here")
        files.append(
            Exported(
                variant=variant,
                file=file,
                filename=filename,
                size_bytes=len(content),
                signature=signature,
                steps=written.steps,
                opset=written.opset if file_format == "onnx" else None,
                float_ops=float_reasons(graph) if precision == "int8" else (),
                about=written.abouts[file_format],
                checked_in=checked,
            )
        )
        work.progress.advance()
    return ExportSet(precision=precision, weight_bits=bits, files=tuple(files), layers=layer_costs(graph))


def _about(ends: Ends, *, name: str, data: DataRef, dataset: Dataset, signature: Signature, prepared: bool) -> About:
    """Return what a file says about itself to whoever gets it; ``prepared``: it does not take raw values."""
    card, raws = dataset.card, raws_of(dataset)
    numbers = tasks.named(card.task).WANTED in ("number", "output")
    return About(
        recipe=name,
        task=card.task,
        karui=importlib.metadata.version("karui"),
        data=card.name,
        data_sha256=data.digest,
        labels=dataset.numbers if numbers else dataset.classes,
        inputs=tuple(
            Input(
                name=spec.name,
                axes=spec.axes,
                shape=spec.shape,
                raw=raws[spec.name],
                steps=dataset.frontend.get(spec.name, ()) if prepared else (),
                stored=stored,
            )
            for spec, stored in zip(signature.inputs, ends.inputs, strict=True)
        ),
        outputs=tuple(
            Output(
                name=spec.name,
                axes=spec.axes,
                shape=spec.shape,
                holds=NUMBERS if numbers else holds,
                times=card.target_divide if numbers else 1.0,
                stored=stored,
            )
            for spec, stored, holds in zip(signature.outputs, ends.outputs, ends.holds, strict=True)
        ),
    )


def _filename(name: str, variant: Variant, file_format: FileFormat) -> str:
    """``digits.fp32.onnx``, ``digits.int8.tflite``, ``digits.int8-w7.onnx``, ``digits.fp32-unpruned.onnx``."""
    narrow = f"-w{variant.weight_bits}" if variant.weight_bits not in (8, 32) else ""
    return f"{name}.{variant.precision}{narrow}{'-unpruned' if variant.unpruned else ''}.{file_format}"
