"""check: before any training, whether a network can go all the way: train, prune, quantize, export."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import torch

from pipeline.artifacts import NetworkCheck, NetworkRef
from pipeline.errors import ModelError
from pipeline.network import build_network, check_training_step, line_in
from pipeline.pruning import plan
from pipeline.quant.calibrate import calibrate
from pipeline.quant.costs import layer_costs
from pipeline.quant.prepare import fold, prepare
from pipeline.quant.to_onnx import write_onnx
from pipeline.run import Work, stage
from pipeline.spec import QuantizeSpec
from pipeline.tflite import write_tflite

_SAMPLES = 4
_SHARE = 0.3  # of the channels, in a trial of pruning


@stage(version=1)
def check(_work: Work, *, network: NetworkRef, pruned: bool, quantized: bool) -> NetworkCheck:
    """Take the untrained network through every step that may refuse it; nothing is kept.

    ``pruned``, ``quantized``: whether the recipe asks for these steps.

    Raises ModelError and UnsupportedOpError as those steps do, with the line of the user's file where one is known.
    """
    module = build_network(network, seed=0)
    check_training_step(module, network)
    module.eval()
    with _refused_by(network.path):
        folded = fold(module, network.input_shape)
        write_tflite(write_onnx(folded, name="check"))
        if quantized:
            prepared = prepare(folded, weight_bits=8)
            noise = torch.randn(_SAMPLES, *network.input_shape, generator=torch.Generator().manual_seed(0))
            calibrate(prepared, noise, QuantizeSpec(calibration="min-max"))
            write_tflite(write_onnx(prepared, name="check"))
        if pruned:
            plan(module, network.input_shape, channel_share=_SHARE, round_to=1)
    costs = layer_costs(folded)
    return NetworkCheck(layers=len(costs), parameters=sum(cost.parameters for cost in costs))


@contextlib.contextmanager
def _refused_by(path: Path) -> Iterator[None]:
    """Name the user's file in a refusal, and the line of it that raised, if one did."""
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
