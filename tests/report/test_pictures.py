"""Samples as PNG: the right pixels, the same bytes every time."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipeline.report.picture import is_picture, picture_uris, shown_width_px


def decoded(uri: str) -> NDArray[np.uint8]:
    head, _, body = uri.partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(body))))


def test_grey_levels_of_any_range_are_stretched() -> None:
    raw = np.arange(16, dtype=np.uint8).reshape(1, 1, 4, 4)
    pixels = decoded(picture_uris(raw)[0])
    assert pixels.shape == (4, 4)
    assert (pixels[0, 0], pixels[-1, -1]) == (0, 255)


def test_all_samples_share_one_scale() -> None:
    raw = np.stack([np.zeros((1, 2, 2)), np.full((1, 2, 2), 0.5), np.ones((1, 2, 2))])
    assert [int(decoded(uri).max()) for uri in picture_uris(raw)] == [0, 128, 255]


def test_bytes_and_colour_stay_as_they_are() -> None:
    raw = np.zeros((1, 3, 2, 2), np.uint8)
    raw[0, 0], raw[0, 2, 1, 1] = 200, 90
    pixels = decoded(picture_uris(raw)[0])
    assert pixels.shape == (2, 2, 3)
    assert pixels[1, 1].tolist() == [200, 0, 90]


@pytest.mark.parametrize("value", [np.nan, 3.0])
def test_flat_or_undefined_samples_are_drawn(value: float) -> None:
    assert decoded(picture_uris(np.full((1, 1, 2, 2), value))[0]).shape == (2, 2)


def test_large_pictures_are_made_small() -> None:
    assert decoded(picture_uris(np.full((1, 3, 600, 300), 250, np.uint8))[0]).shape == (192, 96, 3)


@pytest.mark.parametrize(("width", "shown"), [(8, 96), (28, 84), (32, 96), (96, 96), (224, 96)])
def test_small_pictures_are_enlarged_by_whole_factors(width: int, shown: int) -> None:
    assert shown_width_px(width) == shown


@pytest.mark.parametrize(
    ("shape", "picture"), [((1, 8, 8), True), ((3, 32, 32), True), ((2, 8, 8), False), ((12,), False)]
)
def test_what_is_a_picture(shape: tuple[int, ...], *, picture: bool) -> None:
    assert is_picture(shape) == picture
