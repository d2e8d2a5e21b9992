"""The shipped cards and what they promise; the printed digits as a head start for the handwritten ones."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from calibration_data import printed_digits, scenes
from pipeline.catalog import load_card
from pipeline.data.calibration import calibration_indices
from pipeline.data.kinds import KINDS
from pipeline.data.load import load, reference
from pipeline.data.source import INPUT, Dataset
from pipeline.errors import ConfigError, DataError
from pipeline.onboard.frontend import prepare
from tests.data.kinds.test_idx import idx_bytes
from tests.data.sets import classes_in, samples

SHIPPED = Path(__file__).resolve().parents[2] / "calibration_data"


def shipped(name: str) -> Dataset:
    card, folder = load_card(str(SHIPPED / f"{name}.toml"))
    return load(reference(card, folder))


def needs(name: str) -> None:
    """Skip, loudly, where no folder holds a card's files."""
    card, _ = load_card(str(SHIPPED / f"{name}.toml"))
    root = Path(os.environ.get("KARUI_DATA", "/nowhere"))
    for file in card.files.values():
        if not [*root.glob(file.path), *root.glob(f"*/{file.path}")]:
            pytest.skip(f"{name} not tested: KARUI_DATA names no folder that holds {file.path}")


def prepared(dataset: Dataset, split: str) -> NDArray[Any]:
    """Return a split as the network sees it."""
    return prepare({INPUT: samples(getattr(dataset, split))}, dataset.frontend)[INPUT]


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.toml")), ids=lambda path: path.stem)
def test_every_card_says_what_may_be_done_with_it(path: Path) -> None:
    card, folder = load_card(str(path))
    assert card.name == path.stem
    assert card.kind in KINDS
    assert folder == SHIPPED
    text = path.read_text(encoding="utf-8")
    assert all(word in text for word in ("# Licence: ", "Source: ", "# Cite"))
    assert all((card.title, card.licence, card.source, card.classes or card.task == "regression"))
    assert all(file.sha256 for file in card.files.values())


def test_the_digits_are_those_of_scikit_learn() -> None:
    dataset = shipped("digits")
    assert [len(split) for split in (dataset.train, dataset.val, dataset.test)] == [1167, 270, 360]
    known = load_digits()
    ours = np.concatenate([samples(split) for split in (dataset.train, dataset.val, dataset.test)])
    labels = np.concatenate([classes_in(split) for split in (dataset.train, dataset.val, dataset.test)])
    pairs = {(sample.tobytes(), label) for sample, label in zip(ours, labels.tolist(), strict=True)}
    assert pairs == {
        (sample.astype(np.uint8).tobytes(), label)
        for sample, label in zip(known.images, known.target.tolist(), strict=True)
    }
    assert (ours.dtype.str, ours.shape, ours.max()) == ("|u1", (1797, 1, 8, 8), 16)


def test_the_test_split_of_digits_stays_what_it_is() -> None:
    # figures in the README and in other people's notes stand for these 360 samples
    digest = hashlib.sha256(samples(shipped("digits").test).tobytes()).hexdigest()
    assert digest.startswith("0f8e538ef2901b2e")


def test_normalisation_of_digits_is_that_of_its_training_split() -> None:
    dataset = shipped("digits")
    pixels = samples(dataset.train) / dataset.card.input.divide
    # four digits stand in the card
    assert (pixels.mean(), pixels.std()) == pytest.approx(
        (dataset.card.input.mean[0], dataset.card.input.std[0]), abs=5e-5
    )
    assert shipped("printed-digits").card.input == dataset.card.input  # weights go from one to the other


def test_calibration_indices_of_digits_hold_every_class() -> None:
    dataset = shipped("digits")
    chosen = calibration_indices(dataset)
    assert len(chosen) == 256
    assert np.bincount(classes_in(dataset.train)[chosen]).min() >= 24


# ── printed digits ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_printed_digits_look_like_the_counted_bitmaps_of_the_handwritten() -> None:
    dataset = shipped("printed-digits")
    assert [len(split) for split in (dataset.train, dataset.val, dataset.test)] == [4500, 500, 1000]
    printed, written = samples(dataset.train), samples(shipped("digits").train)
    assert (printed.dtype.str, printed.shape[1:], printed.min(), printed.max()) == ("|u1", (1, 8, 8), 0, 16)
    # as much ink in all, give or take a quarter: strokes of about the same weight
    assert printed.mean() == pytest.approx(written.mean(), rel=0.25)


def draw(count: int, seed: int) -> NDArray[Any]:
    return printed_digits.load(seed=seed, samples=count)["x"]


