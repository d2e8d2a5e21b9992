"""The operations of a flat graph: what goes in, what comes out, by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from pipeline.graph import ops
from pipeline.graph.kept import KeptGrid, on_its_grid
from pipeline.graph.kinds import kind_of
from pipeline.graph.params import UINT8, QuantParams

COUNTED = torch.arange(6.0).reshape(1, 2, 3)  # [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize(
    ("module", "found"),
    [
        (ops.Reshape((6,)), [[0, 1, 2, 3, 4, 5]]),
        (ops.Reshape((3, 2)), [[[0, 1], [2, 3], [4, 5]]]),
        (ops.Reshape((2, 1, 3)), [[[[0, 1, 2]], [[3, 4, 5]]]]),
        (ops.Permute((0, 2, 1)), [[[0, 3], [1, 4], [2, 5]]]),
        (ops.Slice(2, 0, 3, 2), [[[0, 2], [3, 5]]]),
        (ops.Slice(1, 1, 2), [[[3, 4, 5]]]),
        (ops.Slice(2, 1, 99), [[[1, 2], [4, 5]]]),  # as far as there is something
        (ops.Gather(2, torch.tensor([2, 0, 0])), [[[2, 0, 0], [5, 3, 3]]]),
        (ops.Pad((1, 0)), [[[0, 0, 1, 2], [0, 3, 4, 5]]]),
        (ops.Pad((0, 0, 0, 1), 7.0), [[[0, 1, 2], [3, 4, 5], [7, 7, 7]]]),
        (ops.Pad((-1, 0)), [[[1, 2], [4, 5]]]),
        (ops.GlobalAveragePool(), [[[1], [4]]]),
        (ops.Reduce("ReduceMean", (1,)), [[[1.5, 2.5, 3.5]]]),
        (ops.Reduce("ReduceMax", (1, 2)), [[[5]]]),
        (ops.Power(2.0), [[[0, 1, 4], [9, 16, 25]]]),
        (ops.Power(0.0), [[[1, 1, 1], [1, 1, 1]]]),
        (ops.Scale(2.0, -1.0), [[[-1, 1, 3], [5, 7, 9]]]),
        (ops.Scale(torch.tensor([[1.0], [10.0]]), 0.0), [[[0, 1, 2], [30, 40, 50]]]),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_one_value_in_one_value_out(module: nn.Module, found: list[object]) -> None:
    assert module(COUNTED).tolist() == found


@pytest.mark.parametrize(
    ("module", "found"),
    [
        (ops.Add(), [[[0, 11, 22], [3, 14, 25]]]),
        (ops.Sub(), [[[0, -9, -18], [3, -6, -15]]]),
        (ops.Mul(), [[[0, 10, 40], [0, 40, 100]]]),
        (ops.Concat(1), [[[0, 1, 2], [3, 4, 5], [0, 10, 20]]]),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_a_smaller_value_is_repeated(module: nn.Module, found: list[object]) -> None:
    assert module(COUNTED, torch.tensor([[[0.0, 10.0, 20.0]]])).tolist() == found


def test_a_quotient_and_a_matrix_product() -> None:
    assert ops.Div()(torch.tensor([1.0, -1.0, 0.0]), torch.tensor([4.0, 0.0, 2.0])).tolist() == [0.25, -math.inf, 0]
    assert ops.MatMul()(COUNTED, COUNTED.mT).tolist() == [[[5, 14], [14, 50]]]


FUNCTIONS: dict[str, tuple[list[float], list[float]]] = {
    "Abs": ([-2.0, 0.0, 3.0], [2.0, 0.0, 3.0]),
    "Cos": ([0.0, math.pi], [1.0, -1.0]),
    "Erf": ([0.0, 1.0, -1.0, 9.0], [0.0, math.erf(1), -math.erf(1), 1.0]),
    "Exp": ([0.0, 1.0, -200.0], [1.0, math.e, 0.0]),
    "Floor": ([-0.5, 0.5, 2.0], [-1.0, 0.0, 2.0]),
    "Log": ([1.0, math.e, 0.0], [0.0, 1.0, -math.inf]),
    "Positive": ([-1e-30, 0.0, 1e-30, 5.0], [0.0, 0.0, 1.0, 1.0]),
    "Reciprocal": ([4.0, -0.5, math.inf], [0.25, -2.0, 0.0]),
    "Round": ([0.5, 1.5, 2.5, -0.5, -1.5], [0.0, 2.0, 2.0, 0.0, -2.0]),  # half to even
    "Sin": ([0.0, math.pi / 2], [0.0, 1.0]),
    "Sqrt": ([0.0, 2.25], [0.0, 1.5]),
}


@pytest.mark.parametrize("name", ops.FUNCTIONS)
def test_functions_of_each_element(name: str) -> None:
    given, wanted = FUNCTIONS[name]
    assert ops.Function(name)(torch.tensor(given)).tolist() == pytest.approx(wanted, rel=1e-6, abs=1e-6)
    assert kind_of(ops.Function(name)) == name


@pytest.mark.parametrize(
    ("factor", "offset", "has_factor", "has_offset"),
    [
        (1.0, 0.0, False, False),
        (2.0, 0.0, True, False),
        (1.0, -3.0, False, True),
        (torch.tensor([1.0, 1.0]), torch.tensor([0.0, 1e-9]), False, True),
        (nn.Parameter(torch.ones(2)), 0.0, True, False),  # it may change while training
        (1.0, nn.Parameter(torch.zeros(2)), False, True),
    ],
)
def test_what_a_scale_has(factor: Tensor | float, offset: Tensor | float, has_factor: bool, has_offset: bool) -> None:
    scale = ops.Scale(factor, offset)
    assert (scale.has_factor, scale.has_offset) == (has_factor, has_offset)
    given = {"factor": factor, "offset": offset}
    trained = [name for name, value in given.items() if isinstance(value, nn.Parameter)]
    assert [name for name, _ in scale.named_parameters()] == trained


def test_a_pad_with_a_number_and_a_reduction_have_names_of_their_own() -> None:
    assert [kind_of(ops.Pad((1, 1), value)) for value in (0.0, -0.0, 0.5)] == ["Pad", "Pad", "PadFilled"]
    assert [kind_of(ops.Reduce(name, (1,))) for name in ("ReduceMean", "ReduceMax")] == ["ReduceMean", "ReduceMax"]
    assert kind_of(ops.Projection(2, 2)) == "Projection"
    assert kind_of(nn.Linear(2, 2)) == "Gemm"
    assert kind_of(nn.ReLU6()) == kind_of(nn.Hardtanh()) == kind_of(KeptGrid(0.1, 0)) == "Clip"


@pytest.mark.parametrize(
    ("scale", "zero_point", "low", "high"),
    [
        (0.5, 0, 0.0, 127.5),
        (0.5, 255, -127.5, 0.0),
        (2.0, 128, -256.0, 254.0),
        (2**-20, 10, -10 * 2**-20, 245 * 2**-20),
    ],
)
def test_a_kept_grid_clamps_to_its_ends(scale: float, zero_point: int, low: float, high: float) -> None:
    x = torch.tensor([-1e9, low, 0.0, 0.3 * high, high, 1e9])
    wanted = [low, low, 0.0, pytest.approx(0.3 * high), high, high]
    kept = KeptGrid(scale, zero_point)
    assert kept.params == QuantParams.of(scale, zero_point, UINT8)
    assert on_its_grid(x, scale, zero_point).tolist() == kept(x).tolist() == wanted
