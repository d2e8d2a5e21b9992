"""Random small networks over the operations of the table, with channels that are dead, tiny or huge.

Shapes: N batch, C channels, H height, W width, L length, F features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

SAMPLES = 24
OUTPUTS = 3
Shape = tuple[int, ...]
Function = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A network in evaluation mode and what it is calibrated on."""

    network: nn.Module
    shape: Shape
    inputs: Tensor  # (N, *shape)


class Joined(nn.Module):
    """Two branches from the same value, joined."""

    def __init__(self, left: nn.Module, right: nn.Module, how: str) -> None:
        super().__init__()
        self.left, self.right, self.how = left, right, how

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.left(x), self.right(x)
        if self.how == "concat":
            return torch.cat([a, b], 1)
        total: Tensor = a * torch.sigmoid(b) if self.how == "mul" else a - b if self.how == "sub" else a + b
        return F.relu(total) if self.how == "add, relu" else total


class Affine(nn.Module):
    """Arithmetic with constants."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 0.5 + 0.25


class Padded(nn.Module):
    """Zeros around the picture."""

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x, (1, 0, 0, 1))


def draw(seed: int) -> Drawn:
    """Return the network of this seed."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    kind = rng.choice(["picture", "picture", "sequence", "table"])
    shape: Shape = {"picture": (int(rng.integers(1, 4)), 6, 6), "sequence": (2, 8), "table": (7,)}[str(kind)]
    layers = nn.Sequential(*_BODY[str(kind)](rng, shape))
    _spoil(layers, rng)
    inputs = torch.from_numpy(rng.standard_normal((SAMPLES, *shape)).astype(np.float32))
    unit = float(10.0 ** rng.integers(-6, 7)) if rng.random() < 0.3 else 1.0  # raw features have any unit
    layers.train()
    with torch.no_grad():
        layers(inputs * unit)  # batch norms see the data
    return Drawn(network=layers.eval(), shape=shape, inputs=inputs * unit)


def _picture(rng: np.random.Generator, shape: Shape) -> list[nn.Module]:
    channels = shape[0]
    layers: list[nn.Module] = []
    for _ in range(int(rng.integers(1, 5))):
        block, channels = _block(rng, channels)
        layers += block
    if rng.random() < 0.2:  # a map for each class
        return [*layers, nn.Conv2d(channels, OUTPUTS, 1)]
    pool: list[nn.Module] = [nn.AdaptiveAvgPool2d(1)] if rng.random() < 0.6 else [nn.AvgPool2d(2)]
    body = nn.Sequential(*layers, *pool, nn.Flatten())
    with torch.no_grad():
        features = body(torch.zeros(2, *shape)).shape[1]
    return [*body, nn.Linear(features, OUTPUTS), *_end(rng)]


def _block(rng: np.random.Generator, channels: int) -> tuple[list[nn.Module], int]:
    wide = int(rng.integers(2, 6))
    norm: list[nn.Module] = [nn.BatchNorm2d(wide)] if rng.random() < 0.4 else []
    conv = nn.Conv2d(channels, wide, int(rng.choice([1, 3])), padding=1, bias=bool(rng.random() < 0.8))
    layers: list[nn.Module] = [conv, *norm, *_activation(rng)]
    what = rng.choice(["none", "pool", "join", "depthwise", "up", "pad", "deconv", "norm", "affine"])
    if what == "pool":
        layers.append(nn.MaxPool2d(2, 1) if rng.random() < 0.5 else nn.AvgPool2d(2, 1))
    elif what == "join":
        how = str(rng.choice(["add", "add, relu", "sub", "mul", "concat"]))
        layers.append(Joined(_branch(rng, wide), _branch(rng, wide), how))
        wide *= 2 if how == "concat" else 1
    elif what == "depthwise":
        layers += [nn.Conv2d(wide, wide, 3, padding=1, groups=wide), *_activation(rng)]
    elif what == "up":
        mode = str(rng.choice(["nearest", "bilinear"]))
        layers.append(nn.Upsample(scale_factor=2, mode=mode, align_corners=None if mode == "nearest" else False))
    elif what == "pad":
        layers.append(Padded())
    elif what == "deconv":
        layers.append(nn.ConvTranspose2d(wide, wide, 2, stride=2))
    elif what == "norm":
        layers.append(nn.BatchNorm2d(wide))
    elif what == "affine":
        layers.append(Affine())
    return layers, wide


def _branch(rng: np.random.Generator, channels: int) -> nn.Module:
    if rng.random() < 0.3:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(channels, channels, 1), *_activation(rng))


def _sequence(rng: np.random.Generator, shape: Shape) -> list[nn.Module]:
    wide = int(rng.integers(2, 6))
    return [
        nn.Conv1d(shape[0], wide, 3, padding=1), *_activation(rng), nn.MaxPool1d(2),
        nn.Conv1d(wide, wide, 2, stride=2), *_activation(rng), nn.Flatten(), nn.Linear(2 * wide, OUTPUTS), *_end(rng),
    ]  # fmt: skip


def _table(rng: np.random.Generator, shape: Shape) -> list[nn.Module]:
    layers: list[nn.Module] = []
    features = shape[0]
    for _ in range(int(rng.integers(1, 4))):
        wide = int(rng.integers(2, 12))
        layers += [
            nn.Linear(features, wide),
            *([nn.BatchNorm1d(wide)] if rng.random() < 0.3 else []),
            *_activation(rng),
        ]
        features = wide
    return [*layers, nn.Linear(features, OUTPUTS), *_end(rng)]


_BODY: dict[str, Callable[[np.random.Generator, Shape], list[nn.Module]]] = {
    "picture": _picture,
    "sequence": _sequence,
    "table": _table,
}


def _activation(rng: np.random.Generator) -> list[nn.Module]:
    choices: list[Callable[[], nn.Module]] = [
        nn.ReLU, nn.ReLU, nn.ReLU6, nn.Hardtanh, nn.LeakyReLU, nn.Hardswish, nn.Hardsigmoid, nn.Tanh, nn.Sigmoid,
    ]  # fmt: skip
    return [choices[int(rng.integers(len(choices)))]()] if rng.random() < 0.85 else []


def _end(rng: np.random.Generator) -> list[nn.Module]:
    ends: list[list[nn.Module]] = [[], [], [], [nn.Softmax(1)], [nn.Sigmoid()], [nn.Tanh()], [nn.ReLU()]]
    return ends[int(rng.integers(len(ends)))]


@torch.no_grad()
def _spoil(network: nn.Module, rng: np.random.Generator) -> None:
    """Make some channels dead, tiny or huge, some layers zero, some activations such that they never fire."""
    for module in network.modules():
        if not isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear):
            continue
        for channel in range(len(module.weight)):
            if rng.random() < 0.3:
                _spoil_channel(module, channel, rng)
        if rng.random() < 0.1:
            module.weight.zero_()
            if module.bias is not None and rng.random() < 0.5:
                module.bias.zero_()
        if module.bias is not None and rng.random() < 0.1:
            module.bias.fill_(-float(10.0 ** rng.integers(0, 4)))


def _spoil_channel(module: nn.Conv1d | nn.Conv2d | nn.Linear, channel: int, rng: np.random.Generator) -> None:
    module.weight[channel] *= float(rng.choice([0.0, 1e-12, 1e-7, 1e-4, 30.0, 1e4]))
    if module.bias is not None:
        module.bias[channel] = float(rng.choice([0.0, 1e-6, 0.1, 1.0, -1.0, 6.0, -50.0, 1000.0]))
