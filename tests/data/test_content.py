"""The shipped cards and what they promise; the printed digits as a head start for the handwritten ones."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from pipeline.catalog import load_card
from pipeline.data.calibration import calibration_indices
from pipeline.data.load import LOADERS, load, reference
from pipeline.data.printed_digits import draw, fingerprint
from pipeline.data.source import Dataset, Source
from pipeline.errors import ConfigError

SHIPPED = Path(__file__).resolve().parents[2] / "calibration_data"


def shipped(name: str) -> Dataset:
    card, folder = load_card(str(SHIPPED / f"{name}.toml"))
    return load(reference(card, folder))


def everything(source: Source) -> NDArray[np.uint8]:
    return source.read(np.arange(len(source)))


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.toml")), ids=lambda path: path.stem)
def test_every_card_says_what_may_be_done_with_it(path: Path) -> None:
    card, folder = load_card(str(path))
    assert card.name == path.stem
    assert card.kind in LOADERS
    assert folder == SHIPPED
    text = path.read_text(encoding="utf-8")
    assert all(word in text for word in ("# Licence: ", "Source: ", "# Cite"))
    assert all((card.title, card.licence, card.source, card.classes))
    assert all(file.sha256 for file in card.files.values())


def test_the_digits_are_those_of_scikit_learn() -> None:
    dataset = shipped("digits")
    assert [len(split) for split in (dataset.train, dataset.val, dataset.test)] == [1167, 270, 360]
    known = load_digits()
    ours = np.concatenate([everything(split) for split in (dataset.train, dataset.val, dataset.test)])
    labels = np.concatenate([split.labels for split in (dataset.train, dataset.val, dataset.test)])
    pairs = {(sample.tobytes(), label) for sample, label in zip(ours, labels.tolist(), strict=True)}
    assert pairs == {
        (sample.astype(np.uint8).tobytes(), label)
        for sample, label in zip(known.images, known.target.tolist(), strict=True)
    }
    assert (ours.dtype.str, ours.shape, ours.max()) == ("|u1", (1797, 1, 8, 8), 16)


def test_the_test_split_of_digits_stays_what_it_is() -> None:
    # figures in the README and in other people's notes stand for these 360 samples
    digest = hashlib.sha256(everything(shipped("digits").test).tobytes()).hexdigest()
    assert digest.startswith("0f8e538ef2901b2e")


def test_normalisation_of_digits_is_that_of_its_training_split() -> None:
    dataset = shipped("digits")
    pixels = everything(dataset.train) / dataset.card.input.divide
    # four digits stand in the card
    assert (pixels.mean(), pixels.std()) == pytest.approx(
        (dataset.card.input.mean[0], dataset.card.input.std[0]), abs=5e-5
    )
    assert shipped("printed-digits").card.input == dataset.card.input  # weights go from one to the other


def test_calibration_indices_of_digits_hold_every_class() -> None:
    dataset = shipped("digits")
    chosen = calibration_indices(dataset)
    assert len(chosen) == 256
    assert np.bincount(dataset.train.labels[chosen]).min() >= 24


# ── printed digits ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_printed_digits_look_like_the_counted_bitmaps_of_the_handwritten() -> None:
    dataset = shipped("printed-digits")
    assert [len(split) for split in (dataset.train, dataset.val, dataset.test)] == [4500, 500, 1000]
    printed, written = everything(dataset.train), everything(shipped("digits").train)
    assert (printed.dtype.str, printed.shape[1:], printed.min(), printed.max()) == ("|u1", (1, 8, 8), 0, 16)
    # as much ink in all, give or take a quarter: strokes of about the same weight
    assert printed.mean() == pytest.approx(written.mean(), rel=0.25)


def test_the_same_seed_draws_the_same_digits() -> None:
    first = draw(60, 3)
    assert np.array_equal(first.samples, draw(60, 3).samples)
    assert not np.array_equal(first.samples, draw(60, 4).samples)
    assert len({sample.tobytes() for sample in draw(2_000, 0).samples}) > 1_980  # variety: hardly two are alike
    assert first.labels.tolist() == [*range(10)] * 6


def test_more_digits_begin_with_the_same_ones() -> None:
    assert np.array_equal(draw(1_100, 0).samples[:40], draw(40, 0).samples)


def test_six_thousand_are_drawn_in_under_three_seconds() -> None:
    start = time.process_time()  # of this process: other work on the machine does not count
    draw(6_000, 0)
    assert time.process_time() - start < 3


def test_the_digest_covers_fonts_and_what_draws_them() -> None:
    assert len(fingerprint()) == 3 + 18
    assert fingerprint() == fingerprint()


def test_printed_digits_are_a_head_start_for_handwritten_ones() -> None:
    # a linear model that has only ever seen print; by chance it would be right on 10 %
    train, written = draw(3_000, 0), shipped("digits").train
    model = LogisticRegression(max_iter=100, C=0.01, tol=0.01)
    model.fit(train.samples.reshape(len(train), -1) / 16, train.labels)
    assert model.score(everything(written).reshape(len(written), -1) / 16, written.labels) > 0.5


@pytest.mark.parametrize(
    ("change", "says"),
    [({"samples": 0}, "needs 'samples'"), ({"classes": ("a", "b")}, r"have \[input\] shape = \[1, 8, 8\]")],
)
def test_cards_that_cannot_be_drawn(change: dict[str, object], says: str) -> None:
    card, folder = load_card(str(SHIPPED / "printed-digits.toml"))
    with pytest.raises(ConfigError, match=says):
        load(reference(card.model_copy(update=change), folder))
