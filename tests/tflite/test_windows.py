"""Windows, and what TFLite's two paddings make of them, against counting positions one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ModelError
from pipeline.tflite import write_tflite
from pipeline.tflite.graph import Node
from pipeline.tflite.ops_deconv import _plan
from pipeline.tflite.ops_pool import _uncounted
from pipeline.tflite.shapes import Shape
from pipeline.tflite.windows import Window, image_size, window_of
from tests.tflite.nets import STEPS_LITERT, Net, assert_close, assert_steps, operators, run_ort, run_tflite

IMAGE = Shape(dims=(1, 3, 9, 7), batch=0)
SEQUENCE = Shape(dims=(1, 3, 11), batch=0)


def node(**attributes: object) -> Node:
    return Node(op="Conv", name="conv", inputs=("x",), output="y", attributes=attributes)  # type: ignore[arg-type]


def line(size: int, *, stride: int = 1, dilation: int = 1, before: int = 0, after: int = 0) -> Window:
    """Return a window along the width alone."""
    return Window(size=(1, size), strides=(1, stride), dilations=(1, dilation), before=(0, before), after=(0, after))


def starts(window: Window, length: int) -> list[int]:
    """Count the places where a window along the width fits, one by one."""
    padded = length + window.before[1] + window.after[1]
    reach = (window.size[1] - 1) * window.dilations[1] + 1
    return [start - window.before[1] for start in range(0, padded - reach + 1, window.strides[1])]


lines = st.builds(
    line,
    st.integers(1, 4),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 3),
    before=st.integers(0, 3),
    after=st.integers(0, 3),
)


# ── reading ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_window_over_an_image() -> None:
    window = window_of(node(strides=(2, 1), pads=(1, 0, 2, 3), dilations=(1, 2)), IMAGE, (3, 2))
    assert window == Window(size=(3, 2), strides=(2, 1), dilations=(1, 2), before=(1, 0), after=(2, 3))
    assert window.reach == (3, 3)
    assert window.has_pads


def test_a_window_over_a_sequence_has_height_one() -> None:
    window = window_of(node(strides=(2,), pads=(1, 3)), SEQUENCE, (4,))
    assert window == Window(size=(1, 4), strides=(1, 2), dilations=(1, 1), before=(0, 1), after=(0, 3))
    assert image_size(SEQUENCE) == (1, 11)
    assert image_size(IMAGE) == (9, 7)


def test_without_attributes_it_moves_by_one_and_pads_nothing() -> None:
    window = window_of(node(), IMAGE, (3, 3))
    assert (window.strides, window.dilations, window.has_pads) == ((1, 1), (1, 1), False)


def test_other_ranks_and_negative_pads_are_refused() -> None:
    with pytest.raises(ModelError, match="works on 5 axes") as caught:
        window_of(node(), Shape(dims=(1, 2, 3, 4, 5), batch=0), (1, 1, 1))
    assert "use images" in caught.value.remedy
    with pytest.raises(ModelError, match=r"negative pads \(-1, 0, 0, 0\)") as caught:
        window_of(node(pads=(-1, 0, 0, 0)), IMAGE, (3, 3))
    assert caught.value.where == "layer 'conv' (Conv)"


@pytest.mark.parametrize("automatic", ["SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize(("size", "stride"), [(1, 1), (2, 1), (2, 2), (3, 1), (3, 2), (3, 3), (5, 2), (5, 3)])
def test_automatic_pads_are_those_of_onnx_runtime(automatic: str, stride: int, size: int) -> None:
    net = Net(2, 9, 7)
    output = net.op("MaxPool", net.input, kernel_shape=[size, size], strides=[stride, stride], auto_pad=automatic)
    model = net.model(output)
    assert_close(run_tflite(write_tflite(model), net.samples), run_ort(model, net.samples))


# ── counting ────────────────────────────────────────────────────────────────────────────────────────────────────────


@given(lines, st.integers(4, 20))
def test_positions_are_those_that_fit(window: Window, length: int) -> None:
    if window.reach[1] <= length + window.before[1] + window.after[1]:
        assert window.positions((1, length)) == (1, len(starts(window, length)))


@given(lines, st.integers(4, 20))
def test_same_pads_as_tensorflow_says(window: Window, length: int) -> None:
    """The output has ceil(length / stride) positions; of an odd number of pads the larger half lies at the end."""
    stride, reach = window.strides[1], window.reach[1]
    total = max((-(-length // stride) - 1) * stride + reach - length, 0)
    expected = (window.before[1], window.after[1]) == (total // 2, total - total // 2)
    assert window.is_same((1, length)) is expected


@given(lines, st.integers(6, 12))
def test_how_many_positions_of_a_mean_lie_inside(window: Window, length: int) -> None:
    window = line(window.size[1], stride=window.strides[1], before=min(window.before[1], window.size[1] - 1))
    places = starts(window, length)
    inside = [sum(0 <= start + offset < length for offset in range(window.size[1])) for start in places]
    found = _uncounted(window, (1, length)).ravel()
    assert found == pytest.approx([window.size[1] / count for count in inside])


# ── transposed convolutions ─────────────────────────────────────────────────────────────────────────────────────────


@given(st.integers(1, 6), st.integers(1, 4), st.integers(0, 3), st.integers(1, 7), st.integers(0, 3))
def test_phases_of_a_transposed_convolution_take_the_right_weights(
    size: int, stride: int, pad: int, image: int, extra: int
) -> None:
    """Output t takes input i times weight t + pad - i * stride: as phases, tap by tap, and nothing else."""
    length = (image - 1) * stride + size - 2 * pad + min(extra, stride - 1)
    if length < 1:
        return
    plan = _plan(size=size, stride=stride, pad=pad, image=image, length=length)
    rng = np.random.default_rng(0)
    x, weights = rng.normal(size=image), rng.normal(size=size)
    wanted = [
        sum(x[i] * weights[t + pad - i * stride] for i in range(image) if 0 <= t + pad - i * stride < size)
        for t in range(length)
    ]
    padded = np.concatenate([np.zeros(plan.before), x, np.zeros(plan.after)])
    made = []
    for m in range(len(padded) - plan.taps + 1):
        for remainder in range(stride):
            chosen = [plan.weight_of(tap, remainder) for tap in range(plan.taps)]
            made.append(sum(padded[m + tap] * weights[w] for tap, w in enumerate(chosen) if 0 <= w < size))
    found = made[plan.crop : plan.crop + plan.length]
    assert found == pytest.approx(wanted)
    assert len(made) == plan.crop + plan.length + plan.extra


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("pad", [0, 1])
@pytest.mark.parametrize("int8", [False, True])
def test_transposed_convolutions_in_litert(stride: int, pad: int, *, int8: bool) -> None:
    net = Net(2, 4, 5, int8=int8)
    weights = net.weights(2, 3, 3, 3, axis=1)
    output = net.q(net.op("ConvTranspose", net.input, weights, strides=[stride] * 2, pads=[pad] * 4))
    model = net.model(output)
    got, wanted = run_tflite(write_tflite(model), net.samples), run_ort(model, net.samples)
    if int8:
        assert_steps(got, wanted, steps=STEPS_LITERT)
    else:
        assert_close(got, wanted)


# ── paddings in the file ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("pads", "stride", "written"),
    [
        ([1, 1, 1, 1], 1, ["CONV_2D"]),  # what SAME does
        ([0, 0, 0, 0], 1, ["CONV_2D"]),
        ([1, 1, 1, 1], 2, ["PAD", "CONV_2D"]),  # torch pads at the start, SAME at the end
        ([0, 0, 1, 1], 2, ["CONV_2D"]),
        ([2, 2, 2, 2], 1, ["PAD", "CONV_2D"]),
    ],
)
def test_a_pad_is_written_out_only_where_same_pads_otherwise(pads: list[int], stride: int, written: list[str]) -> None:
    net = Net(3, 8, 8)
    model = net.model(net.conv(net.input, 4, 3, 3, 3, pads=pads, strides=[stride] * 2))
    data = write_tflite(model)
    assert operators(data) == written
    assert_close(run_tflite(data, net.samples), run_ort(model, net.samples))


@pytest.mark.parametrize("int8", [False, True])
def test_padded_positions_never_win_a_maximum(*, int8: bool) -> None:
    net = Net(2, 5, 5, int8=int8)
    net.samples = -1 - np.abs(net.samples)  # zeros around them would win
    net = _rebuilt(net)
    model = net.model(net.q(net.op("MaxPool", net.input, kernel_shape=[2, 2], pads=[1, 1, 0, 0]), *net.input_params))
    got, wanted = run_tflite(write_tflite(model), net.samples), run_ort(model, net.samples)
    assert got.values.max() < 0
    if int8:
        assert_steps(got, wanted, steps=0)
    else:
        assert_close(got, wanted)


def _rebuilt(net: Net) -> Net:
    """Begin a graph anew for the samples at hand: the input's range belongs to them."""
    fresh = Net(*net.samples.shape[1:])
    fresh.samples, fresh.int8 = net.samples, net.int8
    fresh.input = fresh.q("input")
    return fresh
