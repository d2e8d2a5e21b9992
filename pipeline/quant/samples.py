"""The calibration samples as a network sees them: what ranges are measured on and files are checked with."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from pipeline.data.calibration import calibration_indices
from pipeline.data.source import Dataset, everything
from pipeline.declare.card import DatasetCard
from pipeline.graph.ends import apart, joined_arrays
from pipeline.graph.kinds import compute_nodes
from pipeline.onboard.arrays import Arrays, Signature, TensorSpec, concatenated
from pipeline.onboard.frontend import Frontend, prepare
from pipeline.onboard.stepping import steps
from pipeline.quant.raw import Values, values_of_bytes

_FEWEST = 8


def calibration_inputs(
    dataset: Dataset, frontend: Frontend, network: nn.Module | None = None, *, most: int | None = None
) -> Tensor:
    """Return the calibration samples, prepared, (n, …): all, or at most so many, spread over them.

    Several inputs lie side by side, as networks take them (``graph.ends``).  Of sequences all steps are samples, each
    with the state that the float ``network`` has by then.
    """
    inputs: Arrays = prepare(calibration_raw(dataset, most=most), frontend)
    if dataset.card.steps and network is not None:
        inputs = _unrolled(dataset.card, network, inputs)
    found = np.ascontiguousarray(joined_arrays(inputs), np.float32)
    if most is not None and len(found) > most:
        found = found[_spread(len(found), most)]
    return torch.from_numpy(found)


def _unrolled(card: DatasetCard, network: nn.Module, inputs: Arrays) -> Arrays:
    """Return sequences (n, T, …) as steps (n * T, …)."""
    outputs = tuple(TensorSpec(name, "float32", shape, "") for name, shape in card.outputs.items())
    signature = Signature((), outputs, card.carried)

    @torch.no_grad()
    def predict(now: Arrays) -> Arrays:
        return apart(outputs, network.eval()(torch.from_numpy(joined_arrays(now))).numpy())

    return concatenated([now for now, _ in steps(predict, signature, inputs)])


def _spread(count: int, most: int) -> NDArray[np.int64]:
    return np.linspace(0, count - 1, most).astype(np.int64)


def calibration_raw(dataset: Dataset, *, most: int | None = None) -> Arrays:
    """Return the same samples as they are before preprocessing, (n, …) of each input."""
    indices = calibration_indices(dataset)
    if most is not None and len(indices) > most:
        indices = indices[_spread(len(indices), most)]
    return dataset.train.read(indices).inputs


def some_of(inputs: Tensor, graph: fx.GraphModule, *, most: int, values: int) -> Tensor:
    """Return the first of the samples (N, …): as many as have about so many values in all layers together."""
    of_a_sample = sum(math.prod(node.meta["shape"][1:]) for node in compute_nodes(graph))
    return inputs[: max(_FEWEST, min(most, values // max(1, of_a_sample)))]


def values_of(dataset: Dataset, frontend: Frontend) -> Values | None:
    """Return what the only input makes of every byte in every channel, (256, C); None where it is made of no bytes."""
    samples = dataset.train.read(everything(dataset.train)[:1]).inputs
    if len(samples) != 1:
        return None
    ((name, raw),) = samples.items()
    if raw.dtype != np.uint8 or raw.ndim < 2:
        return None
    return values_of_bytes(frontend.get(name, ()), raw.shape[1], raw.ndim - 2)
