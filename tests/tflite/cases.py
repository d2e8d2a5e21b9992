"""Networks of one or a few layers: the shape of a sample, and what is done to it.

Shapes: N batch, C channels, H height, W width, L length; a sample is (C, H, W), (C, L) or (F,).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tests.tflite.nets import Net

Case = tuple[tuple[int, ...], Callable[[Net], str]]

_HALF = "round_prefer_floor"


def _relu(net: Net, x: str) -> str:
    return net.qop("Relu", x)


def _relu_t(net: Net) -> str:
    return net.qop("Relu", net.op("Transpose", net.input, perm=[0, 2, 1]))


def _recurrent(net: Net, kind: str, gates: int, *, directions: int) -> str:
    """Go through a series of four steps of one feature, which ONNX has first."""
    hidden, options = 3, {"linear_before_reset": 1} if kind == "GRU" else {}
    x = net.op("Transpose", net.op("Reshape", net.input, net.const([0, 4, 1], np.int64)), perm=[1, 0, 2])
    inputs, again = (net.random(directions, gates * hidden, size) for size in (1, hidden))
    bias = net.random(directions, 2 * gates * hidden)
    direction = "bidirectional" if directions > 1 else "forward"
    result = net.op(kind, x, inputs, again, bias, hidden_size=hidden, direction=direction, **options)
    return net.op("Transpose", result, perm=[2, 0, 1, 3])


def _two(net: Net) -> tuple[str, str]:
    return net.input, net.qop("Relu", net.input)


def _gap(net: Net, x: str) -> str:
    return net.qop("GlobalAveragePool", x)


def _statistics(net: Net, channels: int) -> list[str]:
    rng = net.rng
    values = [rng.normal(1, 0.3, channels), *rng.normal(0, 1, (2, channels)), rng.uniform(0.5, 2, channels)]
    return [net.const(each) for each in values]


def _same(net: Net, kind: str, **attributes: object) -> str:
    """Behind a pool stands the quantizer of its input."""
    return net.q(net.op(kind, net.input, **attributes), *net.input_params)


def rectified(net: Net) -> str:
    return net.qop("Relu", net.conv(net.input, 4, 3, 3, 3))


def pooled(net: Net, value: str) -> str:
    return net.qop("MaxPool", value, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)


def _flat(net: Net) -> str:
    flat = net.q(net.op("Flatten", net.input), *net.input_params)
    return net.q(net.gemm(flat, 6, 60))


def _picked(net: Net, kind: str, *constants: list[int], **attributes: object) -> str:
    """Elements of the input, by constants; behind them stands the quantizer of the input."""
    given = [net.const(each, np.int64) for each in constants]
    return net.q(net.op(kind, net.input, *given, **attributes), *net.input_params)


def _chain(net: Net, *kinds: str) -> str:
    value = net.input
    for kind in kinds:
        value = net.op(kind, value)
    return value


def _gelu(net: Net, *, halved_first: bool) -> str:
    """As torch's two exporters write it."""
    half, one = net.const(0.5), net.const(1.0)
    inner = net.op("Erf", net.op("Div", net.input, net.const(2**0.5)))
    raised = net.op("Add", inner, one)
    if halved_first:
        return net.op("Mul", net.op("Mul", net.input, half), raised)
    return net.op("Mul", net.op("Mul", net.input, raised), half)


def _resize(net: Net, mode: str, how: str, down: int, right: int, *, rounding: str = "floor") -> str:
    scales = net.const([1, 1, down, right])
    extra = {"nearest_mode": rounding} if mode == "nearest" else {}
    return _same_resize(net, ["", scales], mode, how, extra)


def _resize_to(net: Net, mode: str, how: str, height: int, width: int) -> str:
    scales = net.const([1, 1, height / net.samples.shape[2], width / net.samples.shape[3]])
    extra = {"nearest_mode": "floor"} if mode == "nearest" else {}
    return _same_resize(net, ["", scales], mode, how, extra)


def _same_resize(net: Net, inputs: list[str], mode: str, how: str, extra: dict[str, str]) -> str:
    value = net.op("Resize", net.input, *inputs, mode=mode, coordinate_transformation_mode=how, **extra)
    return net.q(value, *net.input_params)


def _deconv(net: Net, inputs: int, outputs: int, *kernel: int, raw: bool = False, **attributes: object) -> str:
    weights = net.weights(inputs, outputs, *kernel, axis=1)
    outputs *= attributes.get("group", 1)  # type: ignore[operator]
    value = net.op("ConvTranspose", net.input, weights, net.bias(outputs, net.input, weights), **attributes)
    return value if raw else net.q(value)


