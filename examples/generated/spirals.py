"""Two spirals in each other, made when they are asked for; karui calls ``load`` with the card's seed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

classes = ("first", "second")


def load(*, seed: int, count: int, noise: float) -> dict[str, NDArray[np.generic]]:
    """Return x (N, 2), points, and y (N,), the spiral of each; ``count`` and ``noise`` are the card's options.

    x_train, y_train, x_test … would keep splits of your own; "groups" would keep samples of one origin together.
    """
    random = np.random.default_rng(seed)
    y = np.arange(count) % 2
    along = random.uniform(0.5, 3.5, count)  # radians
    turned = along + np.pi * y
    x = np.stack([along * np.cos(turned), along * np.sin(turned)], 1) + random.normal(0, noise, (count, 2))
    return {"x": x.astype(np.float32), "y": y.astype(np.int64)}
