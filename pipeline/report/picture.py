"""Test inputs as small pictures: PNG data URIs, crisp when enlarged.  C channels, H height, W width."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SHOWN_PX = 96  # width that the page gives a picture; nothing is stored larger than twice that


def is_picture(shape: tuple[int, ...]) -> bool:
    """Tell whether one sample of this shape is a picture: (1, H, W) or (3, H, W)."""
    return len(shape) == 3 and shape[0] in (1, 3)


def picture_uris(raw: NDArray[Any]) -> tuple[str, ...]:
    """Turn raw samples (M, C, H, W), C of 1 or 3, into PNG data URIs.

    Bytes are shown as they are; any other range is stretched so that the smallest and largest value of all M become
    black and white.
    """
    return tuple(_data_uri(each) for each in _as_bytes(raw))


def shown_width_px(width: int) -> int:
    """Return a whole multiple of ``width`` near the shown size, so that all pixels come out equally large."""
    return width * max(1, SHOWN_PX // width) if width <= SHOWN_PX else SHOWN_PX


def _as_bytes(raw: NDArray[Any]) -> NDArray[np.uint8]:
    # 8x8 digits have grey levels 0 … 16 in bytes: only a range that uses most of a byte is taken as it is
    if raw.dtype == np.uint8 and raw.size and raw.max() > 127:
        return raw
    values = np.nan_to_num(raw.astype(np.float64))
    low, high = (values.min(), values.max()) if values.size else (0.0, 1.0)
    stretched: NDArray[np.uint8] = np.round(255 * (values - low) / (high - low or 1.0)).astype(np.uint8)
    return stretched


def _data_uri(sample: NDArray[np.uint8]) -> str:
    pixels = sample[0] if len(sample) == 1 else np.moveaxis(sample, 0, -1)  # (H, W) or (H, W, 3)
    image = Image.fromarray(np.ascontiguousarray(pixels))
    image.thumbnail((2 * SHOWN_PX, 2 * SHOWN_PX))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