def _pixel_shuffle(net: Net, channels: int, factor: int) -> str:
    _, height, width = net.samples.shape[1:]
    split = net.op("Reshape", net.input, net.const([0, channels, factor, factor, height, width], np.int64))
    turned = net.op("Transpose", split, perm=[0, 1, 4, 2, 5, 3])
    return net.op("Reshape", turned, net.const([0, channels, height * factor, width * factor], np.int64))


def _unsqueezed(net: Net, axis: int) -> str:
    value = net.op("Unsqueeze", net.input, net.const([axis], np.int64))
    return net.q(value, *net.input_params)


def _two_readers(net: Net) -> str:
    flat = net.op("Flatten", net.input)
    return net.op("Add", net.gemm(flat, 60, 60), flat)


CASES: dict[str, Case] = {
    "conv 3x3": ((3, 9, 8), lambda n: n.q(n.conv(n.input, 5, 3, 3, 3, pads=[1, 1, 1, 1]))),
    "conv without bias": ((3, 6, 6), lambda n: n.qop("Conv", n.input, n.weights(4, 3, 3, 3))),
    "conv stride 2 pad 1, odd": ((3, 9, 7), lambda n: n.q(n.conv(n.input, 4, 3, 3, 3, pads=[1] * 4, strides=[2, 2]))),
    "conv stride 2 pad 1, even": ((3, 8, 8), lambda n: n.q(n.conv(n.input, 4, 3, 3, 3, pads=[1] * 4, strides=[2, 2]))),
    "conv asymmetric pads": ((3, 8, 8), lambda n: n.q(n.conv(n.input, 4, 3, 3, 5, pads=[2, 0, 1, 3]))),
    "conv dilated": ((3, 10, 10), lambda n: n.q(n.conv(n.input, 4, 3, 3, 3, pads=[2] * 4, dilations=[2, 2]))),
    "conv auto_pad": ((3, 9, 8), lambda n: n.q(n.conv(n.input, 4, 3, 3, 3, auto_pad="SAME_UPPER", strides=[2, 2]))),
    "conv auto_pad lower": ((3, 8, 8), lambda n: n.q(n.conv(n.input, 4, 3, 4, 4, auto_pad="SAME_LOWER"))),
    "conv grouped": ((6, 7, 7), lambda n: n.q(n.conv(n.input, 8, 3, 3, 3, group=2, pads=[1] * 4))),
    "conv depthwise": ((6, 7, 7), lambda n: n.q(n.conv(n.input, 6, 1, 3, 3, group=6, pads=[1] * 4))),
    "conv depthwise x2": ((4, 7, 7), lambda n: n.q(n.conv(n.input, 8, 1, 3, 3, group=4, strides=[2, 2]))),
    "conv depthwise dilated": ((4, 9, 9), lambda n: n.q(n.conv(n.input, 4, 1, 3, 3, group=4, dilations=[2, 2]))),
    "conv, relu": ((3, 6, 6), lambda n: n.qop("Relu", n.conv(n.input, 5, 3, 3, 3))),
    "conv, relu6": ((3, 6, 6), lambda n: n.qop("Clip", n.conv(n.input, 5, 3, 3, 3), n.const(0), n.const(6))),
    "conv, clip": ((3, 6, 6), lambda n: n.qop("Clip", n.conv(n.input, 5, 3, 3, 3), n.const(-0.5), n.const(0.7))),
    "conv1d": ((3, 20), lambda n: n.q(n.conv(n.input, 5, 3, 3, pads=[1, 1]))),
    "conv1d strided, twice": ((1, 20), lambda n: n.q(n.conv(_relu(n, n.conv(n.input, 4, 1, 5, strides=[2])), 3, 4, 3))),
    "conv1d depthwise": ((4, 12), lambda n: n.q(n.conv(n.input, 4, 1, 3, group=4, pads=[2, 0]))),
    "gemm": ((7,), lambda n: n.q(n.gemm(n.input, 5, 7))),
    "gemm, relu": ((7,), lambda n: n.qop("Relu", n.gemm(n.input, 5, 7))),
    "gemm not transposed": ((7,), lambda n: n.qop("Gemm", n.input, n.weights(7, 5, axis=1))),
    "matmul": ((7,), lambda n: n.qop("MatMul", n.input, n.weights(7, 5, axis=1))),
    "matmul on sequences": ((4, 7), lambda n: n.qop("MatMul", n.input, n.weights(7, 5, axis=1))),
    "add": ((3, 6, 6), lambda n: n.qop("Add", *_two(n))),
    "add, relu": ((3, 6, 6), lambda n: n.qop("Relu", n.op("Add", *_two(n)))),
    "sub": ((3, 6, 6), lambda n: n.qop("Sub", *_two(n))),
    "mul": ((3, 6, 6), lambda n: n.qop("Mul", *_two(n))),
    "add channel constant": ((3, 6, 5), lambda n: n.qop("Add", n.input, n.random(3, 1, 1))),
    "constant minus": ((3, 6, 5), lambda n: n.qop("Sub", n.const(1.5), n.input)),
    "mul scalar, add scalar": ((3, 4), lambda n: n.qop("Add", n.op("Mul", n.input, n.const(0.3)), n.const([0.1]))),
    "div by constant": ((3, 6, 5), lambda n: n.qop("Div", n.input, n.const([[[2.0]], [[3.0]], [[0.5]]]))),
    "mul width constant": ((3, 6, 5), lambda n: n.qop("Mul", n.input, n.random(5))),
    "squeeze and excite": ((4, 6, 5), lambda n: n.qop("Mul", n.input, n.q(n.op("Sigmoid", _gap(n, n.input)), 1 / 256))),
    "relu": ((3, 6, 6), lambda n: n.qop("Relu", n.input)),
    "relu6": ((3, 6, 6), lambda n: n.qop("Clip", n.input, n.const(0), n.const(6))),
    "clip": ((3, 6, 6), lambda n: n.qop("Clip", n.input, n.const(-0.3), n.const(0.8))),
    "clip above": ((5,), lambda n: n.qop("Clip", n.input, "", n.const(0.8))),
    "leaky relu": ((3, 6, 6), lambda n: n.qop("LeakyRelu", n.input, alpha=0.1)),
    "prelu": ((3, 6, 6), lambda n: n.qop("PRelu", n.input, n.random(3, 1, 1))),
    "hard sigmoid": ((3, 6, 6), lambda n: n.qop("HardSigmoid", n.input, alpha=1 / 6, beta=0.5)),
    "hard sigmoid, onnx default": ((9,), lambda n: n.qop("HardSigmoid", n.input)),
    "tanh": ((3, 6, 6), lambda n: n.q(n.op("Tanh", n.input), 1 / 128, 128)),
    "sigmoid": ((11,), lambda n: n.q(n.op("Sigmoid", n.input), 1 / 256)),
    "sigmoid, other range": ((11,), lambda n: n.qop("Sigmoid", n.input)),
    "softmax": ((11,), lambda n: n.q(n.op("Softmax", n.input, axis=1), 1 / 256)),
    "softmax over channels": ((4, 3, 3), lambda n: n.q(n.op("Softmax", n.input, axis=1), 1 / 256)),
    "softmax over width": ((4, 3, 5), lambda n: n.q(n.op("Softmax", n.input, axis=-1), 1 / 256)),
    "batch norm": ((3, 6, 6), lambda n: n.qop("BatchNormalization", n.input, *_statistics(n, 3))),
    "batch norm, relu": ((5,), lambda n: n.qop("Relu", n.op("BatchNormalization", n.input, *_statistics(n, 5)))),
    "max pool": ((3, 8, 8), lambda n: _same(n, "MaxPool", kernel_shape=[2, 2], strides=[2, 2])),
    "max pool 3x3 pad 1": ((3, 9, 8), lambda n: _same(n, "MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)),
    "max pool 1d": ((3, 9), lambda n: _same(n, "MaxPool", kernel_shape=[3], strides=[2], pads=[1, 1])),
    "average pool": ((3, 8, 8), lambda n: _same(n, "AveragePool", kernel_shape=[2, 2], strides=[2, 2])),
    "average pool, pads counted": (
        (3, 8, 8),
        lambda n: _same(n, "AveragePool", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4, count_include_pad=1),
    ),
    "average pool, same pads not counted": (
        (3, 8, 8),
        lambda n: _same(n, "AveragePool", kernel_shape=[3, 3], pads=[1] * 4),
    ),
    "average pool, pads not counted": (
        (3, 8, 6),
        lambda n: _same(n, "AveragePool", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4),
    ),
    "global average pool": ((5, 4, 4), lambda n: _gap(n, n.input)),
    "global average pool 1d": ((5, 7), lambda n: _gap(n, n.input)),
    "max pool of what is rectified": ((3, 9, 8), lambda n: pooled(n, rectified(n))),
    "global max pool": ((5, 4, 3), lambda n: _same(n, "GlobalMaxPool")),
    "reduce mean": ((5, 4, 3), lambda n: n.qop("ReduceMean", n.input, axes=[2, 3], keepdims=0)),
    "reduce mean over width": ((5, 4, 3), lambda n: n.qop("ReduceMean", n.input, axes=[-1], keepdims=1)),
    "flatten": ((3, 4, 5), lambda n: n.op("Flatten", n.input)),
    "flatten, gemm": ((3, 4, 5), _flat),
    "reshape": ((3, 4, 5), lambda n: n.op("Reshape", n.input, n.const([0, 5, 12], np.int64))),
    "reshape, batch by -1": ((3, 4, 5), lambda n: n.op("Reshape", n.input, n.const([-1, 6, 10], np.int64))),
    "to image": ((12,), lambda n: n.op("Reshape", n.input, n.const([-1, 3, 2, 2], np.int64))),
    "merge height and width": ((3, 4, 5), lambda n: n.op("Reshape", n.input, n.const([0, 3, -1], np.int64))),
    "transpose": ((3, 4, 5), lambda n: n.op("Transpose", n.input, perm=[0, 3, 1, 2])),
    "transpose and back": ((3, 4), lambda n: n.op("Transpose", _relu_t(n), perm=[0, 2, 1])),
    "squeeze": ((3, 1, 5), lambda n: n.op("Squeeze", n.input, n.const([2], np.int64))),
    "unsqueeze, conv": ((4, 5), lambda n: n.q(n.conv(_unsqueezed(n, 1), 2, 1, 3, 3))),
    "conv, max pool": ((3, 9, 9), lambda n: n.qop("MaxPool", n.conv(n.input, 4, 3, 3, 3), kernel_shape=[2, 2])),
    "concat": ((3, 4, 5), lambda n: n.qop("Concat", n.input, n.qop("Relu", n.input), axis=1)),
    "concat width": ((3, 4, 5), lambda n: n.qop("Concat", n.input, n.qop("Relu", n.input), axis=-1)),
    "concat features": ((6,), lambda n: n.qop("Concat", n.input, n.qop("Relu", n.input), axis=1)),
    "pad": ((3, 4, 5), lambda n: n.op("Pad", n.input, n.const([0, 0, 1, 2, 0, 0, 0, 3], np.int64))),
    "pad with a number": (
        (3, 4, 5),
        lambda n: n.qop("Pad", n.input, n.const([0, 1, 1, 2, 0, 0, 0, 3], np.int64), n.const(0.5)),
    ),
    "resize nearest": ((3, 4, 5), lambda n: _resize(n, "nearest", "asymmetric", 2, 3)),
    "resize nearest, half pixel": ((3, 4, 5), lambda n: _resize(n, "nearest", "half_pixel", 2, 2, rounding=_HALF)),
    "resize nearest to size": ((3, 4, 5), lambda n: _resize_to(n, "nearest", "asymmetric", 6, 8)),
    "resize linear": ((3, 4, 5), lambda n: _resize(n, "linear", "half_pixel", 2, 2)),
    "resize linear, torch": ((3, 4, 5), lambda n: _resize(n, "linear", "pytorch_half_pixel", 3, 2)),
    "resize linear, corners": ((3, 4, 5), lambda n: _resize_to(n, "linear", "align_corners", 9, 8)),
    "resize linear, asymmetric": ((3, 4, 5), lambda n: _resize(n, "linear", "asymmetric", 2, 2)),
    "identity and dropout": ((4,), lambda n: n.qop("Relu", n.op("Dropout", n.op("Identity", n.input)))),
    "deconv": ((3, 5, 4), lambda n: _deconv(n, 3, 4, 4, 4, strides=[2, 2], pads=[1] * 4)),
    "deconv output padding": (
        (3, 5, 4),
        lambda n: _deconv(n, 3, 4, 3, 3, strides=[2, 2], pads=[1] * 4, output_padding=[1, 1]),
    ),
    "deconv stride 1": ((3, 5, 4), lambda n: _deconv(n, 3, 4, 3, 3, pads=[1] * 4)),
    "deconv stride 3x2": ((3, 5, 4), lambda n: _deconv(n, 3, 4, 5, 3, strides=[3, 2], pads=[2, 1, 0, 1])),
    "deconv dilated": ((3, 5, 4), lambda n: _deconv(n, 3, 4, 3, 3, strides=[2, 2], dilations=[2, 2])),
    "deconv wide pads": ((3, 6, 6), lambda n: _deconv(n, 3, 2, 2, 2, strides=[3, 3], pads=[1] * 4)),
    "deconv 1d": ((3, 6), lambda n: _deconv(n, 3, 4, 4, strides=[2], pads=[1, 1])),
    "deconv, relu": ((3, 5, 4), lambda n: n.qop("Relu", _deconv(n, 3, 4, 2, 2, raw=True, strides=[2, 2]))),
    "slice of channels": ((5, 4, 3), lambda n: _picked(n, "Slice", [1], [4], [1])),
    "slice of two axes, strided": ((4, 5, 6), lambda n: _picked(n, "Slice", [1, 0], [5, 6], [2, 3], [2, 3])),
    "slice of rows of features": ((6, 5), lambda n: _picked(n, "Slice", [-2], [99], [1])),
    "gather of channels": ((5, 4, 3), lambda n: _picked(n, "Gather", [4, 0, 0, -2], axis=1)),
    "gather of features": ((7,), lambda n: _picked(n, "Gather", [6, 5, 1], axis=1)),
}  # fmt: skip

FLOAT_ONLY: dict[str, Case] = {
    "hard swish": ((3, 6, 6), lambda n: n.op("HardSwish", n.input)),
    "gemm with factors": ((7,), lambda n: n.op("Gemm", n.input, n.weights(7, 5), n.random(1, 5), alpha=0.5, beta=2.0)),
    "add with a constant of all axes": ((3, 4, 5), lambda n: n.op("Add", n.input, n.random(1, 3, 4, 5))),
    "deconv grouped": ((4, 5, 4), lambda n: _deconv(n, 4, 3, 4, 4, strides=[2, 2], group=2)),
    "pixel shuffle": ((8, 3, 4), lambda n: _pixel_shuffle(n, 2, 2)),
    "div": ((3, 4, 5), lambda n: n.op("Div", n.input, n.op("Sigmoid", n.input))),
    "broadcast over a squeezed axis": ((3, 4), lambda n: n.op("Add", _unsqueezed(n, 1), _unsqueezed(n, 2))),
    "flatten for two readers": ((3, 4, 5), _two_readers),
    "functions": ((3, 4), lambda n: _chain(n, "Abs", "Sqrt", "Cos", "Exp", "Sin")),
    "logarithm of the inverse": ((3, 4), lambda n: n.op("Log", n.op("Reciprocal", n.op("Sigmoid", n.input)))),
    "roundings": ((3, 4), lambda n: n.op("Round", n.op("Floor", n.input))),
    "error function": ((3, 4), lambda n: n.op("Erf", n.op("Mul", n.input, n.const([2])))),
    "power": ((3, 4), lambda n: n.op("Pow", n.op("Sigmoid", n.input), n.const(1.7))),
    "lstm, both ways": ((4,), lambda n: _recurrent(n, "LSTM", 4, directions=2)),
    "gru": ((4,), lambda n: _recurrent(n, "GRU", 3, directions=1)),
    "rnn": ((4,), lambda n: _recurrent(n, "RNN", 1, directions=1)),
    "volume": (
        (4, 3, 4, 5),
        lambda n: n.op("Conv", n.input, n.random(6, 2, 2, 3, 1), n.random(6), group=2, strides=[1, 2, 1], pads=[1] * 6),
    ),
    "volume, transposed": (
        (4, 3, 2, 2),
        lambda n: n.op("ConvTranspose", n.input, n.random(4, 3, 2, 3, 1), group=2, strides=[2, 1, 2], pads=[0, 1] * 3),
    ),
    "elu": ((3, 4, 5), lambda n: n.op("Elu", n.input)),
    "elu, bent": ((3, 4), lambda n: n.op("Elu", n.input, alpha=0.3)),
    "softplus": ((3, 4), lambda n: n.op("Softplus", n.op("Mul", n.input, n.const([30])))),
    "gelu": ((3, 4, 5), lambda n: _gelu(n, halved_first=False)),
    "gelu, halved first": ((3, 4), lambda n: _gelu(n, halved_first=True)),
    "matmul of two": ((2, 3, 4), lambda n: n.op("MatMul", n.input, n.op("Transpose", n.input, perm=[0, 1, 3, 2]))),
    "reduce max": ((3, 4, 5), lambda n: n.op("ReduceMax", n.input, axes=[2, 3])),
    "softmax of five axes": ((2, 3, 4, 5), lambda n: n.op("Softmax", n.input)),
    "layer norm, opset 18": (
        (3, 4, 5),
        lambda n: n.op("LayerNormalization", n.input, n.random(5), n.random(5), axis=-1, epsilon=1e-3),
    ),
    "reduce mean, opset 18": (
        (3, 4, 5),
        lambda n: n.op("ReduceMean", n.input, n.const([2], np.int64), keepdims=0),
    ),
}
