"""Each kind of figure on the page: what a task put into the store is what is shown, and mistakes are named."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from pipeline.artifacts.evidence import Figure, Lines, Matrix, Passage, Pictures, Table
from pipeline.errors import StorageError
from pipeline.report.draw import Drawn, draw
from pipeline.runs.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def one(figure: Figure, store: Store) -> Drawn:
    (found,) = draw((figure,), store, "t")
    return found


def texts(drawn: Drawn) -> set[str]:
    assert drawn.svg is not None
    root = ET.fromstring(drawn.svg)  # noqa: S314  our own text
    return {"".join(each.itertext()) for each in root.iter() if each.tag.endswith("text")}


def test_a_matrix_shows_its_counts_and_names(store: Store) -> None:
    counts = store.put_array(np.array([[7, 0, 3], [2, 5, 1]]))
    drawn = one(Matrix(title="Which", rows=("a", "b"), columns=("x", "y", "z"), counts=counts), store)
    assert {"7", "2", "5", "a", "b", "x", "y", "z"} <= texts(drawn)
    assert "predicted" not in texts(drawn)  # only a square one is a confusion matrix
    assert drawn.title == "Which"


def test_the_matrices_of_float_and_int8_differ_in_colour(store: Store) -> None:
    counts = store.put_array(np.eye(2))
    change = store.put_array(np.array([[-1, 1], [0, 0]]))
    names = ("a", "b")
    found = draw(
        (
            Matrix(title="float", rows=names, columns=names, counts=counts),
            Matrix(title="int8", rows=names, columns=names, counts=counts),
            Matrix(title="difference", rows=names, columns=names, counts=change, signed=True),
        ),
        store,
        "t",
    )
    colours = [
        {mark for mark in ("float", "int8", "bad", "good") if f"var(--{mark})" in str(each.svg)} for each in found
    ]
    assert colours == [{"float"}, {"int8"}, {"bad"}]
    assert {"+1", "−1"} <= texts(found[2])


def test_lines_and_points_carry_their_names(store: Store) -> None:
    x = np.linspace(0, 1, 50)
    series = {"torch float": store.put_array(np.stack([x, x**2], 1)), "ONNX int8": store.put_array(np.stack([x, x], 1))}
    for dots in (False, True):
        drawn = one(Lines(title="ROC", x="false positives", y="true positives", series=series, dots=dots), store)
        assert {"torch float", "ONNX int8", "false positives", "true positives"} <= texts(drawn)


def test_a_cloud_of_many_points_stays_small(store: Store) -> None:
    points = store.put_array(np.random.default_rng(0).normal(size=(50_000, 2)))
    drawn = one(Lines(title="cloud", x="x", y="y", series={"float": points}, dots=True), store)
    assert len(str(drawn.svg)) < 120_000


def test_pictures_have_their_captions_and_pixels(store: Store) -> None:
    images = np.zeros((2, 3, 6, 4), np.uint8)
    images[1, 0] = 200
    drawn = one(
        Pictures(title="Masks", images=store.put_array(images), captions=("#1", "#2"), note="left to right"), store
    )
    assert [caption for _, caption in drawn.pictures] == ["#1", "#2"]
    body = drawn.pictures[1][0].partition(",")[2]
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(body))))
    assert pixels.shape == (6, 4, 3)
    assert pixels[0, 0].tolist() == [200, 0, 0]
    assert (drawn.note, drawn.width_px) == ("left to right", 64)


def test_tables_and_passages_are_words(store: Store) -> None:
    table = one(Table(title="T", columns=("a", "b"), rows=(("1", "2"),), note="n"), store)
    assert (table.columns, table.rows, table.note) == (("a", "b"), (("1", "2"),), "n")
    assert one(Passage(title="P", text="words"), store).text == "words"


def test_arrays_that_do_not_fit_are_named(store: Store) -> None:
    counts = store.put_array(np.eye(3))
    with pytest.raises(ValueError, match=r"Which: \(3, 3\) counts, 2 by 3 names"):
        one(Matrix(title="Which", rows=("a", "b"), columns=("x", "y", "z"), counts=counts), store)
    images = store.put_array(np.zeros((2, 1, 4, 4), np.uint8))
    with pytest.raises(ValueError, match="Masks: 2 pictures, 1 captions"):
        one(Pictures(title="Masks", images=images, captions=("only",)), store)
    with pytest.raises(StorageError):
        one(Matrix(title="gone", rows=("a",), columns=("a",), counts="0" * 64), store)