def test_the_same_seed_draws_the_same_digits() -> None:
    first = printed_digits.load(seed=3, samples=60)
    assert np.array_equal(first["x"], draw(60, 3))
    assert not np.array_equal(first["x"], draw(60, 4))
    assert len({sample.tobytes() for sample in draw(2_000, 0)}) > 1_980  # variety: hardly two are alike
    assert first["y"].tolist() == [*range(10)] * 6


def test_the_printed_digits_stay_what_they_are() -> None:
    # fine-tuned figures stand for these; Pillow may change them one day, then this is written down anew
    digest = hashlib.sha256(samples(shipped("printed-digits").test).tobytes()).hexdigest()
    assert digest.startswith("23143e96761dd0e9")


def test_more_digits_begin_with_the_same_ones() -> None:
    assert np.array_equal(draw(1_100, 0)[:40], draw(40, 0))


def test_six_thousand_are_drawn_in_under_three_seconds() -> None:
    start = time.process_time()  # of this process: other work on the machine does not count
    draw(6_000, 0)
    assert time.process_time() - start < 3


def test_the_digest_covers_fonts_and_what_draws_them() -> None:
    said = printed_digits.fingerprint()
    assert len(said.splitlines()) == 3 + 18
    assert said == printed_digits.fingerprint()


def test_printed_digits_are_a_head_start_for_handwritten_ones() -> None:
    # a linear model that has only ever seen print; by chance it would be right on 10 %
    print_only, written = printed_digits.load(seed=0, samples=3_000), shipped("digits").train
    model = LogisticRegression(max_iter=100, C=0.01, tol=0.01)
    model.fit(print_only["x"].reshape(3_000, -1) / 16, print_only["y"])
    assert model.score(samples(written).reshape(len(written), -1) / 16, classes_in(written)) > 0.5


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"own": {"file": "printed_digits.py", "options": {"samples": 0}}}, "how many digits to draw"),
        ({"classes": ("a", "b")}, r"classes = \['a', 'b'\]: expected \['0', "),
    ],
)
def test_cards_that_cannot_be_drawn(change: dict[str, object], says: str) -> None:
    card, folder = load_card(str(SHIPPED / "printed-digits.toml"))
    with pytest.raises(ConfigError, match=says):
        load(reference(card.model_copy(update=change), folder))


def test_a_card_from_before_generators_were_files_draws_the_same(tmp_path: Path) -> None:
    text = (SHIPPED / "printed-digits.toml").read_text()
    new = 'kind = "python"      # a file that draws or reads the samples\nfile = "printed_digits.py"\n'
    assert new in text
    old = text.replace(new, 'kind = "printed-digits"\n').replace("options = { samples = 6000 }", "samples = 600")
    (tmp_path / "old.toml").write_text(old.replace("test = 1000", "test = 100").replace("val = 500", "val = 50"))
    card, folder = load_card(str(tmp_path / "old.toml"))
    dataset = load(reference(card, folder))  # the generator is the shipped one: none lies beside the card
    assert [len(split) for split in (dataset.train, dataset.val, dataset.test)] == [450, 50, 100]
    known = {picture.tobytes() for picture in draw(600, 0)}
    assert {picture.tobytes() for picture in samples(dataset.test)} <= known


# ── tables ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_breast_cancer_table_is_that_of_scikit_learn() -> None:
    dataset = shipped("breast-cancer")
    assert [len(split) for split in (dataset.train, dataset.val, dataset.test)] == [313, 85, 171]
    assert dataset.classes == ("benign", "malignant")
    known = load_breast_cancer()
    names = {
        row.astype(np.float32).tobytes(): str(known.target_names[label])
        for row, label in zip(known.data, known.target, strict=True)
    }
    for split in (dataset.train, dataset.val, dataset.test):
        assert [names[row.tobytes()] for row in samples(split)] == [dataset.classes[k] for k in classes_in(split)]


def test_breast_cancer_can_be_told_from_its_prepared_columns() -> None:
    # the figure that the recipe promises, by a linear model: 0.99
    dataset = shipped("breast-cancer")
    model = LogisticRegression(C=0.1).fit(prepared(dataset, "train"), classes_in(dataset.train))
    score = model.decision_function(prepared(dataset, "test"))
    assert roc_auc_score(classes_in(dataset.test), score) > 0.99
    assert np.abs(prepared(dataset, "train")).max() <= 5


