"""Every operation as ONNX: which nodes are written, and that ONNX Runtime computes with them what torch computes.

Shapes: N batch, C channels, H height, W width, L length, T steps, F features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import fx, nn

from pipeline.errors import UnsupportedOpError
from pipeline.graph import ops
from pipeline.graph.params import QuantParams
from pipeline.graph.recurrent import Recurrent
from pipeline.quant.emitters import EMITTERS
from pipeline.quant.emitters.draft import Draft
from pipeline.quant.to_onnx import to_bytes, write_onnx
from tests.graph.flat import Flat, chain
from tests.quant.exact import run_exactly

TOLERANCE = 2e-6  # relative to the largest value: float32 in another order
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Case:
    """An operation over samples of a shape, and the ONNX nodes that it becomes."""

    shape: Shape
    module: nn.Module
    nodes: str


def norm(channels: int, *, affine: bool) -> nn.Module:
    module = nn.BatchNorm1d(channels, affine=affine, eps=1e-2)
    assert module.running_mean is not None
    assert module.running_var is not None
    module.running_mean.copy_(torch.linspace(-1, 2, channels))
    module.running_var.copy_(torch.linspace(0.01, 4, channels))
    return module


def recurrent(kind: type[nn.LSTM | nn.GRU | nn.RNN], **settings: object) -> Recurrent:
    return Recurrent(kind(2, 3, batch_first=True, **settings))


POINTWISE = {
    "relu6": Case((4, 5), nn.ReLU6(), "Clip"),
    "slope of nothing": Case((4, 5), nn.LeakyReLU(0.0), "LeakyRelu"),
    "slope above one": Case((4, 5), nn.LeakyReLU(2.0), "LeakyRelu"),
    "elu": Case((4, 5), nn.ELU(0.25), "Elu"),
    "one slope for all": Case((4, 5), nn.PReLU(1, 0.3), "PRelu"),
    "a slope per feature": Case((4,), nn.PReLU(4), "PRelu"),
    "a slope per channel": Case((4, 1, 2), nn.PReLU(4), "PRelu"),
    "gelu": Case((4, 5), nn.GELU(), "Div Erf Add Mul Mul"),
    "gelu by tanh": Case((4, 5), nn.GELU("tanh"), "Mul Mul Add Mul Mul Tanh Add Mul Mul"),
    "mish": Case((4, 5), nn.Mish(), "Softplus Tanh Mul"),
    "hard sigmoid": Case((4, 5), nn.Hardsigmoid(), "HardSigmoid"),
    "cube": Case((4, 5), ops.Power(3.0), "Pow"),
    "to the power of nothing": Case((4, 5), ops.Power(0.0), "Pow"),
    "inverse": Case((4, 5), ops.Power(-1.0), "Pow"),
    "above zero": Case((4, 5), ops.Function("Positive"), "Mul Clip"),
    "half to even": Case((4, 5), ops.Function("Round"), "Round"),
    "factor": Case((4, 5), ops.Scale(0.3, 0.0), "Mul"),
    "offset": Case((4, 5), ops.Scale(1.0, -0.3), "Add"),
    "factor and offset": Case((4, 5), ops.Scale(torch.randn(4, 1), torch.randn(5)), "Mul Add"),
    "neither": Case((4, 5), ops.Scale(1.0, 0.0), "Mul"),
}
WINDOWS = {
    "largest of three, padded": Case((2, 7, 6), nn.MaxPool2d(3, 2, 1), "MaxPool"),
    "largest, over the end": Case((2, 5, 5), nn.MaxPool2d(2, ceil_mode=True), "MaxPool"),
    "largest, with gaps": Case((2, 9), nn.MaxPool1d(3, 2, dilation=2), "MaxPool"),
    "largest of a line": Case((2, 4, 6), nn.MaxPool2d((1, 3), (2, 1)), "MaxPool"),
    "mean, pads counted": Case((2, 7, 6), nn.AvgPool2d(3, 2, 1), "AveragePool"),
    "mean, pads not counted": Case((2, 7, 6), nn.AvgPool2d(3, 2, 1, count_include_pad=False), "AveragePool"),
    "mean, over the end": Case((2, 5, 8), nn.AvgPool2d(2, ceil_mode=True), "AveragePool"),
    "mean, over the end, pads not counted": Case((2, 6), nn.AvgPool1d(3, 2, 1, True, False), "AveragePool"),
    "mean of all": Case((2, 3, 4), nn.AvgPool2d((3, 4)), "AveragePool"),
    "zeros around": Case((2, 3, 4), ops.Pad((1, 0, 0, 2)), "Pad"),
    "zeros around channels": Case((2, 3), ops.Pad((0, 0, 1, 3)), "Pad"),
    "a number around": Case((2, 3), ops.Pad((2, 1), -1.5), "Pad"),
    "fewer around": Case((2, 5), ops.Pad((-1, -2)), "Pad"),
    "nearest": Case((2, 2, 3), nn.Upsample(scale_factor=(3, 2)), "Resize"),
    "nearest to a size": Case((2, 3, 5), nn.Upsample(size=(7, 5)), "Resize"),
    "bilinear": Case((2, 2, 3), nn.Upsample(scale_factor=2, mode="bilinear"), "Resize"),
    "bilinear to a size": Case((2, 3, 5), nn.Upsample(size=(7, 4), mode="bilinear"), "Resize"),
    "from corner to corner": Case((2, 3, 5), nn.Upsample(size=(7, 9), mode="bilinear", align_corners=True), "Resize"),
}
MOVES = {
    "flattened": Case((2, 3), ops.Reshape((6,)), "Flatten"),
    "reshaped": Case((2, 3), ops.Reshape((3, 1, 2)), "Reshape"),
    "turned": Case((2, 3, 4), ops.Permute((0, 3, 1, 2)), "Transpose"),
    "every third": Case((2, 8), ops.Slice(2, 1, 8, 3), "Slice"),
    "one channel": Case((4, 3), ops.Slice(1, 3, 4), "Slice"),
    "picked twice": Case((4, 3), ops.Gather(1, torch.tensor([3, 0, 3])), "Gather"),
}
WEIGHTS = {
    "groups": Case((4, 6), nn.Conv1d(4, 6, 3, 2, 1, groups=2), "Conv"),
    "volume": Case((2, 3, 4, 5), nn.Conv3d(2, 3, (1, 2, 3), (1, 2, 1), (0, 1, 2), bias=False), "Conv"),
    "gaps": Case((2, 9, 9), nn.Conv2d(2, 3, 3, padding=(0, 2), dilation=(4, 2)), "Conv"),
    "transposed": Case((4, 5), nn.ConvTranspose1d(4, 6, 3, 2, 1, output_padding=1, groups=2), "ConvTranspose"),
    "transposed, gaps": Case((2, 3, 3), nn.ConvTranspose2d(2, 3, 2, 3, dilation=2, bias=False), "ConvTranspose"),
    "one by one": Case((1,), nn.Linear(1, 1), "Gemm"),
    "without bias": Case((5,), nn.Linear(5, 2, bias=False), "Gemm"),
    "projection": Case((2, 3, 4), ops.Projection(4, 5), "MatMul Add"),
    "projection without bias": Case((3, 4), ops.Projection(4, 1, bias=False), "MatMul"),
    "batch norm": Case((3,), norm(3, affine=True), "BatchNormalization"),
    "batch norm without parameters": Case((3,), norm(3, affine=False), "BatchNormalization"),
}
REDUCTIONS = {
    "softmax of channels": Case((4, 3), nn.Softmax(1), "Softmax"),
    "softmax of the last": Case((4, 3), nn.Softmax(-1), "Softmax"),
    "softmax of one": Case((4, 1), nn.Softmax(2), "Softmax"),
    "layer norm": Case((4, 6), nn.LayerNorm(6, eps=1e-2), "LayerNormalization"),
    "layer norm of two axes": Case((2, 3, 4), nn.LayerNorm((3, 4), bias=False), "LayerNormalization"),
    "layer norm without parameters": Case((3, 4), nn.LayerNorm(4, elementwise_affine=False), "LayerNormalization"),
    "mean": Case((2, 3, 4), ops.Reduce("ReduceMean", (2,)), "ReduceMean"),
    "largest": Case((2, 3, 4), ops.Reduce("ReduceMax", (1, 3)), "ReduceMax"),
    "mean of positions": Case((3, 5), ops.GlobalAveragePool(), "GlobalAveragePool"),
}
RECURRENT = {
    "lstm": Case((4, 2), recurrent(nn.LSTM), "Transpose LSTM Transpose Reshape"),
    "lstm, both ways": Case((1, 2), recurrent(nn.LSTM, bidirectional=True), "Transpose LSTM Transpose Reshape"),
    "gru": Case((4, 2), recurrent(nn.GRU, bias=False), "Transpose GRU Transpose Reshape"),
    "gru, both ways": Case((4, 2), recurrent(nn.GRU, bidirectional=True), "Transpose GRU Transpose Reshape"),
    "rnn": Case((4, 2), recurrent(nn.RNN), "Transpose RNN Transpose Reshape"),
    "rnn of relus": Case(
        (4, 2), recurrent(nn.RNN, nonlinearity="relu", bidirectional=True), "Transpose RNN Transpose Reshape"
    ),
}
CASES = {**POINTWISE, **WINDOWS, **MOVES, **WEIGHTS, **REDUCTIONS, **RECURRENT}


def samples(count: int, shape: Shape) -> torch.Tensor:
    """Draw (N, …) among which are zeros, ties of rounding and large numbers."""
    x = 3 * torch.randn(count, *shape, generator=torch.Generator().manual_seed(0))
    edges = torch.tensor([0.0, 0.5, 1.5, 2.5, -0.5, -1.5, 20.0, -20.0])[: x[0].numel()]
    x.view(-1)[: len(edges)] = edges
    return x


def kinds(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_onnx_runtime_computes_what_torch_computes(name: str) -> None:
    case = CASES[name]
    model = write_onnx(chain(case.shape, case.module), name="one")
    assert kinds(model) == case.nodes.split()
    for count in (1, 3):
        x = samples(count, case.shape)
        wanted = case.module(x).numpy()
        largest = float(np.abs(wanted[np.isfinite(wanted)]).max())
        found = run_exactly(to_bytes(model), x.numpy())
        np.testing.assert_allclose(found, wanted, rtol=TOLERANCE, atol=TOLERANCE * largest)


@pytest.mark.parametrize("name", ["Add", "Sub", "Mul", "Div"])
@torch.no_grad()
def test_arithmetic_of_two_values_that_are_repeated(name: str) -> None:
    flat = Flat(3, 2, 4)
    smaller = flat.add(ops.GlobalAveragePool(), flat.x)
    module = getattr(ops, name)()
    graph = flat.ending_in(flat.add(module, flat.x, smaller))
    model = write_onnx(graph, name="two")
    assert kinds(model) == ["GlobalAveragePool", name]
    x = samples(3, (3, 2, 4))
    found = run_exactly(to_bytes(model), x.numpy())
    np.testing.assert_allclose(found, graph(x).numpy(), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_matrix_product_and_a_join() -> None:
    flat = Flat(3, 4)
    product = flat.add(ops.MatMul(), flat.x, flat.add(ops.Permute((0, 2, 1)), flat.x))
    graph = flat.ending_in(flat.add(ops.Concat(2), product, flat.x, product))
    model = write_onnx(graph, name="two")
    assert kinds(model) == ["Transpose", "MatMul", "Concat"]
    x = samples(2, (3, 4))
    np.testing.assert_allclose(run_exactly(to_bytes(model), x.numpy()), graph(x).numpy(), rtol=1e-5)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("gives_cells", [False, True])
@torch.no_grad()
def test_recurrent_layers_start_from_given_states(kind: type[nn.LSTM | nn.GRU | nn.RNN], *, gives_cells: bool) -> None:
    if gives_cells and kind is not nn.LSTM:
        return
    layer = Recurrent(kind(2, 3, batch_first=True, bidirectional=True), gives_cells=gives_cells)
    flat = Flat(4, 2)
    rows = flat.add(ops.Slice(1, 0, 3), flat.x)
    states = [flat.add(ops.Reshape((6,)), flat.add(ops.Slice(1, at, at + 3), flat.x)) for at in (0, 1)]
    graph = flat.ending_in(flat.add(layer, rows, *states[: 2 if kind is nn.LSTM else 1]))
    x = samples(3, (4, 2)) / 10
    found = run_exactly(to_bytes(write_onnx(graph, name="states")), x.numpy())
    np.testing.assert_allclose(found, graph(x).numpy(), atol=1e-6)


# ── what stands in the file ─────────────────────────────────────────────────────────────────────────────────────────


def written(graph: fx.GraphModule, kind: str) -> tuple[dict[str, object], dict[str, object]]:
    """Return a node's attributes and the graph's constants."""
    model = write_onnx(graph, name="one")
    (node,) = [each for each in model.graph.node if each.op_type == kind]
    constants = {each.name: numpy_helper.to_array(each).tolist() for each in model.graph.initializer}
    return {each.name: helper.get_attribute_value(each) for each in node.attribute}, constants


@pytest.mark.parametrize(
    ("shape", "pool", "pads", "include"),
    [
        ((1, 5, 5), nn.AvgPool2d(2, ceil_mode=True), [0, 0, 1, 1], 0),
        ((1, 4, 5), nn.AvgPool2d(2, ceil_mode=True), [0, 0, 0, 1], 0),
        ((1, 4, 4), nn.AvgPool2d(2), [0, 0, 0, 0], 1),
        ((1, 5, 5), nn.AvgPool2d(3, 2, 1), [1, 1, 1, 1], 1),
        ((1, 5, 5), nn.AvgPool2d(3, 2, 1, count_include_pad=False), [1, 1, 1, 1], 0),
        ((1, 5), nn.AvgPool1d(3, 2, 1), [1, 1], 1),
    ],
)
def test_what_hangs_over_the_end_becomes_pads(shape: Shape, pool: nn.Module, pads: list[int], include: int) -> None:
    attributes, _ = written(chain(shape, pool), "AveragePool")
    assert (attributes["pads"], attributes["count_include_pad"]) == (pads, include)


@pytest.mark.parametrize(
    ("shape", "pool", "pads"),
    [
        ((1, 5), nn.MaxPool1d(2, ceil_mode=True), [0, 1]),
        ((1, 6, 7), nn.MaxPool2d(3, 3, 1, ceil_mode=True), [1, 1, 2, 1]),
        ((1, 7, 8), nn.MaxPool2d((3, 2), (3, 3), (0, 1), ceil_mode=True), [0, 1, 2, 1]),
        ((1, 10), nn.MaxPool1d(3, 4, dilation=3, ceil_mode=True), [0, 1]),
    ],
)
def test_pads_reach_as_far_as_the_last_window(shape: Shape, pool: nn.Module, pads: list[int]) -> None:
    """A window that would start behind the image and its first pads is none."""
    attributes, _ = written(chain(shape, pool), "MaxPool")
    assert attributes["pads"] == pads


def test_gates_are_written_in_the_order_of_onnx() -> None:
    """In torch: input, forget, cell, output; in ONNX: input, output, forget, cell.  A GRU's first two change places."""
    layers: tuple[nn.LSTM | nn.GRU, ...] = nn.LSTM(1, 1, batch_first=True), nn.GRU(1, 1, batch_first=True)
    for layer, order in zip(layers, ([1, 4, 2, 3], [2, 1, 3]), strict=True):
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.copy_(torch.arange(1.0, len(order) + 1).view_as(parameter))
        attributes, constants = written(chain((2, 1), Recurrent(layer)), type(layer).__name__)
        assert constants["m0.w"] == constants["m0.r"] == [[[each] for each in order]]
        assert constants["m0.b"] == [[*order, *order]]
        assert attributes["hidden_size"] == 1
        assert attributes.get("linear_before_reset") == (1 if isinstance(layer, nn.GRU) else None)


