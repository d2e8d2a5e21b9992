"""What cannot be written: the operation, the layer's name and what to do."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest

from pipeline.errors import ModelError, UnsupportedOpError
from pipeline.tflite import write_tflite
from tests.tflite.nets import Net

UNSUPPORTED: dict[str, tuple[tuple[int, ...], Callable[[Net], str], str]] = {
    "unknown": ((3, 4), lambda n: n.op("Einsum", n.input, equation="nij->nji"), "Einsum cannot be written"),
    "misspelt": ((3, 4), lambda n: n.op("Softmaxx", n.input), "did you mean 'Softmax'?"),
    "ceil mode": (
        (3, 8, 8),
        lambda n: n.op("MaxPool", n.input, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
        "ceil_mode=False",
    ),
    "dilated pool": (
        (3, 8, 8),
        lambda n: n.op("MaxPool", n.input, kernel_shape=[2, 2], dilations=[2, 2]),
        "dilation 1",
    ),
    "3-D pool": ((3, 4, 4, 4), lambda n: n.op("MaxPool", n.input, kernel_shape=[2, 2, 2]), "use images"),
    "cubic": (
        (3, 4, 4),
        lambda n: n.op("Resize", n.input, "", n.const([1, 1, 2, 2]), mode="cubic"),
        "'nearest' or 'bilinear'",
    ),
    "odd nearest": (
        (1, 4, 4),
        lambda n: n.op("Resize", n.input, "", n.const([1, 1, 2, 2]), mode="nearest", nearest_mode="ceil"),
        "from 4 to 8",
    ),
    "reflect": ((3, 4, 4), lambda n: n.op("Pad", n.input, _pads(n, 1), mode="reflect"), "pad with a constant"),
    "crop": ((3, 4, 4), lambda n: n.op("Pad", n.input, _pads(n, -1)), "negative pads"),
    "transA": ((4,), lambda n: n.op("Gemm", n.input, n.random(1, 3), transA=1), "does not fit together"),
    "mean over the batch": ((4,), lambda n: n.op("ReduceMean", n.input, axes=[0]), "mean over the batch"),
    "fewer axes": (
        (3, 4),
        lambda n: n.op("Add", n.input, n.op("ReduceMean", n.input, axes=[1], keepdims=0)),
        "does not fit together",
    ),
}  # fmt: skip


def _pads(net: Net, size: int) -> str:
    return net.const([0, 0, size, 0, 0, 0, 0, 0], np.int64)


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_says_what_where_and_what_to_do(name: str) -> None:
    shape, case, words = UNSUPPORTED[name]
    net = Net(*shape)
    output = case(net)
    with pytest.raises(ModelError) as caught:
        write_tflite(net.model(output))
    assert net.nodes[-1].name in caught.value.where
    assert words in str(caught.value)
    assert caught.value.remedy


def test_unknown_operation_lists_the_known_ones() -> None:
    net = Net(4)
    with pytest.raises(UnsupportedOpError, match=r"layer 'features\.mod0'") as caught:
        write_tflite(net.model(net.op("Mod", net.input)))
    assert "Conv, ConvTranspose, Cos, DequantizeLinear, Div" in caught.value.remedy


def test_old_opset() -> None:
    net = Net(4, opset=11)
    with pytest.raises(ModelError, match="opset 11 is too old"):
        write_tflite(net.model(net.op("Relu", net.input)))


def test_batch_mixed_with_features() -> None:
    net = Net(4, 2)
    merged = net.op("Reshape", net.input, net.const([1, -1], np.int64))  # x.view(1, -1)
    with pytest.raises(ModelError, match="batch of 2") as caught:
        write_tflite(net.model(net.gemm(merged, 3, 8)))
    assert "x.flatten(1)" in caught.value.remedy


def test_dynamic_image_size() -> None:
    net = Net(3, 4, 4)
    model = net.model(net.op("Relu", net.input))
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "H"
    with pytest.raises(ModelError, match=r"input 'input': axis 2 of the input is not a number \(H\)"):
        write_tflite(model)


def test_integer_input() -> None:
    net = Net(3, 4, 4)
    model = net.model(net.op("Relu", net.input))
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.UINT8
    with pytest.raises(ModelError, match="uint8 input"):
        write_tflite(model)


def test_activations_per_channel() -> None:
    net = Net(3, 4, 4)
    parameters = (net.const([0.1, 0.2, 0.3]), net.const([0, 0, 0], np.uint8))
    quantized = net.op("QuantizeLinear", net.input, *parameters, axis=1)
    with pytest.raises(ModelError, match="with 3 scales"):
        write_tflite(net.model(net.op("DequantizeLinear", quantized, *parameters, axis=1)))


def test_dequantizer_with_another_zero_point() -> None:
    net = Net(4)
    quantized = net.op("QuantizeLinear", net.input, net.const(0.1), net.const(0, np.uint8))
    with pytest.raises(ModelError, match="another zero point"):
        write_tflite(net.model(net.op("DequantizeLinear", quantized, net.const(0.1), net.const(1, np.uint8))))


def test_dynamic_quantization() -> None:
    net = Net(4)
    scale = net.op("ReduceMean", net.input, keepdims=0)
    with pytest.raises(ModelError, match="computed in the graph") as caught:
        write_tflite(net.model(net.op("QuantizeLinear", net.input, scale)))
    assert "static" in caught.value.remedy


def test_operands_with_different_numbers_of_axes() -> None:
    net = Net(3, 4)
    flat = net.op("Flatten", net.op("ReduceMean", net.input, axes=[1], keepdims=0))
    with pytest.raises(UnsupportedOpError, match="operands with 3, 2 axes give 3") as caught:
        write_tflite(net.model(net.op("Add", net.input, flat), batch=1))
    assert "unsqueeze" in caught.value.remedy
