"""Pictures worked out by hand, written in every format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.onboard.arrays import PictureForm
from pipeline.onboard.faults import FileRefused
from pipeline.onboard.pictures import check_picture, read_mask, read_picture

Read = Callable[[Path, PictureForm], object]
LOADING: list[Read] = [read_picture, read_mask]
OPENING: list[Read] = [check_picture, *LOADING]
LOSSLESS: dict[str, dict[str, Any]] = {"webp": {"lossless": True}, "jpg": {"quality": 100, "subsampling": 0}}


def saved(path: Path, picture: Image.Image, **options: Any) -> Path:
    picture.save(path, **{**LOSSLESS.get(path.suffix[1:], {}), **options})
    return path


def grey(values: Any) -> Image.Image:
    return Image.fromarray(np.array(values, np.uint8))


def palette(values: Any, colours: list[int]) -> Image.Image:
    picture = Image.new("P", (len(values[0]), len(values)))
    picture.putpalette(colours)
    picture.putdata([value for row in values for value in row])
    return picture


def refused(read: Read, path: Path, form: PictureForm) -> FileRefused:
    with pytest.raises(FileRefused) as caught:
        read(path, form)
    assert caught.value.where == str(path)
    return caught.value


SHOWN = [[1, 2, 3], [4, 5, 6]]

STORED = {  # EXIF 2.3, tag Orientation: where the 0th row and the 0th column of what is stored belong
    1: [[1, 2, 3], [4, 5, 6]],  # top, left
    2: [[3, 2, 1], [6, 5, 4]],  # top, right
    3: [[6, 5, 4], [3, 2, 1]],  # bottom, right
    4: [[4, 5, 6], [1, 2, 3]],  # bottom, left
    5: [[1, 4], [2, 5], [3, 6]],  # left, top
    6: [[3, 6], [2, 5], [1, 4]],  # right, top
    7: [[6, 3], [5, 2], [4, 1]],  # right, bottom
    8: [[4, 1], [5, 2], [6, 3]],  # left, bottom
}


def noted(orientation: int) -> Image.Exif:
    note = Image.Exif()
    note[0x0112] = orientation
    return note
