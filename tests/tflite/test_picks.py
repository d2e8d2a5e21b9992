"""Slices, gathers, pads, joins and other moves: elements by hand, int8 as float, and what is refused.

Shapes: N batch, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from pipeline.errors import UnsupportedOpError
from pipeline.tflite import write_tflite
from tests.tflite.nets import Floats, Net, check, operators, run_tflite


def counted(*shape: int) -> Net:
    """Begin a graph whose first sample is 0, 1, 2 …."""
    net = Net(*shape)
    net.samples[0] = np.arange(np.prod(shape)).reshape(shape)
    return net


def first(net: Net, output: str) -> Floats:
    """Run the first sample alone and return what comes out, without the batch."""
    found: Floats = run_tflite(write_tflite(net.model(output)), net.samples[:1]).values[0]
    return found


def integers(net: Net, *rows: Sequence[int]) -> list[str]:
    return [net.const(row, np.int64) for row in rows]


@pytest.mark.parametrize(
    ("rows", "wanted"),
    [
        (([1], [3], [2], [1]), [[1, 2], [5, 6]]),
        (([-2], [99], [2]), [[2, 3], [6, 7]]),
        (([0], [-1], [-1], [2]), [[0, 2], [4, 6]]),
        (([3], [4], [2], [5]), [[3], [7]]),
        (([0], [2], [2], [2]), [[0], [4]]),
        (([0, 1], [1, 4], [1, 2], [1, 2]), [[1, 3]]),
        (([1, 0], [2, 2], [-2, -1]), [[4, 5]]),
        (([-99], [99], [1]), [[0, 1, 2, 3], [4, 5, 6, 7]]),
    ],
)
def test_slices(rows: tuple[list[int], ...], wanted: list[list[float]]) -> None:
    net = counted(2, 4)
    assert first(net, net.op("Slice", net.input, *integers(net, *rows))).tolist() == wanted


@pytest.mark.parametrize(
    ("axis", "indices", "wanted"),
    [
        (1, [1, 1, 0], [[4, 5, 6, 7], [4, 5, 6, 7], [0, 1, 2, 3]]),
        (-1, [-1, 0], [[3, 0], [7, 4]]),
        (2, [2], [[2], [6]]),
    ],
)
def test_gathers(axis: int, indices: list[int], wanted: list[list[float]]) -> None:
    net = counted(2, 4)
    assert first(net, net.op("Gather", net.input, *integers(net, indices), axis=axis)).tolist() == wanted


@pytest.mark.parametrize("kind", ["Slice", "Gather"])
@pytest.mark.parametrize("int8", [False, True])
def test_a_choice_from_an_axis_of_one(kind: str, *, int8: bool) -> None:
    """The axis is not stored once the value is read without it."""
    net = Net(3, 1, 4, int8=int8)
    flat = net.op("Squeeze", net.input, *integers(net, [2]))
    again = net.op("Unsqueeze", flat, *integers(net, [2]))
    if kind == "Slice":
        output = net.op("Slice", again, *integers(net, [0], [1], [2]))
    else:
        output = net.op("Gather", again, *integers(net, [0, 0]), axis=2)
    found = check(net, net.q(output, *net.input_params), steps=0, batches=(1, 3))
    assert found.shape == (8, 3, 1 if kind == "Slice" else 2, 4)


@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize("axis", [1, 2, 3, 4])
def test_five_axes(axis: int, *, int8: bool) -> None:
    net = Net(3, 2, 4, 3, int8=int8)
    sliced = net.op("Slice", net.input, *integers(net, [0], [99], [axis], [2]))
    output = net.op("Gather", sliced, *integers(net, [0, -1]), axis=axis)
    check(net, net.q(output, *net.input_params), steps=0, batches=(1, 3))


@pytest.mark.parametrize(
    ("kind", "rows", "options", "words"),
    [
        ("Slice", ([0], [1], [0]), {}, "a slice of the batch"),
        ("Slice", ([3], [0], [2], [-1]), {}, "a slice backwards"),
        ("Gather", ([0],), {"axis": 0}, "a choice of the batch"),
    ],
)
def test_choices_that_are_refused(kind: str, rows: tuple[list[int], ...], options: dict[str, Any], words: str) -> None:
    net = Net(2, 4)
    output = net.op(kind, net.input, *integers(net, *rows), **options)
    with pytest.raises(UnsupportedOpError, match=words) as caught:
        write_tflite(net.model(output))
    assert caught.value.where == f"layer 'features.{output}' ({kind})"
    assert "another axis" in caught.value.remedy or "other axes" in caught.value.remedy


@pytest.mark.parametrize("indices", [1, [[0, 1]]])
def test_indices_lie_in_one_row(indices: object) -> None:
    net = Net(2, 4)
    output = net.op("Gather", net.input, net.const(indices, np.int64), axis=1)
    with pytest.raises(UnsupportedOpError, match="indices of more than one axis"):
        write_tflite(net.model(output))


# ── pads and joins ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("amounts", "fill", "wanted"),
    [
        ([0, 0, 1, 0, 0, 0], None, [[0, 0, 1], [0, 2, 3]]),
        ([0, 1, 0, 0, 0, 2], None, [[0, 0, 0, 0], [0, 1, 0, 0], [2, 3, 0, 0]]),
        ([0, 0, 0, 0, 0, 1], -7.5, [[0, 1, -7.5], [2, 3, -7.5]]),
        ([0] * 6, 3.0, [[0, 1], [2, 3]]),
    ],
)
def test_pads(amounts: list[int], fill: float | None, wanted: list[list[float]]) -> None:
    net = counted(2, 2)
    inputs = integers(net, amounts) + ([] if fill is None else [net.const(fill)])
    assert first(net, net.op("Pad", net.input, *inputs)).tolist() == wanted


def test_only_some_axes_are_padded() -> None:
    net = Net(2, 3, opset=18)
    output = net.op("Pad", net.input, *integers(net, [1, 0, 2, 1]), net.const(0.5), *integers(net, [-1, 1]))
    assert check(net, output).shape == (8, 3, 6)


@pytest.mark.parametrize(("fill", "written"), [(0.0, ["PAD"]), (0.5, ["PADV2"])])
def test_integers_are_padded_on_their_own_grid(fill: float, written: list[str]) -> None:
    net = Net(3, 2, 2, int8=True)
    output = net.op("Pad", net.input, *integers(net, [0, 0, 1, 0, 0, 0, 0, 1]), net.const(fill))
    check(net, net.q(output, *net.input_params), written, steps=0)


def test_a_number_that_lies_beyond_the_grid_is_padded_in_float() -> None:
    net = Net(3, 2, 2, int8=True)
    output = net.op("Pad", net.input, *integers(net, [0, 0, 1, 0, 0, 0, 0, 1]), net.const(70.0))
    check(net, net.q(output), ["DEQUANTIZE", "PADV2", "QUANTIZE"])


@pytest.mark.parametrize("axis", [1, 2, 3, -1])
def test_integers_of_two_grids_are_joined_on_one(axis: int) -> None:
    net = Net(2, 3, 4, int8=True)
    other = net.q(net.op("Tanh", net.input), 1 / 128, 128)
    check(net, net.q(net.op("Concat", net.input, other, net.input, axis=axis), 0.03, 128), batches=(1, 3))


def test_integers_of_one_grid_are_joined_without_another_and_floats_in_float() -> None:
    net = Net(2, 3, int8=True)
    joined = net.op("Concat", net.input, net.input, axis=2)
    assert operators(write_tflite(net.model(joined))) == ["CONCATENATION"]
    mixed = net.op("Concat", net.input, net.op("Exp", net.input), axis=1)
    assert sorted(operators(write_tflite(net.model(mixed)))) == ["CONCATENATION", "DEQUANTIZE", "EXP"]


def test_values_are_joined_along_an_axis_that_was_one_before() -> None:
    net = counted(3)
    stood = net.op("Unsqueeze", net.input, *integers(net, [1]))
    assert first(net, net.op("Concat", stood, stood, axis=1)).tolist() == [[0, 1, 2], [0, 1, 2]]


# ── readings ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("shape", "kind", "rows", "options", "written"),
    [
        ((3, 1, 1), "Flatten", (), {}, ["RESHAPE"]),
        ((1, 4, 5), "Flatten", (), {}, ["RESHAPE"] * 2),
        ((3, 4), "Transpose", (), {"perm": [0, 2, 1]}, ["TRANSPOSE"]),
        ((1, 4), "Transpose", (), {"perm": [0, 2, 1]}, ["RESHAPE"]),
        ((3, 1, 5), "Squeeze", ([2],), {}, ["RESHAPE", "TRANSPOSE"]),
        ((3, 4), "Reshape", ([0, 3, 4],), {}, []),
    ],
)
def test_elements_move_at_the_ends_alone(
    shape: tuple[int, ...], kind: str, rows: tuple[list[int], ...], options: dict[str, Any], written: list[str]
) -> None:
    """The graph's ends are read channels last where they are images, else as in ONNX."""
    net = Net(*shape)
    doubled = net.op("Mul", net.input, net.const(2.0))
    output = net.op(kind, doubled, *integers(net, *rows), **options)
    check(net, output, ["MUL", *written], batches=(1, 3))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("back", [(-1, 2, 3, 4), (-1, 6, 4)])
def test_a_linear_layer_on_the_last_axis_is_one_operator(back: tuple[int, ...], *, bias: bool) -> None:
    """(N, A, B, F) → (N * A * B, F) → (N * A * B, O) → (N, A, B, O), and another form, which stays three."""
    net = Net(2, 3, 5)
    rows = net.op("Reshape", net.input, *integers(net, [-1, 5]))
    product = net.op("Gemm", rows, net.random(4, 5), *([net.random(4)] if bias else []), transB=1)
    output = net.op("Reshape", product, *integers(net, back))
    found = check(net, output, batches=(1, 3))
    written = operators(write_tflite(net.model(output)))
    assert written.count("FULLY_CONNECTED") == 1
    assert (written.count("RESHAPE") == 0) is (found.ndim == 4)


def test_rows_that_another_layer_reads_stay_rows() -> None:
    net = Net(4, 6)
    rows = net.op("Reshape", net.input, *integers(net, [-1, 6]))
    left = net.op("Reshape", net.gemm(rows, 5, 6), *integers(net, [-1, 4, 5]))
    right = net.op("Reshape", net.op("Relu", rows), *integers(net, [-1, 4, 6]))
    check(net, net.op("Concat", left, right, axis=2), batches=(1, 3))
