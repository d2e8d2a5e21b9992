"""Which channels can go through operations between two layers: taking one away is as good as not reading it.

Shapes: N batch, C channels, H height, W width.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from pipeline.artifacts.training import Edit
from pipeline.networks.coupling import coupled_channels
from pipeline.networks.edits import apply
from pipeline.networks.from_torch import flat_graph
from tests.networks.nets import ROUNDING, Function

SHAPE = (3, 6, 6)
CHANNELS = 4


class Between(nn.Module):
    """A function between a layer that makes channels and one that reads them."""

    def __init__(self, function: Function, reader: nn.Module) -> None:
        super().__init__()
        self.maker = nn.Conv2d(3, CHANNELS, 3, padding=1)
        self.function = function
        self.reader = reader

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.reader(self.function(self.maker(x)))
        return result


def _conv(channels: int = CHANNELS) -> nn.Module:
    return nn.Conv2d(channels, 2, 1)


def _linear(features: int) -> nn.Module:
    return nn.Linear(features, 2)


# name → the function, and the layer that reads what it gives
PASSED: dict[str, tuple[Function, Callable[[], nn.Module]]] = {
    "each element": (lambda x: F.silu(x) + x.abs().sqrt(), _conv),
    "numbers": (lambda x: 3 - 2 * x, _conv),
    "a constant for each column": (lambda x: x * torch.linspace(1, 2, 6), _conv),
    "pools": (lambda x: F.avg_pool2d(F.max_pool2d(x, 2), 3, 1, 1), _conv),
    "pads that reflect": (lambda x: F.pad(x, (1, 2, 1, 0), mode="reflect"), _conv),
    "pads of zeros": (lambda x: F.pad(x, (1, 2, 1, 0)), _conv),
    "every second row": (lambda x: x[:, :, ::2].flip(2), _conv),
    "a softmax along rows": (lambda x: x.softmax(-1), _conv),
    "the largest of each channel": (lambda x: x.amax((2, 3)), lambda: _linear(CHANNELS)),
    "turned and flattened": (lambda x: x.permute(0, 2, 3, 1).mean(2).flatten(1), lambda: _linear(6 * CHANNELS)),
    "a mean expanded": (lambda x: x.mean((2, 3), keepdim=True).expand(-1, -1, 6, 6) + x, _conv),
    "joined with itself": (lambda x: torch.cat([x, x.relu()], 1), lambda: _conv(2 * CHANNELS)),
}

STAYING: dict[str, tuple[Function, Callable[[], nn.Module]]] = {
    "a constant for each channel": (lambda x: x * torch.linspace(1, 2, CHANNELS).view(-1, 1, 1), _conv),
    "a softmax of the channels": (lambda x: x.softmax(1), _conv),
    "channels picked": (lambda x: x[:, [3, 0]], lambda: _conv(2)),
    "channels padded": (lambda x: F.pad(x, (0, 0, 0, 0, 1, 0)), lambda: _conv(CHANNELS + 1)),
    "channels spread over the map": (lambda x: F.pixel_shuffle(x, 2), lambda: _conv(1)),
    "channels pooled": (lambda x: F.max_pool3d(x.unsqueeze(1), (2, 1, 1)).squeeze(1), lambda: _conv(CHANNELS // 2)),
}


@pytest.mark.parametrize("name", PASSED)
def test_a_channel_that_goes_is_one_that_nothing_reads(name: str) -> None:
    function, reader = PASSED[name]
    network = Between(function, reader()).eval()
    groups, _ = coupled_channels(network, flat_graph(network, SHAPE))
    (group,) = (each for each in groups if "maker" in each.makers)
    places = {each.layer: each.places[each.sets == 1].tolist() for each in group.members}
    edits = [Edit(layer=each.layer, side=each.side, indices=tuple(places[each.layer])) for each in group.members]
    unread, x = copy.deepcopy(network), torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        unread.get_parameter("reader.weight")[:, places["reader"]] = 0
        smaller = apply(copy.deepcopy(network), edits)
        assert smaller.get_parameter("maker.weight").shape[0] == CHANNELS - 1
        torch.testing.assert_close(smaller(x), unread(x), rtol=ROUNDING, atol=ROUNDING)


@pytest.mark.parametrize("name", STAYING)
def test_channels_that_cannot_be_followed_stay(name: str) -> None:
    function, reader = STAYING[name]
    network = Between(function, reader()).eval()
    groups, reasons = coupled_channels(network, flat_graph(network, SHAPE))
    assert not any("maker" in each.makers for each in groups)
    assert reasons
