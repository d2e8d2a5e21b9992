"""Ranges, scales and integers of quantizers, layers and constants, by hand: both ends, ties, what never occurs.

Shapes: N batch, O output channels.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from pipeline.graph.params import UINT8, QuantParams, symmetric
from pipeline.quant.constants import QScale
from pipeline.quant.fakequant import QUANTIZED_CLASS, ActivationQuantizer, QLinear
from pipeline.quant.rounding import round_straight_through, round_with_step_gradient
from pipeline.quant.scheme import SANE_SCALE, SMALLEST_SCALE


def quantizer(low: float, high: float) -> ActivationQuantizer:
    made = ActivationQuantizer().eval()
    made.set_range(low, high)
    return made


# ── activations ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("low", "high", "scale", "zero_point"),
    [
        (0.0, 255.0, 1.0, 0),
        (-255.0, 0.0, 1.0, 255),
        (3.0, 510.0, 2.0, 0),  # zero is always inside
        (-510.0, -3.0, 2.0, 255),
        (-128.0, 127.0, 1.0, 128),
        (-0.5, 254.5, 1.0, 0),  # half to even
        (-1.5, 253.5, 1.0, 2),
        (0.0, 0.0, SMALLEST_SCALE, 0),
        (-(2.0**-80), 2.0**-80, SMALLEST_SCALE, 0),
        (0.0, 255 * 2.0**100, 2.0**100, 0),
    ],
)
def test_ranges(low: float, high: float, scale: float, zero_point: int) -> None:
    assert quantizer(low, high).params == QuantParams.of(scale, zero_point)


def test_values_beyond_the_ends_saturate_and_ties_go_to_even() -> None:
    made = quantizer(-10.0, 245.0)
    x = torch.tensor([-1e9, -10.4, -0.5, 0.5, 1.5, 2.5, 244.6, 1e9])
    assert made(x).tolist() == [-10, -10, 0, 0, 2, 2, 245, 245]


def test_a_range_follows_by_a_twentieth_of_the_way() -> None:
    made = ActivationQuantizer().train()
    seen = []
    for _ in range(2):
        made(torch.tensor([-1.0, 3.0]))
        seen.append((float(made.low), float(made.high)))
    assert seen == [pytest.approx((-0.05, 0.15)), pytest.approx((-0.0975, 0.2925))]
    made(torch.tensor([2.0, 3.0]))  # nothing below zero: towards zero
    assert float(made.low) == pytest.approx(-0.0975 * 0.95)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_order_in_memory_is_no_matter(memory_format: torch.memory_format) -> None:
    x = torch.arange(-8.0, 16.0).reshape(2, 3, 2, 2).contiguous(memory_format=memory_format)
    made = ActivationQuantizer().train()
    made(x)
    assert (float(made.low), float(made.high)) == pytest.approx((-8 * 0.05, 15 * 0.05))


def test_what_stands_still_or_is_switched_off_still_shows_its_values() -> None:
    made, seen = quantizer(0.0, 255.0), list[Tensor]()
    made.tap, made.enabled = seen.append, False
    x = torch.tensor([0.4, 300.0])
    assert made(x) is x
    assert seen[0] is x
    assert (float(made.low), float(made.high)) == (0, 255)  # in evaluation


def test_a_settled_scale_is_taken_to_the_last_bit_until_the_range_moves() -> None:
    made, wanted = quantizer(-10.0, 245.0), float(torch.tensor(1.0001))
    made.settle(wanted)
    assert made.params == QuantParams.of(wanted, 10)
    assert float(made.high) == pytest.approx(245 * wanted)
    made.set_range(-20.0, 235.0)  # the same scale but for a part in ten thousand
    assert made.params == QuantParams.of(1.0, 20)


def test_a_settled_scale_moves_a_learned_one_along() -> None:
    made = quantizer(0.0, 255.0)
    made.learn_step_size()
    assert not made.observe
    made.settle(1.25)
    assert made.log_scale is not None
    assert float(made.log_scale.detach()) == pytest.approx(math.log(1.25))
    assert made.params.scale == 1.25


def test_a_settled_scale_below_which_kernels_cannot_go_becomes_the_smallest() -> None:
    made = quantizer(0.0, 0.0)
    made.smallest_scale.fill_(0.5)
    made.settle(0.625)
    assert (made.params.scale, float(made.smallest_scale)) == (0.625, 0.625)


# ── layers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def linear(weight: list[list[float]], bias: list[float] | None = None, *, bits: int = 8) -> QLinear:
    """Return a layer whose input lies on 0, 1 … 255."""
    layer: nn.Module = nn.Linear(len(weight[0]), len(weight), bias=bias is not None)
    layer.__class__ = QUANTIZED_CLASS[nn.Linear]
    assert isinstance(layer, QLinear)
    layer.quantize_to(bits)
    layer.read_from(quantizer(0.0, 255.0))
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight))
        if bias is not None:
            layer.bias.copy_(torch.tensor(bias))
    return layer


@pytest.mark.parametrize(
    ("bits", "weight", "wanted"),
    [
        (8, [127.0, 0.5, 1.5, 2.5, -0.5, -1.5], [127, 0, 2, 2, 0, -2]),
        (8, [-254.0, 254.0, 1.0, 3.0, 0.0, 2.0], [-127, 127, 0, 2, 0, 1]),
        (7, [63.0, 31.5, -63.0, 62.5, 0.4, -0.6], [63, 32, -63, 62, 0, -1]),
        (2, [1.0, 0.5, -0.51, 0.0, -1.0, 0.49], [1, 0, -1, 0, -1, 0]),
    ],
)
def test_weights_are_rounded_half_to_even(bits: int, weight: list[float], wanted: list[int]) -> None:
    integers = linear([weight], bits=bits).freeze()
    assert integers.weight.tolist() == [wanted]
    assert integers.weight_params.grid == symmetric(bits)
    assert (integers.bias, integers.bias_params) == (None, None)


LIMIT = 2.0**30  # what a bias or an accumulator may reach
FEW = 2.0**-8  # of the largest such scale in a layer: none is finer


@pytest.mark.parametrize(
    ("weight", "bias", "scales", "biases"),
    [
        ([127.0, 127.0], [0.5, 1.5], [1, 1], [0, 2]),
        ([127.0, 0.0], [0.0, LIMIT], [1, 1], [0, 2**30]),
        ([127.0, 0.0], [0.0, -4 * LIMIT], [1, 4], [0, -(2**30)]),
        ([127.0, 127.0], [0.0, LIMIT], [1, 1 + 255 * 127 / LIMIT], [0, round(LIMIT / (1 + 255 * 127 / LIMIT))]),
        ([1.27, 0.0], [3.0, 0.0], [0.01, FEW * (255 * 1.27 + 3) / LIMIT], [300, 0]),
        ([0.0, 0.0], [0.0, 0.0], [1 / 127, 1 / 127], [0, 0]),
        ([0.0, 0.0], [1.0, 2.0**-20], [1 / LIMIT, FEW / LIMIT], [2**30, 2**18]),
    ],
    ids=["sound", "at the limit", "beyond it", "with products", "dead", "all dead", "biases alone"],
)
def test_scales_leave_room_for_biases_and_sums(
    weight: list[float], bias: list[float], scales: list[float], biases: list[int]
) -> None:
    layer = linear([[each] for each in weight], bias)
    integers = layer.freeze()
    assert layer.weight_scale().tolist() == pytest.approx(scales, rel=1e-6)
    assert integers.bias is not None
    assert integers.bias.tolist() == pytest.approx(biases, abs=64)  # float32 knows 2^30 to 64
    assert integers.bias_params is not None
    assert integers.bias_params.scales == integers.weight_params.scales  # the input's scale is 1


def test_learned_scales_stay_where_weights_grow() -> None:
    layer = linear([[127.0, 12.0]])
    layer.learn_step_size()
    with torch.no_grad():
        layer.weight.mul_(2)
    assert layer.weight_scale().tolist() == pytest.approx([1.0])
    assert layer.freeze().weight.tolist() == [[127, 24]]
    assert layer(torch.tensor([[1.0, 1.0]])).tolist() == [[pytest.approx(151)]]


# ── constants ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("constant", "scale", "zero_point", "integers"),
    [
        (255.0, 1.0, 0, 255),
        (-255.0, 1.0, 255, 0),
        (0.0, SANE_SCALE, 0, 0),
        ([0.0, 0.0], SANE_SCALE, 0, [0, 0]),
        ([-55.0, 0.0, 200.0], 1.0, 55, [0, 55, 255]),
        ([-55.0, 0.5, 1.5, 200.0], 1.0, 55, [0, 56, 56, 255]),  # 55.5 and 56.5
        ([100.0, 510.0], 2.0, 0, [50, 255]),
        ([-1.0, 7.0], 8 / 255, 32, [0, 255]),  # 31.875
        (2.0**-70, SMALLEST_SCALE, 0, 0),
        ([-255 * 2.0**80, 2.0**80], 256 / 255 * 2.0**80, 254, [0, 255]),
    ],
)
@pytest.mark.parametrize("shifts", [False, True])
def test_constants(
    constant: float | list[float], scale: float, zero_point: int, integers: int | list[int], *, shifts: bool
) -> None:
    value = torch.tensor(constant)
    made = QScale(1.0, value) if shifts else QScale(value, 0.0)
    assert made.params.scale == pytest.approx(scale)
    assert made.params.zero_point == zero_point
    assert made.integers().dtype == torch.uint8
    assert made.integers().tolist() == integers


def test_a_rounded_constant_learns_as_if_it_were_not() -> None:
    factor = nn.Parameter(torch.tensor([-55.0, 0.4, 200.0]))
    made = QScale(factor, 0.0)
    x = torch.tensor([[1.0, 2.0, 3.0], [10.0, 10.0, 10.0]])
    found = made(x)
    assert found.tolist() == [[-55, 0, 600], [-550, 0, 2000]]
    found.sum().backward()
    assert factor.grad is not None
    assert factor.grad.tolist() == [11, 12, 13]
    made.enabled = False
    assert made(x)[0].tolist() == [-55, pytest.approx(0.8), 600]


@pytest.mark.parametrize(("source", "total", "offset"), [(0.02, 0.03, 1.7), (0.05, 0.011, -0.3), (0.01, 0.5, 40.0)])
def test_an_offset_lies_on_whole_parts_of_the_sums_scale(source: float, total: float, offset: float) -> None:
    made = QScale(1.0, offset)
    plain = made.params.scale
    made.stand_between(quantizer(0.0, 255 * source), quantizer(0.0, 255 * total))
    scale = made.params.scale
    unit = 2.0 ** (max(0, math.ceil(math.log2(max(source, plain) / total))) - 15)
    whole = float(torch.tensor(scale) / torch.tensor(total)) / unit
    assert whole == pytest.approx(round(whole), abs=1e-3)
    assert scale == pytest.approx(plain, rel=2**-7)
    assert not list(made.state_dict().keys() - {"factor", "offset"})  # quantizers beside it are not its own


# ── rounding ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("zero_point", [0, 1, 128, 255])
@pytest.mark.parametrize("scale", [2.0**-20, 0.25, 1.0, 2.0**20])
def test_rounding_is_torchs_own(scale: float, zero_point: int) -> None:
    steps = torch.arange(-1030, 1030) / 4  # quarters: ties, and both ends
    ours = (steps * scale).requires_grad_()
    found = round_straight_through(ours, torch.tensor(scale), torch.tensor(float(zero_point)), UINT8)
    wanted = torch.fake_quantize_per_tensor_affine(steps * scale, scale, zero_point, *UINT8)
    if zero_point % 2 == 0:  # torch rounds with the zero point inside: ties go to another side of odd ones
        assert torch.equal(found, wanted)
    assert float((found - wanted).detach().abs().max()) <= scale
    found.sum().backward()  # type: ignore[no-untyped-call]
    assert ours.grad is not None
    passes = (steps + zero_point > -0.5) & (steps + zero_point < 255.5)  # what is rounded onto the grid
    assert torch.equal(ours.grad, passes.float())


def test_each_channels_step_has_a_gradient_of_its_own() -> None:
    """Esser et al. 2020: round(v) - v inside, the limit outside, over sqrt(values per scale * limit)."""
    x = torch.tensor([[0.25, 1.75], [-900.0, 4.0]], requires_grad=True)
    scale = torch.tensor([[1.0], [2.0]], requires_grad=True)
    found = round_with_step_gradient(x, scale, torch.zeros(1), symmetric(4))
    assert found.tolist() == [[0, 2], [-14, 4]]
    found.sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert x.grad.tolist() == [[1, 1], [0, 1]]
    assert scale.grad is not None
    assert scale.grad.flatten().tolist() == pytest.approx([(-0.25 + 0.25) / 14**0.5, -7 / 14**0.5])


def test_a_zero_point_moves_the_limits() -> None:
    x = torch.tensor([-300.0, 300.0])
    scale = torch.tensor(1.0, requires_grad=True)
    found = round_with_step_gradient(x, scale, torch.tensor(55.0), UINT8)
    assert found.tolist() == [-55, 200]
    found.sum().backward()  # type: ignore[no-untyped-call]
    assert scale.grad is not None
    assert float(scale.grad) == pytest.approx((-55 + 200) / (2 * 255) ** 0.5)
