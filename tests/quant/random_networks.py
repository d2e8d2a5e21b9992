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


class Gated(nn.Module):
    """Channels weighed by what their means say (squeeze and excite)."""

    def __init__(self, channels: int, gate: nn.Module) -> None:
        super().__init__()
        self.mean, self.weigh, self.gate = nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, channels, 1), gate

    def forward(self, x: Tensor) -> Tensor:
        gates: Tensor = self.gate(self.weigh(self.mean(x)))
        return x * gates


class Affine(nn.Module):
    """Arithmetic with constants."""

    def __init__(self, factor: float, offset: float) -> None:
        super().__init__()
        self.factor, self.offset = factor, offset

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor + self.offset


class Padded(nn.Module):
    """A number around the last axes."""

    def __init__(self, *pads: int, value: float = 0.0) -> None:
        super().__init__()
        self.pads, self.value = pads, value

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x, self.pads, value=self.value)


class Moved(nn.Module):
    """Elements in another place: rolled, turned round, shuffled, cut."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "roll":
            return torch.roll(x, (1, 1), (2, 3))
        if self.how == "flip":
            return torch.flip(x, (3,))
        if self.how == "shuffle":
            return torch.stack([x, x.flip(1)], 2).flatten(1, 2)
        return torch.cat([x[:, :1], x[:, 1:]], 1)[:, :, 1:]


class Bounded(nn.Module):
    """Functions of each element that only floats have, of values that they can take."""

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(x)
        y = torch.sqrt(torch.abs(x) + 1) + torch.log(torch.exp(x) + 1)
        z = torch.sin(x) * torch.cos(x) + 1 / (x * x + 1)
        z = z + torch.floor(3 * x) - torch.round(3 * y) + (x > 0) * torch.erf(x) + (x * x + 1) ** 0.3
        return x * (y / (z * z + 1))


class Tokens(nn.Module):
    """Attention over positions, as in vision transformers."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm, self.mix = nn.LayerNorm(channels), nn.Linear(channels, 3 * channels)
        self.bend = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.norm(x.flatten(2).transpose(1, 2))  # (N, H*W, C)
        query, key, value = self.mix(tokens).chunk(3, -1)
        tokens = tokens + self.bend(F.scaled_dot_product_attention(query, key, value))
        strongest = tokens.amax(2, keepdim=True) - tokens.mean(1, keepdim=True)
        result: Tensor = (tokens * strongest).transpose(1, 2).reshape(x.shape)
        return result


