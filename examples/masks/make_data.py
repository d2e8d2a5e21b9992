"""Draw scenes/images/NNN.png and scenes/masks/NNN.png: spots on a street, and the class of each pixel.  Seeded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

FOLDER = Path(__file__).parent / "scenes"
COUNT, SIDE = 120, 24
COLOURS = (90, 90, 90, 200, 60, 60, 240, 220, 90)  # of the masks' palette: street, puddle, leaf


def main() -> None:
    """Write pictures in colour, and masks with a palette, as drawing programs do: a pixel's value is its class."""
    random = np.random.default_rng(0)
    for name in ("images", "masks"):
        (FOLDER / name).mkdir(parents=True, exist_ok=True)
    row, column = np.mgrid[:SIDE, :SIDE]
    for number in range(COUNT):
        picture = random.integers(70, 130, (SIDE, SIDE, 3)).astype(np.uint8)
        mask = np.zeros((SIDE, SIDE), np.uint8)
        for label, colour in ((1, (40, 60, 160)), (2, (190, 160, 40))):
            middle, radius = random.uniform(4, SIDE - 4, 2), random.uniform(3, 6)
            inside = (row - middle[0]) ** 2 + (column - middle[1]) ** 2 < radius**2
            mask[inside] = label
            picture[inside] = np.array(colour) + random.integers(-30, 31, (int(inside.sum()), 3))
        Image.fromarray(picture).save(FOLDER / "images" / f"{number:03}.png")
        drawn = Image.fromarray(mask)
        drawn.putpalette(COLOURS)
        drawn.save(FOLDER / "masks" / f"{number:03}.png")


if __name__ == "__main__":
    main()
