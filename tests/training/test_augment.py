"""Augmentation: shape, layout and chance of each change, and labels that move with their picture."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.declare.recipe import AugmentSpec
from pipeline.training.augment import augment

MOVING = AugmentSpec(shift_px=1, crop_padding_px=1, flip=True)


def changed_by(x: Tensor, spec: AugmentSpec) -> Tensor:
    """Augment the only input of samples whose label is no map."""
    labels = {"class": torch.arange(len(x))}
    changed, wanted = augment(x, labels, spec)
    assert isinstance(changed, Tensor)
    assert wanted["class"] is labels["class"]
    return changed


def batch(count: int, *, channels: int = 3) -> Tensor:
    x = torch.randn(count, channels, 6, 5, generator=torch.Generator().manual_seed(1))
    return x.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("setting", [{}, {"shift_px": 1}, {"crop_padding_px": 2}, {"flip": True}, {"noise": 0.1}])
def test_augmentation_keeps_shape_and_channels_last(setting: dict[str, float]) -> None:
    x = batch(7)
    changed = changed_by(x, AugmentSpec.model_validate(setting))
    assert changed.shape == x.shape
    assert changed.stride() == x.stride()
    assert torch.equal(changed, x) is (not setting)
    assert torch.equal(x, batch(7))  # the samples themselves are for the next epoch


@pytest.mark.parametrize("key", ["shift_px", "crop_padding_px"])
def test_every_picture_is_shifted_by_its_own_whole_pixels_and_edges_are_repeated(key: str) -> None:
    most = 2
    x = batch(400)
    torch.manual_seed(0)
    changed = changed_by(x, AugmentSpec.model_validate({key: most})).numpy()
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (most, most), (most, most)), mode="edge")
    windows = {
        (down, right): padded[:, :, down : down + 6, right : right + 5]
        for down in range(2 * most + 1)
        for right in range(2 * most + 1)
    }
    found = Counter(
        next(shift for shift, window in windows.items() if np.array_equal(window[index], changed[index]))
        for index in range(len(x))
    )
    assert found.keys() == windows.keys()  # 400 draws of 25 shifts: each is missing with a chance of 8e-8
    assert max(found.values()) < 40  # 16 wanted


def test_half_of_the_pictures_are_mirrored() -> None:
    x = batch(2000)
    torch.manual_seed(0)
    changed = changed_by(x, AugmentSpec(flip=True))
    same = (changed == x).flatten(1).all(1)
    mirrored = (changed == x.flip(3)).flatten(1).all(1)
    assert bool((same ^ mirrored).all())
    assert abs(float(mirrored.float().mean()) - 0.5) < 0.05  # 4.5 standard deviations


def test_noise_has_the_wanted_size_and_tables_get_nothing_else() -> None:
    table = torch.zeros(2000, 10)
    torch.manual_seed(0)
    changed = changed_by(table, AugmentSpec(shift_px=3, flip=True, noise=0.2))
    assert float(changed.std()) == pytest.approx(0.2, rel=0.03)
    assert torch.equal(changed_by(table, AugmentSpec(shift_px=3, flip=True)), table)


def test_augmentation_follows_the_seed() -> None:
    spec = AugmentSpec(shift_px=1, crop_padding_px=1, flip=True, noise=0.1)
    drawn = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        drawn.append(changed_by(batch(20), spec))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


# ── maps and several inputs ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_a_mask_moves_with_its_picture_and_gets_no_noise(dtype: torch.dtype) -> None:
    mask = torch.randint(0, 5, (300, 6, 5), generator=torch.Generator().manual_seed(2)).to(dtype)
    picture = mask[:, None].float().contiguous(memory_format=torch.channels_last)
    torch.manual_seed(0)
    changed, wanted = augment(picture, {"mask": mask}, MOVING)
    assert isinstance(changed, Tensor)
    assert wanted["mask"].dtype == dtype
    assert torch.equal(changed[:, 0], wanted["mask"].float())
    assert int((wanted["mask"] != mask).flatten(1).any(1).sum()) > 200  # 17 of 18 draws change something
    noisy, kept = augment(picture, {"mask": mask}, AugmentSpec(noise=1.0))
    assert isinstance(noisy, Tensor)
    assert torch.equal(kept["mask"], mask)
    assert not torch.equal(noisy, picture)


def test_a_mask_changes_nothing_about_what_happens_to_the_picture() -> None:
    x = batch(20)
    drawn = []
    for labels in ({"class": torch.arange(20)}, {"mask": torch.zeros(20, 6, 5, dtype=torch.uint8)}):
        torch.manual_seed(0)
        changed, _ = augment(x, labels, MOVING.model_copy(update={"noise": 0.1}))
        assert isinstance(changed, Tensor)
        drawn.append(changed)
    assert torch.equal(drawn[0], drawn[1])


def test_numbers_stay_as_they_are() -> None:
    labels = {"number": torch.randn(20, 4)}
    assert augment(batch(20), labels, MOVING)[1]["number"] is labels["number"]


def test_pictures_of_one_sample_move_alike_and_whole_numbers_get_no_noise() -> None:
    inputs = {"left": batch(50), "word": torch.arange(50)[:, None], "right": batch(50) + 7}
    torch.manual_seed(0)
    changed, _ = augment(inputs, {}, MOVING)
    assert not isinstance(changed, Tensor)
    assert list(changed) == ["left", "word", "right"]
    assert torch.equal(changed["left"] + 7, changed["right"])
    assert not torch.equal(changed["left"], inputs["left"])
    noisy, _ = augment(inputs, {}, AugmentSpec(noise=0.5))
    assert not isinstance(noisy, Tensor)
    assert torch.equal(noisy["word"], inputs["word"])
    assert not torch.equal(noisy["left"] + 7, noisy["right"])  # each its own
