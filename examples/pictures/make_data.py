"""Draw pictures/CLASS/NNN.png: shapes of any colour and size on noise, in pictures of any size.  Seeded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

FOLDER = Path(__file__).parent / "shapes"
CLASSES, COUNT = ("circle", "cross", "triangle"), 140  # of each


def draw(shape: str, random: np.random.Generator) -> Image.Image:
    """Draw one shape somewhere."""
    width, height = (int(side) for side in random.integers(32, 65, 2))
    picture = Image.fromarray(random.integers(0, 90, (height, width, 3)).astype(np.uint8))
    pen, colour = ImageDraw.Draw(picture), tuple(int(value) for value in random.integers(120, 256, 3))
    size = 0.6 * min(width, height)
    left, top = ((side - size) * random.uniform(0.3, 0.7) for side in (width, height))
    box = (left, top, left + size, top + size)
    if shape == "circle":
        pen.ellipse(box, fill=colour)
    elif shape == "triangle":
        pen.polygon([(left + size / 2, top), (left, top + size), (left + size, top + size)], fill=colour)
    else:
        pen.line(box, fill=colour, width=4)
        pen.line((left, top + size, left + size, top), fill=colour, width=4)
    return picture


def main() -> None:
    """Write all pictures."""
    random = np.random.default_rng(0)
    for name in CLASSES:
        (FOLDER / name).mkdir(parents=True, exist_ok=True)
        for number in range(COUNT):
            draw(name, random).save(FOLDER / name / f"{number:03}.png")


if __name__ == "__main__":
    main()
