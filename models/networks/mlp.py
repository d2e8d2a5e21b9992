"""Multilayer perceptron: Affine + ReLU or tanh, as often as ``hidden`` lists widths, and an Affine to the classes.

LeCun et al., "Efficient BackProp", 1998 (tanh networks and their initialisation); Ioffe & Szegedy, 2015
(arXiv:1502.03167) for the batch normalisation that can be switched on.

``build((1, 8, 8), 10)`` has 17,226 parameters and 17,024 MACs.
``build((1, 28, 28), 10, hidden="128,64", batch_norm=True)`` has 109,578 parameters and 109,184 MACs.

Shapes: N batch, F features (C*H*W of a picture), K classes.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

_ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh}


class Mlp(nn.Module):
    """Hidden layers one after the other, then one Linear that makes the logits."""

    def __init__(self, features: int, classes: int, widths: tuple[int, ...], activation: str, batch_norm: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in widths:
            layers.append(nn.Linear(features, width, bias=not batch_norm))  # batch norm brings its own bias
            if batch_norm:
                layers.append(nn.BatchNorm1d(width))
            layers.append(_ACTIVATIONS[activation]())
            features = width
        self.hidden = nn.Sequential(*layers)
        self.fc = nn.Linear(features, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) or (N, F) → logits (N, K)."""
        x = x.flatten(1)  # (N, F)
        logits: Tensor = self.fc(self.hidden(x))
        return logits


def build(
    input_shape: tuple[int, ...],
    classes: int,
    *,
    hidden: str | int = "128,64",
    activation: str = "relu",
    batch_norm: bool = False,
) -> nn.Module:
    """Build a perceptron for inputs of any shape and K classes.

    ``hidden``: widths of the hidden layers, "128,64", or one number; "" for none.  ``activation``: "relu" or "tanh".
    Raises ValueError for a width that is no positive whole number and for an unknown activation.
    """
    if activation not in _ACTIVATIONS:
        raise ValueError(f"activation '{activation}': known are {', '.join(_ACTIVATIONS)}")
    net = Mlp(math.prod(input_shape), classes, _widths(hidden), activation, batch_norm)
    for module in net.hidden:
        if isinstance(module, nn.Linear):
            _initialise(module, activation)
    return net


def _widths(hidden: str | int) -> tuple[int, ...]:
    words = [word.strip() for word in str(hidden).split(",") if word.strip()]
    if not all(word.isdecimal() and int(word) > 0 for word in words):
        raise ValueError(f"hidden '{hidden}': widths are positive whole numbers, for example \"128,64\"")
    return tuple(int(word) for word in words)


def _initialise(linear: nn.Linear, activation: str) -> None:
    if activation == "relu":
        nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
    else:
        nn.init.xavier_normal_(linear.weight, gain=nn.init.calculate_gain("tanh"))
    if linear.bias is not None:
        nn.init.zeros_(linear.bias)
