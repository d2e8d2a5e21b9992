"""What stands in the ONNX file: node by node, name by name; what ONNX has no word for is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from torch import Tensor, fx, nn

from pipeline.declare.recipe import QuantizeSpec
from pipeline.errors import UnsupportedOpError
from pipeline.graph.kinds import KINDS
from pipeline.graph.ops import FUNCTIONS
from pipeline.networks.from_torch import folded_graph
from pipeline.quant import to_onnx
from pipeline.quant.calibrate import calibrate
from pipeline.quant.emitters import EMITTERS, windows
from pipeline.quant.prepare import freeze, prepare
from pipeline.quant.scheme import RULES
from pipeline.quant.to_onnx import to_bytes, write_onnx
from tests.quant import networks
from tests.quant.exact import run_exactly

SHAPE = (3, 8, 8)


def written(network: nn.Module, shape: tuple[int, ...] = SHAPE) -> onnx.ModelProto:
    return write_onnx(folded_graph(network.eval(), shape), name="net")


def quantized(network: nn.Module, shape: tuple[int, ...] = SHAPE, *, bits: int = 8) -> fx.GraphModule:
    graph = prepare(folded_graph(network.eval(), shape), weight_bits=bits)
    calibrate(graph, torch.randn(32, *shape, generator=torch.Generator().manual_seed(1)), QuantizeSpec())
    return graph.eval()


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {each.name: helper.get_attribute_value(each) for each in node.attribute}


def one(model: onnx.ModelProto, kind: str) -> onnx.NodeProto:
    found: onnx.NodeProto
    (found,) = [node for node in model.graph.node if node.op_type == kind]
    return found


def tensors(model: onnx.ModelProto) -> dict[str, NDArray[Any]]:
    return {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}


# ── float ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_convolution_with_all_its_settings() -> None:
    layer = nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=2)
    node = one(written(nn.Sequential(layer), (4, 8, 8)), "Conv")
    assert attributes(node) == {
        "kernel_shape": [3, 2],
        "strides": [2, 1],
        "pads": [1, 2, 1, 2],
        "dilations": [1, 2],
        "group": 2,
    }


def test_a_transposed_convolution_with_all_its_settings() -> None:
    layer = nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2)
    node = one(written(nn.Sequential(layer), (4, 4, 4)), "ConvTranspose")
    found = attributes(node)
    assert (found["strides"], found["pads"], found["output_padding"], found["group"]) == ([2, 2], [1] * 4, [1, 1], 2)


def test_layers_without_bias_have_two_inputs() -> None:
    assert len(one(written(nn.Sequential(nn.Conv2d(3, 4, 1, bias=False))), "Conv").input) == 2
    assert len(one(written(nn.Sequential(nn.Conv2d(3, 4, 1))), "Conv").input) == 3


def test_weights_stand_in_the_file_under_the_layers_name() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 5))
    found = tensors(written(network))
    layer = network[1]
    assert isinstance(layer, nn.Linear)
    assert np.array_equal(found["1.w"], layer.weight.detach().numpy())
    assert np.array_equal(found["1.b"], layer.bias.detach().numpy())
    assert attributes(one(written(network), "Gemm")) == {"transB": 1}


@pytest.mark.parametrize(
    ("module", "low", "high"), [(nn.ReLU6(), 0.0, 6.0), (nn.Hardtanh(-2.0, 0.5), -2.0, 0.5), (nn.Hardtanh(), -1.0, 1.0)]
)
def test_clips_have_their_bounds(module: nn.Module, low: float, high: float) -> None:
    model = written(nn.Sequential(module))
    node = one(model, "Clip")
    assert [float(tensors(model)[name]) for name in node.input[1:]] == [low, high]


@pytest.mark.parametrize(
    ("pads", "expected"),
    [
        ((1, 2), [0, 0, 0, 1, 0, 0, 0, 2]),
        ((1, 2, 3, 4), [0, 0, 3, 1, 0, 0, 4, 2]),
        ((0, 0, 0, 0, 1, 0), [0, 1] + [0] * 6),
    ],
)
def test_pads_are_turned_round(pads: tuple[int, ...], expected: list[int]) -> None:
    """Torch counts from the last axis on; ONNX wants all that lie before, then all that lie after."""

    class Padded(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.pad(x, pads)

    model = written(nn.Sequential(nn.ReLU(), Padded()))
    assert tensors(model)[one(model, "Pad").input[1]].tolist() == expected


@pytest.mark.parametrize(
    ("module", "mode", "placement"),
    [
        (nn.Upsample(scale_factor=2), "nearest", "asymmetric"),
        (nn.Upsample(scale_factor=2, mode="bilinear"), "linear", "pytorch_half_pixel"),
        (nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True), "linear", "align_corners"),
    ],
)
def test_resizes_read_the_same_places(module: nn.Module, mode: str, placement: str) -> None:
    model = written(nn.Sequential(module))
    found = attributes(one(model, "Resize"))
    assert found["mode"].decode() == mode
    assert found["coordinate_transformation_mode"].decode() == placement
    assert tensors(model)["0.scales"].tolist() == [1, 1, 2, 2]
    x = torch.randn(2, *SHAPE)
    assert np.allclose(run_exactly(to_bytes(model), x.numpy()), module(x).numpy(), atol=1e-6)


@pytest.mark.parametrize("before", range(2, 40, 3))
@pytest.mark.parametrize("after", [3, 5, 17, 48, 127])
def test_a_resize_ends_at_the_size_that_was_asked_for(before: int, after: int) -> None:
    factor = windows._resize_factor(before, after)
    assert int(before * float(factor)) == after
    assert int(np.float32(before) * factor) == after
    assert float(factor) == pytest.approx(after / before, rel=1e-6)


def test_a_flattening_and_another_reshape() -> None:
    assert attributes(one(written(nn.Sequential(nn.Flatten())), "Flatten")) == {"axis": 1}
    model = written(nn.Sequential(nn.Unflatten(1, (3, 1))))
    assert tensors(model)[one(model, "Reshape").input[1]].tolist() == [0, 3, 1, 8, 8]  # 0: the batch, as it comes


def test_arithmetic_with_numbers() -> None:
    class Affine(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 3 - x * 0.5

    x = torch.randn(2, *SHAPE)
    assert np.allclose(run_exactly(to_bytes(written(Affine())), x.numpy()), (3 - x * 0.5).numpy(), atol=1e-6)


def test_ends_are_called_input_and_output_whatever_the_layers_are_called() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            maps: Tensor = self.second(F.relu(self.first(x)))
            return maps

    graph = written(Named()).graph
    assert [each.name for each in graph.input] == ["input"]
    assert [each.name for each in graph.output] == ["output"]
    dims = graph.output[0].type.tensor_type.shape.dim
    assert [dims[0].dim_param, *(dim.dim_value for dim in dims[1:])] == ["N", 2, 8, 8]
    assert [node.name for node in graph.node][:2] == ["first", "relu"]


@pytest.mark.parametrize("network", [nn.Sequential(nn.Linear(5, 1)), nn.Sequential(nn.Linear(5, 7))])
def test_outputs_of_any_width(network: nn.Sequential) -> None:
    x = torch.randn(4, 5)
    with torch.no_grad():
        wanted = network(x).numpy()
    assert np.allclose(run_exactly(to_bytes(written(network, (5,))), x.numpy()), wanted, atol=1e-6)


# ── int8 ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_weights_are_int8_per_channel_and_biases_int32() -> None:
    graph = quantized(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()))
    found = tensors(write_onnx(graph, name="net"))
    assert found["0.w:q"].dtype == np.int8
    assert found["0.w:s"].shape == found["0.w:z"].shape == (4,)
    assert not found["0.w:z"].any()
    assert found["0.b:q"].dtype == np.int32
    input_scale = found["x:s"] if "x:s" in found else next(v for k, v in found.items() if k.startswith("input"))
    assert np.allclose(found["0.b:s"], found["0.w:s"] * input_scale)


def test_no_two_weights_share_a_scale_initializer() -> None:
    """ONNX Runtime's exact kernels do not load where they do."""
    model = write_onnx(quantized(networks.build("mixed")), name="net")
    used = [node.input[1] for node in model.graph.node if node.op_type == "DequantizeLinear" and ".w" in node.input[0]]
    assert len(used) == len(set(used)) == 6


