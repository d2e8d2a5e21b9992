"""Transposed convolutions over images and sequences: their phases by hand, and what is refused.

Shapes: N batch, C input channels, O output channels, H height, W width.
"""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.errors import UnsupportedOpError
from pipeline.graph.params import INT8, QuantParams
from pipeline.tflite import write_tflite
from pipeline.tflite.constants import Constant
from pipeline.tflite.ops_deconv import _dense, _dilated, _phase_weights, _Phases, _plan, _repeated
from pipeline.tflite.windows import Window
from tests.tflite.nets import Net, check, run_tflite


@pytest.mark.parametrize(
    ("stride", "pad", "wanted"),
    [
        (1, 0, [1, 12, 120, 200]),
        (2, 0, [1, 10, 102, 20, 200]),
        (3, 0, [1, 10, 100, 2, 20, 200]),
        (4, 0, [1, 10, 100, 0, 2, 20, 200]),  # a place that no weight reaches
        (2, 1, [10, 102, 20]),
        (2, 2, [102]),
        (1, 1, [12, 120]),
    ],
)
def test_one_and_two_spread_by_three_weights(stride: int, pad: int, wanted: list[int]) -> None:
    net = Net(1, 2)
    net.samples[0] = [[1, 2]]
    weights = net.const([[[1, 10, 100]]])
    output = net.op("ConvTranspose", net.input, weights, strides=[stride], pads=[pad, pad])
    assert run_tflite(write_tflite(net.model(output)), net.samples[:1]).values.tolist() == [[wanted]]


@pytest.mark.parametrize(
    ("stride", "written"),
    [
        ([1, 1], ["CONV_2D", "RESHAPE"]),
        ([2, 2], ["CONV_2D", "DEPTH_TO_SPACE"]),
        ([1, 2], ["CONV_2D", "RESHAPE"]),
        ([2, 1], ["CONV_2D", "RESHAPE", "TRANSPOSE", "RESHAPE"]),
        ([2, 3], ["CONV_2D", "RESHAPE", "TRANSPOSE", "RESHAPE"]),
    ],
)
@pytest.mark.parametrize("int8", [False, True])
def test_phases_are_interleaved_by_what_the_strides_need(stride: list[int], written: list[str], *, int8: bool) -> None:
    """A kernel as large as the stride leaves nothing to pad or to cut."""
    net = Net(2, 3, 4, int8=int8)
    weights = net.weights(2, 3, *stride, axis=1)
    output = net.op("ConvTranspose", net.input, weights, net.bias(3, net.input, weights), strides=stride)
    check(net, net.q(output), written, batches=(1, 3))


@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize(
    ("size", "attributes"),
    [
        ((1, 1), {}),
        ((1, 1), {"strides": [3, 2]}),
        ((5, 4), {"strides": [2, 3], "pads": [4, 0, 0, 3]}),
        ((3, 3), {"strides": [3, 3], "output_padding": [2, 1], "pads": [0, 2, 2, 0]}),
        ((2, 3), {"dilations": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 3]}),
    ],
)
def test_odd_geometries(size: tuple[int, int], attributes: dict[str, list[int]], *, int8: bool) -> None:
    net = Net(2, 3, 4, int8=int8)
    weights = net.weights(2, 3, *size, axis=1)
    check(net, net.q(net.op("ConvTranspose", net.input, weights, **attributes)), batches=(1, 3))


def test_groups_are_a_block_diagonal_matrix_of_real_numbers() -> None:
    params = QuantParams(scales=(0.5, 2.0), zero_points=(0, 0), grid=INT8, axis=1)
    weights = Constant(values=np.arange(1, 9, dtype=np.int8).reshape(4, 2, 1, 1), params=params)
    found = _dense(weights, 2)
    assert found.params is None
    assert found.values.reshape(4, 4).tolist() == [[0.5, 4, 0, 0], [1.5, 8, 0, 0], [0, 0, 2.5, 12], [0, 0, 3.5, 16]]
    assert _dense(weights, 1) is weights


def test_gaps_are_zeros() -> None:
    weights = Constant(values=np.array([[[[1, 2], [3, 4]]]]))
    window = Window(size=(2, 2), strides=(1, 1), dilations=(1, 3), before=(0, 0), after=(0, 0))
    assert _dilated(weights, window).values.tolist() == [[[[1, 0, 0, 2], [3, 0, 0, 4]]]]


@pytest.mark.parametrize(("scales", "wanted"), [((0.5,), (0.5,)), ((0.5, 2.0), (0.5, 2.0) * 3)])
def test_channels_of_all_phases_have_the_scales_of_one(scales: tuple[float, ...], wanted: tuple[float, ...]) -> None:
    params = QuantParams(scales=scales, zero_points=(0,) * len(scales), grid=INT8, axis=1)
    found = _repeated(params, 3)
    assert (found.scales, found.zero_points, found.axis) == (wanted, (0,) * len(wanted), 0)


@pytest.mark.parametrize(
    ("size", "stride", "pad", "image", "wanted"),
    [
        # taps, pads of the input before and after, positions to drop at start and end
        (1, 1, 0, 5, (1, 0, 0, 0, 0)),
        (2, 2, 0, 5, (1, 0, 0, 0, 0)),
        (4, 2, 1, 5, (2, 1, 1, 1, 1)),
        (3, 2, 1, 5, (2, 0, 1, 0, 1)),
        (3, 1, 1, 5, (3, 1, 1, 0, 0)),
        (3, 2, 0, 5, (2, 1, 1, 0, 1)),
    ],
)
def test_plans(size: int, stride: int, pad: int, image: int, wanted: tuple[int, ...]) -> None:
    length = (image - 1) * stride + size - 2 * pad
    found = _plan(size=size, stride=stride, pad=pad, image=image, length=length)
    assert (found.taps, found.before, found.after, found.crop, found.extra) == wanted
    assert found.length == length


def test_each_phase_takes_every_second_weight() -> None:
    """Output t takes input i times weight t - 2 i: even places weights 2 and 0, odd ones weight 1 alone."""
    columns = _plan(size=3, stride=2, pad=0, image=4, length=9)
    rows = _Phases(stride=1, shift=0, taps=1, before=0, after=0, crop=0, length=1, extra=0)
    found = _phase_weights(np.array([1, 10, 100]).reshape(1, 1, 1, 3), rows, columns)
    assert found.reshape(2, 2).tolist() == [[100, 1], [0, 10]]


@pytest.mark.parametrize(
    "attributes", [{"auto_pad": "SAME_UPPER"}, {"auto_pad": "SAME_LOWER"}, {"output_shape": [9, 9]}]
)
def test_sizes_that_are_asked_for_are_refused(attributes: dict[str, object]) -> None:
    net = Net(1, 4, 4)
    output = net.op("ConvTranspose", net.input, net.random(1, 1, 3, 3), strides=[2, 2], **attributes)
    with pytest.raises(UnsupportedOpError, match="auto_pad or output_shape") as caught:
        write_tflite(net.model(output))
    assert caught.value.where == f"layer 'features.{output}' (ConvTranspose)"
    assert caught.value.remedy == "give pads and output_padding"
