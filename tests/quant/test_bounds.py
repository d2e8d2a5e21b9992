"""No bias is lost and no scale refused: dead channels, tiny weights, activations that never fire, any unit."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, fx, nn

from pipeline.declare.recipe import QuantizeSpec
from pipeline.graph.kinds import compute_nodes, module_of
from pipeline.networks.from_torch import folded_graph
from pipeline.quant.calibrate import bound_scales, calibrate
from pipeline.quant.fakequant import ActivationQuantizer, QWeighted
from pipeline.quant.frozen import FrozenWeighted
from pipeline.quant.prepare import freeze, prepare
from pipeline.quant.scheme import ACCUMULATOR_LIMIT, LARGEST_RESCALING, SANE_SCALE
from pipeline.quant.to_onnx import write_onnx
from pipeline.tflite import write_tflite
from tests.quant.exact import run_exactly
from tests.tflite.nets import run_tflite

SHAPE = (3, 8, 8)
SHARE = 0.03  # of the outputs' range: how far eight bits may be from float in these small networks


class Two(nn.Module):
    """Two convolutions and a linear layer, to be spoilt."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, stride=2, padding=1)
        self.fc = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv2(F.relu(self.conv1(x))))
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


def bias(layer: nn.Conv2d) -> Tensor:
    assert layer.bias is not None
    return layer.bias


def dead_channel(net: Two) -> None:
    net.conv1.weight[2], bias(net.conv1)[2] = 0.0, 6.0
    net.conv2.weight[5], bias(net.conv2)[5] = 0.0, 4.0


def tiny_weights(net: Two) -> None:
    for channel, size in enumerate((1e-5, 1e-7, 1e-12, 1e-30)):
        net.conv1.weight[channel] *= size
        bias(net.conv1)[channel] = 1.0 + channel


def all_channels_dead(net: Two) -> None:
    net.conv2.weight.zero_()
    bias(net.conv2).copy_(torch.arange(6.0))


def never_fires(net: Two) -> None:
    bias(net.conv1).fill_(-100.0)


def nothing_at_all(net: Two) -> None:
    for layer in (net.conv1, net.conv2):
        layer.weight.zero_()
        bias(layer).zero_()


def huge_bias(net: Two) -> None:
    bias(net.conv1)[0] = -1e6  # never fires, beside channels that do
    bias(net.conv1)[1] = 50.0


SPOILT: list[Callable[[Two], None]] = [
    dead_channel, tiny_weights, all_channels_dead, never_fires, nothing_at_all, huge_bias,
]  # fmt: skip


def spoilt(spoil: Callable[[Two], None]) -> Two:
    net = Two()
    with torch.no_grad():
        spoil(net)
    return net.eval()


def samples(count: int = 64, seed: int = 1) -> Tensor:
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(seed))


def quantized(network: nn.Module, inputs: Tensor, *, bits: int = 8, method: str = "min-max") -> fx.GraphModule:
    graph = prepare(folded_graph(network, tuple(inputs.shape[1:])), weight_bits=bits)
    calibrate(graph, inputs, QuantizeSpec.model_validate({"calibration": method}))
    return graph.eval()


@pytest.mark.parametrize("bits", [7, 8])
@pytest.mark.parametrize("spoil", SPOILT)
def test_float_training_integers_and_files_agree(spoil: Callable[[Two], None], bits: int) -> None:
    network, x = spoilt(spoil), samples()
    graph = quantized(network, x, bits=bits)
    model = write_onnx(graph, name="spoilt")
    with torch.no_grad():
        wanted = network(x).numpy()
        outputs = {
            "fake-quantized": graph(x).numpy(),
            "frozen": freeze(graph)(x).numpy(),
            "ONNX Runtime": run_exactly(model.SerializeToString(), x.numpy()),
            "LiteRT": run_tflite(write_tflite(model), x.numpy()).values,
        }
    tolerance = SHARE * max(float(np.ptp(wanted)), float(np.abs(wanted).max()))
    assert {name: float(np.abs(got - wanted).max()) for name, got in outputs.items()} == pytest.approx(
        dict.fromkeys(outputs, 0.0), abs=tolerance
    )


@pytest.mark.parametrize("spoil", SPOILT)
def test_integers_stay_inside_int32_with_room_to_spare(spoil: Callable[[Two], None]) -> None:
    frozen = freeze(quantized(spoilt(spoil), samples()))
    layers = [module for module in frozen.modules() if isinstance(module, FrozenWeighted)]
    assert len(layers) == 3
    for layer in layers:
        assert layer.integers.bias is not None
        bias = layer.integers.bias.double().abs()
        worst = bias + 255 * layer.integers.weight.double().flatten(1).abs().sum(1)
        # half a step of rounding for each of the products
        products = layer.integers.weight[0].numel()
        assert float(worst.max()) <= ACCUMULATOR_LIMIT * 1.0001 + 255 * products
        assert bool(torch.isfinite(layer.scale).all())
        assert bool((layer.scale > torch.finfo(torch.float32).tiny).all())


