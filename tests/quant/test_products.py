"""Products of quantized values: with the scales that are settled, every kernel rounds all pairs alike.

Shapes: (256, 256) for all pairs of integers.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.declare.recipe import QuantizeSpec
from pipeline.graph.params import QuantParams
from pipeline.networks.from_torch import folded_graph
from pipeline.quant.calibrate import bound_scales, calibrate
from pipeline.quant.fakequant import ActivationQuantizer
from pipeline.quant.frozen import FrozenProduct, FrozenQuantizer
from pipeline.quant.prepare import freeze, prepare
from pipeline.quant.products import untied_scale, untied_unit
from tests.quant.test_sums import BYTES, SCALES, SHAPE, ZEROS, in_onnxruntime, real, same_in_both

# with this result scale 16 * 56 products are 93.4999... steps: one kernel rounds that up with a zero point of 128
UNSURE = (0.0371, 1 / 256, float(np.float32(16 * 56 * 0.0371 / 256 / 93.499995)))


def rounded_first(a: NDArray[np.uint8], b: NDArray[np.uint8], grids: tuple[QuantParams, ...]) -> NDArray[np.float32]:
    """Multiply as XNNPACK does (``xnn_init_qs8_mul_minmax_params``): rounded, and then the zero point is added."""
    first, second, result = grids
    factor = np.float32(first.scale) * np.float32(second.scale) / np.float32(result.scale)
    products = (a.astype(np.int32) - first.zero_point) * (b.astype(np.int32) - second.zero_point)
    rounded = np.rint(products.astype(np.float32) * factor) + np.float32(result.zero_point)
    clamped: NDArray[np.float32] = np.minimum(np.maximum(rounded, np.float32(0)), np.float32(255))
    return clamped


def kernels(raw: tuple[float, float, float], zeros: tuple[int, int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Return what frozen integers, ONNX Runtime and XNNPACK give for all pairs of integers."""
    grids = tuple(QuantParams.of(scale, zero) for scale, zero in zip(raw, zeros, strict=True))
    first, second, result = grids
    a, b = (each.astype(np.uint8) for each in np.meshgrid(BYTES, BYTES))
    product = FrozenProduct(first, second, result=result)
    return (
        FrozenQuantizer(result)(product(real(a, first), real(b, second))),
        in_onnxruntime("QLinearMul", [(a, first), (b, second)], result),
        real(rounded_first(a, b, grids), result),
    )


@settings(max_examples=30, deadline=None)
@given(SCALES, SCALES, st.floats(16, 200, width=32), st.tuples(ZEROS, ZEROS, ZEROS))
def test_kernels_that_round_before_or_after_the_zero_point_agree(
    a: float, b: float, steps: float, zeros: tuple[int, int, int]
) -> None:
    unit = float(np.float32(a) * np.float32(b))
    scale = untied_scale(float(np.float32(unit * steps)), unit=unit)
    assert scale == pytest.approx(unit * steps, rel=2**-11)
    frozen, onnxruntime, xnnpack = kernels((a, b, scale), zeros)
    assert torch.equal(frozen, onnxruntime)
    assert torch.equal(frozen, xnnpack)


def test_an_unsure_scale_is_moved_a_little_and_one_that_is_sure_stays() -> None:
    a, b, scale = UNSURE
    unit = float(np.float32(a) * np.float32(b))
    assert not torch.equal(*kernels(UNSURE, (0, 0, 128))[1:])
    moved = untied_scale(scale, unit=unit)
    assert moved != scale
    assert moved == pytest.approx(scale, rel=2**-11)
    assert torch.equal(*kernels((a, b, moved), (0, 0, 128))[1:])
    assert untied_scale(moved, unit=unit) == moved


@settings(max_examples=30, deadline=None)
@given(SCALES, st.floats(0.25, 8, width=32), ZEROS, ZEROS)
def test_what_goes_over_to_another_grid_ties_nowhere(own: float, ratio: float, zero: int, other: int) -> None:
    scale = float(np.float32(own * ratio))
    unit = untied_unit(own, scale=scale)
    assert unit == pytest.approx(own, rel=2**-11)
    assert untied_unit(unit, scale=scale) == unit
    real_steps = (BYTES - zero) * (float(np.float32(unit)) / float(np.float32(scale)))
    assert np.abs(real_steps - np.floor(real_steps) - 0.5).min() > 2**-14
    divided = np.rint((np.float32(unit) * (BYTES - zero).astype(np.float32)) / np.float32(scale))
    scaled = np.rint((BYTES - zero).astype(np.float32) * (np.float32(unit) / np.float32(scale)) + np.float32(other))
    assert np.array_equal(divided + other, scaled)


class Gates(nn.Module):
    """Gated values, gated once more by a factor of each channel, and by a constant."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.stem, self.squeeze = nn.Conv2d(6, 48, 1), nn.Conv2d(48, 48, 1)
        self.last = nn.Conv2d(48, 6, 1)
        self.factor = nn.Parameter(torch.rand(1, 48, 1, 1) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.silu(self.stem(x))
        x = x * self.squeeze(x.mean((2, 3), keepdim=True)).sigmoid()
        result: Tensor = self.last(x * self.factor)
        return result


class Joined(nn.Module):
    """Values of different sizes side by side, twice, one within the other."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(6)
        self.layers = nn.ModuleList(nn.Conv2d(6, 6, 1) for _ in range(4))
        self.last = nn.Conv2d(24, 6, 1)
        with torch.no_grad():
            for size, layer in enumerate(self.layers):
                next(layer.parameters()).mul_(1 + 0.7 * size)

    def forward(self, x: Tensor) -> Tensor:
        first, *rest = (layer(x).relu() for layer in self.layers)
        inner = torch.cat([first, rest[0]], 1)
        result: Tensor = self.last(torch.cat([inner, nn.functional.max_pool2d(rest[1], 3, 1, 1), rest[2]], 1))
        return result


@torch.no_grad()
def test_joined_values_are_the_same_integers_in_both_runtimes() -> None:
    x = torch.randn(256, *SHAPE, generator=torch.Generator().manual_seed(1))
    graph = prepare(folded_graph(Joined().eval(), SHAPE), weight_bits=8)
    calibrate(graph, x[:32], QuantizeSpec(calibration="min-max"))
    assert same_in_both(graph.eval(), x) == (True, True)
    settled = [m for m in graph.modules() if isinstance(m, ActivationQuantizer) and float(m.settled)]
    assert len(settled) == 5  # four layers, and the inner join


@torch.no_grad()
def test_networks_with_gates_are_the_same_integers_in_both_runtimes() -> None:
    x = torch.randn(256, *SHAPE, generator=torch.Generator().manual_seed(1))
    graph = prepare(folded_graph(Gates().eval(), SHAPE), weight_bits=8)
    calibrate(graph, x[:32], QuantizeSpec(calibration="min-max"))
    assert same_in_both(graph.eval(), x) == (True, True)
    before = [module.scales[-1] for module in freeze(graph).modules() if isinstance(module, FrozenProduct)]
    assert len(before) == 3
    bound_scales(graph)
    assert before == [module.scales[-1] for module in freeze(graph).modules() if isinstance(module, FrozenProduct)]
