"""Pictures as PNG: the right pixels, not larger than a page needs."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipeline.report.picture import picture_uris, shown_width_px


def decoded(uri: str) -> NDArray[np.uint8]:
    head, _, body = uri.partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(body))))


def test_bytes_and_colour_stay_as_they_are() -> None:
    raw = np.zeros((1, 3, 2, 2), np.uint8)
    raw[0, 0], raw[0, 2, 1, 1] = 200, 90
    pixels = decoded(picture_uris(raw)[0])
    assert pixels.shape == (2, 2, 3)
    assert pixels[1, 1].tolist() == [200, 0, 90]


def test_grey_pictures_have_one_channel() -> None:
    pixels = decoded(picture_uris(np.arange(16, dtype=np.uint8).reshape(1, 1, 4, 4))[0])
    assert pixels.tolist() == np.arange(16).reshape(4, 4).tolist()


def test_large_pictures_are_made_small() -> None:
    assert decoded(picture_uris(np.full((1, 3, 600, 300), 250, np.uint8))[0]).shape == (192, 96, 3)


@pytest.mark.parametrize(
    ("height", "width", "shown"),
    [(8, 8, 96), (28, 28, 84), (32, 32, 96), (96, 96, 96), (224, 224, 96), (48, 152, 304), (192, 600, 300)],
)
def test_small_pictures_are_enlarged_by_whole_factors(height: int, width: int, shown: int) -> None:
    assert shown_width_px(height, width) == shown
