"""What prepare and freeze need and leave is checked at each run; Deployed trains with rounding, answers in integers."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import fx, nn

from pipeline.declare.recipe import QuantizeSpec
from pipeline.errors import ModelError
from pipeline.graph.kinds import compute_nodes, module_of
from pipeline.networks.from_torch import folded_graph
from pipeline.quant import prepare as prepare_module
from pipeline.quant.calibrate import calibrate
from pipeline.quant.deployed import Deployed
from pipeline.quant.fakequant import ActivationQuantizer, QWeighted
from pipeline.quant.frozen import FrozenPool, FrozenQuantizer, FrozenWeighted, shaken_outputs
from pipeline.quant.grids import QUANTIZERS, input_quantizer
from pipeline.quant.prepare import freeze, prepare
from pipeline.quant.scheme import LARGEST_RESCALING
from tests.quant import networks


def folded(name: str = "residual") -> fx.GraphModule:
    return folded_graph(networks.build(name), networks.SAMPLE_SHAPE)


def calibrated(name: str = "residual") -> fx.GraphModule:
    graph = prepare(folded(name), weight_bits=8)
    calibrate(graph, networks.inputs(64), QuantizeSpec(calibration="min-max"))
    return graph.eval()


# ── needs and promises ──────────────────────────────────────────────────────────────────────────────────────────────


def test_prepare_takes_no_graph_that_is_not_flat() -> None:
    graph = folded()
    node = compute_nodes(graph)[0]
    with graph.graph.inserting_after(node):
        graph.graph.call_function(torch.relu, (node,))
    with pytest.raises(
        ModelError, match=r"graph after fold: 'relu.*' \(call_function\) is no known operation"
    ) as caught:
        prepare(graph, weight_bits=8)
    assert "bug in karui" in caught.value.remedy


def test_prepare_is_not_done_twice() -> None:
    with pytest.raises(ModelError, match="is no known operation"):
        prepare(calibrated(), weight_bits=8)


def test_prepare_leaves_its_input_as_it_was() -> None:
    graph = folded()
    before = str(graph.graph)
    prepare(graph, weight_bits=8)
    assert str(graph.graph) == before
    assert not any(isinstance(module, QWeighted | ActivationQuantizer) for module in graph.modules())


def test_an_integer_operation_without_a_quantized_input_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    insert = prepare_module._insert_quantizer

    def forgetful(graph: fx.GraphModule, node: fx.Node, quantized: set[fx.Node]) -> None:
        if node.meta["label"] != "add":
            insert(graph, node, quantized)
        # a quantizer after the sum is missing: what reads it computes on values that have no grid

    monkeypatch.setattr(prepare_module, "_insert_quantizer", forgetful)
    graph = folded_graph(_SumOnly().eval(), networks.SAMPLE_SHAPE)
    with pytest.raises(ModelError, match="graph after prepare: 'last' computes with integers"):
        prepare(graph, weight_bits=8)


class _SumOnly(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.last(x + self.first(x))
        return result


class _NormBetween(nn.Module):
    """A norm written out: its divisor is small, and an integer would make it 0."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.exp(self.first(x))
        result: torch.Tensor = self.last(x / x.square().sum(1, keepdim=True).sqrt().clamp(min=1e-6))
        return result


def test_arithmetic_between_float_operations_stays_float() -> None:
    graph = prepare(folded_graph(_NormBetween().eval(), networks.SAMPLE_SHAPE), weight_bits=8)
    quantized = [str(n.target) for n in compute_nodes(graph) if isinstance(module_of(n), ActivationQuantizer)]
    assert quantized == ["quantizers.x", "quantizers.first", "quantizers.div", "quantizers.last"]


def test_every_weighted_layer_knows_the_grid_of_its_input() -> None:
    graph = calibrated("mixed")
    nodes = [node for node in compute_nodes(graph) if isinstance(module_of(node), QWeighted)]
    assert len(nodes) == 6  # five layers and a mean
    for node in nodes:
        module = module_of(node)
        assert isinstance(module, QWeighted)
        assert module.input_quantizer is input_quantizer(node)


def test_freeze_refuses_ranges_that_are_no_numbers() -> None:
    graph = calibrated()
    quantizer = graph.get_submodule("quantizers.conv1") if hasattr(graph.quantizers, "conv1") else None
    quantizer = quantizer or next(m for m in graph.modules() if isinstance(m, ActivationQuantizer))
    assert isinstance(quantizer, ActivationQuantizer)
    quantizer.high.fill_(float("inf"))
    with pytest.raises(ModelError, match="no finite numbers on the calibration samples") as caught:
        freeze(graph)
    assert caught.value.where.startswith("output of layer '")


