"""Properties of the quantization arithmetic, for any range and any weights."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pipeline.graph.params import symmetric
from pipeline.quant.fakequant import ActivationQuantizer, QLinear
from pipeline.quant.frozen import FrozenQuantizer
from pipeline.quant.sensitivity import sqnr_db

ranges = st.tuples(st.floats(-1e4, 1e4, width=32), st.floats(-1e4, 1e4, width=32)).map(sorted)
values = st.lists(st.floats(-2e4, 2e4, width=32), min_size=1, max_size=50)
# float32 has 24 bits: a quotient of up to 255 steps is known to about 2^-16 of a step
_ROUNDING = 1e-4


def quantizer(low: float, high: float) -> ActivationQuantizer:
    made = ActivationQuantizer().eval()
    made.set_range(low, high)
    return made


@given(ranges)
def test_zero_is_exact(span: list[float]) -> None:
    made = quantizer(*span)
    assert float(made(torch.zeros(1))) == 0.0


@given(ranges, values)
def test_values_inside_the_range_move_by_at_most_half_a_step(span: list[float], drawn: list[float]) -> None:
    made = quantizer(*span)
    scale, zero_point = made.scale_and_zero_point()
    x = torch.tensor(drawn)
    lowest, highest = (0 - zero_point) * scale, (255 - zero_point) * scale
    inside = (x >= lowest) & (x <= highest)
    moved = (made(x) - x).abs()[inside]
    assert bool((moved <= scale * (0.5 + _ROUNDING) + 1e-30).all())


@given(ranges, values)
def test_the_range_is_covered_and_what_lies_outside_is_clamped(span: list[float], drawn: list[float]) -> None:
    made = quantizer(*span)
    scale, zero_point = made.scale_and_zero_point()
    assert 0 <= float(zero_point) <= 255
    y = made(torch.tensor(drawn))
    steps = y / scale + zero_point
    assert bool((steps >= -_ROUNDING * 255).all())
    assert bool((steps <= 255 * (1 + _ROUNDING)).all())


@given(ranges, values)
def test_quantizing_twice_is_quantizing_once(span: list[float], drawn: list[float]) -> None:
    made = quantizer(*span)
    once = made(torch.tensor(drawn))
    assert torch.equal(made(once), once)


@given(ranges, values)
def test_frozen_and_fake_quantized_activations_agree_to_one_step(span: list[float], drawn: list[float]) -> None:
    made = quantizer(*span)
    scale, _ = made.scale_and_zero_point()
    frozen = FrozenQuantizer(made.params)
    x = torch.tensor(drawn)
    # ties may fall to either side: torch multiplies by 1/scale, the runtimes divide
    assert bool(((frozen(x) - made(x)).abs() <= scale * (1 + _ROUNDING)).all())


@given(st.integers(1, 6), st.integers(1, 8), st.sampled_from([7, 8]), st.integers(0, 2**31 - 1))
@settings(max_examples=50)
def test_weights_keep_their_limit_and_error(outputs: int, inputs: int, bits: int, seed: int) -> None:
    layer = quantized_linear(inputs, outputs, bits=bits, seed=seed)
    frozen = layer.freeze()
    assert int(frozen.weight.abs().max()) <= symmetric(bits).highest == frozen.weight_params.grid.highest
    scale = torch.tensor(frozen.weight_params.scales)[:, None]
    error = (frozen.weight * scale - layer.weight).abs()
    assert bool((error <= scale * (0.5 + _ROUNDING)).all())
    assert torch.allclose(layer.fake_parameters()[0], frozen.weight * scale, atol=1e-6)


@given(st.integers(0, 2**31 - 1), st.floats(1e-4, 10))
@settings(max_examples=50)
def test_bias_has_the_accumulators_scale(seed: int, input_scale: float) -> None:
    layer = quantized_linear(4, 3, bits=8, seed=seed, input_scale=input_scale)
    frozen = layer.freeze()
    assert frozen.bias is not None
    assert frozen.bias_params is not None
    scales = torch.tensor(frozen.bias_params.scales)
    assert torch.allclose(scales, torch.tensor(frozen.weight_params.scales) * input_scale)
    assert frozen.bias.dtype is torch.int32
    assert torch.allclose(frozen.bias * scales, layer.bias, atol=float(scales.max()))


def quantized_linear(inputs: int, outputs: int, *, bits: int, seed: int, input_scale: float = 0.1) -> QLinear:
    torch.manual_seed(seed)
    layer: nn.Module = nn.Linear(inputs, outputs)
    layer.__class__ = QLinear
    assert isinstance(layer, QLinear)
    layer.quantize_to(bits)
    layer.read_from(quantizer(0, 255 * input_scale))
    return layer


def test_seven_bits_cannot_saturate_pairs_of_products() -> None:
    # x86 without VNNI adds two u8 x s8 products in 16 bits
    assert 2 * 255 * symmetric(7).highest <= 2**15 - 1 < 2 * 255 * symmetric(8).highest


def test_gradients_pass_straight_through_inside_and_stop_outside() -> None:
    made = quantizer(-1.0, 1.0)
    x = torch.tensor([-3.0, -0.5, 0.2, 0.9, 3.0], requires_grad=True)
    made(x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0.0, 1.0, 1.0, 1.0, 0.0]


def test_learned_step_size_falls_when_values_are_small_and_grows_when_they_are_clipped() -> None:
    def slope(x: Tensor) -> float:
        made = quantizer(-1.0, 1.0)
        made.learn_step_size()
        (made(x) - x).square().sum().backward()
        assert made.log_scale is not None
        assert made.log_scale.grad is not None
        return float(made.log_scale.grad)

    generator = torch.Generator().manual_seed(0)
    assert slope(torch.randn(4000, generator=generator) * 0.02) > 0  # descent makes the step smaller
    assert slope(torch.randn(4000, generator=generator) * 5) < 0  # and larger


def test_moving_average_follows_the_range() -> None:
    made = ActivationQuantizer().train()
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        made(torch.rand(100, generator=generator) * 4 - 1)
    assert np.isclose(float(made.low), -1, atol=0.1)
    assert np.isclose(float(made.high), 3, atol=0.1)


def test_sqnr_of_a_known_noise() -> None:
    signal = torch.ones(1000)
    assert np.isclose(sqnr_db(signal, signal + 0.1), 20, atol=1e-4)
    assert sqnr_db(signal, signal) == 200
