"""What the two runtimes execute of a quantized network: which of its operations compute on floats."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, fx, nn

from pipeline.declare.recipe import QuantizeSpec
from pipeline.declare.words import RuntimeName
from pipeline.graph.kinds import compute_nodes, module_of, output_node
from pipeline.networks.from_torch import folded_graph
from pipeline.quant.calibrate import calibrate, unquantized
from pipeline.quant.constants import QScale
from pipeline.quant.fakequant import ActivationQuantizer
from pipeline.quant.grids import quantizer_of
from pipeline.quant.prepare import float_reasons, freeze, prepare
from pipeline.quant.spelled import Gate
from pipeline.quant.to_onnx import to_bytes, write_onnx
from pipeline.runtimes.executed import executed
from pipeline.tflite import write_tflite
from tests.quant.exact import run_exactly
from tests.tflite.nets import run_tflite

SHAPE = (4, 6, 6)
FILES: dict[RuntimeName, str] = {"onnxruntime": "net.onnx", "litert": "net.tflite"}


class _Tokens(nn.Module):
    """(N, C, H, W) → (N, H * W, C), through a body and its mean."""

    def __init__(self, *body: nn.Module) -> None:
        super().__init__()
        self.body, self.last = nn.Sequential(*body), nn.Linear(SHAPE[1] * SHAPE[2], 3)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.body(x.flatten(2).transpose(1, 2))
        result: Tensor = self.last(tokens[:, :, 0])
        return result


class _NormedStream(nn.Module):
    """A stream of sums that a layer norm reads, as in transformers."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.mix, self.last = nn.LayerNorm(4), nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        stream = x.flatten(2).transpose(1, 2)
        stream = stream + self.mix(F.relu(stream))
        result: Tensor = self.last(self.norm(stream))
        return result


