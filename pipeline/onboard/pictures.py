"""Picture files as a network's raw values: the one module here that needs Pillow.

Shapes: C channels, H height, W width.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.onboard.about import Raw
from pipeline.onboard.faults import InputRefused

FORMATS = ("PNG", "JPEG", "BMP")
EIGHT_BIT_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "La", "RGBa", "CMYK", "YCbCr"})
UNREADABLE = (  # what Pillow raises for damaged and for hostile files
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    MemoryError,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


def read_picture(path: Path, raw: Raw) -> NDArray[np.uint8]:
    """Return a picture as (C, H, W), as training reads it.

    Raises InputRefused for a file that is no picture, and for a picture of another size.
    """
    channels, height, width = raw.shape
    try:
        with Image.open(path, formats=FORMATS) as picture:
            if picture.size != (width, height):
                raise InputRefused(
                    f"is {picture.width}×{picture.height} pixels (width×height), {width}×{height} are wanted",
                    where=str(path),
                    remedy="scale it as the pictures of the training were scaled",
                )
            if picture.mode not in EIGHT_BIT_MODES:
                raise InputRefused(f"has pixels of mode {picture.mode}, 8 bits per value are wanted", where=str(path))
            return pixels_of(picture, channels)
    except UNREADABLE as error:
        raise InputRefused(f"is no readable {', '.join(FORMATS)} picture: {error}", where=str(path)) from error


def pixels_of(picture: Image.Image, channels: int) -> NDArray[np.uint8]:
    """Return the pixels as (C, H, W): grey for one channel, else red, green, blue."""
    pixels = np.asarray(picture.convert("L" if channels == 1 else "RGB"), dtype=np.uint8)  # (H, W) or (H, W, C)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def write_mask(path: Path, mask: NDArray[Any]) -> None:
    """Write the class of each pixel (H, W) as a grey PNG: its values are the numbers of the classes."""
    Image.fromarray(mask.astype(np.uint8)).save(path, format="PNG")
