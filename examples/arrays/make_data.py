"""Write sensors.npz: x (N, 1, 16, 16), pictures of a pressure mat, and y (N,), who stands on it.  Seeded."""

from __future__ import annotations

from pathlib import Path

import numpy as np

FILE = Path(__file__).parent / "sensors.npz"
COUNT, SIDE = 600, 16
FEET = {0: (), 1: ((0.0, 0.0),), 2: ((-3.0, 0.0), (3.0, 0.0))}  # nobody, one foot, two feet: where they are pressed


def main() -> None:
    """Write both arrays."""
    random = np.random.default_rng(0)
    y = np.arange(COUNT, dtype=np.uint8) % len(FEET)
    x = random.integers(0, 60, (COUNT, 1, SIDE, SIDE)).astype(np.float64)
    row, column = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    for sample, label in enumerate(y):
        down, right = random.uniform(-3, 3, 2)
        for foot_row, foot_column in FEET[int(label)]:
            away = (row - down - foot_row) ** 2 / 8 + (column - right - foot_column) ** 2 / 2
            x[sample, 0] += 150 * np.exp(-away)
    np.savez_compressed(FILE, x=x.clip(0, 255).astype(np.uint8), y=y)


if __name__ == "__main__":
    main()
