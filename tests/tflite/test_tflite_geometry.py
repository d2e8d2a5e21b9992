"""Property tests: any window, group, pad and order of axes that ONNX Runtime takes gives the same numbers in LiteRT."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pipeline.tflite import write_tflite
from tests.tflite.nets import STEPS_LITERT, Net, assert_close, assert_steps, run_ort, run_tflite

_EXAMPLES = settings(max_examples=60, deadline=None, derandomize=True)


@dataclass(frozen=True, kw_only=True)
class _Geometry:
    """A window over an image; height first."""

    image: tuple[int, int]
    size: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    pads: tuple[int, int, int, int]  # top, left, bottom, right

    @property
    def fits(self) -> bool:
        reach = [(size - 1) * gap + 1 for size, gap in zip(self.size, self.dilations, strict=True)]
        return all(self.image[i] + self.pads[i] + self.pads[i + 2] >= reach[i] for i in (0, 1))

    @property
    def attributes(self) -> dict[str, list[int]]:
        return {"kernel_shape": [*self.size], "strides": [*self.strides], "pads": [*self.pads]}


def _pair(low: int, high: int) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(st.integers(low, high), st.integers(low, high))


_GEOMETRIES = st.builds(
    _Geometry,
    image=_pair(3, 11),
    size=_pair(1, 5),
    strides=_pair(1, 3),
    dilations=st.sampled_from([(1, 1), (1, 1), (2, 2), (1, 3)]),
    pads=st.tuples(*[st.integers(0, 3)] * 4),
)


def _check(net: Net, output: str, *, steps: int = STEPS_LITERT) -> None:
    model = net.model(output)
    wanted, got = run_ort(model, net.samples), run_tflite(write_tflite(model), net.samples)
    if net.int8:
        assert_steps(got, wanted, steps=steps)
    else:
        assert_close(got, wanted)


@_EXAMPLES
@given(
    geometry=_GEOMETRIES,
    groups=st.sampled_from([1, 1, 2, 4]),
    channels=st.sampled_from([4, 8]),
    int8=st.booleans(),
    relu=st.booleans(),
)
def test_any_convolution(geometry: _Geometry, groups: int, channels: int, *, int8: bool, relu: bool) -> None:
    assume(geometry.fits)
    net = Net(4, *geometry.image, int8=int8)
    attributes = {**geometry.attributes, "dilations": [*geometry.dilations], "group": groups}
    value = net.conv(net.input, channels, 4 // groups, *geometry.size, **attributes)
    _check(net, net.q(net.op("Relu", value) if relu else value))


@_EXAMPLES
@given(geometry=_GEOMETRIES, extra=_pair(0, 2), groups=st.sampled_from([1, 2]), int8=st.booleans())
def test_any_transposed_convolution(geometry: _Geometry, extra: tuple[int, int], groups: int, *, int8: bool) -> None:
    length = [
        (geometry.image[i] - 1) * geometry.strides[i]
        + geometry.dilations[i] * (geometry.size[i] - 1)
        + 1
        - geometry.pads[i]
        - geometry.pads[i + 2]
        + extra[i]
        for i in (0, 1)
    ]
    assume(min(length) > 0)
    assume(all(extra[i] < geometry.strides[i] for i in (0, 1)))
    net = Net(4, *geometry.image, int8=int8 and groups == 1)
    weights = net.weights(4, 3, *geometry.size, axis=1)
    attributes = {**geometry.attributes, "dilations": [*geometry.dilations], "output_padding": [*extra]}
    bias = net.bias(3 * groups, net.input, weights)
    _check(net, net.q(net.op("ConvTranspose", net.input, weights, bias, group=groups, **attributes)))


@_EXAMPLES
@given(geometry=_GEOMETRIES, kind=st.sampled_from(["MaxPool", "AveragePool", "counting"]), int8=st.booleans())
def test_any_pool(geometry: _Geometry, kind: str, *, int8: bool) -> None:
    assume(all(geometry.pads[i] < geometry.size[i % 2] for i in range(4)))  # ONNX Runtime wants that
    assume(all(geometry.image[i] + geometry.pads[i] + geometry.pads[i + 2] >= geometry.size[i] for i in (0, 1)))
    net = Net(3, *geometry.image, int8=int8)
    counting = {"count_include_pad": 1} if kind == "counting" else {}
    op = "MaxPool" if kind == "MaxPool" else "AveragePool"
    value = net.op(op, net.input, **geometry.attributes, **counting)
    _check(net, net.q(value, *net.input_params))


@_EXAMPLES
@given(data=st.data(), int8=st.booleans())
def test_any_chain_of_moves(data: st.DataObject, *, int8: bool) -> None:
    """Reshapes, transposes, squeezes and flattens in any order, between two convolutions' worth of arithmetic."""
    net = Net(4, 6, 2, int8=int8)
    value, shape = net.q(net.conv(net.input, 4, 4, 1, 1)), [4, 6, 2]
    for _ in range(data.draw(st.integers(1, 5))):
        move = data.draw(st.sampled_from(["transpose", "merge", "split", "unsqueeze", "relu"]))
        if move == "transpose":
            order = data.draw(st.permutations(range(len(shape))))
            value, shape = net.op("Transpose", value, perm=[0, *(i + 1 for i in order)]), [shape[i] for i in order]
        elif move == "merge" and len(shape) > 1:
            at = data.draw(st.integers(0, len(shape) - 2))
            shape = [*shape[:at], shape[at] * shape[at + 1], *shape[at + 2 :]]
            value = net.op("Reshape", value, net.const([data.draw(st.sampled_from([0, -1])), *shape], np.int64))
        elif move == "split" and len(shape) < 4 and shape[0] % 2 == 0:
            shape = [2, shape[0] // 2, *shape[1:]]
            value = net.op("Reshape", value, net.const([0, *shape], np.int64))
        elif move == "unsqueeze" and len(shape) < 4:
            at = data.draw(st.integers(0, len(shape)))
            shape = [*shape[:at], 1, *shape[at:]]
            value = net.op("Unsqueeze", value, net.const([at + 1], np.int64))
        elif move == "relu":
            value = net.op("Relu", value)
    _check(net, value)


@_EXAMPLES
@given(
    image=_pair(1, 6),
    factor=_pair(1, 4),
    mode=st.sampled_from([("nearest", "asymmetric"), ("nearest", "half_pixel"), ("linear", "half_pixel"),
                          ("linear", "pytorch_half_pixel"), ("linear", "align_corners"), ("linear", "asymmetric")]),
    int8=st.booleans(),
)  # fmt: skip
def test_any_whole_magnification(
    image: tuple[int, int], factor: tuple[int, int], mode: tuple[str, str], *, int8: bool
) -> None:
    net = Net(2, *image, int8=int8)
    scales = net.const([1, 1, *factor])
    rounding = {"nearest_mode": "floor" if mode[1] == "asymmetric" else "round_prefer_floor"}
    value = net.op("Resize", net.input, "", scales, mode=mode[0], coordinate_transformation_mode=mode[1], **rounding)
    _check(net, net.q(value, *net.input_params))
