"""What kernels have to do: worked out by hand, and the same whether it is read off a network or off its files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from pipeline.declare.words import Precision
from pipeline.inspecting.layers import Inspected
from pipeline.inspecting.network import inspect_network
from pipeline.networks.from_torch import folded_graph
from tests import learnable
from tests.inspecting.test_files import READERS, network, quantized, written
from tests.inspecting.test_network import Residual


class Many(nn.Module):
    """Grouped, strided, transposed; pools, a concatenation, a bilinear picture, tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.grouped = nn.Conv2d(3 * 2, 8, 3, padding=1, groups=2)
        self.narrow = nn.Conv2d(8, 4, 1, stride=2)
        self.wide = nn.ConvTranspose2d(4, 8, 2, stride=2)
        self.up = nn.Upsample(scale_factor=2, mode="bilinear")
        self.tokens = nn.Linear(16, 5)
        self.norm = nn.LayerNorm(5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.grouped(torch.cat([x, F.max_pool2d(x, 3, 1, 1)], 1)))
        x = torch.cat([x, self.wide(self.narrow(x))], 1)
        x = self.up(F.max_pool2d(x, 2))
        x = F.leaky_relu(self.tokens(x.flatten(2).transpose(1, 2)))
        weights: Tensor = self.norm(x).softmax(-1)
        return weights


def texts(found: Inspected, precision: Precision) -> list[str]:
    return [work.text for layer in found.layers for work in layer.works.get(precision, ())]


def test_by_hand() -> None:
    found = inspect_network(Residual(), learnable.SHAPE, subject="mine")
    assert texts(found, "fp32") == [
        "Conv r192 m512 x64 n8 k27 w9 l8 a1",  # 8 channels of 8 x 8 from 3, and the ReLU in it
        "Depthwise r512 m512 x64 k9 g8 w9 l8",
        "Softplus r512 m512",
        "Add r1024 m512",
        "GlobalAveragePool r512 m8 g8",
        "Pointwise r8 m8 n8 k8",
        "Sigmoid r8 m8",
        "Broadcast r520 m512 x8",
        "GlobalAveragePool r512 m8 g8",
        "Gemm r8 m4 n4 k8",
    ]
    assert sum(work.macs for layer in found.layers for work in layer.works["fp32"] if work.weights) == found.macs


def test_what_converts_stands_beside_what_needs_it() -> None:
    found = inspect_network(Residual(), learnable.SHAPE, subject="mine")
    works = {layer.name: [work.text for work in layer.works["int8"]] for layer in found.layers}
    assert works["first"] == ["QuantizeEnd8 r192 m192", "Conv8 r192 m512 x64 n8 k27 w9 l8"]
    assert works["act"] == ["Dequantize8 r512 m512", "Softplus r512 m512", "Quantize8 r512 m512"]
    assert works["fc"] == ["Gemm8 r8 m4 n4 k8", "DequantizeEnd8 r4 m4"]


def test_what_runs_inside_others_does_nothing_of_its_own() -> None:
    layers = inspect_network(network(), learnable.SHAPE, subject="mine").layers
    assert {layer.op for layer in layers if not layer.works["fp32"]} == {"Relu", "Reshape"}


@pytest.mark.parametrize("make", [network, Residual, Many])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_an_onnx_file_has_the_same_work(tmp_path: Path, make: type[nn.Module], precision: Precision) -> None:
    torch.manual_seed(0)
    net = make().eval()
    own = texts(inspect_network(net, learnable.SHAPE, subject="x"), precision)
    graph = folded_graph(net, learnable.SHAPE) if precision == "fp32" else quantized(net)
    assert texts(READERS["onnx"](written(tmp_path, graph, "onnx")), precision) == own


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_tflite_file_has_the_same_work(tmp_path: Path, precision: Precision) -> None:
    """Its ends are integers: whoever runs it converts."""
    own = texts(inspect_network(network(), learnable.SHAPE, subject="x"), precision)
    graph = folded_graph(network(), learnable.SHAPE) if precision == "fp32" else quantized(network())
    found = texts(READERS["tflite"](written(tmp_path, graph, "tflite")), precision)
    assert found == [text for text in own if "End8" not in text]
