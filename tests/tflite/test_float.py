"""Operations that are float everywhere, against Python's own functions at their edges; what is refused.

Shapes: N batch, I, J, K rows and columns of matrices.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pipeline.errors import UnsupportedOpError
from pipeline.tflite import write_tflite
from tests.tflite.nets import Floats, Net, check, operators, run_tflite

EDGES = [0.0, -0.0, 1e-30, -1e-30, 0.5, -0.5, 1.0, -1.0, 3.0, -3.0, 9.0, -9.0, 80.0, -80.0]


def ran(kind: str, values: list[float], **attributes: float) -> list[float]:
    """Run an operation on each of these values."""
    net = Net(len(values))
    x = np.array([values], np.float32)
    output = net.op(kind, net.input, **attributes)
    result: list[float] = run_tflite(write_tflite(net.model(output)), x).values[0].tolist()
    return result


def softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


ELEMENTS: dict[str, tuple[Callable[[float], float], float]] = {
    "Erf": (math.erf, 5e-7),  # the approximation's own error, and float32's
    "Softplus": (softplus, 1e-6),
    "Elu": (lambda x: x if x > 0 else math.expm1(x), 1e-6),
    "Abs": (abs, 0.0),
    "Floor": (math.floor, 0.0),
    "Round": (round, 0.0),  # half to even, as Python's
    "Cos": (math.cos, 1e-6),
    "Sin": (math.sin, 1e-6),
}


@pytest.mark.parametrize("kind", ELEMENTS)
def test_functions_at_their_edges(kind: str) -> None:
    function, tolerance = ELEMENTS[kind]
    assert ran(kind, EDGES) == pytest.approx([function(x) for x in EDGES], rel=1e-6, abs=tolerance)


def test_softplus_of_large_numbers_overflows_nowhere() -> None:
    assert ran("Softplus", [1e4, -1e4, 3e38, -3e38]) == [1e4, 0.0, pytest.approx(3e38), 0.0]


@pytest.mark.parametrize("alpha", [0.0, 0.25, 1.0, 3.0])
def test_elu_bends_below_zero_alone(alpha: float) -> None:
    wanted = [x if x > 0 else alpha * math.expm1(x) for x in EDGES]
    assert ran("Elu", EDGES, alpha=alpha) == pytest.approx(wanted, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelus_of_opset_20(approximate: str) -> None:
    x = np.array([EDGES], np.float32)
    net = Net(len(EDGES), opset=20)
    output = net.op("Gelu", net.input, approximate=approximate)
    root = (2 / math.pi) ** 0.5
    exact = [0.5 * each * (1 + math.erf(each / 2**0.5)) for each in EDGES]
    bent = [0.5 * each * (1 + math.tanh(root * (each + 0.044715 * each**3))) for each in EDGES]
    found = run_tflite(write_tflite(net.model(output)), x).values[0].tolist()
    assert found == pytest.approx(bent if approximate == "tanh" else exact, rel=1e-5, abs=1e-5)


def test_logarithms_roots_and_inverses() -> None:
    assert ran("Log", [1.0, math.e, 1e-30]) == pytest.approx([0, 1, math.log(1e-30)], rel=1e-6, abs=1e-6)
    assert ran("Sqrt", [0.0, 2.25, 1e30]) == pytest.approx([0, 1.5, 1e15])
    assert ran("Reciprocal", [4.0, -0.5, 1e30]) == pytest.approx([0.25, -2, 1e-30])
    assert ran("Exp", [0.0, 1.0, -200.0]) == pytest.approx([1, math.e, 0], rel=1e-6)


@pytest.mark.parametrize(("exponent", "wanted"), [(2.0, [9, 0.25, 0]), (0.0, [1, 1, 1]), (1.0, [-3, 0.5, 0])])
def test_powers(exponent: float, wanted: list[float]) -> None:
    net = Net(3)
    output = net.op("Pow", net.input, net.const([exponent]))
    found = run_tflite(write_tflite(net.model(output)), np.array([[-3.0, 0.5, 0.0]], np.float32))
    assert found.values[0].tolist() == pytest.approx(wanted)


def test_several_exponents_are_refused() -> None:
    net = Net(3)
    output = net.op("Pow", net.input, net.const([1, 2, 3]))
    with pytest.raises(UnsupportedOpError, match="several exponents") as caught:
        write_tflite(net.model(output))
    assert (caught.value.where, caught.value.remedy) == (f"layer 'features.{output}' (Pow)", "raise to a single number")


def test_integers_go_through_float_and_back() -> None:
    net = Net(3, int8=True)
    assert operators(write_tflite(net.model(net.qop("Exp", net.input)))) == ["DEQUANTIZE", "EXP", "QUANTIZE"]


# ── norms ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def normed(x: Floats, axes: tuple[int, ...], epsilon: float) -> Floats:
    x = x.astype(np.float64)
    result: Floats = (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + epsilon)
    return result


@pytest.mark.parametrize(
    ("shape", "axis", "epsilon"), [((4,), -1, 1e-5), ((3, 4), 1, 1e-2), ((2, 3, 4), -1, 1e-5), ((2, 3, 4), 1, 1.0)]
)
def test_layer_norms_over_the_last_axes(shape: tuple[int, ...], axis: int, epsilon: float) -> None:
    net = Net(*shape, opset=17)
    start = axis % (len(shape) + 1)
    weight, shift = net.rng.normal(size=(2, *shape[start - 1 :]))
    options: dict[str, Any] = {"axis": axis, "epsilon": epsilon}
    output = net.op("LayerNormalization", net.input, net.const(weight), net.const(shift), **options)
    wanted = normed(net.samples, tuple(range(start, len(shape) + 1)), epsilon) * weight + shift
    np.testing.assert_allclose(check(net, output, batches=(1, 3)), wanted, atol=1e-5)


def test_a_layer_norm_of_what_is_all_alike_gives_its_offset() -> None:
    net = Net(4, opset=17)
    output = net.op("LayerNormalization", net.input, net.const([5.0] * 4), net.const([1, 2, 3, 4]))
    found = run_tflite(write_tflite(net.model(output)), np.full((1, 4), 7.0, np.float32))
    assert found.values[0].tolist() == [1, 2, 3, 4]


# ── matrices and maxima ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("shape", [(3, 3), (2, 4, 4), (1, 1)])
def test_products_of_two_values(shape: tuple[int, ...], *, turned: bool) -> None:
    net = Net(*shape)
    rank = len(shape) + 1
    order = [*range(rank - 2), rank - 1, rank - 2]
    right = net.op("Transpose", net.input, perm=order) if turned else net.op("Tanh", net.input)
    check(net, net.op("MatMul", net.input, right), batches=(1, 3))


@pytest.mark.parametrize("highest", [6.0, math.inf])
@pytest.mark.parametrize("kind", ["MatMul", "Sub", "Div"])
def test_a_clamp_after_two_values_is_not_lost(kind: str, highest: float) -> None:
    """BATCH_MATMUL takes no activation function in; those with one operand per element do."""
    net = Net(3, 3)
    made = net.op(kind, net.input, net.op("Exp", net.input))
    bounds = [net.const(each) for each in (0.0, highest)]
    clamped = net.op("Relu", made) if math.isinf(highest) else net.op("Clip", made, *bounds)
    assert run_tflite(write_tflite(net.model(made)), net.samples).values[0].min() < 0
    check(net, clamped, batches=(1, 3))


def test_products_of_values_with_other_numbers_of_axes_are_refused() -> None:
    net = Net(3, 3)
    flat = net.op("Flatten", net.op("ReduceMean", net.input, axes=[1]))
    output = net.op("MatMul", net.input, net.op("Transpose", flat, perm=[1, 0]))
    with pytest.raises(UnsupportedOpError, match="operands with 3 and 2 axes") as caught:
        write_tflite(net.model(output, batch=1))
    assert caught.value.remedy == "give both the same number of axes"


@pytest.mark.parametrize("axes", [[1], [3], [-1, 1], [1, 2, 3]])
@pytest.mark.parametrize("int8", [False, True])
def test_maxima_keep_their_inputs_grid(axes: list[int], *, int8: bool) -> None:
    net = Net(2, 3, 4, int8=int8)
    value = net.op("ReduceMax", net.input, axes=axes)
    check(net, net.q(value, *net.input_params), ["REDUCE_MAX"], steps=0, batches=(1, 3))


@pytest.mark.parametrize("axes", [[2], [-1, 1]])
@pytest.mark.parametrize("kind", ["ReduceMax", "ReduceMean"])
def test_axes_of_a_reduction_may_be_an_input(kind: str, axes: list[int]) -> None:
    net = Net(2, 3, 4, opset=18)
    found = check(net, net.op(kind, net.input, net.const(axes, np.int64)), batches=(1, 3))
    places = tuple(axis % 4 for axis in axes)
    wanted = net.samples.max(places, keepdims=True) if kind == "ReduceMax" else net.samples.mean(places, keepdims=True)
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_maxima_on_another_grid_are_float() -> None:
    net = Net(2, 3, int8=True)
    output = net.q(net.op("ReduceMax", net.input, axes=[2]), 0.05, 100)
    check(net, output, ["DEQUANTIZE", "REDUCE_MAX", "QUANTIZE"])


@pytest.mark.parametrize("options", [{}, {"axes": [0]}, {"axes": [1], "keepdims": 0}])
def test_other_maxima_are_refused(options: dict[str, Any]) -> None:
    net = Net(2, 3)
    output = net.op("ReduceMax", net.input, **options)
    with pytest.raises(UnsupportedOpError, match="a maximum over the batch or without keepdims") as caught:
        write_tflite(net.model(output))
    assert caught.value.remedy == "keep the axes"
