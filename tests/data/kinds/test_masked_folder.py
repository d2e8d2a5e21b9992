"""Folders of pictures with a mask for each: which belong together, how they are resized, what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipeline.data.load import load, reference
from pipeline.errors import ConfigError, DataError
from tests.data.kinds.pets import RGB
from tests.data.sets import card, pictures

# ── masks ───────────────────────────────────────────────────────────────────────────────────────────────────────────


MASKED = card("image-folder", RGB, folder="scenes", task="segmentation", classes=["road", "car", "sky"])


def write_masked(root: Path, count: int = 10, palette: bool = False) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Write pictures and the class of each of their pixels; return both."""
    pixels = pictures(count, RGB)
    masks = np.random.default_rng(1).integers(0, 3, (count, 5, 4)).astype(np.uint8)
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    for number in range(count):
        Image.fromarray(pixels[number].transpose(1, 2, 0)).save(root / "images" / f"{number:02}.bmp")
        mask = Image.fromarray(masks[number])
        if palette:  # as drawing programs and PASCAL VOC store them
            mask = mask.convert("P")
            mask.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
        mask.save(root / "masks" / f"{number:02}.png")
    return pixels, masks


@pytest.mark.parametrize("palette", [False, True])
@pytest.mark.parametrize("streamed", [False, True])
def test_every_picture_gets_the_mask_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, palette: bool, streamed: bool
) -> None:
    pixels, masks = write_masked(tmp_path / "scenes", palette=palette)
    if streamed:
        monkeypatch.setattr("pipeline.data.source.DECODED_BUDGET_BYTES", 0)
    dataset = load(reference(MASKED, tmp_path))
    assert dataset.classes == ("road", "car", "sky")
    known = {picture.tobytes(): mask for picture, mask in zip(pixels, masks, strict=True)}
    for split in (dataset.train, dataset.val, dataset.test):
        batch = split.read(np.arange(len(split)))
        assert split.strata is None
        assert all(
            np.array_equal(known.pop(picture.tobytes()), mask)
            for picture, mask in zip(batch.inputs["input"], batch.wanted["mask"], strict=True)
        )
    assert not known


def test_masks_that_are_missing_or_wrong(tmp_path: Path) -> None:
    write_masked(tmp_path / "scenes")
    mask = tmp_path / "scenes" / "masks" / "03.png"
    Image.new("L", (4, 5), 3).save(mask)
    with pytest.raises(DataError, match=r"03\.png: sample 0 has the class 3 at row 0, column 0, expected 0 … 2"):
        load(reference(MASKED, tmp_path))
    Image.new("RGB", (4, 5)).save(mask)
    with pytest.raises(DataError, match=r"03\.png: is a picture of mode RGB, expected one number per pixel"):
        load(reference(MASKED, tmp_path))
    Image.new("L", (5, 5)).save(mask)
    with pytest.raises(DataError, match=r"03\.png: is 5×5 pixels"):
        load(reference(MASKED, tmp_path))
    mask.unlink()
    with pytest.raises(DataError, match=r"03\.bmp: has no mask '03\.png'"):
        load(reference(MASKED, tmp_path))
    (tmp_path / "scenes" / "masks").rename(tmp_path / "scenes" / "mask")
    with pytest.raises(DataError, match="holds no folder 'masks'"):
        load(reference(MASKED, tmp_path))


def test_folders_hold_no_numbers(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no numbers, which the task 'regression' learns from"):
        reference(card("image-folder", RGB, folder="pets", task="regression"), tmp_path)


# ── pictures as people have them ────────────────────────────────────────────────────────────────────────────────────


def test_masks_are_resized_without_new_classes(tmp_path: Path) -> None:
    write_masked(tmp_path / "scenes")
    for path in (tmp_path / "scenes").glob("*/*"):
        Image.open(path).resize((8, 10), Image.Resampling.NEAREST).save(path)
    declared = MASKED.model_copy(update={"input": MASKED.input.model_copy(update={"resize": "squash"})})
    masks = load(reference(declared, tmp_path)).train.wanted(np.arange(4))["mask"]
    assert set(masks.ravel()) <= {0, 1, 2}
    border = MASKED.model_copy(update={"input": MASKED.input.model_copy(update={"resize": "fit"})})
    with pytest.raises(ConfigError, match="the border has no class"):
        reference(border, tmp_path)
