"""Designs that break the usual rules, each with what is said about it; and one that breaks none."""

from __future__ import annotations

import itertools

import pytest
from torch import nn

from pipeline.inspecting.advice import advised
from pipeline.inspecting.layers import Inspected
from pipeline.inspecting.network import inspect_network

PICTURE = (3, 32, 32)


def block(
    before: int, after: int, *, stride: int = 1, act: type[nn.Module] = nn.ReLU, norm: bool = True
) -> list[nn.Module]:
    layers: list[nn.Module] = [nn.Conv2d(before, after, 3, stride=stride, padding=1)]
    return [*layers, nn.BatchNorm2d(after), act()] if norm else [*layers, act()]


def found(*layers: nn.Module, features: int) -> Inspected:
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(features, 10)]
    return advised(inspect_network(nn.Sequential(*layers, *head), PICTURE, subject="mine"))


def plain(depth: int = 3, **how: object) -> list[nn.Module]:
    """Return stages of two layers: where the picture halves, channels double."""
    widths = [8 * 2**stage for stage in range(depth)]
    layers = block(3, 8, **how)  # type: ignore[arg-type]
    for before, after in itertools.pairwise([8, *widths]):
        layers += block(before, after, stride=1 if after == 8 else 2, **how)  # type: ignore[arg-type]
        layers += block(after, after, **how)  # type: ignore[arg-type]
    return layers


def test_a_usual_design_gets_no_advice() -> None:
    assert found(*plain(4), features=64).advice == ()


COSTLY = [*block(3, 8), *block(8, 64), *block(64, 8, stride=2), *block(8, 8, stride=2)]
LARGE = [*block(3, 8), *block(8, 8), nn.AvgPool2d(4), *block(8, 16), *block(16, 16), *block(16, 16)]
LARGE += [nn.Flatten(), nn.Linear(16 * 64, 256), nn.Unflatten(1, (256, 1, 1))]


@pytest.mark.parametrize(
    ("layers", "features", "layer", "what", "remedy"),
    [
        (COSTLY, 8, "3", "takes 77% of", "fewer"),
        (LARGE, 256, "17", "holds 97% of all parameters", "pool the picture"),
        ([*block(3, 8), *block(8, 12), *block(12, 10)], 10, "3", "no multiple of 8: 3 (12), 6 (10)", "next multiple"),
        (plain(4, act=nn.Sigmoid), 64, "2", "sigmoid saturates in a network of 10 layers, and so do 8 more", "ReLU"),
        (plain(4, norm=False), 64, "", "no layer normalizes in a network of 10 layers", "batch norm"),
    ],
)
def test_what_is_said(layers: list[nn.Module], features: int, layer: str, what: str, remedy: str) -> None:
    advice = [each for each in found(*layers, features=features).advice if what in each.what]
    assert [each.layer for each in advice] == [layer]
    assert remedy in advice[0].remedy


def test_a_jump_of_cost_is_told_where_it_begins() -> None:
    layers = [*block(3, 16), *block(16, 16), *block(16, 16), *block(16, 16, stride=4), *block(16, 16), *block(16, 16)]
    (jump,) = [each for each in found(*layers, features=16).advice if "times" in each.what]
    assert jump.layer == "9"
    assert jump.what.startswith("from here on (8 x 8) layers cost 11 times less than those before (32 x 32)")


def test_shallow_networks_may_do_without_norms_and_squash() -> None:
    advice = found(*block(3, 8, act=nn.Tanh, norm=False), *block(8, 8, act=nn.Tanh, norm=False), features=8).advice
    assert advice == ()
