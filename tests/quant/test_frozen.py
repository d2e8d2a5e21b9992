"""Frozen layers against arithmetic with Python's own integers, which have no limits; rounding and its gradients.

Shapes: N batch, C channels, H height, W width, O outputs, I inputs.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pipeline.graph.params import UINT8, QuantParams, symmetric
from pipeline.quant.fakequant import ActivationQuantizer, FollowingQuantizer, QConv1d, QConv2d, QLinear
from pipeline.quant.frozen import FrozenMean, FrozenPool, FrozenQuantizer, FrozenWeighted
from pipeline.quant.rounding import round_straight_through, round_with_step_gradient


def quantizer(low: float, high: float) -> ActivationQuantizer:
    made = ActivationQuantizer().eval()
    made.set_range(low, high)
    return made


def linear(weight: list[list[float]], bias: list[float] | None, *, scale: float = 0.5, bits: int = 8) -> QLinear:
    """Return a layer whose input lies on the grid 0, scale … 255 scale."""
    layer: nn.Module = nn.Linear(len(weight[0]), len(weight), bias=bias is not None)
    layer.__class__ = QLinear
    assert isinstance(layer, QLinear)
    layer.quantize_to(bits)
    layer.read_from(quantizer(0, 255 * scale))
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight))
        if bias is not None:
            layer.bias.copy_(torch.tensor(bias))
    return layer


# ── weighted layers ─────────────────────────────────────────────────────────────────────────────────────────────────


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31 - 1), st.sampled_from([7, 8]), st.sampled_from([0.0, 1e-9, 1e-3, 1.0, 1e3, 1e6]))
def test_a_layer_computes_with_integers_of_any_size(seed: int, bits: int, bias_size: float) -> None:
    rng = np.random.default_rng(seed)
    weight = rng.normal(0, 0.1, (3, 5)) * np.array([[1.0], [1e-6], [0.0]])
    layer = linear(weight.tolist(), (bias_size * rng.normal(size=3)).tolist(), bits=bits)
    frozen = FrozenWeighted(layer)
    steps = rng.integers(0, 256, (7, 5))
    with torch.no_grad():
        found = frozen(torch.tensor(steps * 0.5, dtype=torch.float32)).numpy()
    integers = frozen.integers
    assert integers.bias is not None
    for row in range(7):
        for channel in range(3):
            products = [int(a) * int(b) for a, b in zip(steps[row], integers.weight[channel], strict=True)]
            accumulator = sum(products) + int(integers.bias[channel])
            assert abs(accumulator) < 2**31
            exact = float(accumulator * Fraction(float(frozen.scale[0, channel])))
            assert found[row, channel] == pytest.approx(exact, rel=2**-22, abs=1e-30)


def test_a_bias_beyond_float32s_integers_is_not_rounded_before_it_meets_the_sum() -> None:
    """16777217 is the first integer that float32 does not hold."""
    layer = linear([[1.0]], [0.0], scale=1.0)
    layer.read_from(quantizer(0, 255))
    with torch.no_grad():
        layer.bias.copy_(torch.tensor([-130_000.0]))
    frozen = FrozenWeighted(layer)
    assert frozen.integers.bias is not None
    frozen.integers.bias[0] = -(2**24) - 1
    frozen.bias = frozen.integers.bias.double().view(1, -1)
    frozen.wide = True
    with torch.no_grad():
        found = frozen(torch.tensor([[255.0]]))
    wanted = 255 * int(frozen.integers.weight[0, 0]) - 2**24 - 1
    assert float(found) == pytest.approx(wanted * float(frozen.scale[0, 0]), rel=1e-7)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2), (4, 7, 7)),
        (nn.Conv2d(4, 4, 3, padding=1, groups=4, dilation=2), (4, 7, 7)),
        (nn.Conv1d(4, 6, 3, padding=2), (4, 9)),
        (nn.Linear(5, 3), (5,)),
        (nn.Linear(5, 3, bias=False), (5,)),
    ],
    ids=str,
)
def test_layers_of_every_kind_keep_their_settings(layer: nn.Module, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    layer.__class__ = {nn.Conv2d: QConv2d, nn.Conv1d: QConv1d, nn.Linear: QLinear}[type(layer)]
    assert isinstance(layer, QConv2d | QConv1d | QLinear)
    layer.quantize_to(8)
    reader = quantizer(-3, 3)
    layer.read_from(reader)
    x = reader(torch.randn(4, *shape))
    frozen = FrozenWeighted(layer)
    with torch.no_grad():
        fake, integers = layer(x), frozen(x)
    assert fake.shape == integers.shape
    step = float(frozen.scale.max())
    assert float((fake - integers).abs().max()) <= step  # the bias is rounded to a step; sums are the same


# ── averages ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_mean_on_a_tie_goes_to_the_even_integer() -> None:
    """In float32, 0.1 * 2.5 / 0.1 need not be 2.5: sums of integers are."""
    pool = FrozenPool(nn.AvgPool2d(2), 0.1)
    x = torch.tensor([[[[2.0, 3.0, 3.0, 4.0], [2.0, 3.0, 3.0, 4.0]]]]) * 0.1
    assert (pool(x) / 0.1).round().flatten().tolist() == [2.0, 4.0]  # 2.5 and 3.5


def test_a_mean_with_a_scale_of_its_own_is_not_rounded_twice() -> None:
    pool = FrozenMean(0.5, 0.75)
    x = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]) * 0.5
    assert float(pool(x)) == 1.25


# ── quantizers ──────────────────────────────────────────────────────────────────────────────────────────────────────


@given(st.floats(2**-10, 4, width=32), st.integers(0, 255), st.lists(st.floats(-600, 600, width=32), min_size=1))
def test_frozen_quantizers_round_half_to_even_and_saturate(scale: float, zero: int, values: list[float]) -> None:
    frozen = FrozenQuantizer(QuantParams.of(scale, zero))
    x = np.array(values, np.float32)
    steps = np.clip(np.rint(x / np.float32(scale)) + zero, 0, 255)
    assert torch.equal(
        frozen(torch.from_numpy(x)), torch.from_numpy(((steps - zero) * np.float32(scale)).astype(np.float32))
    )


def test_a_follower_rounds_to_its_leaders_grid_and_stops_with_it() -> None:
    leader = quantizer(-1, 1)
    follower = FollowingQuantizer(leader)
    x = torch.linspace(-2, 2, 101)
    assert torch.equal(follower(x), leader(x))
    assert follower.params == leader.params
    leader.enabled = False
    assert torch.equal(follower(x), x)
    assert not list(follower.state_dict())  # its leader's tensors are the leader's


def test_a_fixed_quantizer_neither_follows_nor_learns() -> None:
    fixed = ActivationQuantizer(QuantParams.of(1 / 256)).train()
    fixed(torch.randn(100) * 50)
    fixed.learn_step_size()
    assert fixed.params == QuantParams.of(1 / 256)
    assert fixed.log_scale is None


# ── gradients ───────────────────────────────────────────────────────────────────────────────────────────────────────


def gradient_of(x: Tensor, low: float, high: float) -> list[float]:
    x = x.clone().requires_grad_()
    made = quantizer(low, high)
    scale, zero = made.scale_and_zero_point()
    round_straight_through(x, scale, zero, UINT8).sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    gradient: list[float] = x.grad.tolist()
    return gradient


def test_the_gradient_passes_up_to_half_a_step_beyond_the_ends() -> None:
    params = quantizer(-1, 1).params
    near, far = 0.4 * params.scale, 0.6 * params.scale
    ends = [params.lowest - far, params.lowest - near, 0.0, params.highest + near, params.highest + far]
    assert gradient_of(torch.tensor(ends), -1, 1) == [0, 1, 1, 1, 0]


def test_learned_steps_get_the_gradient_of_the_paper() -> None:
    """Esser et al. 2020, equation 3: round(v) - v inside, the limit outside, over sqrt(values * limit)."""
    x = torch.tensor([0.3, 1.7, 900.0, -900.0])
    scale = torch.tensor([1.0], requires_grad=True)
    grid = symmetric(8)
    round_with_step_gradient(x, scale, torch.zeros(1), grid).sum().backward()  # type: ignore[no-untyped-call]
    slope = (0 - 0.3) + (2 - 1.7) + 127 - 127
    assert scale.grad is not None
    assert float(scale.grad) == pytest.approx(slope / (4 * 127) ** 0.5, abs=1e-6)


def test_a_bias_learns_though_it_is_rounded() -> None:
    layer = linear([[0.5, 0.25]], [0.1])
    layer(torch.tensor([[1.0, 2.0]])).sum().backward()
    assert layer.bias.grad is not None
    assert layer.bias.grad.tolist() == [1.0]
    assert layer.weight.grad is not None
    assert layer.weight.grad.tolist() == [[1.0, 2.0]]


def test_switched_off_a_layer_computes_in_float() -> None:
    layer = linear([[0.123, -0.456]], [0.789])
    layer.enabled = False
    x = torch.tensor([[1.0, 2.0]])
    assert float(layer(x).detach()) == pytest.approx(0.123 - 0.912 + 0.789, abs=1e-6)
