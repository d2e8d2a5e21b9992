"""Masks: losses, intersection over union by hand and by sets of pixels, overlays on a few pictures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.artifacts.evidence import Matrix, Pictures, Table
from pipeline.declare.recipe import TrainSpec
from pipeline.errors import ConfigError
from pipeline.tasks import segmentation as task
from tests.tasks.answered import Kept, answered, card, labelled

CLASSES = ("ground", "shoe", "bag")
TEMPERATURE = 3.0


def maps(masks: np.ndarray, classes: int = 3) -> np.ndarray:
    """Return outputs (N, K, H, W) whose largest are at these classes."""
    return np.moveaxis(np.eye(classes, dtype=np.float32)[masks], -1, 1)


def drawn(seed: int, pictures: int = 6, wrong: float = 0.2) -> tuple[np.ndarray, np.ndarray]:
    """Return true masks and found ones of which a share of pixels is drawn anew."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, 3, (pictures, 4, 5))
    found = np.where(rng.random(true.shape) < wrong, rng.integers(0, 3, true.shape), true)
    return true, found


def counted_mean_iou(true: np.ndarray, found: np.ndarray) -> float:
    both = [((true == k) & (found == k)).sum() / ((true == k) | (found == k)).sum() for k in range(3)]
    return float(np.mean(both))


# ── training ────────────────────────────────────────────────────────────────────────────────────────────────────────


def softened(logits: torch.Tensor) -> np.ndarray:
    powers = np.exp(logits.double().numpy() / TEMPERATURE)
    return np.asarray(powers / powers.sum(1, keepdims=True))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_is_the_mean_over_pixels(smoothing: float) -> None:
    logits = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    masks = torch.from_numpy(drawn(0, 2)[0].astype(np.uint8))
    (update,) = task.updates(TrainSpec(label_smoothing=smoothing))
    wanted = maps(masks.numpy()) * (1 - smoothing) + smoothing / 3
    powers = np.exp(logits.double().numpy())
    by_hand = -(wanted * np.log(powers / powers.sum(1, keepdims=True))).sum(1).mean()
    assert float(update.loss(nn.Identity(), logits, {"mask": masks})) == pytest.approx(by_hand, rel=1e-5)


def test_full_distillation_is_the_divergence_from_the_teacher_per_pixel() -> None:
    generator = torch.Generator().manual_seed(1)
    inputs, student = (torch.randn(2, 3, 4, 5, generator=generator) for _ in range(2))
    (update,) = task.updates(TrainSpec(), teacher=nn.Identity(), weight=1.0)
    aim, found = softened(inputs), softened(student)
    by_hand = (aim * (np.log(aim) - np.log(found))).sum(1).mean() * TEMPERATURE**2
    for masks in (torch.zeros(2, 4, 5, dtype=torch.uint8), torch.ones(2, 4, 5, dtype=torch.uint8)):
        loss = update.loss(lambda _: student, inputs, {"mask": masks})
        assert float(loss) == pytest.approx(by_hand, rel=1e-5)


# ── answers ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_map_per_class_is_asked_for() -> None:
    found = task.signature(card((1, 48, 64)), CLASSES, (48, 64))
    assert (found.output.shape, found.output.axes) == ((3, 48, 64), "KHW")


