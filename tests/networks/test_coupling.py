"""Which channels hang together in small networks, said by hand, and why others stay."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from pipeline.artifacts.training import Edit
from pipeline.networks.coupling import Coupled, coupled_channels
from pipeline.networks.edits import apply
from pipeline.networks.from_torch import flat_graph

SHAPE = (3, 8, 8)


def found(network: nn.Module, shape: tuple[int, ...] = SHAPE) -> tuple[dict[tuple[str, ...], Coupled], tuple[str, ...]]:
    """Return what can go by the layers that make it, and the reasons of what stays."""
    groups, reasons = coupled_channels(network, flat_graph(network, shape))
    return {group.makers: group for group in groups}, reasons


def readers(group: Coupled) -> dict[str, list[int]]:
    """Return which set each input of a reading layer belongs to."""
    return {member.layer: member.sets.tolist() for member in group.members if member.side == "in"}


class Branches(nn.Module):
    """A sum, a gate, a concatenation and a flatten."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(3, 4, 3, padding=1) for _ in range(3))
        self.norm = nn.BatchNorm2d(4)
        self.gate = nn.Conv2d(4, 4, 1)
        self.after = nn.Conv2d(8, 2, 1)
        self.fc = nn.Linear(2 * 16, 5)

    def forward(self, x: Tensor) -> Tensor:
        summed = F.relu(self.norm(self.a(x)) + self.b(x))
        gated = summed * self.gate(summed.mean((2, 3), keepdim=True)).sigmoid()
        joined = self.after(torch.cat([self.c(x), gated], 1))
        logits: Tensor = self.fc(F.max_pool2d(joined, 2).flatten(1))
        return logits


def test_sums_gates_joins_and_flattened_maps() -> None:
    groups, reasons = found(Branches())
    assert set(groups) == {("a", "norm", "b", "gate"), ("c",), ("after",)}
    tied = groups["a", "norm", "b", "gate"]
    assert (tied.count, tied.of_a_layer) == (4, 1)
    assert readers(tied) == {"gate": [0, 1, 2, 3], "after": [0, 1, 2, 3]}
    places = {member.layer: member.places.tolist() for member in tied.members if member.side == "in"}
    assert places["after"] == [4, 5, 6, 7]  # behind those of c
    assert readers(groups["after",]) == {"fc": [0] * 16 + [1] * 16}
    assert reasons == ("layer 'fc' makes the network's output",)


class InPlace(nn.Module):
    """No norms, activation functions in place, a layer that is called twice, a transposed convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.twice = nn.Conv2d(6, 6, 3, padding=1)
        self.up = nn.ConvTranspose2d(6, 4, 2, stride=2)
        self.act = nn.ReLU(inplace=True)
        self.fc = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.first(x))
        x = self.act(self.twice(self.act(self.twice(x))))
        logits: Tensor = self.fc(self.act(self.up(x)).mean((2, 3)))
        return logits


def test_in_place_functions_and_a_layer_that_is_called_twice() -> None:
    groups, _ = found(InPlace())
    assert set(groups) == {("first", "twice"), ("up",)}
    assert readers(groups["first", "twice"]) == {"twice": list(range(6)), "up": list(range(6))}


class Grouped(nn.Module):
    """Groups, depthwise with and without a multiplier."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 8, 3)
        self.grouped = nn.Conv2d(8, 8, 3, groups=2)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.multiplied = nn.Conv2d(8, 16, 3, padding=1, groups=8)
        self.b = nn.Conv2d(16, 8, 1)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.b(self.multiplied(self.depthwise(self.grouped(self.a(x)))))
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


def test_groups_lose_the_same_places_and_multiplied_filters_stay() -> None:
    groups, reasons = found(Grouped())
    assert set(groups) == {("a",), ("b",)}
    assert (groups["a",].count, groups["a",].of_a_layer) == (4, 2)
    assert readers(groups["a",]) == {"grouped": [0, 1, 2, 3, 0, 1, 2, 3]}
    assert "layer 'multiplied' (Conv) needs all of its channels" in reasons


