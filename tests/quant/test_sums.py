"""Sums, products and means of quantized values: the frozen integers, ONNX Runtime and LiteRT give the same numbers.

Shapes: N batch, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, fx, nn

from pipeline.declare.recipe import QuantizeSpec
from pipeline.graph.params import QuantParams
from pipeline.networks.from_torch import folded_graph
from pipeline.quant.calibrate import bound_scales, calibrate
from pipeline.quant.fakequant import ActivationQuantizer
from pipeline.quant.frozen import FrozenMean, FrozenProduct, FrozenQuantizer, FrozenSum, shaken_outputs
from pipeline.quant.prepare import freeze, prepare
from pipeline.quant.sums import Addend, exact_scales
from pipeline.quant.to_onnx import to_bytes, write_onnx
from pipeline.tflite import write_tflite
from tests.quant.exact import run_exactly
from tests.tflite.nets import run_tflite

SHAPE = (6, 8, 8)
SCALES = st.floats(2**-9, 2**-5, width=32)
ZEROS = st.integers(0, 255)
BYTES = np.arange(256)


def addend(scale: float, zero: int, *, free: bool = True) -> Addend:
    return Addend(scale=scale, steps=BYTES - zero, free=free)


# ── scales ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@settings(max_examples=40, deadline=None)
@given(SCALES, SCALES, SCALES, ZEROS, ZEROS)
def test_ratios_have_fifteen_bits_and_sums_no_ties(a: float, b: float, total: float, zero_a: int, zero_b: int) -> None:
    total = max(total, float(np.float32(max(a, b) / 1.5)))
    found = exact_scales([addend(a, zero_a), addend(b, zero_b)], total=total)
    unit = 2.0**-15 if max(a, b) <= total else 2.0**-14
    units = [float(np.float32(scale) / np.float32(total)) / unit for scale in found]
    assert all(each == int(each) <= 2**15 + 16 for each in units)
    assert found == pytest.approx((a, b), rel=2**-7)
    sums = (BYTES - zero_a)[:, None] * int(units[0]) + (BYTES - zero_b)[None] * int(units[1])
    assert not np.any(sums % round(1 / unit) == round(1 / unit) // 2)
    again = exact_scales([addend(found[0], zero_a), addend(found[1], zero_b)], total=total)
    assert again == found


# float32 products of ratios near these by the total fall half way between two scales
BETWEEN = (0.03873682767152786, 0.047530997544527054, 0.04345691204071045)


def in_21_bits(a: NDArray[np.uint8], b: NDArray[np.uint8], grids: Sequence[QuantParams]) -> NDArray[np.int64]:
    """Add as XNNPACK does (``xnn_init_qs8_add_minmax_params``): integer multipliers, half up."""
    *addends, total = grids
    ratios = [float(np.float32(each.scale) / np.float32(total.scale)) for each in addends]
    shift = 20 - int(np.floor(np.log2(max(ratios))))
    first, second = (round(ratio * 2**shift) for ratio in ratios)
    moved = [each.astype(np.int64) - grid.zero_point for each, grid in zip((a, b), addends, strict=True)]
    result = first * moved[0] + second * moved[1]
    rounded: NDArray[np.int64] = (result + 2 ** (shift - 1)) >> shift
    return np.minimum(np.maximum(rounded + total.zero_point, 0), 255)


@pytest.mark.parametrize(("zero_a", "zero_b", "zero"), [(0, 112, 0), (128, 128, 128), (7, 200, 90)])
def test_ratios_that_are_no_quotients_of_scales_tie_nowhere_and_are_told_apart_by_every_kernel(
    zero_a: int, zero_b: int, zero: int
) -> None:
    scale_a, scale_b, total = BETWEEN
    scales = exact_scales([addend(scale_a, zero_a), addend(scale_b, zero_b)], total=total)
    assert scales[0] != scale_a
    assert scales == pytest.approx((scale_a, scale_b), rel=2**-7)
    grids = QuantParams.of(scales[0], zero_a), QuantParams.of(scales[1], zero_b), QuantParams.of(total, zero)
    a, b = (each.astype(np.uint8) for each in np.meshgrid(BYTES, BYTES))
    frozen = FrozenQuantizer(grids[2])(FrozenSum(*grids[:2], result=grids[2])(real(a, grids[0]), real(b, grids[1])))
    assert torch.equal(frozen, in_onnxruntime("QLinearAdd", [(a, grids[0]), (b, grids[1])], grids[2]))
    assert torch.equal(frozen, real(in_21_bits(a, b, grids), grids[2]))


def test_a_scale_that_is_not_free_or_far_too_small_stays() -> None:
    assert exact_scales([addend(0.011, 3, free=False), addend(0.013, 5)], total=0.02)[0] == 0.011
    assert exact_scales([addend(0.011, 3), addend(1e-6, 5)], total=0.02)[1] == 1e-6
    assert exact_scales([addend(float("inf"), 3), addend(0.1, 5)], total=0.02) == (float("inf"), 0.1)


@settings(max_examples=40, deadline=None)
@given(SCALES, SCALES, ZEROS, ZEROS, ZEROS)
def test_nothing_is_rounded_before_a_sum_is_complete(a: float, b: float, zero_a: int, zero_b: int, zero: int) -> None:
    """In float32, without and with fused multiplications, whatever comes first."""
    total = float(np.float32(max(a, b) * 1.25))
    ratios = [
        np.float32(e) / np.float32(total) for e in exact_scales([addend(a, zero_a), addend(b, zero_b)], total=total)
    ]
    exact = zero + (BYTES - zero_a)[:, None] * float(ratios[0]) + (BYTES - zero_b)[None] * float(ratios[1])
    start = np.float32(zero) - (np.float32(zero_a) * ratios[0] + np.float32(zero_b) * ratios[1])
    parts = BYTES.astype(np.float32)[:, None] * ratios[0], BYTES.astype(np.float32)[None] * ratios[1]
    inside = (exact > -1) & (exact < 256)
    for found in ((start + parts[0]) + parts[1], (start + parts[1]) + parts[0]):
        assert found.dtype == np.float32
        assert np.array_equal(found[inside], exact[inside])


# ── kernels ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def in_onnxruntime(
    kind: str, operands: list[tuple[NDArray[np.uint8], QuantParams]], result: QuantParams, **attributes: Any
) -> Tensor:
    """Run one integer operator and return its real numbers."""
    inputs, constants, values = list[str](), list[onnx.TensorProto](), dict[str, NDArray[np.uint8]]()

    def parameters(name: str, grid: QuantParams) -> None:
        constants.append(numpy_helper.from_array(np.array(grid.scale, np.float32), f"{name}.s"))
        constants.append(numpy_helper.from_array(np.array(grid.zero_point, np.uint8), f"{name}.z"))
        inputs.extend((f"{name}.s", f"{name}.z"))

    for index, (value, grid) in enumerate(operands):
        inputs.append(f"x{index}")
        values[f"x{index}"] = value
        parameters(f"x{index}", grid)
    parameters("y", result)
    graph = helper.make_graph(
        [helper.make_node(kind, inputs, ["y"], domain="com.microsoft", **attributes)],
        "one",
        [helper.make_tensor_value_info(name, TensorProto.UINT8, value.shape) for name, value in values.items()],
        [helper.make_tensor_value_info("y", TensorProto.UINT8, None)],
        constants,
    )
    opsets = [helper.make_opsetid("", 13), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=7)
    (found,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, values)
    return real(np.asarray(found), result)


def real(steps: NDArray[np.generic], grid: QuantParams) -> Tensor:
    result: Tensor = (torch.from_numpy(steps.astype(np.float32)) - grid.zero_point) * grid.scale
    return result


@settings(max_examples=30, deadline=None)
@given(st.tuples(SCALES, SCALES, SCALES), st.tuples(ZEROS, ZEROS, ZEROS), st.booleans())
def test_sums_and_products_are_those_of_onnxruntimes_kernels(
    raw: tuple[float, float, float], zeros: tuple[int, int, int], product: bool
) -> None:
    """All pairs of integers, with scales as exact as sums have them."""
    (scale_a, scale_b, scale), (zero_a, zero_b, zero) = raw, zeros
    a, b = (each.astype(np.uint8) for each in np.meshgrid(BYTES, BYTES))
    result = QuantParams.of(scale_a * scale_b * 128 if product else max(scale, scale_a / 64, scale_b / 64), zero)
    scales = exact_scales([addend(scale_a, zero_a), addend(scale_b, zero_b)], total=result.scale)
    grids = QuantParams.of(scales[0], zero_a), QuantParams.of(scales[1], zero_b)
    operation = (FrozenProduct if product else FrozenSum)(*grids, result=result)
    found = FrozenQuantizer(result)(operation(real(a, grids[0]), real(b, grids[1])))
    kind = "QLinearMul" if product else "QLinearAdd"
    assert torch.equal(found, in_onnxruntime(kind, list(zip((a, b), grids, strict=True)), result))


@settings(max_examples=20, deadline=None)
@given(SCALES, st.floats(0.25, 1, width=32), ZEROS, ZEROS, st.integers(1, 8))
def test_means_are_those_of_onnxruntimes_kernel(scale: float, share: float, zero: int, other: int, side: int) -> None:
    x = np.random.default_rng(side).integers(0, 256, (4, 64, side, side)).astype(np.uint8)
    grid, result = QuantParams.of(scale, zero), QuantParams.of(float(np.float32(scale * share)), other)
    found = FrozenQuantizer(result)(FrozenMean(grid.scale, result.scale)(real(x, grid)))
    assert torch.equal(found.float(), in_onnxruntime("QLinearGlobalAveragePool", [(x, grid)], result))


def test_ties_of_a_sum_go_to_the_even_integer_with_its_zero_point_and_shaken_the_other_way() -> None:
    grid, result = QuantParams.of(0.5), QuantParams.of(1.0, 1)
    total = fx.Graph()
    total.output(total.call_module("sum", (total.placeholder("x"), total.placeholder("y"))))
    graph = fx.GraphModule({"sum": FrozenSum(grid, grid, result=result)}, total)
    x = torch.tensor([0.5, 1.5, 2.0])
    assert graph(x, torch.zeros(3)).tolist() == [1.0, 1.0, 2.0]  # 1.5 → 2, 2.5 → 2, 3

    class Beside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.graph = graph

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = graph(x, torch.zeros(3))
            return result

    assert shaken_outputs(Beside(), x, share=0.1, times=0)[-1].tolist() == [0.0, 2.0, 2.0]


# ── networks ────────────────────────────────────────────────────────────────────────────────────────────────────────


class Block(nn.Module):
    def __init__(self, size: float, *, ends_in_relu: bool) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.ends_in_relu = ends_in_relu
        with torch.no_grad():
            self.second.weight.mul_(size)

    def forward(self, x: Tensor) -> Tensor:
        total: Tensor = self.second(self.first(x).relu()) + x
        return total.relu() if self.ends_in_relu else total


def chain() -> nn.Module:
    """Five residual blocks whose addends are of different sizes."""
    torch.manual_seed(5)
    sizes = (0.3, 2.0, 5.0, 0.7, 3.0)
    return nn.Sequential(*(Block(size, ends_in_relu=index != 2) for index, size in enumerate(sizes)))


class Gated(nn.Module):
    """A hard-swish, squeeze and excitation, an offset, one value that two sums read and one that is added to itself."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.stem, self.squeeze, self.last = nn.Conv2d(6, 6, 3), nn.Conv2d(6, 6, 1), nn.Conv2d(6, 6, 1)
        self.offset = nn.Parameter(torch.randn(1, 6, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.hardswish(self.stem(x))
        gate = torch.sigmoid(self.squeeze(x.mean((2, 3), keepdim=True)))
        x = x * gate + self.offset
        y = x + self.last(x)
        result: Tensor = y + x + (x + x)
        return result


def prepared(network: nn.Module, x: Tensor) -> fx.GraphModule:
    graph = prepare(folded_graph(network.eval(), SHAPE), weight_bits=8)
    calibrate(graph, x, QuantizeSpec(calibration="min-max"))
    return graph.eval()


@torch.no_grad()
def same_in_both(graph: fx.GraphModule, x: Tensor) -> tuple[bool, bool]:
    """Say whether ONNX Runtime and LiteRT give the frozen integers, all of them."""
    model, wanted = write_onnx(graph, name="net"), freeze(graph)(x).numpy()
    apart = (np.abs(run(x) - wanted).max() for run in (onnx_of(model), tflite_of(model)))
    in_onnx, in_tflite = (bool(each < 1e-4 * np.ptp(wanted)) for each in apart)
    return in_onnx, in_tflite


def onnx_of(model: onnx.ModelProto) -> Callable[[Tensor], NDArray[np.float32]]:
    return lambda x: run_exactly(to_bytes(model), x.numpy())


def tflite_of(model: onnx.ModelProto) -> Callable[[Tensor], NDArray[np.float32]]:
    return lambda x: run_tflite(write_tflite(model), x.numpy()).values


@pytest.mark.parametrize("network", [chain, Gated], ids=["residual", "gated"])
def test_networks_are_the_same_integers_in_both_runtimes(network: Callable[[], nn.Module]) -> None:
    x = torch.randn(256, *SHAPE, generator=torch.Generator().manual_seed(1))
    graph = prepared(network(), x[:32])
    assert same_in_both(graph, x) == (True, True)
    ratios = [
        float(scale / module.scales[2])
        for module in freeze(graph).modules()
        if isinstance(module, FrozenSum)
        for scale in module.scales[:2]
    ]
    inexact = 3 if network is Gated else 0  # the scale of a value that three sums read is exact in the first
    assert sum(ratio * 2**15 % 1 > 0 for ratio in ratios) == inexact


def test_scales_are_settled_until_training_moves_them_and_again_after_it() -> None:
    x = torch.randn(64, *SHAPE, generator=torch.Generator().manual_seed(2))
    graph = prepared(chain(), x)
    quantizer = graph.get_submodule("quantizers.3_second")
    assert isinstance(quantizer, ActivationQuantizer)
    settled = quantizer.params
    assert quantizer.params.scale == float(quantizer.settled)
    graph.train()
    graph(3 * x)
    assert quantizer.params.scale > 1.01 * settled.scale
    bound_scales(graph)
    assert quantizer.params.scale == float(quantizer.settled) > 1.01 * settled.scale
    assert same_in_both(graph.eval(), x) == (True, True)
