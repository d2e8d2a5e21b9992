"""LeakyReLU on integers: with scales and slopes that are settled, every kernel gives the same for all 256 inputs."""

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
from pipeline.quant.frozen import FrozenQuantizer
from pipeline.quant.leaky import QLeakyReLU, leaky_scale, leaky_slope, leaky_source
from pipeline.quant.prepare import freeze, prepare
from tests.quant.test_sums import BYTES, SCALES, SHAPE, ZEROS, in_onnxruntime, real, same_in_both

RATIOS = st.floats(0.25, 3, width=32)
SLOPES = st.sampled_from([0.2, 0.1, 0.01, 0.3, 11 / 48, -0.25])


def in_256ths(steps: NDArray[np.uint8], grids: tuple[QuantParams, QuantParams], slope: float) -> NDArray[np.int64]:
    """Compute as XNNPACK does (``xnn_init_qs8_lrelu_params``): integer multipliers, half up."""
    source, result = grids
    ratio = np.float32(source.scale) / np.float32(result.scale)
    above, below = (int(np.rint(np.float32(256) * each)) for each in (ratio, ratio * np.float32(slope)))
    moved = steps.astype(np.int64) - source.zero_point
    found: NDArray[np.int64] = (moved * np.where(moved >= 0, above, below) + 128) >> 8
    return np.clip(found + result.zero_point, 0, 255)


def kernels(grids: tuple[QuantParams, QuantParams], slope: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return what frozen integers, ONNX Runtime and XNNPACK give for every integer."""
    source, result = grids
    steps = BYTES.astype(np.uint8)
    return (
        FrozenQuantizer(result)(nn.LeakyReLU(slope)(real(steps, source))),
        in_onnxruntime("QLinearLeakyRelu", [(steps, source)], result, alpha=slope),
        real(in_256ths(steps, grids, slope), result),
    )


def check_kernels(source: float, scale: float, slope: float, zeros: tuple[int, int]) -> None:
    found = leaky_slope(slope, source=source, scale=scale)
    assert found == pytest.approx(slope, abs=0.5 / (256 * source / scale) + 1e-4)
    grids = QuantParams.of(source, zeros[0]), QuantParams.of(scale, zeros[1])
    frozen, onnxruntime, xnnpack = kernels(grids, found)
    assert torch.equal(frozen, onnxruntime)
    assert torch.equal(frozen, xnnpack)


@settings(max_examples=60, deadline=None)
@given(SCALES, RATIOS, SLOPES, st.tuples(ZEROS, ZEROS))
def test_kernels_agree_on_every_integer(source: float, ratio: float, slope: float, zeros: tuple[int, int]) -> None:
    scale = float(np.float32(source * ratio))
    moved = float(np.float32(leaky_scale(scale, source=source)))
    assert scale * (1 - 1e-5) <= moved <= scale * (1 + 1 / 64)
    assert leaky_scale(moved, source=source) == pytest.approx(moved, rel=1e-7)
    check_kernels(source, moved, slope, zeros)


@settings(max_examples=60, deadline=None)
@given(SCALES, RATIOS, SLOPES, st.tuples(ZEROS, ZEROS))
def test_they_do_where_the_input_moves(source: float, ratio: float, slope: float, zeros: tuple[int, int]) -> None:
    scale = float(np.float32(source * ratio))
    moved = float(np.float32(leaky_source(source, scale=scale)))
    assert source * (1 - 1e-5) <= moved <= source * (1 + 1 / 64)
    assert leaky_source(moved, scale=scale) == pytest.approx(moved, rel=1e-7)
    check_kernels(moved, scale, slope, zeros)


def test_as_it_is_written_kernels_do_not_agree() -> None:
    """Or all of this were for nothing."""
    grids = QuantParams.of(0.02, 128), QuantParams.of(0.013, 20)
    _, onnxruntime, xnnpack = kernels(grids, 0.01)
    assert not torch.equal(onnxruntime, xnnpack)


@pytest.mark.parametrize(("slope", "ratio"), [(0.001, 1 + 2**-18), (0.2, 1.003)])
def test_a_slope_below_half_a_256th_or_between_other_scales_stays(slope: float, ratio: float) -> None:
    assert leaky_slope(slope, source=0.02 * ratio, scale=0.02) == slope


class Leaky(nn.Module):
    """Residual and joined LeakyReLUs: results that a sum or a join has settled already."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.first, self.second, self.third = (nn.Conv2d(6, 6, 3, padding=1) for _ in range(3))
        self.last = nn.Conv2d(12, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = nn.functional.leaky_relu(self.first(x), 0.1)
        second = first + nn.functional.leaky_relu(self.second(first), 0.1)
        third = nn.functional.leaky_relu(self.third(second), 0.01)
        result: Tensor = self.last(torch.cat([third, second], 1))
        return nn.functional.leaky_relu(result, 0.2)


@torch.no_grad()
def test_a_network_of_them_is_the_same_integers_in_both_runtimes() -> None:
    x = torch.randn(256, *SHAPE, generator=torch.Generator().manual_seed(1))
    graph = prepare(folded_graph(Leaky().eval(), SHAPE), weight_bits=8)
    calibrate(graph, x[:32], QuantizeSpec(calibration="min-max"))
    assert same_in_both(graph.eval(), x) == (True, True)
    slopes = [module.slope for module in graph.modules() if isinstance(module, QLeakyReLU)]
    assert slopes == pytest.approx([0.1, 0.1, 0.01, 0.2], abs=0.5 / 256 * 2)
    assert all(found != asked for found, asked in zip(slopes, (0.1, 0.1, 0.01, 0.2), strict=True))
    frozen = [module for module in freeze(graph).modules() if isinstance(module, nn.LeakyReLU)]
    assert [module.negative_slope for module in frozen] == slopes
    before = [module.params.scale for module in graph.modules() if isinstance(module, ActivationQuantizer)]
    bound_scales(graph)
    assert before == [module.params.scale for module in graph.modules() if isinstance(module, ActivationQuantizer)]


@torch.no_grad()
def test_in_float_and_in_training_it_is_what_the_network_says() -> None:
    x = torch.randn(32, *SHAPE, generator=torch.Generator().manual_seed(1))
    graph = prepare(folded_graph(Leaky().eval(), SHAPE), weight_bits=8)
    calibrate(graph, x, QuantizeSpec(calibration="min-max"))
    leaky = next(module for module in graph.modules() if isinstance(module, QLeakyReLU))
    exact = nn.functional.leaky_relu(x, leaky.negative_slope)
    assert not torch.equal(leaky.eval()(x), exact)
    assert torch.equal(leaky.train()(x), exact)