def test_numbers_stand_in_the_file_as_they_are() -> None:
    _, constants = written(chain((2,), ops.Scale(torch.tensor([2.0, 3.0]), 0.0)), "Mul")
    assert constants == {"m0.factor": [2, 3]}
    _, constants = written(chain((2,), nn.GELU("tanh")), "Tanh")
    numbers = {"cubic": 0.044715, "one": 1.0, "root": (2 / np.pi) ** 0.5, "shift": 1.0, "half": 0.5}
    assert constants == {f"m0.{name}": pytest.approx(value) for name, value in numbers.items()}
    _, constants = written(chain((2,), ops.Power(0.5)), "Pow")
    assert constants == {"m0.exponent": 0.5}
    _, constants = written(chain((2, 4), ops.Slice(2, 1, 4, 2)), "Slice")
    assert constants == {"m0.starts": [1], "m0.ends": [4], "m0.axes": [2], "m0.steps": [2]}


@pytest.mark.parametrize(
    ("module", "opset", "ir"), [(nn.ReLU(), 13, 7), (nn.Hardswish(), 14, 7), (nn.LayerNorm(4), 17, 8)]
)
def test_files_are_as_old_as_their_operations_allow(module: nn.Module, opset: int, ir: int) -> None:
    model = write_onnx(chain((4,), module), name="one")
    assert (model.opset_import[0].version, model.ir_version) == (opset, ir)


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (nn.Conv1d(2, 2, 3, padding="same"), "padding 'same' with mode 'zeros'"),
        (nn.Conv1d(2, 2, 3, padding=1, padding_mode="circular"), r"padding \(1,\) with mode 'circular'"),
    ],
)
def test_paddings_that_onnx_has_no_word_for_are_refused(layer: nn.Module, words: str) -> None:
    with pytest.raises(UnsupportedOpError, match=words) as caught:
        write_onnx(chain((2, 5), layer), name="one")
    assert (caught.value.where, caught.value.remedy) == ("layer 'm0'", "give the padding as numbers, with zeros")


