"""A folder of small pictures of cats and dogs, and its card."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipeline.data.load import load, reference
from pipeline.errors import DataError
from tests.data.sets import card, pictures

GREY, RGB = (1, 5, 4), (3, 5, 4)  # (C, H, W): 4 wide, 5 high


def write_set(root: Path, per_class: int = 6, suffix: str = "png", shape: tuple[int, ...] = RGB) -> NDArray[np.uint8]:
    """Write pictures of the classes cat and dog; return the pixels, cats first."""
    pixels = pictures(2 * per_class, shape)
    for number, picture in enumerate(pixels):
        folder = root / ("cat", "dog")[number // per_class]
        folder.mkdir(parents=True, exist_ok=True)
        array = picture[0] if shape[0] == 1 else picture.transpose(1, 2, 0)
        Image.fromarray(array).save(folder / f"{number:02}.{suffix}")
    return pixels


DECLARED = card("image-folder", RGB, folder="pets")


def refused(tmp_path: Path, says: str) -> DataError:
    with pytest.raises(DataError, match=says) as caught:
        load(reference(DECLARED, tmp_path))
    return caught.value
