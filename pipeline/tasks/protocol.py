"""What every task is: the protocol that a module of ``pipeline.tasks`` satisfies, and what tasks share.

Shapes: N samples of a split, n of them at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.evidence import Answers, Comparison, Figure, Interval, Metric
from pipeline.artifacts.networks import Digest
from pipeline.data.source import INPUT, Source, Wanted, everything
from pipeline.declare.card import DatasetCard
from pipeline.declare.recipe import TrainSpec
from pipeline.errors import DataError
from pipeline.onboard.about import Output
from pipeline.onboard.arrays import Arrays, Predict, Signature, TensorSpec, concatenated

Prepare = Callable[[Arrays], Arrays]  # raw inputs → what the network sees
Put = Callable[[NDArray[Any]], Digest]  # keeps an array in the store

OUTPUT = "output"  # the name of the only output of most networks
_AXES = {1: "F", 2: "CT", 3: "CHW"}  # of an input by its number of axes


@dataclass(frozen=True, kw_only=True)
class Update:
    """One optimizer's step on a batch.  One for all tasks but those that train two networks against each other.

    ``parameters``: nn.Module → its nn.Parameters; ``loss``: (nn.Module, inputs, wanted) → scalar Tensor, where
    ``inputs`` is what the network sees (a Tensor, or a dict of them where it has several inputs) and ``wanted`` a dict
    of Tensors, named as ``Source`` names them.
    """

    parameters: Callable[[Any], Iterable[Any]]
    loss: Callable[[Any, Any, Mapping[str, Any]], Any]


class Task(Protocol):
    """tasks/NAME.py."""

    METRIC: Metric
    OTHERS: tuple[Metric, ...]  # further metrics that it measures: limits may name them
    WANTED: Wanted

    def signature(self, card: DatasetCard, classes: tuple[str, ...], wanted: tuple[int, ...], /) -> Signature:
        """Say what the card's data asks of a network; ``wanted``: the shape of one sample's label.

        Raises ConfigError for a card that this task cannot be meant with.
        """

    def updates(self, plan: TrainSpec, /, *, teacher: Any = None, weight: float = 0.0) -> tuple[Update, ...]:
        """Say how to train.

        With a ``teacher`` (nn.Module in evaluation mode) a share ``weight`` of the loss is the distance to its outputs:
        1 uses no labels.
        """

    def exported(self, network: Any, /) -> Any:
        """Return the part of the network that ships: itself, or the generator."""

    def answer(
        self, predict: Predict, source: Source, prepare: Prepare, /, *, chosen: Mapping[str, float] | None = None
    ) -> Answers:
        """Use a network on a split.

        Given a function and not its outputs: a sequence is decoded step by step, a controller acts in closed loop.
        ``batched`` is the body of all that need one call per batch.  ``chosen``: what ``choose`` returned.
        """

    def choose(self, answers: Answers, source: Source, /) -> Mapping[str, float]:
        """Return settings of the decision, found on the validation split (a threshold); {} where there are none."""

    def interval(self, answers: Answers, source: Source, /) -> Interval:
        """Return the metric's value with its 95 % interval."""

    def baselines(self, source: Source, /) -> Mapping[str, float]:
        """Return the metric's values that are reached without looking at the inputs, by name."""

    def legacy_names(self, comparison: Comparison, /) -> Mapping[str, float]:
        """Return the comparison's numbers under further names that ``--json`` has always had; {} for newer tasks."""

    def compare(self, first: Answers, second: Answers, source: Source, /) -> Comparison:
        """Compare the float reference with another way on the same samples, paired."""

    def figures(
        self,
        answers: Mapping[str, Answers],
        source: Source,
        classes: tuple[str, ...],
        put: Put,
        /,
    ) -> tuple[Figure, ...]:
        """Return what a person wants to see of it.

        ``answers``: title → answers, the float reference first, then (if there is one) the int8 file that is looked at.
        """

    def printing(self, output: Output, chosen: Mapping[str, float], /) -> tuple[str, ...]:
        """Return lines of Python that print what y (1, …), the output for one sample as real numbers, means.

        They know ``np`` and ``labels``, a list.  ``chosen``: what ``choose`` returned.
        """


def batched(predict: Predict, source: Source, prepare: Prepare, portion: int = 512) -> Arrays:
    """Return the outputs (N, …) of all samples in order; ``portion`` of them are read and run at once.

    Raises ValueError for a source without samples.
    """
    indices = everything(source)
    portions = (indices[start : start + portion] for start in range(0, len(indices), portion))
    return concatenated([predict(prepare(source.read(some).inputs)) for some in portions])


def labels_of(source: Source, wanted: Wanted) -> NDArray[Any]:
    """Return what all samples are labelled with, (N, …).  Raises DataError where they are not labelled with that."""
    labels = source.wanted(everything(source))
    if wanted not in labels:
        raise DataError(
            f"the samples have no '{wanted}' label",
            remedy="give them labels, or name the task that their labels are for in the card: task = …",
        )
    return labels[wanted]


def input_spec(card: DatasetCard) -> TensorSpec:
    """Return the only input of a network for the card's samples."""
    shape = card.input.shape
    return TensorSpec(INPUT, "float32", shape, _AXES[len(shape)])


def output_spec(shape: tuple[int, ...], axes: str) -> TensorSpec:
    """Return the only output of a network, of this shape without the batch."""
    return TensorSpec(OUTPUT, "float32", shape, axes)


def all_parameters(network: Any) -> Iterable[Any]:
    """Return all nn.Parameters of an nn.Module: what most tasks train."""
    parameters: Iterable[Any] = network.parameters()
    return parameters


def mean_of(score: NDArray[np.float64], counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean of ``score`` (N,) in each resample (B,); ``counts`` (B, N) says how often each is drawn."""
    means: NDArray[np.float64] = counts @ score / counts.sum(1)
    return means