def test_freeze_refuses_a_scale_that_no_kernel_gives() -> None:
    graph = calibrated("tanh-mlp")
    quantizer = graph.get_submodule("quantizers.body_1")
    assert isinstance(quantizer, ActivationQuantizer)
    quantizer.low.zero_()
    quantizer.high.fill_(1e-9)  # as training may leave it, without bound_scales
    quantizer.smallest_scale.fill_(1e-30)
    with pytest.raises(ModelError, match=r"'body\.1' has a scale that its kernel cannot give"):
        freeze(graph)
    assert LARGEST_RESCALING == 256


def test_frozen_graphs_hold_integers_alone() -> None:
    graph = calibrated("mixed")
    frozen = freeze(graph)
    for module in frozen.modules():
        assert not isinstance(module, QUANTIZERS)
    weights = [module.weight for module in frozen.modules() if isinstance(module, FrozenWeighted)]
    assert len(weights) == 6  # five layers and a mean
    assert all(torch.equal(weight, weight.round()) for weight in weights)
    assert any(isinstance(module, ActivationQuantizer) for module in graph.modules())  # the original is as it was


# ── shaking ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_shaken_roundings_move_the_output_and_leave_no_trace() -> None:
    frozen, x = freeze(calibrated()), networks.inputs(16)
    with torch.no_grad():
        before = frozen(x)
        shaken = shaken_outputs(frozen, x, share=0.05, times=3)
        assert shaken.shape == (4, *before.shape)
        assert torch.equal(shaken, shaken_outputs(frozen, x, share=0.05, times=3))
        assert not torch.equal(shaken[0], shaken[1])
        assert torch.equal(frozen(x), before)
    little = float((shaken - before).abs().mean())
    assert 0 < little < float((shaken_outputs(frozen, x, share=0.5, times=3) - before).abs().mean())


def test_at_last_all_ties_of_means_are_broken_the_other_way() -> None:
    pool = FrozenPool(nn.AvgPool2d(2), 1.0)
    steps = torch.tensor([[1.0, 1.0, 1.0, 1.0, 3.0, 3.0], [2.0, 2.0, 1.0, 2.0, 4.0, 4.0]])  # means 1.5, 1.25, 3.5
    assert pool(steps[None, None]).flatten().tolist() == [2, 1, 4]
    assert shaken_outputs(pool, steps[None, None], share=0.05, times=0).flatten().tolist() == [1, 1, 3]
    assert pool(steps[None, None]).flatten().tolist() == [2, 1, 4]


def test_a_shaken_value_moves_by_one_step_and_stays_on_the_grid() -> None:
    quantizer = FrozenQuantizer(calibrated().get_submodule("quantizers.x").params)  # type: ignore[arg-type]
    x = torch.linspace(-3, 3, 1000)
    plain = quantizer(x)
    moved = ((shaken_outputs(quantizer, x, share=0.1, times=1)[0] - plain) / quantizer.params.scale).round()
    assert set(moved.unique().tolist()) <= {-2.0, -1.0, 0.0, 1.0, 2.0}  # drawn twice: two steps
    assert 50 < int((moved != 0).sum()) <= 100


# ── Deployed ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_deployed_answers_with_integers_and_trains_with_rounding() -> None:
    graph, x = calibrated(), networks.inputs(16)
    network = Deployed(graph)
    with torch.no_grad():
        assert torch.equal(network.eval()(x), freeze(graph)(x))
        apart = copy.deepcopy(graph).train()  # ranges move with every batch
        assert torch.equal(network.train()(x), apart(x))


def test_deployed_integers_follow_the_weights() -> None:
    network, x = Deployed(calibrated()), networks.inputs(16)
    first = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    before = network.eval()(x).detach()
    network.train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.5)
    network(x).square().mean().backward()
    optimizer.step()
    nn.Module.train(network, mode=False)  # as loops that put parts into other modes do
    after = network(x).detach()
    assert not torch.equal(before, after)
    network.load_state_dict(first)
    assert torch.equal(network(x), before)


def test_the_integers_are_no_weights() -> None:
    network = Deployed(calibrated())
    names = set(network.state_dict())
    network.eval()(networks.inputs(2))
    assert set(network.state_dict()) == names
