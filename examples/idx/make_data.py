"""Write bars as MNIST's files: train-images-idx3-ubyte.gz and so on, IDX and gzipped.  Seeded."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FOLDER = Path(__file__).parent
SIDE, CLASSES = 12, 4


def write_idx(path: Path, values: NDArray[np.uint8]) -> None:
    """Write unsigned bytes: two zeros, the type, the number of axes, each axis' length, the values."""
    header = struct.pack(f">HBB{values.ndim}I", 0, 0x08, values.ndim, *values.shape)
    path.write_bytes(gzip.compress(header + values.tobytes(), mtime=0))


def bars(count: int, random: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw bars: lying, standing, rising or falling."""
    labels = (np.arange(count) % CLASSES).astype(np.uint8)
    pictures = random.integers(0, 100, (count, SIDE, SIDE)).astype(np.uint8)
    along = np.arange(8)
    for picture, label in zip(pictures, labels, strict=True):
        top, left = random.integers(0, SIDE - 8, 2)
        rows, columns = ((along * 0 + 4, along), (along, along * 0 + 4), (7 - along, along), (along, along))[label]
        picture[top + rows, left + columns] = 230
    return pictures, labels


def main() -> None:
    """Write four files."""
    random = np.random.default_rng(0)
    for split, count in (("train", 600), ("test", 240)):
        pictures, labels = bars(count, random)
        write_idx(FOLDER / f"{split}-images-idx3-ubyte.gz", pictures)
        write_idx(FOLDER / f"{split}-labels-idx1-ubyte.gz", labels)


if __name__ == "__main__":
    main()
