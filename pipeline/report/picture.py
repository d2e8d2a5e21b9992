"""Pictures of a figure as PNG data URIs, crisp when enlarged.  C channels, H height, W width."""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SHOWN_PX = 96  # height that the page gives a picture; nothing is stored larger than twice that


def picture_uris(images: NDArray[np.uint8]) -> tuple[str, ...]:
    """Turn pictures (M, C, H, W) of bytes, C of 1 or 3, into PNG data URIs."""
    return tuple(_data_uri(each) for each in images)


def shown_width_px(height: int, width: int) -> int:
    """Return a width at which a picture is about as high as shown, whole multiples of it where it is small."""
    if height <= SHOWN_PX:
        return width * max(1, SHOWN_PX // height)
    return max(1, round(width * SHOWN_PX / height))


def _data_uri(sample: NDArray[np.uint8]) -> str:
    pixels = sample[0] if len(sample) == 1 else np.moveaxis(sample, 0, -1)  # (H, W) or (H, W, 3)
    image = Image.fromarray(np.ascontiguousarray(pixels))
    if image.height > 2 * SHOWN_PX:
        image = image.resize((max(1, round(image.width * 2 * SHOWN_PX / image.height)), 2 * SHOWN_PX))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