def test_housing_as_the_card_says() -> None:
    needs("housing")
    dataset = shipped("housing")
    assert [len(split) for split in (dataset.train, dataset.val, dataset.test)] == [14_448, 2_064, 4_128]
    rows = prepared(dataset, "train")
    assert rows.shape == (14_448, 13)
    assert dataset.card.input.shape == (13,)
    assert np.isfinite(rows).all()
    assert np.isnan(samples(dataset.train)).sum() > 100  # the gaps are filled in on the way to the network alone
    assert set(np.unique(rows[:, 8:])) == {0.0, 1.0}
    assert (rows[:, 8:].sum(1) == 1).all()
    assert np.abs(rows).max() <= 4
    target = dataset.train.wanted(np.arange(len(dataset.train)))["number"]
    assert target.shape == (14_448, 1)
    assert 1.5 < target.mean() < 2.5  # 100,000 $


# ── scenes ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def drawn_items(folder: Path, count: int = 200) -> dict[str, Path]:
    """Write stand-ins for Fashion-MNIST: blocks whose brightness says which of them it is."""
    pictures = np.zeros((count, 28, 28), dtype=np.uint8)
    pictures[:, 4:24, 6:22] = (55 + np.arange(count) % 200)[:, None, None]
    labels = (np.arange(count) % 10).astype(np.uint8)
    (folder / "x").write_bytes(idx_bytes(pictures.shape, pictures.tobytes()))
    (folder / "y").write_bytes(idx_bytes(labels.shape, labels.tobytes()))
    return {"images": folder / "x", "labels": folder / "y"}


def test_scenes_hold_items_where_their_masks_say(tmp_path: Path) -> None:
    made = scenes.load(seed=0, files=drawn_items(tmp_path), train=60, val=10, test=20)
    assert [made[f"x_{split}"].shape for split in ("train", "val", "test")] == [
        (60, 1, 48, 48), (10, 1, 48, 48), (20, 1, 48, 48),
    ]  # fmt: skip
    x, y = made["x_train"][:, 0], made["y_train"]
    assert (x.dtype.str, y.dtype.str, y.shape) == ("|u1", "|u1", (60, 48, 48))
    assert set(np.unique(y)) == set(range(len(scenes.classes)))
    assert all(mask.any() for mask in y)  # no scene is empty
    # a stand-in is one block without grain: inside an item neighbours are mostly equal, in the clutter they are not
    inside = (y[:, :, 1:] > 0) & (y[:, :, 1:] == y[:, :, :-1])
    equal = x[:, :, 1:] == x[:, :, :-1]
    assert equal[inside].mean() > 0.9
    assert equal[(y[:, :, 1:] == 0) & (y[:, :, :-1] == 0)].mean() < 0.3


def test_the_same_seed_makes_the_same_scenes(tmp_path: Path) -> None:
    files = drawn_items(tmp_path)
    first, again, other = (scenes.load(seed=seed, files=files, train=8, val=2, test=2) for seed in (0, 0, 1))
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not np.array_equal(first["x_train"], other["x_train"])
    digest = hashlib.sha256(first["x_train"].tobytes() + first["y_train"].tobytes()).hexdigest()
    assert digest.startswith("7d61dba993d7af54")  # whole numbers alone: the same on every machine


def test_no_item_is_in_two_splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[set[bytes]] = []
    scenes_of = scenes._scenes

    def watched(items: scenes._Items, count: int, chance: scenes._Chance) -> tuple[NDArray[Any], NDArray[Any]]:
        used.append({picture.tobytes() for picture in items.pictures})
        return scenes_of(items, count, chance)

    monkeypatch.setattr(scenes, "_scenes", watched)
    scenes.load(seed=0, files=drawn_items(tmp_path, 180), train=2, val=2, test=2)
    train, val, test = used
    assert len(train) > len(test) > len(val) > 0
    assert not train & val
    assert not train & test
    assert not val & test


def test_scenes_of_fashion_mnist() -> None:
    needs("scenes")
    card, folder = load_card(str(SHIPPED / "scenes.toml"))
    start = time.process_time()
    dataset = load(reference(card, folder))
    assert time.process_time() - start < 10
    assert [len(split) for split in (dataset.train, dataset.val, dataset.test)] == [3000, 300, 600]
    masks = dataset.test.wanted(np.arange(600))["mask"]
    assert np.bincount(masks.ravel(), minlength=5).min() > 0.02 * masks.size  # every class can be measured


def test_scenes_of_files_that_are_none(tmp_path: Path) -> None:
    files = drawn_items(tmp_path)
    files["labels"].write_bytes(b"<html>")
    with pytest.raises(DataError, match="is no IDX file"):
        scenes.load(seed=0, files=files, train=2, val=2, test=2)
