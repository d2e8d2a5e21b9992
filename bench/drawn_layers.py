"""Single layers and short chains of them, with shapes as small networks have them: what ``count_layers.py`` counts.

Shapes: C channels, H height, W width, T tokens or steps, F features.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

T = TypeVar("T")
Shape = tuple[int, ...]
Made = tuple[nn.Module, Shape]
MOST_MACS, MOST_ELEMENTS = 6_000_000, 120_000
_ACTIVATIONS: tuple[Callable[[], nn.Module], ...] = (nn.ReLU, nn.ReLU, nn.ReLU6, nn.Hardswish, nn.SiLU)
_FUNCTIONS: Mapping[str, Callable[[], nn.Module]] = {
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "hard-swish": nn.Hardswish,
    "hard-sigmoid": nn.Hardsigmoid,
    "gelu": nn.GELU,
    "leaky-relu": lambda: nn.LeakyReLU(0.1),
    "elu": nn.ELU,
    "relu": nn.ReLU,
    "silu": nn.SiLU,
}


class Draw:
    """A random generator that draws numbers as networks have them."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def between(self, low: int, high: int) -> int:
        """Draw log-uniformly, both ends possible."""
        return round(math.exp(self._rng.uniform(math.log(low), math.log(high))))

    def channels(self, low: int = 4, high: int = 512) -> int:
        """Draw a number of channels, mostly a multiple of 8."""
        found = self.between(low, high)
        return max(8, found // 8 * 8) if self._rng.random() < 0.8 else found

    def side(self) -> int:
        """Draw the side of a picture."""
        return self.between(2, 112)

    def one_of(self, *choices: T) -> T:
        """Draw one of them."""
        return choices[int(self._rng.integers(len(choices)))]


class Residual(nn.Module):
    """A sum of what goes in and what comes out, or their concatenation or product."""

    def __init__(self, body: nn.Module, how: str = "add", after: nn.Module | None = None) -> None:
        super().__init__()
        self.body, self.how, self.after = body, how, after or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Join both."""
        y: Tensor = self.body(x)
        joined = x + y if self.how == "add" else x * y if self.how == "mul" else torch.cat([x, y], 1)
        result: Tensor = self.after(joined)
        return result


class Branches(nn.Module):
    """Two layers on the same value, side by side."""

    def __init__(self, left: nn.Module, right: nn.Module) -> None:
        super().__init__()
        self.left, self.right = left, right

    def forward(self, x: Tensor) -> Tensor:
        """Join them."""
        return torch.cat([self.left(x), self.right(x)], 1)


class Excited(nn.Module):
    """Squeeze and excite."""

    def __init__(self, channels: int, inner: int, gate: nn.Module) -> None:
        super().__init__()
        self.down, self.up, self.gate = nn.Conv2d(channels, inner, 1), nn.Conv2d(inner, channels, 1), gate

    def forward(self, x: Tensor) -> Tensor:
        """Weigh channels."""
        weight: Tensor = self.gate(self.up(F.relu(self.down(x.mean((2, 3), keepdim=True)))))
        return x * weight


class Attention(nn.Module):
    """Attention of tokens (T, F)."""

    def __init__(self, features: int, heads: int) -> None:
        super().__init__()
        self.heads, self.mix, self.out = heads, nn.Linear(features, 3 * features), nn.Linear(features, features)

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, F) → (N, T, F)."""
        n, steps, features = x.shape
        mixed = self.mix(x).reshape(n, steps, 3, self.heads, features // self.heads)
        query, key, value = (mixed[:, :, part].transpose(1, 2) for part in range(3))
        weights = (query @ key.transpose(-1, -2) * (features // self.heads) ** -0.5).softmax(-1)
        result: Tensor = self.out((weights @ value).transpose(1, 2).reshape(n, steps, features))
        return result


class Recurrence(nn.Module):
    """A recurrent layer (T, F) → (T, H)."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """Leave the states."""
        result: Tensor = self.layer(x)[0]
        return result


class Tokens(nn.Module):
    """Pictures as tokens: (C, H, W) → (H * W, C)."""

    def forward(self, x: Tensor) -> Tensor:
        """Put channels last."""
        return x.flatten(2).transpose(1, 2)


class Turned(nn.Module):
    """Another order of axes, or a part."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        """Move elements."""
        if self.how == "transpose":
            return x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, x.shape[1]) * 1.5
        if self.how == "shuffle":
            return x.reshape(x.shape[0], 2, x.shape[1] // 2, *x.shape[2:]).transpose(1, 2).reshape(x.shape)
        return x[:, : x.shape[1] // 2]


# ── single layers ───────────────────────────────────────────────────────────────────────────────────────────────────


def _convolution(draw: Draw) -> Made:
    kernel, stride = draw.one_of(1, 1, 1, 3, 3, 3, 5, 7), draw.one_of(1, 1, 1, 2)
    groups = draw.one_of(1, 1, 1, 1, 1, 2, 4, 8)
    dilation = draw.one_of(1, 1, 1, 1, 1, 2) if kernel > 1 else 1
    inputs, outputs, side = draw.one_of(draw.channels(), draw.channels(), 3, 1), draw.channels(), draw.side()
    if inputs % groups or outputs % groups:
        groups = 1
    conv = nn.Conv2d(inputs, outputs, kernel, stride, dilation * (kernel // 2), dilation, groups)
    return nn.Sequential(conv, draw.one_of(nn.Identity, nn.ReLU)()), (inputs, side, side)


def _depthwise(draw: Draw) -> Made:
    kernel, stride = draw.one_of(3, 3, 3, 5, 7), draw.one_of(1, 1, 2)
    channels, side = draw.channels(8), draw.side()
    conv = nn.Conv2d(channels, channels, kernel, stride, kernel // 2, groups=channels)
    return nn.Sequential(conv, draw.one_of(nn.Identity, nn.ReLU6)()), (channels, side, side)


def _series(draw: Draw) -> Made:
    inputs, outputs, steps = draw.channels(), draw.channels(), draw.between(8, 1000)
    kernel, stride = draw.one_of(1, 3, 5, 9), draw.one_of(1, 2)
    return nn.Sequential(nn.Conv1d(inputs, outputs, kernel, stride, kernel // 2), nn.ReLU()), (inputs, steps)


def _transposed(draw: Draw) -> Made:
    inputs, outputs, side, kernel = (
        draw.channels(8, 128),
        draw.channels(4, 128),
        draw.between(2, 32),
        draw.one_of(2, 3, 4),
    )
    return nn.ConvTranspose2d(inputs, outputs, kernel, 2, draw.one_of(0, 1)), (inputs, side, side)


def _dense(draw: Draw) -> Made:
    inputs, outputs = draw.between(2, 2048), draw.between(1, 2048)
    return nn.Sequential(nn.Linear(inputs, outputs), draw.one_of(nn.Identity, nn.ReLU)()), (inputs,)


def _projection(draw: Draw) -> Made:
    return nn.Linear(draw_in := draw.channels(), draw.channels()), (draw.between(2, 400), draw_in)


def _pool(draw: Draw) -> Made:
    kernel = draw.one_of(2, 2, 3, 5)
    stride = draw.one_of(kernel, kernel, 2, 1)
    pool = draw.one_of(nn.MaxPool2d, nn.AvgPool2d)(kernel, stride, draw.one_of(0, kernel // 2))
    return pool, (draw.channels(), side := max(kernel, draw.side()), side)


def _mean(draw: Draw) -> Made:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), (draw.channels(), side := draw.side(), side)


def _function(draw: Draw) -> Made:
    return _FUNCTIONS[draw.one_of(*_FUNCTIONS)](), (draw.channels(), side := draw.side(), side)


def _softmax(draw: Draw) -> Made:
    return nn.Softmax(-1), (draw.between(1, 400), draw.between(2, 400))


def _sum(draw: Draw) -> Made:
    after = draw.one_of(nn.ReLU, nn.Identity)()
    return Residual(nn.MaxPool2d(1), draw.one_of("add", "mul", "concat"), after), (draw.channels(), s := draw.side(), s)


def _excited(draw: Draw) -> Made:
    channels, side = draw.channels(8), draw.side()
    gate = draw.one_of(nn.Sigmoid, nn.Hardsigmoid)()
    return Excited(channels, max(4, channels // 4), gate), (channels, side, side)


def _resize(draw: Draw) -> Made:
    mode = draw.one_of("nearest", "bilinear")
    return nn.Upsample(scale_factor=2, mode=mode), (draw.channels(), side := draw.between(1, 48), side)


def _moved(draw: Draw) -> Made:
    return Turned(draw.one_of("transpose", "shuffle", "slice")), (2 * draw.channels(4, 256), side := draw.side(), side)


def _norm(draw: Draw) -> Made:
    features = draw.channels()
    return nn.LayerNorm(features), (draw.between(1, 400), features)


def _recurrence(draw: Draw) -> Made:
    inputs, hidden, steps = draw.between(1, 128), draw.between(4, 160), draw.between(2, 24)
    layer = draw.one_of(nn.LSTM, nn.GRU)(
        inputs, hidden, batch_first=True, bidirectional=draw.one_of(False, False, True)
    )
    return Recurrence(layer), (steps, inputs)


def _attention(draw: Draw) -> Made:
    heads = draw.one_of(1, 2, 4)
    features = heads * draw.between(4, 64)
    return Attention(features, heads), (draw.between(4, 200), features)


# ── chains ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _block(draw: Draw, channels: int, side: int) -> tuple[nn.Module, int, int]:  # noqa: PLR0911  (kind after kind)
    """Return a block as networks are made of, its channels and its side."""
    activation = draw.one_of(*_ACTIVATIONS)
    outputs, stride = draw.channels(8, 160), draw.one_of(1, 1, 2) if side > 3 else 1
    after = -(-side // stride)
    kind = draw.one_of("plain", "plain", "residual", "inverted", "inverted", "separable", "fire", "pool")
    if kind == "plain":
        kernel = draw.one_of(1, 3, 3, 5)
        return nn.Sequential(nn.Conv2d(channels, outputs, kernel, stride, kernel // 2), activation()), outputs, after
    if kind == "residual":
        body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, 1, 1), activation(), nn.Conv2d(channels, channels, 3, 1, 1)
        )
        return Residual(body, after=nn.ReLU()), channels, side
    if kind == "inverted":
        middle, kernel = channels * draw.one_of(2, 3, 4, 6), draw.one_of(3, 3, 5)
        layers = [nn.Conv2d(channels, middle, 1), activation()]
        layers += [nn.Conv2d(middle, middle, kernel, stride, kernel // 2, groups=middle), activation()]
        if draw.one_of(True, False, False):
            layers.append(Excited(middle, max(4, middle // 4), draw.one_of(nn.Sigmoid, nn.Hardsigmoid)()))
        if stride == 1 and draw.one_of(True, True, False):
            return Residual(nn.Sequential(*layers, nn.Conv2d(middle, channels, 1))), channels, side
        return nn.Sequential(*layers, nn.Conv2d(middle, outputs, 1)), outputs, after
    if kind == "separable":
        depthwise = nn.Conv2d(channels, channels, 3, stride, 1, groups=channels)
        return nn.Sequential(depthwise, activation(), nn.Conv2d(channels, outputs, 1), activation()), outputs, after
    if kind == "fire":
        inner, half = max(4, channels // 4), max(4, outputs // 2)
        wide = Branches(nn.Conv2d(inner, half, 1), nn.Conv2d(inner, half, 3, 1, 1))
        return nn.Sequential(nn.Conv2d(channels, inner, 1), nn.ReLU(), wide, nn.ReLU()), 2 * half, side
    if side > 3:
        return draw.one_of(nn.MaxPool2d, nn.MaxPool2d, nn.AvgPool2d)(2), channels, side // 2
    return nn.Conv2d(channels, outputs, 1), outputs, side


def _pictures(draw: Draw) -> Made:
    inputs, side = draw.one_of(1, 3), draw.between(8, 112)
    stem, stride = draw.channels(8, 40), draw.one_of(1, 2)
    layers: list[nn.Module] = [nn.Conv2d(inputs, stem, 3, stride, 1), draw.one_of(*_ACTIVATIONS)()]
    channels, here = stem, -(-side // stride)
    for _ in range(draw.between(1, 7)):
        layer, channels, here = _block(draw, channels, here)
        layers.append(layer)
    if draw.one_of(True, True, False):
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, draw.between(2, 1000))]
    return nn.Sequential(*layers), (inputs, side, side)


def _perceptron(draw: Draw) -> Made:
    features = [draw.between(4, 1500) for _ in range(draw.between(2, 5))]
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(features):
        layers += [nn.Linear(before, after), draw.one_of(nn.ReLU, nn.ReLU, nn.Sigmoid, nn.Tanh)()]
    return nn.Sequential(*layers, nn.Linear(features[-1], draw.between(1, 100)), nn.Softmax(-1)), (features[0],)


def _transformer(draw: Draw) -> Made:
    heads = draw.one_of(1, 2, 4)
    features, side, patch = heads * draw.between(4, 48), draw.between(8, 64), draw.one_of(2, 4, 8)
    layers: list[nn.Module] = [nn.Conv2d(3, features, patch, patch), Tokens()]
    for _ in range(draw.between(1, 3)):
        inner = draw.one_of(2, 4) * features
        bent = nn.Sequential(nn.LayerNorm(features), nn.Linear(features, inner), nn.GELU(), nn.Linear(inner, features))
        layers += [Residual(nn.Sequential(nn.LayerNorm(features), Attention(features, heads))), Residual(bent)]
    return nn.Sequential(*layers), (3, max(side, patch), max(side, patch))


_SINGLE: tuple[Callable[[Draw], Made], ...] = (
    *(_convolution,) * 9,
    *(_depthwise,) * 9,
    *(_dense,) * 2,
    *(_projection, _series, _transposed, _pool, _pool, _mean, _function, _function, _function, _softmax, _sum, _sum),
    *(_excited, _resize, _moved, _norm, _recurrence, _recurrence, _attention),
)
_CHAINS: tuple[Callable[[Draw], Made], ...] = (*(_pictures,) * 6, _perceptron, _transformer)


def drawn(seed: int) -> Made:
    """Return the network of a seed and the shape of its input; every other one is a single layer."""
    torch.manual_seed(seed)
    draw = Draw(seed)
    while True:
        network, shape = draw.one_of(*(_SINGLE if seed % 2 else _CHAINS))(draw)
        if math.prod(shape) <= MOST_ELEMENTS:
            return network.eval(), shape