class Fixed(nn.Module):
    """A shuffle, a cut, a layer norm over all, a constant for each channel; between them channels that are free."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv2d(3, 4, 1), *(nn.Conv2d(4, 4, 1) for _ in range(7))])
        self.rest = nn.Conv2d(2, 4, 1)
        self.norm = nn.LayerNorm((8, 8, 4))
        self.scale = nn.Parameter(torch.ones(4, 1, 1))
        self.fc = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.channel_shuffle(self.layers[1](self.layers[0](x)), 2)
        x = self.rest(self.layers[3](self.layers[2](x))[:, :2])
        x = self.norm(self.layers[5](self.layers[4](x)).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        x = self.layers[7](self.layers[6](x)) * self.scale
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


def test_what_cannot_be_followed_is_fixed_and_nothing_else() -> None:
    groups, reasons = found(Fixed())
    assert set(groups) == {("layers.0",), ("layers.2",), ("rest",), ("layers.4",), ("layers.6",)}
    assert len(reasons) == 5


class Halves(nn.Module):
    """Two halves of channels, one of which gates the other, and a norm over channels."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.norm, self.after = nn.Conv2d(3, 8, 1), nn.LayerNorm(4), nn.Linear(4, 6)
        self.fc = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.wide(x).chunk(2, 1)
        tokens = self.after(self.norm((value * gate.sigmoid()).flatten(2).transpose(1, 2)))
        logits: Tensor = self.fc(tokens.mean(1))
        return logits


def test_halves_lose_the_same_places_and_a_norm_follows() -> None:
    groups, _ = found(Halves())
    halves = groups["wide", "norm"]
    assert (halves.count, halves.of_a_layer) == (4, 2)
    assert readers(halves) == {"after": [0, 1, 2, 3]}
    network = Halves().eval()
    edits = [
        Edit(layer="wide", side="out", indices=(1, 5)),
        Edit(layer="norm", side="out", indices=(1,)),
        Edit(layer="after", side="in", indices=(1,)),
    ]
    smaller, x = apply(copy.deepcopy(network), edits), torch.randn(2, *SHAPE)
    with torch.no_grad():
        value, gate = network.wide(x)[:, [0, 2, 3, 4, 6, 7]].chunk(2, 1)
        left = [0, 2, 3]
        normed = F.layer_norm(
            (value * gate.sigmoid()).flatten(2).transpose(1, 2),
            (3,),
            network.norm.weight[left],
            network.norm.bias[left],
        )
        wanted = network.fc(F.linear(normed, network.after.weight[:, left], network.after.bias).mean(1))
        torch.testing.assert_close(smaller(x), wanted)
        torch.testing.assert_close(flat_graph(smaller, SHAPE)(x), wanted)


def test_values_of_one_channel_tie_nothing() -> None:
    class Attended(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.map, self.fc = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 1, 1), nn.Linear(4, 5)

        def forward(self, x: Tensor) -> Tensor:
            x = self.a(x)
            logits: Tensor = self.fc((x * self.map(x).sigmoid()).mean((2, 3)))
            return logits

    groups, _ = found(Attended())
    assert ("a",) in groups
    assert readers(groups["a",]) == {"map": [0, 1, 2, 3], "fc": [0, 1, 2, 3]}


def test_tokens_have_their_channels_last() -> None:
    class Mixer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.up, self.down = nn.Conv2d(3, 6, 4, stride=4), nn.Linear(6, 12), nn.Linear(12, 6)
            self.norm, self.fc = nn.LayerNorm(6), nn.Linear(6, 5)

        def forward(self, x: Tensor) -> Tensor:
            x = self.embed(x).flatten(2).transpose(1, 2)
            x = self.norm(x + self.down(F.gelu(self.up(x))))
            logits: Tensor = self.fc(x.mean(1))
            return logits

    groups, _ = found(Mixer())
    assert set(groups) == {("up",), ("embed", "down", "norm")}
    assert readers(groups["up",]) == {"down": list(range(12))}


class Standardized(nn.Conv2d):
    """A convolution that computes with its weights less their mean."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight - self.weight.mean((1, 2, 3), keepdim=True), self.bias)


def test_layers_that_compute_their_weights_from_their_own() -> None:
    layers = [Standardized(3, 8, 3), nn.ReLU(inplace=True), Standardized(8, 4, 3), nn.ReLU(inplace=True)]
    groups, _ = found(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)))
    assert set(groups) == {("0",), ("2",)}


def test_weights_that_no_layer_holds_are_told() -> None:
    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kernel = nn.Parameter(torch.ones(8, 3, 1, 1))
            self.fc = nn.Linear(8, 5)

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.fc(F.conv2d(x, self.kernel).mean((2, 3)))
            return logits

    groups, reasons = found(Bare())
    assert groups == {}
    assert "the weights of layer 'conv2d' are no parameter of a layer of torch.nn" in reasons
