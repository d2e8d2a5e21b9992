"""Named arrays, and what goes into a network and comes out: the words that workstation and device share.

n samples at once; shapes stand without the batch axis, in the layout of the network that was trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Callable

import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]  # tensor name → (n, …)
Predict = Callable[[Arrays], Arrays]  # inputs → outputs: a torch network, a session and a device are all that


@dataclass(frozen=True)
class TensorSpec:
    """One input or output.

    ``shape`` without the batch; ``axes`` has a letter for each of its axes: "CHW" (picture), "F" (features), "K"
    (one value per class), "KHW" (a map per class), "T" (targets).
    """

    name: str
    dtype: str  # "float32", "int32", "int64", "uint8"
    shape: tuple[int, ...]
    axes: str


@dataclass(frozen=True)
class Signature:
    """What goes into a network and comes out; ``carried``: output → input that it becomes at the next step."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    carried: dict[str, str] = field(default_factory=dict)

    @property
    def input(self) -> TensorSpec:
        """Return the first input: the only one of most networks."""
        return self.inputs[0]

    @property
    def output(self) -> TensorSpec:
        """Return the first output: the only one of most networks."""
        return self.outputs[0]


def length(arrays: Arrays) -> int:
    """Return how many samples the arrays hold; 0 where there is no array."""
    return next((len(array) for array in arrays.values()), 0)


def chosen(arrays: Arrays, indices: Any) -> dict[str, NDArray[Any]]:
    """Return the samples at ``indices`` (or of a slice) of every array."""
    return {name: array[indices] for name, array in arrays.items()}


def concatenated(parts: list[Arrays]) -> dict[str, NDArray[Any]]:
    """Return the parts one after the other, name by name.  Raises ValueError for no parts."""
    if not parts:
        raise ValueError("no parts")
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


# what Pillow reads by itself
PICTURE_SUFFIXES = (
    *(
        ".apng",
        ".avif",
        ".bmp",
        ".bw",
        ".dib",
        ".gif",
        ".ico",
        ".j2c",
        ".j2k",
        ".jfif",
        ".jp2",
        ".jpc",
        ".jpe",
        ".jpeg",
    ),
    *(".jpf", ".jpg", ".jpx", ".mpo", ".pbm", ".pcx", ".pgm", ".png", ".pnm", ".ppm", ".rgb", ".rgba", ".sgi", ".tif"),
    *(".tiff", ".webp"),
)


@dataclass(frozen=True)
class PictureForm:
    """How a picture becomes (C, H, W) bytes.

    ``resize``: "squash" to H × W whatever its proportions, "fit" it in with a border of the background, "crop" what is
    beyond them, or "" where it must have that size.  ``background``: what transparent pixels lie on, RGB.
    """

    shape: tuple[int, int, int]  # (C, H, W); C is 1: grey, or 3: RGB
    resize: str = ""
    background: tuple[int, int, int] = (255, 255, 255)
