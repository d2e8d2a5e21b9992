"""What is worth a look in a data set: said where it is so, in names that people know, and nowhere else."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipeline.catalog import load_card
from pipeline.data.hints import gradient_hashes, hints_of
from pipeline.data.load import load, reference
from pipeline.data.source import Dataset, everything
from tests.data.sets import all_of, card, labels, loaded, pictures, write_npz

BRIGHTNESS = 1.1


def npz(folder: Path, shape: tuple[int, ...], x: NDArray[Any], y: NDArray[np.int64], **more: Any) -> Dataset:
    write_npz(folder / "s.npz", x=x, y=y)
    given = {"shape": shape, "mean": [0.5], "std": [2]}
    return loaded(card("npz", shape, **{"files": all_of("s.npz"), "input": given, **more}), folder)


def table(folder: Path, rows: list[str], **more: Any) -> Dataset:
    (folder / "t.csv").write_text("\n".join(rows) + "\n")
    own = {"files": all_of("t.csv"), "label_column": "kind", "input": {"mean": [0.5], "std": [2]}, **more}
    return loaded(card("csv", (), **own), folder)


def photo(seed: int, side: int = 96) -> Image.Image:
    """Return a picture with soft shapes and the noise of a sensor."""
    rng = np.random.default_rng(seed)
    soft = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)).resize(
        (side, side), Image.Resampling.BICUBIC
    )
    return Image.fromarray(np.clip(np.asarray(soft) + rng.normal(0, 8, (side, side, 3)), 0, 255).astype(np.uint8))


def saved(folder: Path, place: str, picture: Image.Image, **how: Any) -> None:
    (folder / place).parent.mkdir(parents=True, exist_ok=True)
    picture.save(folder / place, **how)


def folder_of_photos(folder: Path, side: int = 64, count: int = 12) -> Path:
    """Write splits of two classes, all photographs different; those of training have the smallest numbers."""
    for number in range(3 * count):
        split = ("train", "test", "val")[number // count]
        saved(folder, f"photos/{split}/{'ab'[number % 2]}/{number}.png", photo(number, side))
    return folder


def hints_of_photos(folder: Path, shape: tuple[int, int, int] = (3, 64, 64)) -> list[str]:
    declared = {"folder": "photos", "input": {"shape": shape, "resize": "squash"}, "split": {"val": 0.2}}
    hints = hints_of(loaded(card("image-folder", shape, **declared), folder))
    return [hint for hint in hints if "fewer than" not in hint]


# ── classes and features ────────────────────────────────────────────────────────────────────────────────────────────


def test_classes_with_few_test_samples_are_named(tmp_path: Path) -> None:
    y = np.repeat([0, 1, 2], [100, 40, 50])
    x = np.random.default_rng(0).normal(size=(190, 4)).astype(np.float32)
    [hint] = hints_of(npz(tmp_path, (4,), x, y, classes=("cat", "dog", "bird")))
    assert hint.startswith("fewer than 10 test samples of 'dog' (8): ")
    many = np.arange(240) % 12
    [hint] = hints_of(npz(tmp_path, (4,), np.tile(x, (2, 1))[:240], many))
    assert "'4' (4) and 7 more classes" in hint
    assert hints_of(npz(tmp_path, (4,), x, labels(190))) == ()


def rows_of(scale: float) -> list[str]:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(200, 3)) * (1, 30, scale)
    return ["a,colour,wide,weight,kind", *(f"{a},{'rgb'[i % 3]},{w},{b},{i % 2}" for i, (a, b, w) in enumerate(values))]


def test_features_of_other_scales_are_named_as_the_network_gets_them(tmp_path: Path) -> None:
    [hint] = hints_of(table(tmp_path, rows_of(5000), categories={"colour": "auto"}))
    assert hint.startswith("'wide' spreads ")
    assert "times as wide as 'a' (" in hint  # not as a category, which is only 0 or 1
    assert 'normalize = "train" in [input]' in hint
    assert hints_of(table(tmp_path, rows_of(5000), categories={"colour": "auto"}, input={"normalize": "train"})) == ()
    assert hints_of(table(tmp_path, rows_of(50), categories={"colour": "auto"})) == ()


def test_bytes_constants_and_flags_have_no_wrong_scale(tmp_path: Path) -> None:
    y = labels(150)
    x = np.random.default_rng(0).normal(size=(150, 4)).astype(np.float32) * 300
    x[:, 1] = 1
    x[:, 2] = np.arange(150) == 3
    assert hints_of(npz(tmp_path, (4,), x, y)) == ()
    pixels = np.random.default_rng(0).integers(0, 256, (150, 4), dtype=np.uint8)
    pixels[:, 0] = np.arange(150) % 100 == 0  # the corner of flattened pictures
    assert hints_of(npz(tmp_path, (4,), pixels, y)) == ()
    x[:, 0] = np.random.default_rng(1).normal(size=150)
    assert hints_of(npz(tmp_path, (4,), x, y))[0].startswith("feature 3 spreads ")


# ── pictures in both splits ─────────────────────────────────────────────────────────────────────────────────────────


def test_different_photographs_are_no_copies(tmp_path: Path) -> None:
    assert hints_of_photos(folder_of_photos(tmp_path)) == []


def test_the_same_picture_in_both_splits_is_named_with_both_files(tmp_path: Path) -> None:
    folder_of_photos(tmp_path)
    for number in range(4):
        saved(tmp_path, f"photos/test/a/copy{number}.png", photo(number, 64), optimize=True)  # other bytes
    [hint] = hints_of_photos(tmp_path)
    assert hint.startswith("4 pictures of the test split are in the training split too (a/copy0.png = a/0.png, ")
    assert hint.count(" = ") == 3
    assert ", …)" in hint


@pytest.mark.parametrize("how", ["jpeg", "small", "brighter"])
def test_a_copy_in_another_quality_size_or_light_looks_nearly_the_same(tmp_path: Path, how: str) -> None:
    folder_of_photos(tmp_path)
    picture = photo(2, 64)
    if how == "small":
        picture = picture.resize((52, 52))
    if how == "brighter":
        picture = picture.point(lambda value: int(BRIGHTNESS * value))
    saved(tmp_path, "photos/test/b/other.jpg", picture, quality=70)
    [hint] = hints_of_photos(tmp_path)
    assert hint.startswith(
        "1 picture of the test split looks nearly the same as one of the training split (b/other.jpg ≈ a/2.png): "
    )


def test_pictures_that_are_too_many_to_hold_are_compared_as_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder_of_photos(tmp_path)
    saved(tmp_path, "photos/test/a/copy.png", photo(0, 64))
    monkeypatch.setattr("pipeline.data.source.DECODED_BUDGET_BYTES", 1000)
    [hint] = hints_of_photos(tmp_path)
    assert "(a/copy.png = a/0.png)" in hint


def test_samples_of_arrays_are_named_by_their_number_in_the_file(tmp_path: Path) -> None:
    x = pictures(150)
    x[75:] = x[:75]  # every picture twice: some pairs are torn apart
    found = npz(tmp_path, (1, 4, 4), x, labels(150))
    [hint] = hints_of(found)
    pairs = re.findall(r"sample (\d+) = sample (\d+)", hint)
    assert pairs
    assert all(abs(int(first) - int(second)) == 75 for first, second in pairs)


def test_handwriting_is_merely_similar(tmp_path: Path) -> None:
    declared, folder = load_card("digits")
    small = load(reference(declared, folder))
    assert hints_of(small) == ()
    for split, source in (("train", small.train), ("test", small.test)):
        batch = source.read(everything(source))
        for number, (pixels, label) in enumerate(zip(batch.inputs["input"], batch.wanted["class"], strict=True)):
            large = Image.fromarray(pixels[0].astype(np.uint8) * 15).resize((32, 32), Image.Resampling.BILINEAR)
            saved(tmp_path, f"photos/{split}/{label}/{number}.png", large)
    assert hints_of_photos(tmp_path, (1, 32, 32)) == []


def test_blank_pictures_look_like_nothing(tmp_path: Path) -> None:
    folder_of_photos(tmp_path)
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        blank = Image.fromarray(rng.integers(90, 93, (64, 64, 3), dtype=np.uint8))
        saved(tmp_path, f"photos/{split}/a/blank.png", blank)
    assert hints_of_photos(tmp_path) == []


def test_a_hash_is_that_of_the_gradients() -> None:
    brighter_to_the_right = np.tile(np.arange(36, dtype=np.float32), (36, 1))
    both = np.stack([brighter_to_the_right, brighter_to_the_right[:, ::-1]])
    assert gradient_hashes(both).tolist() == [0, 2**64 - 1]
    assert gradient_hashes(np.repeat(np.repeat(both, 3, 1), 2, 2)).tolist() == [0, 2**64 - 1]


def test_ten_thousand_pictures_take_a_few_seconds(tmp_path: Path) -> None:
    found = npz(tmp_path, (3, 32, 32), pictures(10_000, (3, 32, 32)), labels(10_000))
    start_s = time.process_time()
    assert hints_of(found) == ()
    assert time.process_time() - start_s < 5
