"""Networks through trace, fold, prepare, freeze and the ONNX writer: the same numbers in torch and ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from pipeline.declare.recipe import QuantizeSpec
from pipeline.errors import ModelError, UnsupportedOpError
from pipeline.networks.from_torch import flat_graph, folded_graph
from pipeline.quant.calibrate import calibrate
from pipeline.quant.fakequant import QWeighted
from pipeline.quant.prepare import float_reasons, freeze, prepare, quantized_labels
from pipeline.quant.sensitivity import layer_quality
from pipeline.quant.to_onnx import to_bytes, write_onnx
from tests.quant import networks
from tests.quant.exact import run_exactly

FLOAT_TOLERANCE = 2e-5  # other summation orders
STEPS_AGAINST_FROZEN = 1.0  # ORT multiplies by s_x * s_w / s_y once where torch multiplies and divides
NAMES = sorted(networks.ALL)


def prepared(
    name: str, *, bits: int = 8, float_layers: tuple[str, ...] = (), calibration: str = "min-max"
) -> fx.GraphModule:
    graph = prepare(
        folded_graph(networks.build(name), networks.SAMPLE_SHAPE), weight_bits=bits, float_layers=float_layers
    )
    calibrate(graph, networks.inputs(128), QuantizeSpec.model_validate({"calibration": calibration}))
    return graph


def run(model: onnx.ModelProto, x: Tensor) -> NDArray[np.float32]:
    return run_exactly(model.SerializeToString(), x.numpy())


def executed_ops(model: onnx.ModelProto, folder: Path) -> set[str]:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return {node.op_type for node in onnx.load(folder / "optimized.onnx").graph.node}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("batch", [1, 5])
def test_float_file_computes_what_torch_computes(name: str, batch: int) -> None:
    network = networks.build(name)
    model = write_onnx(folded_graph(network, networks.SAMPLE_SHAPE), name=name)
    x = networks.inputs(batch)
    with torch.no_grad():
        wanted = network(x).numpy()
    assert np.abs(run(model, x) - wanted).max() <= FLOAT_TOLERANCE


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bits", [7, 8])
def test_int8_file_computes_the_frozen_networks_integers(name: str, bits: int) -> None:
    graph = prepared(name, bits=bits)
    x = networks.inputs(200, seed=5)
    with torch.no_grad():
        wanted = freeze(graph)(x).numpy()
    got = run(write_onnx(graph, name=name), x)
    step = list(graph.quantizers.children())[-1].params.scale  # type: ignore[union-attr]
    assert np.abs(got - wanted).max() <= STEPS_AGAINST_FROZEN * step * 1.001
    assert (got.argmax(1) == wanted.argmax(1)).mean() >= 0.99


@pytest.mark.parametrize("name", ["residual", "mixed"])
def test_every_node_runs_on_integers(name: str, tmp_path: Path) -> None:
    ops = executed_ops(write_onnx(prepared(name), name=name), tmp_path)
    assert not ops & {"Conv", "FusedConv", "Gemm", "FusedGemm", "Add", "Mul", "Relu", "Clip", "Concat", "AveragePool"}
    assert "QLinearConv" in ops


@pytest.mark.parametrize("name", NAMES)
def test_files_are_byte_identical_when_repeated(name: str) -> None:
    assert to_bytes(write_onnx(prepared(name), name=name)) == to_bytes(write_onnx(prepared(name), name=name))


@pytest.mark.parametrize("name", NAMES)
def test_files_load_in_old_runtimes(name: str) -> None:
    model = write_onnx(prepared(name), name=name)
    assert model.ir_version == 7
    assert model.opset_import[0].version == 13
    assert not any(node.doc_string or node.metadata_props for node in model.graph.node)


def test_a_layer_left_float_stays_float_and_is_named() -> None:
    graph = prepared("residual", float_layers=("conv2", "fc"))
    assert quantized_labels(graph) == ["conv1"]
    assert [reason.split(":")[0] for reason in float_reasons(graph)] == ["conv2 (Conv)", "fc (Gemm)"]
    model = write_onnx(graph, name="residual")
    floats = {i.name for i in model.graph.initializer if i.data_type == onnx.TensorProto.FLOAT}
    assert {"conv2.w", "fc.w"} <= floats
    x = networks.inputs(50)
    with torch.no_grad():
        assert np.abs(run(model, x) - freeze(graph)(x).numpy()).max() < 0.05  # one inner step, seen at the output


def test_what_stays_float_is_listed_with_its_reason() -> None:
    reasons = float_reasons(prepared("odd"))
    assert any(reason.startswith("up (ConvTranspose): ONNX Runtime has no") for reason in reasons)
    assert not any(reason.startswith("swish") for reason in reasons)


@pytest.mark.parametrize("calibration", ["min-max", "percentile", "mse"])
def test_calibration_keeps_the_network(calibration: str) -> None:
    graph = prepared("residual", calibration=calibration)
    network, x = networks.build("residual"), networks.inputs(300, seed=9)
    with torch.no_grad():
        same = (graph(x).argmax(1) == network(x).argmax(1)).float().mean()
    assert same > 0.95


def test_least_error_calibration_clips_an_outlier() -> None:
    graph = prepare(folded_graph(networks.build("residual"), networks.SAMPLE_SHAPE), weight_bits=8)
    x = networks.inputs(2000)  # enough values for their rounding errors to outweigh one clipped outlier
    x[0, 0, 0, 0] = 60.0
    tops = {}
    for method in ("min-max", "mse"):
        calibrate(graph, x, QuantizeSpec.model_validate({"calibration": method}))
        tops[method] = float(graph.quantizers.x.high)  # type: ignore[union-attr, arg-type]
    assert tops["min-max"] == 60.0
    assert tops["mse"] < 45


def test_layer_quality_names_the_layer_that_was_damaged() -> None:
    network = networks.build("residual")
    with torch.no_grad():
        network.get_parameter("conv2.weight")[0, 0, 0, 0] = 40.0  # one huge weight eats its channel's 8 bits
    graph = prepare(folded_graph(network, networks.SAMPLE_SHAPE), weight_bits=8)
    calibrate(graph, networks.inputs(64), QuantizeSpec())
    rows = layer_quality(graph, networks.inputs(64))
    assert [row.layer for row in rows] == ["x", "conv1", "conv2", "add", "mean", "fc"]
    weights = {row.layer: row.weight_sqnr_db for row in rows if row.weight_sqnr_db is not None}
    assert weights.keys() == {"conv1", "conv2", "fc"}
    assert all(row.output_sqnr_db > 10 for row in rows)


def test_fake_quantization_learns() -> None:
    graph = prepared("residual").train()
    x = networks.inputs(256)
    labels = (x.mean((1, 2, 3)) > 0).long()
    optimizer = torch.optim.Adam(graph.parameters(), 3e-3)
    losses = []
    for _ in range(40):
        loss = F.cross_entropy(graph(x), labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]


class Unknown(nn.Module):
    def __init__(self, bad: nn.Module) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Conv2d(3, 4, 1), bad)
        self.fc = nn.Linear(4 * 64, 5)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.block(x).flatten(1))
        return logits


class Cumulative(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cumprod(x, 1)


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.sum() > 0 else x


class MixesBatch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(1, -1, 8, 8)


def test_unknown_layer_is_named_with_what_to_do() -> None:
    with pytest.raises(UnsupportedOpError, match=r"layer 'block.1': nn.FractionalMaxPool2d is not supported") as caught:
        flat_graph(Unknown(nn.FractionalMaxPool2d(1, 8)), networks.SAMPLE_SHAPE)
    assert "torch.nn modules" in caught.value.remedy


def test_unknown_function_is_named_with_its_layer() -> None:
    with pytest.raises(UnsupportedOpError, match=r"layer 'block.1': cumprod is not supported"):
        flat_graph(Unknown(Cumulative()), networks.SAMPLE_SHAPE)


def test_control_flow_is_refused() -> None:
    with pytest.raises(ModelError, match="cannot be traced"):
        flat_graph(Unknown(Branching()), networks.SAMPLE_SHAPE)


def test_mixing_the_batch_is_refused() -> None:
    class Mixing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mix = MixesBatch()

        def forward(self, x: Tensor) -> Tensor:
            mixed: Tensor = self.mix(x)
            return mixed.flatten(1)

    with pytest.raises(UnsupportedOpError, match="mixes the batch"):
        flat_graph(Mixing(), networks.SAMPLE_SHAPE)


def test_a_weighted_layer_called_twice_has_integers_of_its_own_each_time() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            return torch.flatten(self.conv(self.conv(x)), 1)

    graph = prepare(folded_graph(Twice(), networks.SAMPLE_SHAPE), weight_bits=8)
    calibrate(graph, networks.inputs(16), QuantizeSpec(calibration="min-max"))
    first, second = (module for module in graph.modules() if isinstance(module, QWeighted))
    assert first.weight is second.weight
    assert first.input_quantizer is not second.input_quantizer


def test_an_activation_called_twice_is_fine() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.act = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            return torch.flatten(self.act(self.b(self.act(self.a(x)))), 1)

    graph = prepare(folded_graph(Shared(), networks.SAMPLE_SHAPE), weight_bits=8)
    calibrate(graph, networks.inputs(32), QuantizeSpec())
    x = networks.inputs(20)
    with torch.no_grad():
        assert np.abs(run(write_onnx(graph, name="shared"), x) - freeze(graph)(x).numpy()).max() < 0.02
