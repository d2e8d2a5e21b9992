"""A network's code is followed once, and again whenever it is another network."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, fx, nn

from pipeline import catalog
from pipeline.networks import tracing
from pipeline.networks.build import build_network
from pipeline.networks.from_torch import flat_graph, folded_graph
from tests import learnable

SHAPE = (3, 8, 8)
ELSEWHERE = {"factor": 2.0}


class Small(nn.Module):
    """Has a setting, a tensor that is no buffer, one in its code, and reads something from elsewhere."""

    def __init__(self, *, setting: float = 1.0, own: float = 1.0, width: int = 4) -> None:
        super().__init__()
        self.setting, self.own = setting, torch.full((width, 1, 1), own)
        self.conv, self.norm = nn.Conv2d(3, width, 3), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x)) * self.own * torch.tensor(3.0)
        return x * self.setting + ELSEWHERE["factor"]


@pytest.fixture
def traces(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """Return the networks whose code is followed from now on; nothing is known before."""
    followed: list[nn.Module] = []
    real = torch.export.export

    def export(network: nn.Module, *args: object, **options: object) -> object:
        followed.append(network)
        return real(network, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(tracing, "_kept", {})
    monkeypatch.setattr(torch.export, "export", export)
    return followed


def trained(network: nn.Module, seed: int) -> nn.Module:
    """Give a network other weights and statistics."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for each in (*network.parameters(), *network.buffers()):
            if each.is_floating_point():
                each.copy_(torch.rand_like(each) + 0.5)
    return network.eval()


def assert_same(flat: fx.GraphModule, network: nn.Module) -> None:
    x = torch.randn(2, *SHAPE)
    with torch.no_grad():
        torch.testing.assert_close(flat(x), network(x), rtol=1e-4, atol=1e-4)


def test_other_weights_are_no_other_network(traces: list[nn.Module]) -> None:
    for seed in range(3):
        network = trained(Small(), seed)
        for _ in range(2):  # folding must not change what is kept
            assert_same(folded_graph(network, SHAPE), network)
    assert len(traces) == 1


def test_a_file_that_is_run_again_gives_the_same_network(traces: list[nn.Module]) -> None:
    ref = learnable.network_at(catalog.find("network", "cnn"), learnable.signature(SHAPE, 5), width=8, stages=1)
    for seed in range(3):
        network = trained(build_network(ref, seed=seed), seed)
        assert_same(flat_graph(network, SHAPE), network)
    assert len(traces) == 1


def test_other_code_of_a_class_of_the_same_name_is_followed(traces: list[nn.Module]) -> None:
    def named(forward: Callable[[nn.Module, Tensor], Tensor]) -> nn.Module:
        return trained(type("Named", (Small,), {"forward": forward})(), 0)

    for network in (named(lambda self, x: self.conv(x)), named(lambda self, x: self.norm(self.conv(x)))):  # type: ignore[operator]
        assert_same(flat_graph(network, SHAPE), network)
    assert len(traces) == 2


@pytest.mark.parametrize(
    "other",
    [
        lambda: Small(setting=0.5),
        lambda: Small(own=0.5),
        lambda: Small(width=8),
        lambda: Small().double().float().requires_grad_(False),
        lambda: nn.Sequential(Small()),
        type("Small", (Small,), {}),
    ],
    ids=["setting", "tensor", "width", "gradients", "inside another", "class of the same name"],
)
def test_another_network_is_followed(other: Callable[[], nn.Module], traces: list[nn.Module]) -> None:
    first, second = trained(Small(), 0), trained(other(), 0)
    for network in (first, second, first):
        assert_same(flat_graph(network, SHAPE), network)
    assert len(traces) == 2


def test_another_shape_is_followed(traces: list[nn.Module]) -> None:
    network = trained(Small(), 0)
    flat_graph(network, SHAPE)
    flat_graph(network, (3, 9, 9))
    assert len(traces) == 2


def test_what_code_reads_elsewhere_is_noticed(traces: list[nn.Module], monkeypatch: pytest.MonkeyPatch) -> None:
    network = trained(Small(), 0)
    flat_graph(network, SHAPE)
    monkeypatch.setitem(ELSEWHERE, "factor", 3.0)
    assert_same(flat_graph(network, SHAPE), network)
    assert_same(flat_graph(network, SHAPE), network)
    assert len(traces) == 2


def test_code_that_changed_under_the_same_name_is_noticed(
    traces: list[nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    network = trained(Small(), 0)
    flat_graph(network, SHAPE)
    monkeypatch.setattr(Small, "forward", lambda self, x: self.conv(x))
    assert_same(flat_graph(network, SHAPE), network)
    assert len(traces) == 2


def test_a_network_that_cannot_be_described_is_followed_every_time(traces: list[nn.Module]) -> None:
    network = trained(Small(), 0)
    network.anything = (each for each in [0])  # type: ignore[assignment]
    network.__deepcopy__ = lambda _: copy.copy(network)  # type: ignore[assignment]
    for _ in range(2):
        assert_same(flat_graph(network, SHAPE), network)
    assert len(traces) == 2


def test_only_the_latest_are_kept(traces: list[nn.Module]) -> None:
    networks = [trained(Small(width=width), 0) for width in range(1, tracing._MOST_KEPT + 2)]
    for network in networks:
        flat_graph(network, SHAPE)
    assert len(tracing._kept) == tracing._MOST_KEPT
    flat_graph(networks[-1], SHAPE)
    assert len(traces) == len(networks)
    flat_graph(networks[0], SHAPE)
    assert len(traces) == len(networks) + 1
