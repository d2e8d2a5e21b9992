"""Write machines.npz with names of its own: readings (N, 12), wear (N, 1) and machine (N,).  Seeded."""

from __future__ import annotations

from pathlib import Path

import numpy as np

FILE = Path(__file__).parent / "machines.npz"
MACHINES, PER_MACHINE, READINGS = 30, 30, 12


def main() -> None:
    """Write the arrays; wear shows in how strongly the readings swing, and each machine has a level of its own."""
    random = np.random.default_rng(0)
    machine = np.repeat(np.arange(MACHINES), PER_MACHINE)
    wear = random.uniform(0, 10, (len(machine), 1))
    swing = np.sin(np.arange(READINGS) * 1.3)
    level = random.normal(0, 0.5, (MACHINES, 1))[machine]
    readings = level + wear * swing / 5 + random.normal(0, 0.2, (len(machine), READINGS))
    np.savez_compressed(
        FILE, readings=readings.astype(np.float32), wear=wear.astype(np.float32), machine=machine.astype(np.int64)
    )


if __name__ == "__main__":
    main()
