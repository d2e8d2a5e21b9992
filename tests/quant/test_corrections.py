"""What calibration sees and what is taken out of biases, by hand.

Shapes: N batch, C channels.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from pipeline.data.load import load
from pipeline.data.source import ArraySource, Dataset
from pipeline.declare.recipe import QuantizeSpec
from pipeline.graph.ops import Projection
from pipeline.onboard.frontend import StepCall
from pipeline.quant.calibrate import calibrate
from pipeline.quant.correct import correct_biases
from pipeline.quant.deployed import Deployed
from pipeline.quant.fakequant import QWeighted
from pipeline.quant.prepare import freeze, prepare
from pipeline.quant.samples import calibration_raw, values_of
from pipeline.quant.sums import Addend, _ties, _unit, exact_scale, exact_scales
from tests import learnable
from tests.graph.flat import chain

MIN_MAX = QuantizeSpec(calibration="min-max")


# ── biases ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("shape", "layer", "places"),
    [
        ((3,), nn.Linear(3, 4), (0,)),
        ((5, 3), Projection(3, 4), (0, 1)),  # channels lie last
        ((3, 6), nn.Conv1d(3, 4, 2), (0, 2)),
        ((3, 4, 4), nn.Conv2d(3, 4, 3, padding=1), (0, 2, 3)),
        ((3, 2, 3, 4), nn.Conv3d(3, 4, 2), (0, 2, 3, 4)),
    ],
    ids=["linear", "projection", "1d", "2d", "3d"],
)
@torch.no_grad()
def test_every_channels_mean_is_that_of_float(
    shape: tuple[int, ...], layer: nn.Module, places: tuple[int, ...]
) -> None:
    """But for half a step by which the bias was rounded before, and half by which it is now."""
    torch.manual_seed(0)
    folded, x = chain(shape, layer), torch.rand(64, *shape)
    prepared = prepare(folded, weight_bits=3)
    calibrate(prepared, x, MIN_MAX)
    (weighted,) = [module for module in prepared.modules() if isinstance(module, QWeighted)]
    inputs = weighted.input_quantizer(x)
    wanted = folded(x).mean(places)
    before = (weighted(inputs).mean(places) - wanted).abs()
    correct_biases(prepared, folded, x)
    after = (weighted(inputs).mean(places) - wanted).abs()
    step = weighted.weight_scale() * weighted.input_quantizer.params.scale
    assert bool((after <= step + 1e-5).all())
    assert float(before.max()) > 10 * float(after.max())


@torch.no_grad()
def test_a_chosen_epoch_is_judged_by_its_integers() -> None:
    folded, x = chain((3,), nn.Linear(3, 2)), torch.tensor([[1.0, -1.0, 0.5], [0.3, 0.2, -0.7]])
    prepared = prepare(folded, weight_bits=8)
    calibrate(prepared, x, MIN_MAX)
    network = Deployed(prepared).eval()
    first = network(x)
    assert torch.equal(first, freeze(prepared)(x))
    next(module for module in prepared.modules() if isinstance(module, QWeighted)).weight.mul_(-1)
    assert torch.equal(network(x), first)  # nobody said that the weights moved
    network.train()(x)
    assert not torch.equal(network.eval()(x), first)


# ── samples ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return load(learnable.dataset(tmp_path_factory.mktemp("data")))


def holding(dataset: Dataset, **inputs: NDArray[np.generic]) -> Dataset:
    labels = np.arange(len(next(iter(inputs.values())))) % 4
    train = ArraySource(inputs=dict(inputs), labels={"class": labels}, strata=labels)
    return dataclasses.replace(dataset, train=train)


def test_bytes_become_what_their_preprocessing_makes_of_each(dataset: Dataset) -> None:
    pictures = holding(dataset, picture=np.zeros((8, 2, 3, 3), np.uint8))
    plain = values_of(pictures, {})
    assert plain is not None
    assert plain.tolist() == [[each, each] for each in range(256)]
    steps = {"picture": (StepCall("normalize", {"divide": 255.0, "mean": [0.5, 0.0], "std": [0.25, 2.0]}),)}
    found = values_of(pictures, steps)
    assert found is not None
    assert found[[0, 51, 255]].tolist() == [[-2, 0], pytest.approx([-1.2, 0.1]), [2, 0.5]]


def test_what_is_made_of_no_bytes_has_no_such_values(dataset: Dataset) -> None:
    pictures, numbers = np.zeros((8, 1, 3, 3), np.uint8), np.zeros((8, 3), np.float32)
    assert values_of(holding(dataset, numbers=numbers), {}) is None
    assert values_of(holding(dataset, one=pictures, two=pictures), {}) is None
    assert values_of(holding(dataset, single=np.zeros(8, np.uint8)), {}) is None
    assert values_of(holding(dataset, row=np.zeros((8, 5), np.uint8)), {}) is not None


@pytest.mark.parametrize("most", [1, 2, 7])
def test_few_samples_are_spread_over_all(dataset: Dataset, most: int) -> None:
    (every,), (few,) = (calibration_raw(dataset, most=limit).values() for limit in (None, most))
    places = [int(place * (len(every) - 1) / max(most - 1, 1)) for place in range(most)]
    assert np.array_equal(few, every[places])


# ── sums ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("largest", "unit"), [(0.3, 2.0**-15), (1.0, 2.0**-15), (1.001, 2.0**-14), (2.0, 2.0**-14), (256.0, 2.0**-7)]
)
def test_ratios_keep_fifteen_bits(largest: float, unit: float) -> None:
    assert _unit(largest) == unit


@pytest.mark.parametrize(
    ("addends", "units_of_one", "ties"),
    [
        ([[0, 1, 2, 3]], 4, 1),
        ([[2, 6, -2]], 4, 3),
        ([[0, 1], [1, 2]], 4, 2),  # 0 + 2, 1 + 1
        ([[0, 4], [0, 4]], 4, 0),
        ([[1, 1], [1, 1]], 4, 4),
    ],
)
def test_ties_are_sums_half_way_between_two_steps(addends: list[list[int]], units_of_one: int, ties: int) -> None:
    assert _ties([np.array(each) for each in addends], units_of_one) == ties


@pytest.mark.parametrize(
    ("scale", "total", "largest", "wanted"),
    [
        (0.5, 1.0, 1.0, 0.5),
        (0.5 + 2**-20, 1.0, 1.0, 0.5),  # to the nearest 2^-15
        (0.5 + 0.75 * 2**-15, 1.0, 1.0, 0.5 + 2**-15),
        (0.5 + 0.75 * 2**-15, 1.0, 4.0, 0.5),  # beside a ratio of four parts are coarser
        (2.0**-9, 1.0, 1.0, 2.0**-9),  # too few parts: it stays
        (2.0**-7 + 2**-20, 1.0, 1.0, 2.0**-7),
        (300.0, 1.0, 300.0, 300.0),  # more than kernels take
        (0.3, 1e-50, 0.3, 0.3),
    ],
)
def test_the_nearest_exact_scale(scale: float, total: float, largest: float, wanted: float) -> None:
    assert exact_scale(scale, total=total, largest=largest) == wanted


def test_an_addend_alone_moves_until_nothing_is_tied() -> None:
    steps = np.arange(256)
    (found,) = exact_scales([Addend(scale=0.5, steps=steps)], total=1.0)
    units = round(found * 2**15)
    assert 0 < abs(units - 2**14) <= 16  # with one half every odd integer is tied
    assert not np.any(steps * units % 2**15 == 2**14)
