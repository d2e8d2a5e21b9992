"""check: before any training, whether a network can go all the way: train, prune, quantize, export, run.

Shapes: N calibration samples.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, fx, nn

from pipeline.artifacts.networks import DataFacts, DataRef, NetworkCheck, NetworkRef
from pipeline.data.load import load
from pipeline.declare.recipe import QuantizeSpec
from pipeline.errors import ModelError, UnsupportedOpError
from pipeline.graph.costs import layer_costs
from pipeline.graph.ends import takes_joined
from pipeline.graph.kinds import kind_of, module_of, output_node
from pipeline.networks.build import build_network, check_training_step, head_name
from pipeline.networks.from_torch import folded_graph
from pipeline.networks.onnx.modules import OnnxNetwork
from pipeline.networks.own_code import line_in
from pipeline.networks.pruning import plan
from pipeline.networks.weights import fit_start
from pipeline.quant.calibrate import calibrate
from pipeline.quant.prepare import freeze, prepare
from pipeline.quant.samples import calibration_inputs
from pipeline.runs.run import Work, stage
from pipeline.runs.store import write_atomic
from pipeline.runtimes.written import CHECK_SAMPLES, check_file, limits_of, write
from pipeline.tasks import named
from pipeline.training.devices import using_threads

_SHARE = 0.3  # of the channels, in a trial of pruning
_WEIGHT_BITS = 8
_SQUASHING = ("Softmax", "Sigmoid")
_THROUGH_CROSS_ENTROPY = ("class", "mask")  # what is wanted of such tasks


@stage(version=1)
def check(
    work: Work,
    *,
    data: DataRef,
    facts: DataFacts,
    network: NetworkRef,
    pruned: bool,
    quantized: bool,
    start_network: NetworkRef | None,
) -> NetworkCheck:
    """Take the untrained network through every step that may refuse it, and run its files; nothing is kept.

    ``pruned``, ``quantized``: whether the recipe asks for these steps.  ``start_network``: whose weights it starts
    from, before that one is trained.

    Raises ModelError and UnsupportedOpError as those steps do, with the line of the user's file where one is known.
    """
    work.progress.start("check", 2 + quantized + pruned)
    with using_threads(1), torch.random.fork_rng(devices=[]):
        module = build_network(network, seed=0)
        check_training_step(module, network)
        _check_ends(module, network)
        if start_network is not None:
            _check_start(module, network, start_network)
        module.eval()
        work.progress.advance()
        inputs = calibration_inputs(load(data), facts.frontend, module, most=CHECK_SAMPLES)
        with _refused_by(network):
            folded = folded_graph(module, network.input_shape)
            _check_files(work, folded, folded, inputs, network)
            work.progress.advance()
            if quantized:
                prepared = prepare(folded, weight_bits=_WEIGHT_BITS)
                calibrate(prepared, inputs, QuantizeSpec(calibration="min-max"))
                _check_files(work, prepared.eval(), freeze(prepared), inputs, network)
                work.progress.advance()
            if pruned:
                plan(module, network.input_shape, channel_share=_SHARE, round_to=1)
                work.progress.advance()
    costs = layer_costs(folded)
    hints = (*_hints(folded, data), *_read_from(module, network))
    for hint in hints:
        work.progress.say(f"check: {hint}")
    return NetworkCheck(layers=len(costs), parameters=sum(cost.parameters for cost in costs), hints=hints)


def _check_ends(module: nn.Module, network: NetworkRef) -> None:
    """Refuse several inputs or outputs of a network in PyTorch: its files would have one of each."""
    inputs, outputs = network.signature.inputs, network.signature.outputs
    for what, specs in (("inputs", inputs), ("outputs", outputs)):
        if len(specs) > 1 and not takes_joined(module):
            raise UnsupportedOpError(
                f"a network with {len(specs)} {what} ({', '.join(spec.name for spec in specs)}) cannot be written as a "
                "file",
                where="network",
                remedy="give it one, and take it apart in forward(); or export the network as .onnx and name that file",
            )


def _hints(folded: fx.GraphModule, data: DataRef) -> Iterator[str]:
    """Say that training through cross-entropy squashes what the network squashes at its own end."""
    node = output_node(folded)
    while node.op == "call_module" and kind_of(module_of(node)) == "Reshape" and isinstance(node.args[0], fx.Node):
        node = node.args[0]
    kind = kind_of(module_of(node)) if node.op == "call_module" else ""
    if kind in _SQUASHING and named(data.card.task).WANTED in _THROUGH_CROSS_ENTROPY:
        yield (
            f"the network ends in a {kind.lower()} (layer {node.meta['label']}), and training through cross-entropy "
            "applies one of its own: it learns slowly and never gets sure; leave the layer out and return plain scores"
        )


def _read_from(module: nn.Module, network: NetworkRef) -> Iterator[str]:
    """Say what was found when a network in an ONNX file was compared with its file."""
    if isinstance(module, OnnxNetwork):
        yield f"what was read from {network.path.name} {module.said}"


def _check_start(module: nn.Module, network: NetworkRef, start: NetworkRef) -> None:
    fit_start(
        module.state_dict(),
        build_network(start, seed=0).state_dict(),
        head_name(module, network.input_shape),
        str(start.path),
    )


def _check_files(work: Work, graph: fx.GraphModule, reference: nn.Module, inputs: Tensor, network: NetworkRef) -> None:
    """Write both files and run them in every runtime that is here."""
    written = write(graph, reference, name="check", signature=network.signature)
    limits = limits_of(written, inputs)
    for file_format, content in written.contents.items():
        path = work.scratch / f"check.{file_format}"
        write_atomic(path, content)
        check_file(written, file_format, path, inputs, limits, signature=network.signature)
        path.unlink()


@contextlib.contextmanager
def _refused_by(network: NetworkRef) -> Iterator[None]:
    """Name the user's file in a refusal, and the line of it that raised, if one did."""
    path = network.path
    try:
        yield
    except ModelError as error:
        number, line = line_in(error.__cause__ or error, path)
        place = f"{path}:{number}" if number else str(path)
        raise type(error)(
            error.what,
            where=error.where if error.where.startswith(str(path)) else ": ".join(filter(None, (place, error.where))),
            remedy="\n  ".join(filter(None, (line, error.remedy))),
        ) from error
    except Exception as error:
        number, line = line_in(error, path)
        raise ModelError(
            f"the network cannot be traced: {type(error).__name__}: {error}",
            where=f"{path}:{number}" if number else str(path),
            remedy="\n  ".join(filter(None, (line, "write its forward() with layers of torch.nn"))),
        ) from error
