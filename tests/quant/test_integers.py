"""Random networks with dead, tiny and huge channels: what was trained, its integers and the files are the same."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pipeline.graph.kinds import KINDS, compute_nodes, kind_of, module_of
from pipeline.networks.from_torch import folded_graph
from pipeline.quant import fakequant
from pipeline.quant.scheme import RULES
from tests.quant import integers
from tests.quant.random_networks import draw


@given(st.integers(0, 2**31 - 1))
@settings(max_examples=100, deadline=None)
def test_trained_integers_and_files_are_one_network(seed: int) -> None:
    assert integers.faults(seed) == []


OF_SEVERAL = {"Input", "Outputs"}  # ends of networks with several, which compute nothing


def test_the_random_networks_reach_every_operation_of_the_table() -> None:
    kinds, types = set[str](), set[type[nn.Module]]()
    written = {known for known in KINDS if known.__module__.startswith("torch.nn")}
    for seed in range(150):
        drawn = draw(seed)
        types |= {type(module) for module in drawn.network.modules()}
        folded = folded_graph(drawn.network, drawn.shape)
        kinds |= {kind_of(module_of(node)) for node in compute_nodes(folded)}
        if kinds == set(RULES) - OF_SEVERAL and written <= types:
            return
    pytest.fail(f"not drawn: {sorted(set(RULES) - OF_SEVERAL - kinds)}, {written - types}")


def test_without_the_bound_on_weight_scales_it_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def unbounded(layer: fakequant.QLinear, magnitudes: Tensor, input_scale: Tensor) -> Tensor:
        del layer, input_scale
        return 0 * magnitudes.amax(1) + 1e-8

    monkeypatch.setattr(fakequant._QuantizedWeights, "_smallest_scale", unbounded)
    assert any(_refused_or_wrong(seed) for seed in range(12))


def _refused_or_wrong(seed: int) -> bool:
    try:
        return bool(integers.faults(seed))
    except Exception:  # noqa: BLE001  (whatever a runtime raises for such a file)
        return True
