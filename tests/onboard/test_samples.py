"""Files in, the inputs of a network out: pictures, tables, folders of them; what is refused, in which words."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.onboard.about import About
from pipeline.onboard.faults import FileRefused
from pipeline.onboard.frontend import StepCall
from pipeline.onboard.samples import AT_ONCE, files_below, rows_of, samples_of
from tests.onboard.samples_made import (
    COLOUR,
    COLOURS,
    COLUMNS,
    GREYS,
    ONE,
    TABLES,
    THREE,
    floats,
    read,
    refused,
    saved,
    taking,
    zipped,
)


def drawn(path: Path, value: int = 7, size: tuple[int, int] = (5, 4), mode: str = "RGB") -> Path:
    """Draw a picture of one colour (width × height)."""
    Image.new(mode, size, (value,) * 3 if mode == "RGB" else value).save(path)
    return path


# ── pictures and tables ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_picture_is_a_sample(tmp_path: Path) -> None:
    pixels = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)  # (H, W, C)
    Image.fromarray(pixels).save(tmp_path / "x.PNG")
    names, inputs = read(tmp_path / "x.PNG", COLOURS)
    assert names == [""]
    assert inputs["picture"].tolist() == [pixels.transpose(2, 0, 1).tolist()]
    _, inputs = read(drawn(tmp_path / "grey.png", 9, mode="L"), GREYS)
    assert inputs["picture"].tolist() == np.full((1, 1, 4, 5), 9).tolist()


@pytest.mark.parametrize(("resize", "corner"), [("squash", 7), ("crop", 7), ("fit", 200)])
def test_a_picture_of_another_size_is_refused_or_resized(tmp_path: Path, resize: str, corner: int) -> None:
    path = drawn(tmp_path / "x.png", 7, size=(40, 4))
    assert "is 40×4 pixels (width×height), expected 5×4" in refused(path, COLOURS)
    raw = replace(COLOUR, resize=resize, background=(200, 200, 200))
    _, inputs = read(path, taking(("picture", raw)))
    assert inputs["picture"].shape == (1, 3, 4, 5)
    assert inputs["picture"][0, :, 0, 0].tolist() == [corner] * 3


def test_a_damaged_picture_is_refused_by_its_name(tmp_path: Path) -> None:
    path = drawn(tmp_path / "x.png")
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(FileRefused, match=r"x\.png: is no readable picture"):
        list(samples_of(path, COLOURS))


TEXT = "colour,other,size\nred,a,1.5\n\ngreen,b,-2\n"


@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_rows_are_samples_named_by_their_lines(tmp_path: Path, start: str) -> None:
    (tmp_path / "x.csv").write_text(start + TEXT, encoding="utf-8")
    names, inputs = read(tmp_path / "x.csv", TABLES)
    assert names == [":2", ":4"]
    assert inputs["row"].tolist() == [[1.5, 0], [-2, 1]]
    (portion,) = rows_of(io.StringIO(TEXT), "stdin", TABLES)
    assert portion.names == ("stdin:2", "stdin:4")
    assert portion.inputs["row"].tolist() == inputs["row"].tolist()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "x.csv:1: has no column 'size'"),
        ("size,size,colour\n1,1,red\n", "x.csv:1: has two columns 'size'"),
        ("size,colour\n", "x.csv: holds no rows"),
        ("size,colour\n1,red\n2\n", "x.csv:3: has 1 cells"),
        ("size,colour\n1,blue\n", "x.csv:2: column 'colour' holds 'blue', known: red, green"),
        ("size,colour\n1e999,red\n", "x.csv:2: column 'size' holds '1e999'"),
        ("size,colour\n,red\n", "x.csv:2: column 'size' has no value"),
        ("size,colour\n1,red\n1e39,red\n", "x.csv:3: holds a value that is no finite number"),
        ('size,colour\n1,"red\n', "x.csv: is no readable CSV table"),
    ],
)
def test_tables_that_do_not_fit_are_refused_with_the_line(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "x.csv").write_text(text, encoding="utf-8")
    assert refused(tmp_path / "x.csv", TABLES).startswith(words)


@pytest.mark.parametrize(
    ("name", "about", "words"),
    [
        ("x.png", ONE, "the network takes no pictures: a sample is an array of shape (3,), float32\n  give an .npy"),
        (
            "x.png",
            TABLES,
            "the network takes no pictures: a sample is a row of a table of shape (2,), float32\n  give a CSV",
        ),
        ("x.csv", COLOURS, "the network takes no rows of a table: a sample is a picture of shape (3, 4, 5)"),
        ("x.txt", ONE, "'.txt' is no known kind of input\n  known: pictures, .npy, .npz, .csv, folders of them"),
    ],
)
def test_another_kind_of_file_is_refused(tmp_path: Path, name: str, about: About, words: str) -> None:
    (tmp_path / name).touch()
    assert refused(tmp_path / name, about).startswith(f"{name}: {words}")


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert refused(tmp_path / "x.npy", ONE) == "x.npy: no such file or folder"


# ── folders ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_files_of_a_folder_come_in_order_whatever_their_kinds(tmp_path: Path) -> None:
    for place, name in enumerate(["a.png", "c.jpg", "sub/e.bmp", "z.png", ".hidden.png", ".git/f.png", "sub/.g/h.png"]):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        drawn(tmp_path / name, place)
    saved(tmp_path / "b.npy", np.full((2, 3, 4, 5), 50, np.uint8))
    zipped(tmp_path / "d.npz", x=np.full((3, 4, 5), 60, np.uint8))
    (tmp_path / "notes.txt").touch()
    (tmp_path / "looks-like-one.png").mkdir()
    names, inputs = read(tmp_path, COLOURS)
    assert names == ["a.png", "b.npy#0", "b.npy#1", "c.jpg", "d.npz", "sub/e.bmp", "z.png"]
    assert inputs["picture"][:, 0, 0, 0].tolist() == [0, 50, 50, 1, 60, 2, 3]


def test_a_hidden_folder_that_is_asked_for_is_read(tmp_path: Path) -> None:
    folder = tmp_path / ".cache"
    folder.mkdir()
    drawn(folder / "a.png")
    assert files_below(folder) == [folder / "a.png"]


@pytest.mark.parametrize("there", ["", "notes.txt", ".hidden.png"])
def test_a_folder_without_samples_is_refused(tmp_path: Path, there: str) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    (folder / (there or ".")).touch()
    assert refused(folder, COLOURS) == "empty: holds no files of a known kind (pictures, .npy, .npz, .csv)"


# ── portions and preprocessing ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("count", [1, AT_ONCE - 1, AT_ONCE, AT_ONCE + 1, 2 * AT_ONCE + 3])
def test_many_samples_come_in_portions_in_their_order(tmp_path: Path, count: int) -> None:
    portions = list(samples_of(saved(tmp_path / "x.npy", floats(count, 3)), ONE))
    sizes = [len(portion.names) for portion in portions]
    assert sizes == [AT_ONCE] * (count // AT_ONCE) + [count % AT_ONCE] * (count % AT_ONCE > 0)
    assert [len(portion.inputs["signal"]) for portion in portions] == sizes
    assert np.concatenate([portion.inputs["signal"] for portion in portions]).tolist() == floats(count, 3).tolist()


@pytest.mark.parametrize("count", [AT_ONCE, AT_ONCE + 1])
def test_many_pictures_come_in_portions_in_their_order(tmp_path: Path, count: int) -> None:
    for place in range(count):
        drawn(tmp_path / f"{place:03}.bmp", place % 256, mode="L")
    portions = list(samples_of(tmp_path, GREYS))
    assert [len(portion.names) for portion in portions] == [AT_ONCE, 1][: 1 + count - AT_ONCE]
    values = np.concatenate([portion.inputs["picture"][:, 0, 0, 0] for portion in portions])
    assert values.tolist() == [place % 256 for place in range(count)]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 2, AT_ONCE + 1])
def test_a_value_that_is_no_finite_number_is_refused_by_its_sample(tmp_path: Path, value: float, place: int) -> None:
    array = floats(AT_ONCE + 3, 3)
    array[place, 1] = array[place + 1, 2] = value
    assert refused(saved(tmp_path / "x.npy", array), ONE) == f"x.npy#{place}: holds a value that is no finite number"


def test_the_steps_are_applied_in_their_order(tmp_path: Path) -> None:
    normalize = StepCall("normalize", {"divide": 2.0, "mean": [1.0], "std": [0.5]})
    path = saved(tmp_path / "x.npy", np.array([[0, 4, np.nan]]))
    steps = (StepCall("fill", {"values": [9, 9, 6]}), normalize, StepCall("clip", {"limit": 3}))
    _, inputs = read(path, taking(("signal", THREE), steps=steps))
    assert inputs["signal"].tolist() == [[-2, 2, 3]]
    assert inputs["signal"].dtype == np.float32
    _, inputs = read(path, taking(("signal", THREE), steps=(steps[0], steps[2], normalize)))
    assert inputs["signal"].tolist() == [[-2, 1, 1]]


def test_a_missing_value_is_filled_where_training_filled_it(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("size,colour\n?,red\n")
    steps = (StepCall("fill", {"values": [2.5, 0]}), StepCall("one_hot", {"columns": [1], "codes": [[0, 1]]}))
    _, inputs = read(tmp_path / "x.csv", taking(("row", COLUMNS), steps=steps))
    assert inputs["row"].tolist() == [[2.5, 1, 0]]


def test_what_a_step_makes_of_a_finite_number_is_looked_at_too(tmp_path: Path) -> None:
    steps = (StepCall("normalize", {"std": [1e-30]}),)
    path = saved(tmp_path / "x.npy", np.full((2, 3), [[0], [1e20]]) * np.ones((2, 3)))
    assert refused(path, taking(("signal", THREE), steps=steps)).startswith("x.npy#1: holds a value that is no finite")


@pytest.mark.parametrize(
    "call",
    [
        StepCall("normalize", {"divide": "much"}),
        StepCall("normalize", {"middle": [1]}),
        StepCall("normalize", {"mean": [1.0, 2.0]}),
        StepCall("normalize", {"mean": {"a": 1}}),
        StepCall("clip", {}),
        StepCall("clip", {"limit": [[]]}),
        StepCall("clip", {"limit": None}),
        StepCall("fill", {"values": "x"}),
        StepCall("one_hot", {"columns": "ab", "codes": 3}),
        StepCall("one_hot", {"columns": [0], "codes": []}),
    ],
    ids=str,
)
def test_forged_settings_of_a_step_are_refused_in_words(tmp_path: Path, call: StepCall) -> None:
    path = tmp_path / "x.npy"
    np.save(path, np.ones((2, 3), np.float32))
    with pytest.raises(FileRefused, match=r"what it says about preprocessing cannot be done \(") as caught:
        read(path, taking(("signal", THREE), steps=(call,)))
    assert "export it again" in caught.value.remedy