@pytest.mark.parametrize(
    ("shape", "wanted", "classes", "text"),
    [
        ((10,), (10,), CLASSES, "needs pictures"),
        ((1, 8, 8), (), CLASSES, "labels of shape ()"),
        ((1, 8, 8), (4, 4), CLASSES, "labels of shape (4, 4)"),
        ((1, 8, 8), (8, 8), ("ground",), "2 … 256 classes, not 1"),
    ],
)
def test_a_card_that_cannot_be_meant_is_refused(
    shape: tuple[int, ...], wanted: tuple[int, ...], classes: tuple[str, ...], text: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        task.signature(card(shape), classes, wanted)
    assert text in caught.value.what


def test_intersection_over_union_by_hand() -> None:
    true = np.array([[[0, 0], [0, 1]], [[1, 1], [0, 0]]])
    found = np.array([[[0, 0], [1, 1]], [[1, 0], [0, 0]]])
    answers, _ = answered(task, maps(found), true)
    # class 0: 4 right of 6; class 1: 2 right of 4; class 2 is nowhere and does not count
    assert answers.value == pytest.approx((4 / 6 + 2 / 4) / 2)
    assert answers.others == pytest.approx({"pixel accuracy": 6 / 8, "worst class IoU": 0.5})
    assert answers.score.tolist() == [0.75, 0.75]
    assert answers.decisions.dtype == np.uint8
    assert np.array_equal(answers.decisions, found)


@pytest.mark.parametrize("seed", range(3))
def test_the_metric_counts_pixels_of_all_pictures_together(seed: int) -> None:
    true, found = drawn(seed)
    answers, source = answered(task, maps(found), true)
    assert answers.value == pytest.approx(counted_mean_iou(true, found))
    assert task.choose(answers, source) == {}


def test_resampled_metrics_count_every_drawn_picture() -> None:
    true, found = drawn(3)
    counts = np.random.default_rng(0).integers(0, 3, (10, 6))
    got = task._overlap(found.astype(np.uint8), true.astype(np.uint8), 3).mean_iou(counts.astype(float))
    wanted = [counted_mean_iou(np.repeat(true, each, 0), np.repeat(found, each, 0)) for each in counts]
    assert got == pytest.approx(wanted)


def test_comparison_resamples_pictures() -> None:
    true, first_found = drawn(4, pictures=80)
    second_found = np.where(np.random.default_rng(0).random(true.shape) < 0.05, 0, first_found)
    (first, source), (second, _) = (answered(task, maps(each), true) for each in (first_found, second_found))
    got = task.compare(first, second, source)
    assert (got.samples, got.method) == (80, "paired bootstrap")
    assert got.difference == pytest.approx(
        counted_mean_iou(true, second_found) - counted_mean_iou(true, first_found), abs=1e-9
    )
    assert got.low < got.one_sided_low < got.difference < got.one_sided_high < got.high < 0
    assert got.agreement == np.mean(first_found == second_found)  # of pixels
    alone = task.interval(first, source)
    assert alone.value == pytest.approx(first.value)
    assert alone.low < alone.value < alone.high


# ── figures ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_figures_of_float_and_int8() -> None:
    true, by_float = drawn(5, pictures=30)
    _, by_int8 = drawn(5, pictures=30, wrong=0.4)
    inputs = np.full((30, 1, 4, 5), 200, np.uint8)
    source, kept = labelled(task, inputs, true), Kept()
    ways = {title: answered(task, maps(each), true)[0] for title, each in (("float", by_float), ("int8", by_int8))}
    masks, per_class, *matrices = task.figures(ways, source, CLASSES, kept.put)
    assert isinstance(masks, Pictures)
    images = kept[masks.images]
    assert 8 < len(images) <= 16  # 8 on which they differ most, 8 from best to worst; some are both
    assert images.shape[1:] == (3, 4, 4 * 5 + 3 * 2)  # picture, true, float, int8 and three gaps
    assert images.dtype == np.uint8
    assert (images[:, :, :, :5] == 200).all()
    assert (images[:, :, :, 5:7] == 255).all()
    assert len(masks.captions) == len(images)
    assert masks.captions[0].startswith("#")
    assert "int8" in masks.captions[0]
    assert isinstance(per_class, Table)
    assert per_class.columns == ("class", "pixels", "float", "int8")
    assert [row[0] for row in per_class.rows] == list(CLASSES)
    assert int(per_class.rows[1][1]) == (true == 1).sum()
    assert [each.title for each in matrices] == ["Confusion, float", "Confusion, int8", "Difference, int8 − float"]
    assert isinstance(matrices[0], Matrix)
    assert kept[matrices[0].counts].sum() == true.size


def test_float_alone_shows_three_views_from_the_best_to_the_worst() -> None:
    true, found = drawn(6, pictures=4)
    source, kept = labelled(task, np.zeros((4, 3, 4, 5), np.uint8), true), Kept()
    answers, _ = answered(task, maps(found), true)
    masks, *_ = task.figures({"float": answers}, source, CLASSES, kept.put)
    assert isinstance(masks, Pictures)
    assert kept[masks.images].shape == (4, 3, 4, 3 * 5 + 2 * 2)
    shown = [int(caption.split(":")[0].removeprefix("#")) for caption in masks.captions]
    assert shown == np.argsort(-answers.score, kind="stable").tolist()
    assert "int8" not in masks.note


def test_pictures_of_two_channels_have_no_overlay() -> None:
    true, found = drawn(7)
    source = labelled(task, np.zeros((6, 2, 4, 5), np.uint8), true)
    figures = task.figures({"float": answered(task, maps(found), true)[0]}, source, CLASSES, Kept().put)
    assert [each.kind for each in figures] == ["table", "matrix"]


def test_an_overlay_colours_all_but_the_background() -> None:
    pictures = np.full((1, 3, 1, 4), 100, np.uint8)
    got = task.overlay(pictures, np.array([[[0, 1, 2, 8]]]))[0, :, 0].T  # (4, 3)
    assert got[0].tolist() == [100, 100, 100]
    assert got[1].tolist() == [round(0.4 * 100 + 0.6 * part) for part in (230, 159, 0)]  # orange
    assert got[2].tolist() == [round(0.4 * 100 + 0.6 * part) for part in (86, 180, 233)]  # sky blue
    assert got[3].tolist() == [round(0.4 * 100 + 0.3 * part) for part in (230, 159, 0)]  # class 8: darker orange


def test_the_baseline_is_one_class_everywhere() -> None:
    masks = np.array([[[0, 0], [0, 1]], [[0, 0], [2, 0]]], np.uint8)  # 6 of 8 pixels are class 0
    found = task.baselines(labelled(task, np.zeros((2, 3, 2, 2), np.uint8), masks))
    assert found == {"most frequent class": pytest.approx(0.75 / 3)}  # no pixel of the others is right