# ── the draft ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_layer_that_is_called_like_an_end_makes_another_value() -> None:
    out = Draft({"x", "y"})
    assert [out.op("Relu", ["x"], name) for name in ("x", "y", "z")] == ["x:layer", "y:layer", "z"]
    assert [node.name for node in out.nodes] == ["x", "y", "z"]
    assert out.nth(2, "LSTM", ["z"], "cells") == "cells"
    assert list(out.nodes[-1].output) == ["", "", "cells"]


def test_a_quantizer_is_a_pair_and_may_be_read_otherwise() -> None:
    out = Draft()
    assert out.quantize("v", "relu", QuantParams.of(0.5, 255)) == "relu:d"
    assert out.quantize("v", "gate", QuantParams.of(0.5, 3), read_as=QuantParams.of(0.25)) == "gate:d"
    assert [list(node.input) for node in out.nodes] == [
        ["v", "relu:s", "relu:z"],
        ["relu:q", "relu:s", "relu:z"],
        ["v", "gate:s", "gate:z"],
        ["gate:q", "gate:d:s", "gate:d:z"],
    ]
    found = {each.name: numpy_helper.to_array(each) for each in out.initializers}
    assert found["relu:z"].dtype == np.uint8
    assert (found["relu:z"].tolist(), found["gate:d:s"].tolist()) == (255, 0.25)
    assert [node.name for node in out.nodes] == [""] * 4


def test_every_emitter_is_written_here_but_those_of_two_values() -> None:
    with_two = {"Add", "Sub", "Mul", "Div", "MatMul", "Concat"}
    plain = {"Relu", "HardSwish", "Tanh", "Sigmoid", "Softplus", *ops.FUNCTIONS}
    found = {node for case in CASES.values() for node in case.nodes.split()}
    assert set(EMITTERS) - with_two - plain <= found | {
        "Gelu", "Mish", "Scale", "Projection", "PadFilled", "ResizeNearest", "ResizeLinear",
    }  # fmt: skip