@pytest.mark.parametrize("spoil", SPOILT)
def test_no_result_is_finer_than_kernels_can_give(spoil: Callable[[Two], None]) -> None:
    graph = quantized(spoilt(spoil), samples())
    for node in compute_nodes(graph):
        module = module_of(node)
        if isinstance(module, QWeighted):
            after = next(iter(node.users))
            after = after if isinstance(module_of(after), ActivationQuantizer) else next(iter(after.users))
            quantizer = module_of(after)
            assert isinstance(quantizer, ActivationQuantizer)
            step = module.weight_scale() * module.input_quantizer.params.scale
            assert float(step.max()) / quantizer.params.scale < LARGEST_RESCALING
            assert float(step.min()) / quantizer.params.scale > 2**-32
            assert module.reach() / quantizer.params.scale <= ACCUMULATOR_LIMIT * 1.0001


@torch.no_grad()
def test_results_far_below_what_is_kept_do_not_wrap_around() -> None:
    """2^31 steps below a narrow range came out as 255 of kernels that add the zero point first (XNNPACK's for AMX)."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 6, 1), nn.ReLU(), nn.Conv2d(6, 3, 1)).eval()
    bias(network[0])[1:] = -4e7  # type: ignore[arg-type]
    x = samples()
    graph = quantized(network, x)
    got = run_tflite(write_tflite(write_onnx(graph, name="far")), x.numpy()).values
    assert torch.allclose(torch.from_numpy(got), freeze(graph)(x), atol=1e-4)


def test_a_sound_layer_keeps_the_scales_of_its_weights() -> None:
    graph = quantized(Two().eval(), samples())
    for module in graph.modules():
        if isinstance(module, QWeighted):
            expected = module.weight.flatten(1).abs().amax(1) / 127
            assert torch.equal(module.weight_scale(), expected)
        if isinstance(module, ActivationQuantizer):
            assert module.params.scale == float((module.high - module.low) / 255)


@pytest.mark.parametrize("unit", [1e-9, 1e-3, 1e6, 1e15])
def test_inputs_may_have_any_unit(unit: float) -> None:
    torch.manual_seed(0)
    first = nn.Linear(5, 8)
    with torch.no_grad():
        first.weight /= unit
    network = nn.Sequential(first, nn.ReLU(), nn.Linear(8, 2))
    x = torch.randn(64, 5) * unit
    graph = quantized(network.eval(), x)
    model = write_onnx(graph, name="unit")
    with torch.no_grad():
        wanted = network(x).numpy()
        assert np.abs(freeze(graph)(x).numpy() - wanted).max() < SHARE * np.ptp(wanted)
    assert np.abs(run_exactly(model.SerializeToString(), x.numpy()) - wanted).max() < SHARE * np.ptp(wanted)
    assert np.abs(run_tflite(write_tflite(model), x.numpy()).values - wanted).max() < SHARE * np.ptp(wanted)


def test_inputs_that_are_always_zero_get_a_sane_scale() -> None:
    graph = quantized(nn.Sequential(nn.Linear(5, 2)).eval(), torch.zeros(8, 5))
    quantizer = next(module for module in graph.modules() if isinstance(module, ActivationQuantizer))
    assert quantizer.params.scale == pytest.approx(SANE_SCALE)


@pytest.mark.parametrize("learned", [False, True], ids=["ema", "lsq"])
def test_training_follows_the_same_bounds(learned: bool) -> None:
    """A dead channel's bias that grows while training is not lost, and its scale grows with it."""
    graph = quantized(spoilt(dead_channel), samples())
    if learned:
        for module in graph.modules():
            if isinstance(module, ActivationQuantizer | QWeighted):
                module.learn_step_size()
    conv = graph.get_submodule("conv1")
    assert isinstance(conv, QWeighted)
    assert conv.bias is not None
    before = float(conv.weight_scale().detach()[2])
    graph.train()
    optimizer = torch.optim.SGD([conv.bias], lr=1.0)
    for _ in range(5):
        optimizer.zero_grad()
        (-10 * conv.bias[2] + 0 * graph(samples(16)).sum()).backward()
        optimizer.step()
    assert float(conv.bias.detach()[2]) == pytest.approx(56, rel=0.01)
    bound_scales(graph)
    integers = conv.freeze()
    assert integers.bias is not None
    assert integers.bias_params is not None
    assert float(conv.weight_scale().detach()[2]) > 5 * before
    assert float(integers.bias[2]) * integers.bias_params.scales[2] == pytest.approx(56, rel=0.01)
    graph.eval()
    with torch.no_grad():
        fake, frozen = graph(samples()), freeze(graph)(samples())
    assert float((fake - frozen).abs().max()) <= 3 * graph.get_submodule("quantizers.fc").params.scale  # type: ignore[operator, union-attr]