class Remembered(nn.Module):
    """A recurrent layer along a series."""

    def __init__(self, make: type[nn.LSTM | nn.GRU | nn.RNN], channels: int) -> None:
        super().__init__()
        self.layer = make(channels, channels, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layer(x.transpose(1, 2))[0].transpose(1, 2)
        return result


class Mixer(nn.Module):
    """Linear layers on the channels of every position, with an activation function inside or not."""

    def __init__(self, channels: int, activation: list[nn.Module]) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(channels, 5), *activation, nn.Linear(5, channels, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.body(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return x + mixed


def draw(seed: int) -> Drawn:
    """Return the network of this seed."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    kind = str(rng.choice([*["picture"] * 4, *["sequence"] * 2, *["table"] * 2, "volume"]))
    sizes = {"picture": (int(rng.integers(1, 4)), 6, 6), "sequence": (2, 8), "table": (7,), "volume": (2, 3, 4, 4)}
    shape: Shape = sizes[kind]
    layers = nn.Sequential(*_BODY[kind](rng, shape))
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
    whole = rng.random() < 0.6 or _rows(nn.Sequential(*layers), shape) < 2
    pool: list[nn.Module] = [nn.AdaptiveAvgPool2d(1)] if whole else [nn.AvgPool2d(2)]
    body = nn.Sequential(*layers, *pool, nn.Flatten())
    return [*body, nn.Linear(_features(body, shape), OUTPUTS), *_end(rng)]


def _block(rng: np.random.Generator, channels: int) -> tuple[list[nn.Module], int]:
    wide = int(rng.integers(2, 6))
    norm: list[nn.Module] = [nn.BatchNorm2d(wide)] if rng.random() < 0.4 else []
    layers: list[nn.Module] = [_conv(rng, channels, wide), *norm, *_activation(rng)]
    extra, wide = _EXTRAS[int(rng.integers(len(_EXTRAS)))](rng, wide)
    return [*layers, *extra], wide


def _conv(rng: np.random.Generator, channels: int, wide: int) -> nn.Module:
    kernel, bias = int(rng.choice([1, 3])), bool(rng.random() < 0.8)
    if kernel == 3 and rng.random() < 0.2:
        return nn.Conv2d(channels, wide, 3, padding=2, dilation=2, bias=bias)
    stride = 2 if rng.random() < 0.1 else 1
    return nn.Conv2d(channels, wide, kernel, stride=stride, padding=1, bias=bias)


_Layers = tuple[list[nn.Module], int]


def _nothing(rng: np.random.Generator, wide: int) -> _Layers:
    del rng
    return [], wide


def _pool(rng: np.random.Generator, wide: int) -> _Layers:
    pools: list[nn.Module] = [
        nn.MaxPool2d(2, 1),
        nn.MaxPool2d(3, 2, 1),
        nn.AvgPool2d(2, 1),
        nn.AvgPool2d(3, 2, 1, count_include_pad=bool(rng.random() < 0.5)),
    ]
    return [pools[int(rng.integers(len(pools)))]], wide


def _join(rng: np.random.Generator, wide: int) -> _Layers:
    how = str(rng.choice(["add", "add, relu", "sub", "mul", "concat"]))
    joined = Joined(_branch(rng, wide), _branch(rng, wide), how)
    return [joined], wide * 2 if how == "concat" else wide


def _gated(rng: np.random.Generator, wide: int) -> _Layers:
    return [Gated(wide, nn.Sigmoid() if rng.random() < 0.5 else nn.Hardsigmoid())], wide


def _depthwise(rng: np.random.Generator, wide: int) -> _Layers:
    return [nn.Conv2d(wide, wide, 3, padding=1, groups=wide), *_activation(rng)], wide


def _up(rng: np.random.Generator, wide: int) -> _Layers:
    if rng.random() < 0.4:
        return [nn.Upsample(scale_factor=2, mode="nearest")], wide
    return [nn.Upsample(scale_factor=2, mode="bilinear", align_corners=bool(rng.random() < 0.5))], wide


def _padded(rng: np.random.Generator, wide: int) -> _Layers:
    return [Padded(1, 0, 0, 1, value=float(rng.choice([0.0, 0.0, 1.0, -70.0])))], wide


def _deconv(rng: np.random.Generator, wide: int) -> _Layers:
    return [nn.ConvTranspose2d(wide, wide, int(rng.integers(2, 4)), stride=2, padding=int(rng.integers(2)))], wide


def _norm(rng: np.random.Generator, wide: int) -> _Layers:
    del rng
    return [nn.BatchNorm2d(wide)], wide


def _affine(rng: np.random.Generator, wide: int) -> _Layers:
    return [Affine(float(rng.choice([-1.0, 0.0, 0.5, 100.0])), float(rng.choice([-1.0, 0.0, 0.25, 50.0])))], wide


def _softmax(rng: np.random.Generator, wide: int) -> _Layers:
    del rng
    return [nn.Softmax(1)], wide


def _moved(rng: np.random.Generator, wide: int) -> _Layers:
    how = str(rng.choice(["roll", "flip", "shuffle", "cut"]))
    return [Moved(how)], 2 * wide if how == "shuffle" else wide


def _mixer(rng: np.random.Generator, wide: int) -> _Layers:
    return [Mixer(wide, _activation(rng))], wide


def _floats(rng: np.random.Generator, wide: int) -> _Layers:
    floats = [Bounded(), Tokens(wide), nn.Sequential(nn.PReLU(wide), nn.ELU(), nn.Mish(), nn.Softplus())]
    return [floats[int(rng.integers(len(floats)))]], wide


_EXTRAS = (
    *(_nothing, _pool, _join, _join, _gated, _depthwise, _up, _padded, _deconv, _norm, _affine, _softmax),
    *(_moved, _moved, _floats, _floats, _floats, _mixer),
)


def _branch(rng: np.random.Generator, channels: int) -> nn.Module:
    if rng.random() < 0.3:
        return nn.Identity()
    conv = nn.Conv2d(channels, channels, 1)
    if rng.random() < 0.2:  # dead: it never fires
        nn.init.constant_(conv.bias, -1e6)  # type: ignore[arg-type]
        return nn.Sequential(conv, nn.ReLU())
    return nn.Sequential(conv, *_activation(rng))


def _sequence(rng: np.random.Generator, shape: Shape) -> list[nn.Module]:
    wide = int(rng.integers(2, 6))
    norm: list[nn.Module] = [nn.BatchNorm1d(wide)] if rng.random() < 0.4 else []
    pad: list[nn.Module] = [Padded(2, 2)] if rng.random() < 0.3 else []
    pool: nn.Module = nn.AvgPool1d(2) if rng.random() < 0.2 else nn.MaxPool1d(2)
    up: list[nn.Module] = [nn.ConvTranspose1d(wide, wide, 2)] if rng.random() < 0.1 else []
    memory = [Remembered(make, wide) for make in (nn.LSTM, nn.GRU, nn.RNN)] if rng.random() < 0.2 else []
    body = nn.Sequential(
        *pad, nn.Conv1d(shape[0], wide, 3, padding=1), *norm, *_activation(rng), *up, pool, *memory,
        nn.Conv1d(wide, wide, 2, stride=2), *_activation(rng),
        *([nn.AdaptiveAvgPool1d(1)] if rng.random() < 0.3 else []), nn.Flatten(),
    )  # fmt: skip
    return [*body, nn.Linear(_features(body, shape), OUTPUTS), *_end(rng)]


def _volume(rng: np.random.Generator, shape: Shape) -> list[nn.Module]:
    wide = int(rng.integers(2, 5))
    kernel = int(rng.choice([1, 2]))
    body = nn.Sequential(
        nn.Conv3d(shape[0], wide, 2, padding=1), *([nn.BatchNorm3d(wide)] if rng.random() < 0.5 else []),
        *_activation(rng), nn.MaxPool3d(2, 1) if rng.random() < 0.5 else nn.AvgPool3d(2, 1), nn.BatchNorm3d(wide),
        nn.ConvTranspose3d(wide, 2, kernel, stride=2), nn.Conv3d(2, 3, (1, 2, 2)), *_activation(rng), nn.Flatten(),
    )  # fmt: skip
    return [*body, nn.Linear(_features(body, shape), OUTPUTS), *_end(rng)]


def _rows(body: nn.Module, shape: Shape) -> int:
    with torch.no_grad():
        return int(body(torch.zeros(2, *shape)).shape[2])


def _features(body: nn.Module, shape: Shape) -> int:
    with torch.no_grad():
        return int(body(torch.zeros(2, *shape)).shape[1])


def _table(rng: np.random.Generator, shape: Shape) -> list[nn.Module]:
    features = shape[0]
    layers: list[nn.Module] = [nn.BatchNorm1d(features)] if rng.random() < 0.25 else []
    for _ in range(int(rng.integers(1, 4))):
        wide = int(rng.integers(2, 12))
        folded, alone = rng.random() < 0.3, rng.random() < 0.2
        layers += [
            nn.Linear(features, wide),
            *([nn.BatchNorm1d(wide)] if folded else []),
            *_activation(rng),
            *([nn.BatchNorm1d(wide)] if alone else []),
        ]
        features = wide
    return [*layers, nn.Linear(features, OUTPUTS), *_end(rng)]


_BODY: dict[str, Callable[[np.random.Generator, Shape], list[nn.Module]]] = {
    "picture": _picture,
    "sequence": _sequence,
    "volume": _volume,
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
