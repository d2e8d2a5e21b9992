"""Model files that karui itself writes, whose layers are known, and files that are none."""

from __future__ import annotations

import contextlib
from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import fx, nn

from pipeline.declare.recipe import QuantizeSpec
from pipeline.errors import ModelError
from pipeline.inspecting.network import inspect_network
from pipeline.inspecting.onnx_file import inspect_onnx
from pipeline.inspecting.tflite_file import inspect_tflite
from pipeline.networks.from_torch import folded_graph
from pipeline.quant.calibrate import calibrate
from pipeline.quant.prepare import prepare
from pipeline.quant.to_onnx import to_bytes, write_onnx
from pipeline.tflite import write_tflite
from tests import learnable
from tests.inspecting.test_network import Residual

READERS = {"onnx": inspect_onnx, "tflite": inspect_tflite}


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)).eval()


def written(folder: Path, graph: fx.GraphModule, file_format: str) -> Path:
    model = write_onnx(graph, name="x")
    path = folder / f"x.{file_format}"
    path.write_bytes(to_bytes(model) if file_format == "onnx" else write_tflite(model))
    return path


def quantized(module: nn.Module) -> fx.GraphModule:
    prepared = prepare(folded_graph(module, learnable.SHAPE), weight_bits=8)
    x = torch.from_numpy(learnable.pictures(8, 0)[0])
    calibrate(prepared, x, QuantizeSpec(calibration="min-max"))
    return prepared.eval()


@pytest.mark.parametrize("file_format", READERS)
@pytest.mark.parametrize("precision", ["float", "int8"])
def test_a_file_costs_what_its_network_does(tmp_path: Path, file_format: str, precision: str) -> None:
    own = inspect_network(network(), learnable.SHAPE, subject="x")
    graph = folded_graph(network(), learnable.SHAPE) if precision == "float" else quantized(network())
    found = READERS[file_format](written(tmp_path, graph, file_format))
    assert (found.kind, found.subject) == (file_format, f"x.{file_format}")
    assert sorted(layer.macs for layer in found.layers if layer.macs) == sorted(
        layer.macs for layer in own.layers if layer.macs
    )
    assert found.parameters == own.parameters
    assert [layer.channels for layer in found.layers if layer.channels] == [8, 8, 4]
    assert sorted(found.input_shapes[0]) == [3, 8, 8]
    assert found.integer_layers == (len(found.layers) if precision == "int8" else 0)
    assert not any(layer.why_float for layer in found.layers)


@pytest.mark.parametrize("file_format", READERS)
def test_memory_of_integers_is_a_quarter_of_that_of_floats(tmp_path: Path, file_format: str) -> None:
    float_file = READERS[file_format](written(tmp_path, folded_graph(network(), learnable.SHAPE), file_format))
    int8_file = READERS[file_format](written(tmp_path, quantized(network()), file_format))
    assert float_file.peak_bytes == 4 * (8 * 64 + 8 * 36)
    assert int8_file.peak_bytes < float_file.peak_bytes / 2
    assert int8_file.parameter_bytes < float_file.parameter_bytes


@pytest.mark.parametrize("file_format", READERS)
def test_what_stays_float_in_an_int8_file_is_named(tmp_path: Path, file_format: str) -> None:
    found = READERS[file_format](written(tmp_path, quantized(Residual()), file_format))
    reasons = {layer.op: layer.why_float for layer in found.layers if not layer.integer}
    assert reasons
    assert all(reasons.values())
    assert found.integer_layers > 5


def test_odd_nodes_of_onnx_files(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "x"], ["m"]),
        helper.make_node("Tanh", ["m"], ["t"]),
        helper.make_node("Relu", ["t"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 4, 4]) for name in "xy"]
    path = tmp_path / "odd.onnx"
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:])), path)
    found = inspect_onnx(path)
    assert [(layer.name, layer.op, layer.macs) for layer in found.layers] == [
        ("m", "MatMul", 64),
        ("t", "Tanh", 0),
        ("y", "Relu", 0),
    ]
    assert [layer.squashes for layer in found.layers] == [False, True, False]


@pytest.mark.parametrize("content", [b"", b"nothing", b"\x00\x00\x00\x00TFL3", b"\x1c\x00\x00\x00TFL3" + bytes(40)])
@pytest.mark.parametrize("file_format", READERS)
def test_what_is_no_such_file_is_refused(tmp_path: Path, file_format: str, content: bytes) -> None:
    path = tmp_path / f"x.{file_format}"
    path.write_bytes(content)
    if file_format == "onnx" and not content:
        assert inspect_onnx(path).layers == ()  # an empty file is an empty model
        return
    with pytest.raises(ModelError) as caught:
        READERS[file_format](path)
    assert caught.value.where == str(path)


@pytest.mark.parametrize("file_format", READERS)
def test_a_cut_file_is_refused_or_read_as_far_as_it_makes_sense(tmp_path: Path, file_format: str) -> None:
    path = written(tmp_path, folded_graph(network(), learnable.SHAPE), file_format)
    whole = path.read_bytes()
    for kept in range(0, len(whole), max(len(whole) // 40, 1)):
        path.write_bytes(whole[:kept])
        with contextlib.suppress(ModelError):
            READERS[file_format](path)
