"""Pictures in folders as people have them: turned, transparent, of any size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipeline.data.load import load, reference
from tests.data.kinds.pets import RGB
from tests.data.sets import card, samples


def only(root: Path, picture: Image.Image, name: str, **options: object) -> Path:
    """Fill both classes with one picture."""
    for folder in ("cat", "dog"):
        (root / "pets" / folder).mkdir(parents=True)
        for number in range(4):
            picture.save(root / "pets" / folder / f"{number}{name}", **options)  # type: ignore[arg-type]
    return root


def first_of(root: Path, shape: tuple[int, ...] = RGB, **inputs: object) -> NDArray[np.uint8]:
    declared = card("image-folder", shape, folder="pets", split={"val": 0.25, "test": 0.25})
    declared = declared.model_copy(update={"input": declared.input.model_copy(update=inputs)})
    first: NDArray[np.uint8] = samples(load(reference(declared, root)).train)[0]
    return first


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tiff", "webp", "jpg"])
def test_pictures_stand_as_viewers_show_them(tmp_path: Path, orientation: int, suffix: str) -> None:
    shown = np.zeros((16, 24, 3), dtype=np.uint8)  # bright above on the left, grey below
    shown[:8, :8], shown[8:] = 250, 120
    stored = {  # what a camera writes so that the note makes it upright again
        1: shown,
        2: shown[:, ::-1],
        3: shown[::-1, ::-1],
        4: shown[::-1],
        5: shown.transpose(1, 0, 2),
        6: np.rot90(shown),
        7: shown[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(shown, -1),
    }[orientation]
    note = Image.Exif()
    note[0x0112] = orientation
    options = {"lossless": True} if suffix == "webp" else {"quality": 100} if suffix == "jpg" else {}
    picture = Image.fromarray(np.ascontiguousarray(stored))
    read = first_of(only(tmp_path, picture, f".{suffix}", exif=note, **options), (3, 16, 24))
    assert np.abs(read.transpose(1, 2, 0).astype(int) - shown).max() <= (3 if suffix == "jpg" else 0)  # JPEG rounds


@pytest.mark.parametrize(("background", "expected"), [((255, 255, 255), 255), ((0, 0, 0), 0), ((9, 9, 9), 9)])
@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_pixels_lie_on_the_background(
    tmp_path: Path, mode: str, background: tuple[int, ...], expected: int
) -> None:
    picture = Image.new("RGBA", (4, 5), (77, 77, 77, 0)).convert(mode)
    assert set(first_of(only(tmp_path, picture, ".png"), background=background).ravel()) == {expected}


@pytest.mark.parametrize(
    ("resize", "expected"),  # of a picture 8 wide, 4 high: left half 200, right half 100; 4 × 4 wanted
    [
        ("squash", [[200, 200, 100, 100]] * 4),
        ("crop", [[200, 200, 100, 100]] * 4),
        ("fit", [[7] * 4, [200, 200, 100, 100], [200, 200, 100, 100], [7] * 4]),
    ],
)
def test_pictures_are_resized_as_the_card_says(tmp_path: Path, resize: str, expected: list[list[int]]) -> None:
    wide = np.full((4, 8), 200, dtype=np.uint8)
    wide[:, 4:] = 100
    only(tmp_path, Image.fromarray(wide), ".png")
    read = first_of(tmp_path, (1, 4, 4), resize=resize, background=(7, 7, 7))[0].astype(int)
    smooth = np.abs(read - np.array(expected))
    assert smooth[:, [0, 3]].max() <= 4  # the filter reaches two pixels far: away from the edge it changes little
    assert (smooth <= 30).all()


def test_crop_keeps_the_middle(tmp_path: Path) -> None:
    tall = np.zeros((12, 4), dtype=np.uint8)
    tall[4:8] = np.arange(16).reshape(4, 4) * 10
    only(tmp_path, Image.fromarray(tall), ".png")
    assert np.array_equal(first_of(tmp_path, (1, 4, 4), resize="crop")[0], tall[4:8])


def test_large_photographs_become_small_pictures(tmp_path: Path) -> None:
    for number in range(8):
        folder = tmp_path / "pets" / ("cat", "dog")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (400 + 50 * number, 300), (number * 30, 0, 0)).save(folder / f"{number}.jpg")
    assert first_of(tmp_path, (3, 16, 16), resize="crop").shape == (3, 16, 16)