def test_activations_are_uint8_with_one_scale() -> None:
    model = write_onnx(quantized(networks.build("mixed")), name="net")
    found = tensors(model)
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear":
            assert found[node.input[1]].shape == ()
            assert found[node.input[2]].dtype == np.uint8


def test_every_value_between_integer_operations_is_quantized_once() -> None:
    model = write_onnx(quantized(networks.build("residual")), name="net")
    quantizers = [node.output[0] for node in model.graph.node if node.op_type == "QuantizeLinear"]
    dequantized = [node.input[0] for node in model.graph.node if node.op_type == "DequantizeLinear"]
    assert len(set(quantizers)) == len(quantizers)
    for name in quantizers:
        assert dequantized.count(name) == 1


def test_a_relu_that_the_quantizer_does_anyway_is_left_out() -> None:
    positive = write_onnx(quantized(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())), name="net")
    assert "Relu" not in [node.op_type for node in positive.graph.node]


def test_a_clip_that_cuts_inside_the_range_stays() -> None:
    graph = quantized(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Hardtanh(-0.1, 0.1)))
    quantizer = graph.get_submodule("quantizers.1")
    quantizer.set_range(-1.0, 1.0)  # type: ignore[operator]
    model = write_onnx(graph, name="net")
    assert [node.op_type for node in model.graph.node].count("Clip") == 1
    x = torch.randn(8, *SHAPE)
    with torch.no_grad():
        wanted = freeze(graph)(x).numpy()
    assert np.abs(run_exactly(to_bytes(model), x.numpy()) - wanted).max() <= 1.01 * 2 / 255


def test_the_same_network_gives_the_same_bytes() -> None:
    network = networks.build("residual")
    assert to_bytes(written(network)) == to_bytes(written(network))


# ── refusals ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_operation_without_an_emitter_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    emitters = {kind: emitter for kind, emitter in EMITTERS.items() if kind != "Tanh"}
    monkeypatch.setattr(to_onnx, "EMITTERS", emitters)
    with pytest.raises(UnsupportedOpError, match="Tanh cannot be written as ONNX") as caught:
        written(nn.Sequential(nn.Tanh()))
    assert "Sigmoid" in caught.value.remedy


def test_every_known_operation_is_written_and_ruled() -> None:
    several = {
        "Resize": {"ResizeNearest", "ResizeLinear"},
        "Function": set(FUNCTIONS),
        "Reduce": {"ReduceMean", "ReduceMax"},
        "Pad": {"Pad", "PadFilled"},
        "Recurrent": {"LSTM", "GRU", "RNN"},
    }
    kinds = {each for kind in KINDS.values() for each in several.get(kind, {kind})}
    assert kinds == {*EMITTERS, "Input", "Outputs"} == set(RULES)  # the ends are written by the graph itself
