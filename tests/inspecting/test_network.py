"""The layers of small networks, by numbers worked out by hand."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.inspecting.network import inspect_network
from tests import learnable


class Residual(nn.Module):
    """A sum, a gate, and an activation function without integer kernels."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.act = nn.Softplus()
        self.gate = nn.Conv2d(8, 8, 1)
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.first(x)).relu()
        x = x + self.act(self.second(x))
        x = x * self.gate(x.mean((2, 3), keepdim=True)).sigmoid()
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


def test_every_layer_with_its_costs() -> None:
    found = inspect_network(Residual(), learnable.SHAPE, subject="mine")
    rows = {layer.name: layer for layer in found.layers}
    assert found.input_shapes == ((3, 8, 8),)
    assert [rows[name].output_shape for name in ("first", "gate", "fc")] == [(8, 8, 8), (8, 1, 1), (4,)]
    assert [rows[name].macs for name in ("first", "second", "gate", "fc")] == [8 * 64 * 27, 8 * 64 * 9, 64, 32]
    assert [rows[name].parameters for name in ("first", "second", "gate", "fc")] == [216 + 8, 72 + 8, 64 + 8, 32 + 4]
    assert [rows[name].channels for name in ("first", "second", "fc", "act")] == [8, 8, 4, None]
    assert found.parameter_bytes == 216 + 72 + 64 + 32 + 4 * (8 + 8 + 8 + 4)
    assert found.normalized
    assert found.parameters == sum(row.parameters for row in found.layers)


def test_what_runs_on_integers_and_why_not() -> None:
    found = inspect_network(Residual(), learnable.SHAPE, subject="mine")
    assert {layer.op: layer.why_float for layer in found.layers if not layer.integer} == {
        "Softplus": "no runtime has an integer kernel for it"
    }
    assert found.integer_layers == len(found.layers) - 1


def test_memory_counts_bytes_for_integers_and_what_waits_for_the_sum() -> None:
    rows = {layer.name: layer for layer in inspect_network(Residual(), learnable.SHAPE, subject="mine").layers}
    value, picture = 8 * 64, 3 * 64 * 4
    assert rows["first"].activation_bytes == value
    assert rows["first"].peak_bytes == picture + value
    assert rows["second"].peak_bytes == 2 * value  # its input is needed again
    assert rows["add"].peak_bytes == 3 * value


def test_gates_and_ends_do_not_count_as_squashing() -> None:
    def squashing(network: nn.Module) -> list[str]:
        found = inspect_network(network, learnable.SHAPE, subject="mine")
        return [layer.name for layer in found.layers if layer.squashes]

    assert squashing(Residual()) == []
    chain = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Tanh(), nn.Flatten(), nn.Linear(288, 4), nn.Sigmoid())
    assert squashing(chain) == ["1"]


def test_weights_may_be_on_the_meta_device() -> None:
    with torch.device("meta"):
        found = inspect_network(Residual(), learnable.SHAPE, subject="x")
    assert found == inspect_network(Residual(), learnable.SHAPE, subject="x")


def test_a_network_without_norms() -> None:
    plain = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    assert not inspect_network(plain, learnable.SHAPE, subject="x").normalized
