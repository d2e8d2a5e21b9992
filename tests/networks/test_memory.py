"""Channels last where the network runs that way; as things lie by default where its forward() asks for it.

Shapes: N batch, C channels, H height, W width.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from pipeline.networks.memory import lie_channels_last, settle

INPUT = torch.rand(2, 3, 8, 8)


class Flat(nn.Module):
    """The tutorial's network: ``view`` after a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4 * 36, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        logits: Tensor = self.fc(x.view(x.size(0), -1))
        return logits


def weights_lie_last(network: nn.Module) -> bool:
    (weight,) = (parameter for parameter in network.parameters() if parameter.dim() == 4)
    return weight.is_contiguous(memory_format=torch.channels_last)


def test_a_network_that_views_its_maps_trains_on_inputs_of_either_kind() -> None:
    network = Flat()
    settle(network, (INPUT,))
    assert not weights_lie_last(lie_channels_last(network))
    for inputs in (INPUT, INPUT.contiguous(memory_format=torch.channels_last)):
        network(inputs).sum().backward()
    assert network.conv.weight.grad is not None


def test_copies_are_settled_too() -> None:
    network = Flat()
    settle(network, (INPUT,))
    copied = copy.deepcopy(network)
    assert not weights_lie_last(lie_channels_last(copied))
    copied(INPUT.contiguous(memory_format=torch.channels_last))


def test_others_lie_channels_last() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 2))
    settle(network, (INPUT,))
    assert weights_lie_last(lie_channels_last(network))


def test_networks_without_maps_are_left_alone() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
    settle(network, (INPUT,))
    assert lie_channels_last(network) is network
    assert not network._forward_pre_hooks
