"""Where resized pixels come from: places by hand, TFLite's three ways for ONNX's, and what is refused.

Shapes: N batch, C channels, H height, W width, L length.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pipeline.errors import UnsupportedOpError
from pipeline.tflite import write_tflite
from pipeline.tflite.graph import Node
from pipeline.tflite.ops_resize import _ROUNDING, _Axis, _placement, _positions
from tests.tflite.nets import Net, check, operators, run_tflite

BATCHES = (1, 3)


def axis(before: int, after: int, scale: float | None = None) -> _Axis:
    return _Axis(before=before, after=after, scale=after / before if scale is None else scale)


@pytest.mark.parametrize(
    ("how", "before", "after", "wanted"),
    [
        ("asymmetric", 2, 4, [0, 0.5, 1, 1.5]),
        ("half_pixel", 2, 4, [-0.25, 0.25, 0.75, 1.25]),
        ("pytorch_half_pixel", 2, 4, [-0.25, 0.25, 0.75, 1.25]),
        ("align_corners", 3, 5, [0, 0.5, 1, 1.5, 2]),
        ("asymmetric", 4, 2, [0, 2]),
        ("half_pixel", 4, 2, [0.5, 2.5]),
        ("half_pixel", 4, 1, [1.5]),  # the middle
        ("pytorch_half_pixel", 4, 1, [0]),  # the first
        ("align_corners", 4, 1, [0]),
        ("align_corners", 1, 3, [0, 0, 0]),
        ("asymmetric", 1, 2, [0, 0.5]),
    ],
)
def test_where_an_output_reads(how: str, before: int, after: int, wanted: list[float]) -> None:
    assert _positions(how, axis(before, after), after / before).tolist() == wanted


def test_a_way_that_is_not_known_reads_nowhere() -> None:
    assert np.isnan(_positions("tf_crop_and_resize", axis(2, 4), 2.0)).all()


@pytest.mark.parametrize(
    ("rounding", "wanted"),
    [
        ("floor", [-1, 0, 0, 1, 2]),
        ("ceil", [0, 1, 1, 2, 2]),
        ("round_prefer_floor", [-1, 0, 1, 1, 2]),
        ("round_prefer_ceil", [0, 1, 1, 2, 2]),
    ],
)
def test_how_places_are_rounded(rounding: str, wanted: list[float]) -> None:
    assert _ROUNDING[rounding](np.array([-0.5, 0.5, 0.75, 1.5, 2.0], np.float32)).tolist() == wanted


def resize(**attributes: str) -> Node:
    return Node(op="Resize", name="up", inputs=("x",), output="y", attributes=attributes)


@pytest.mark.parametrize(
    ("how", "mode", "rounding", "sizes", "wanted"),
    [
        ("asymmetric", "nearest", "floor", (4, 8), "asymmetric"),
        ("asymmetric", "nearest", "floor", (8, 3), "asymmetric"),
        ("half_pixel", "nearest", "round_prefer_floor", (4, 8), "asymmetric"),  # the same pixels, the plainer way
        ("half_pixel", "nearest", "round_prefer_ceil", (3, 5), "half_pixel"),
        ("align_corners", "nearest", "round_prefer_ceil", (3, 9), "align_corners"),
        ("half_pixel", "linear", "floor", (4, 8), "half_pixel"),
        ("pytorch_half_pixel", "linear", "floor", (4, 8), "half_pixel"),
        ("pytorch_half_pixel", "linear", "floor", (4, 1), "asymmetric"),  # one pixel: the first
        ("align_corners", "linear", "floor", (4, 9), "align_corners"),
        ("align_corners", "linear", "floor", (1, 9), "asymmetric"),  # wherever it reads, there is one pixel
        ("asymmetric", "linear", "floor", (5, 5), "asymmetric"),
    ],
)
def test_which_of_three_ways_reads_the_same(
    how: str, mode: str, rounding: str, sizes: tuple[int, int], wanted: str
) -> None:
    node = resize(coordinate_transformation_mode=how, nearest_mode=rounding)
    assert _placement(node, mode, [axis(*sizes)]) == wanted


def test_a_scale_that_is_not_the_quotient_of_sizes_counts() -> None:
    """ONNX multiplies by the scale given and cuts off; TFLite knows sizes alone."""
    node = resize(coordinate_transformation_mode="asymmetric")
    with pytest.raises(UnsupportedOpError, match="mode 'linear' with 'asymmetric' from 5 to 12") as caught:
        _placement(node, "linear", [axis(5, 12, 2.5)])
    assert caught.value.where == "layer 'up' (Resize)"
    assert "a whole scale factor" in caught.value.remedy


def test_one_way_for_both_axes_is_asked_for() -> None:
    """(4, 8) reads as asymmetric and as half pixels; (3, 5) as half pixels alone."""
    node = resize(coordinate_transformation_mode="half_pixel", nearest_mode="round_prefer_ceil")
    assert _placement(node, "nearest", [axis(3, 5), axis(4, 4)]) == "half_pixel"
    with pytest.raises(UnsupportedOpError, match="from 4 to 8, 2 to 7"):
        _placement(
            resize(coordinate_transformation_mode="half_pixel", nearest_mode="ceil"),
            "nearest",
            [axis(4, 8), axis(2, 7)],
        )


# ── files ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize(
    ("shape", "scales", "mode", "how"),
    [
        ((1, 1, 1), (3, 2), "nearest", "asymmetric"),
        ((2, 1, 4), (1, 2), "linear", "half_pixel"),
        ((2, 4, 1), (2, 1), "linear", "align_corners"),
        ((2, 4, 6), (0.5, 0.5), "nearest", "asymmetric"),
        ((2, 4, 6), (0.5, 2), "linear", "half_pixel"),
        ((2, 3, 5), (1, 1), "nearest", "asymmetric"),
    ],
)
def test_images(shape: tuple[int, ...], scales: tuple[float, float], mode: str, how: str, *, int8: bool) -> None:
    net = Net(*shape, int8=int8)
    extra = {"nearest_mode": "floor"} if mode == "nearest" else {}
    sizes = ["", net.const([1, 1, *scales])]
    output = net.op("Resize", net.input, *sizes, mode=mode, coordinate_transformation_mode=how, **extra)
    check(net, net.q(output, *net.input_params), batches=BATCHES)


def test_a_sequence_is_made_longer() -> None:
    net = Net(2, 3)
    net.samples[0] = [[1, 2, 3], [4, 5, 6]]
    options = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    output = net.op("Resize", net.input, "", net.const([1, 1, 2]), **options)
    found = run_tflite(write_tflite(net.model(output)), net.samples[:1])
    assert found.values.tolist() == [[[1, 1, 2, 2, 3, 3], [4, 4, 5, 5, 6, 6]]]


@pytest.mark.parametrize(("axes", "scales"), [([2, 3], [2, 3]), ([3], [2]), ([-1, -2], [3, 2])])
def test_axes_may_be_named(axes: list[int], scales: list[float]) -> None:
    net = Net(2, 3, 4, opset=18)
    options: dict[str, Any] = {"mode": "nearest", "nearest_mode": "floor", "axes": axes}
    how = "asymmetric"
    check(net, net.op("Resize", net.input, "", net.const(scales), coordinate_transformation_mode=how, **options))


def test_integers_between_two_steps_are_made_in_float_where_no_grid_follows() -> None:
    net = Net(2, 3, 4, int8=True)
    value = net.op("Resize", net.input, "", net.const([1, 1, 2, 2]), mode="linear")
    assert operators(write_tflite(net.model(value))) == ["DEQUANTIZE", "RESIZE_BILINEAR"]
    nearest = {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}
    value = net.op("Resize", net.input, "", net.const([1, 1, 2, 2]), **nearest)
    assert operators(write_tflite(net.model(value))) == ["RESIZE_NEAREST_NEIGHBOR"]


@pytest.mark.parametrize(
    ("scales", "options", "words"),
    [
        ([1, 2, 1, 1], {"mode": "linear"}, "a resize of batch or channels, or antialias"),
        ([1, 1, 0.5, 0.5], {"mode": "linear", "antialias": 1}, "a resize of batch or channels, or antialias"),
        ([1, 1, 2, 2], {"mode": "cubic"}, "mode 'cubic'"),
    ],
)
def test_other_resizes_are_refused(scales: list[float], options: dict[str, Any], words: str) -> None:
    net = Net(2, 4, 4, opset=18)
    output = net.op("Resize", net.input, "", net.const(scales), **options)
    with pytest.raises(UnsupportedOpError, match=words) as caught:
        write_tflite(net.model(output))
    assert caught.value.where == f"layer 'features.{output}' (Resize)"
