"""Write plants.csv: measurements of plants, as a spreadsheet in many countries saves them.  Seeded.

Semicolons between cells, decimal commas, a category, and cells without a value.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

FILE = Path(__file__).parent / "plants.csv"
ROWS = 800
SOILS = ("clay", "loam", "sand")


def main() -> None:
    """Write the table; whether a plant thrives follows from water, light and soil."""
    random = np.random.default_rng(0)
    lines = ["plant;water_l;light_h;soil;state"]
    for number in range(ROWS):
        water, light, soil = random.uniform(0, 4), random.uniform(2, 12), int(random.integers(3))
        wanted = 1.0 + 0.2 * light + (-0.6, 0.0, 0.6)[soil]
        state = "dry" if water < wanted - 0.5 else "wet" if water > wanted + 0.5 else "fine"
        measured = "" if number % 40 == 7 else f"{light:.1f}".replace(".", ",")
        lines.append(f"{number};{water:.2f};{measured};{SOILS[soil]};{state}".replace(".", ","))
    FILE.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