class _Arithmetic(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def quantized(network: nn.Module) -> fx.GraphModule:
    torch.manual_seed(0)
    graph = prepare(folded_graph(network.eval(), SHAPE), weight_bits=8)
    calibrate(graph, torch.randn(16, *SHAPE, generator=torch.Generator().manual_seed(1)), QuantizeSpec())
    return graph.eval()


def ran(graph: fx.GraphModule, folder: Path) -> dict[RuntimeName, tuple[list[str], list[str]]]:
    """Return the operations on integers and those on floats, by runtime."""
    model = write_onnx(graph, name="net")
    (folder / FILES["onnxruntime"]).write_bytes(to_bytes(model))
    (folder / FILES["litert"]).write_bytes(write_tflite(model))
    found: dict[RuntimeName, tuple[list[str], list[str]]] = {}
    for runtime, name in FILES.items():
        ops = [each for each in executed(folder / name, runtime) if each.op != "DELEGATE"]
        found[runtime] = [each.op for each in ops if each.integer], [each.op for each in ops if not each.integer]
    return found


def between(middle: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(4, 4, 1), middle, nn.Conv2d(4, 3, 1))


ON_INTEGERS: dict[str, nn.Module] = {
    "linear on tokens": _Tokens(nn.Linear(4, 5), nn.Linear(5, 2)),
    "linear on tokens, relu6": _Tokens(nn.Linear(4, 5), nn.ReLU6(), nn.Linear(5, 2, bias=False)),
    "hard-swish": between(nn.Hardswish()),
    "hard-sigmoid": between(nn.Hardsigmoid()),
    "leaky relu": between(nn.LeakyReLU()),
    "factor": between(_Arithmetic(lambda x: F.relu(x) * 0.5)),
    "offset": between(_Arithmetic(lambda x: F.relu(x) - 1.5)),
    "factor and offset": between(_Arithmetic(lambda x: F.relu(x) * -3 + 4)),
    "factors of channels": between(_Arithmetic(lambda x: F.relu(x) * torch.linspace(0.1, 2, 4).view(4, 1, 1))),
    "difference": between(_Arithmetic(lambda x: x - F.avg_pool2d(x, 3, 1, 1))),
    "hard-swish written out": between(_Arithmetic(lambda x: x * F.relu6(x + 3) / 6)),
}


@pytest.mark.parametrize("network", ON_INTEGERS.values(), ids=ON_INTEGERS)
def test_everything_runs_on_integers(network: nn.Module, tmp_path: Path) -> None:
    for _, floats in ran(quantized(network), tmp_path).values():
        assert floats == []


@torch.no_grad()
@pytest.mark.parametrize("network", ON_INTEGERS.values(), ids=ON_INTEGERS)
def test_what_is_put_together_computes_the_same(network: nn.Module) -> None:
    graph, x = quantized(network), torch.randn(8, *SHAPE)
    with unquantized(graph):
        # a hard-sigmoid lies an eighth of its 255 steps higher
        torch.testing.assert_close(graph(x), network(x), rtol=1e-5, atol=2e-3)


def test_a_hard_swish_that_is_left_float_stays_one() -> None:
    folded = folded_graph(between(nn.Hardswish()).eval(), SHAPE)
    graph = prepare(folded, weight_bits=8, float_layers=("1",))
    assert "HardSwish" in [node.op_type for node in write_onnx(graph, name="net").graph.node]


def test_half_a_hard_sigmoid_lies_on_no_tie() -> None:
    steps = Gate()(torch.zeros(())) / Gate.params.scale
    assert abs(steps.item() - 127.5) == pytest.approx(0.125, abs=1e-3)


def test_a_hard_sigmoid_of_steps_that_no_sum_takes_is_computed_in_float(tmp_path: Path) -> None:
    gate = nn.Sequential(nn.Conv2d(4, 4, 1), nn.Hardsigmoid())
    nn.init.constant_(gate[0].weight, 1e4)  # type: ignore[arg-type]
    floats = ran(quantized(gate), tmp_path)["onnxruntime"][1]
    assert "HardSigmoid" in floats


def test_a_linear_layer_on_tokens_is_one_operator_in_tflite(tmp_path: Path) -> None:
    integers, _ = ran(quantized(_Tokens(nn.Linear(4, 5), nn.Linear(5, 2))), tmp_path)["litert"]
    assert "RESHAPE FULLY_CONNECTED FULLY_CONNECTED" in " ".join(integers)


def test_a_sum_that_a_layer_norm_reads_is_not_rounded() -> None:
    graph = quantized(_NormedStream())
    quantizers = [str(n.target) for n in compute_nodes(graph) if isinstance(module_of(n), ActivationQuantizer)]
    assert "quantizers.mix" in quantizers
    assert "quantizers.add" not in quantizers


@pytest.mark.parametrize("after", [nn.GELU(), nn.Identity()])
def test_arithmetic_with_constants_beside_a_float_operation_is_not_rounded(after: nn.Module) -> None:
    half = _Arithmetic(lambda x: F.relu(x) * 0.5)
    graph = quantized(between(nn.Sequential(half, after)))
    quantizers = [str(n.target) for n in compute_nodes(graph) if isinstance(module_of(n), ActivationQuantizer)]
    rounded = isinstance(after, nn.Identity)
    assert any("mul" in each for each in quantizers) == rounded
    assert any("beside float operations" in reason for reason in float_reasons(graph)) != rounded


class _Shares(nn.Module):
    """Every position's share of the sum over all positions, as efficient attention takes it of its keys."""

    def __init__(self) -> None:
        super().__init__()
        self.keys, self.last = nn.Conv2d(4, 4, 1), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        keys = self.keys(x).flatten(2)
        result: Tensor = self.last((keys.softmax(2) @ keys.transpose(1, 2)).flatten(1))
        return result


def test_a_softmax_between_float_operations_is_not_rounded() -> None:
    graph = quantized(_Shares())
    (softmax,) = [node for node in compute_nodes(graph) if isinstance(module_of(node), nn.Softmax)]
    assert not any(isinstance(module_of(user), ActivationQuantizer) for user in softmax.users)


@pytest.mark.parametrize("constant", [0.3, -7.0, 0.0])
def test_a_single_constant_is_rounded_by_nothing(constant: float) -> None:
    graph = quantized(between(_Arithmetic(lambda x: F.relu(x) * constant)))
    (scale,) = [module for module in graph.modules() if isinstance(module, QScale)]
    assert scale(torch.ones(())).item() == pytest.approx(constant, rel=1e-6)


@torch.no_grad()
def test_a_pad_with_a_number_that_its_input_does_not_reach() -> None:
    graph = quantized(between(_Arithmetic(lambda x: F.pad(x, (1, 0), value=70.0))))
    x, step = torch.randn(8, *SHAPE), quantizer_of(output_node(graph)).params.scale
    integers, model = freeze(graph)(x).numpy(), write_onnx(graph, name="net")
    assert np.abs(run_exactly(to_bytes(model), x.numpy()) - integers).max() <= 1.01 * step
    assert np.abs(run_tflite(write_tflite(model), x.numpy()).values - integers).max() <= 1.01 * step
