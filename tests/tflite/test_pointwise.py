"""Arithmetic and activation functions: which operators are written, and the integers that they give.

Shapes: N batch, C channels, H height, W width.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import UnsupportedOpError
from pipeline.tflite import write_tflite
from tests.tflite.nets import STEPS_LITERT, Net, assert_steps, check, operators, run_ort, run_tflite

INF = float("inf")


# ── clamping ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("low", "high", "floats"),
    [
        (0.0, INF, ["RELU"]),
        (0.0, 6.0, ["RELU6"]),
        (-1.0, 1.0, ["MAXIMUM", "MINIMUM"]),
        (-INF, 0.5, ["MINIMUM"]),
        (0.25, INF, ["MAXIMUM"]),
    ],
)
def test_a_clip_alone_is_what_the_runtime_has_for_its_bounds(low: float, high: float, floats: list[str]) -> None:
    net = Net(3, 4, 5)
    bounds = ["" if abs(bound) == INF else net.const(bound) for bound in (low, high)]
    check(net, net.op("Clip", net.input, *bounds), floats)


@pytest.mark.parametrize(("low", "high"), [(-0.5, 0.5), (-0.5, 1e9), (-1e9, 0.5)])
def test_integers_are_clipped_on_their_own_grid(low: float, high: float) -> None:
    net = Net(3, 4, 5, int8=True)
    clipped = net.op("Clip", net.input, net.const(low), net.const(high))
    check(net, net.q(clipped, *net.input_params), steps=0)


def test_bounds_beyond_the_grid_do_nothing_and_are_left_out() -> None:
    net = Net(3, 4, 5, int8=True)
    clipped = net.op("Clip", net.input, net.const(-100.0), net.const(100.0))
    output = net.q(net.op("MaxPool", net.q(clipped, *net.input_params), kernel_shape=[1, 1]), *net.input_params)
    check(net, output, ["MAX_POOL_2D"], steps=0)


def test_a_relu_on_integers_is_a_product_with_one() -> None:
    """LiteRT's delegate takes no RELU on int8; MUL with one inside is exact and it takes that."""
    net = Net(3, 4, 5, int8=True)
    check(net, net.q(net.op("Relu", net.input), 0.01, 0), ["MUL"])


@settings(max_examples=25, deadline=None)
@given(st.floats(0.02, 0.5), st.integers(0, 255), st.floats(0.02, 0.5), st.integers(0, 255))
def test_rescaling_is_exact(first: float, zero: int, second: float, other: int) -> None:
    """Every one of the 256 integers comes out as division and rounding say."""
    net = Net(256, int8=True)
    net.nodes.clear()
    net.samples = np.float32(first) * (np.arange(256, dtype=np.float32) - zero)[None]
    x = net.q("input", first, zero)
    check(net, net.q(net.q(net.op("Relu", x), second, other), second, other))


# ── two operands ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["Add", "Sub", "Mul"])
@pytest.mark.parametrize("dims", [(1,), (3, 1, 1), (5,), (4, 5), (3, 4, 5), (1, 3, 1, 1)])
@pytest.mark.parametrize("first", [False, True])
def test_constants_of_any_shape_on_either_side(kind: str, dims: tuple[int, ...], *, first: bool) -> None:
    net = Net(3, 4, 5)
    constant = net.random(*dims)
    operands = (constant, net.input) if first else (net.input, constant)
    check(net, net.op(kind, *operands), [kind.upper()])


@pytest.mark.parametrize("kind", ["Add", "Mul"])
def test_a_gate_per_channel_broadcasts_over_the_picture(kind: str) -> None:
    net = Net(3, 4, 5, int8=True)
    gate = net.q(net.op("GlobalAveragePool", net.input), 0.01, 128)
    check(net, net.qop(kind, net.input, gate))


def test_a_float_constant_makes_integers_floats() -> None:
    net = Net(3, 4, 5, int8=True)
    check(net, net.op("Mul", net.input, net.const(0.5)), ["DEQUANTIZE", "MUL"])


def test_division_has_no_integer_kernel() -> None:
    net = Net(3, 4, 5, int8=True)
    check(net, net.qop("Div", net.input, net.const(2.0)), ["DEQUANTIZE", "DIV", "QUANTIZE"])


def test_two_constants_are_refused() -> None:
    net = Net(3)
    folded = net.op("Add", net.const(1.0), net.const(2.0))
    with pytest.raises(UnsupportedOpError, match="both operands are constants"):
        write_tflite(net.model(net.op("Add", net.input, folded)))


# ── one operand ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("kind", "scale", "zero"), [("Sigmoid", 1 / 256, 0), ("Tanh", 1 / 128, 128)])
def test_functions_with_one_scale_only_are_rescaled_where_the_graph_asks_otherwise(
    kind: str, scale: float, zero: int
) -> None:
    name = {"Sigmoid": "LOGISTIC", "Tanh": "TANH"}[kind]
    net = Net(6, int8=True)
    check(net, net.q(net.op(kind, net.input), scale, zero), [name])
    net = Net(6, int8=True)
    check(net, net.q(net.op(kind, net.input), 0.02, 100), [name, "MUL"])


@pytest.mark.parametrize("axis", [1, 2, 3, -1])
def test_softmax_over_any_axis(axis: int) -> None:
    net = Net(3, 4, 5)
    check(net, net.op("Softmax", net.input, axis=axis))


@pytest.mark.parametrize(("alpha", "beta"), [(1 / 6, 0.5), (0.2, 0.5), (0.5, 0.1)])
def test_hard_sigmoid_with_any_slope(alpha: float, beta: float) -> None:
    net = Net(3, 4, 5)
    net.samples = 4 * net.samples
    plain = np.isclose(6 * alpha, 1)
    check(net, net.op("HardSigmoid", net.input, alpha=alpha, beta=beta), [*([] if plain else ["MUL"]), "ADD", "MUL"])


@pytest.mark.parametrize("rank", [2, 3, 4])
def test_batch_normalization_of_any_rank(rank: int) -> None:
    net = Net(3, *(4, 5)[: rank - 2])
    statistics = [net.rng.normal(1, 0.3, 3), *net.rng.normal(0, 1, (2, 3)), net.rng.uniform(0.5, 2, 3)]
    output = net.op("BatchNormalization", net.input, *map(net.const, statistics), epsilon=1e-3)
    check(net, output, ["MUL", "ADD"])


@pytest.mark.parametrize(("scale", "rescaled"), [(3.0, 1), (0.3, 0)])
def test_an_addend_much_finer_than_the_sum_is_rounded_before(scale: float, rescaled: int) -> None:
    net = Net(6, int8=True)
    tanh = net.q(net.op("Tanh", net.input), 1e-3, 128)
    model = net.model(net.q(net.op("Add", tanh, net.input), scale, 128))
    data = write_tflite(model)
    assert operators(data).count("MUL") == rescaled + 1  # tanh has a scale of its own
    assert_steps(run_tflite(data, net.samples), run_ort(model, net.samples), steps=STEPS_LITERT)
