"""``karui init``: from data as people have them to a recipe that trains, and what it says where it cannot."""

from __future__ import annotations

import gzip
import os
import pty
import struct
import subprocess
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline import catalog
from pipeline.declare.card import InputSpec
from tests.own_project import KARUI, Karui, draw, squares
from tests.own_project import karui as karui  # noqa: PLC0414  a fixture


def _card(name: str) -> dict[str, object]:
    return tomllib.loads(Path(f"{name}-data.toml").read_text())


def _trains(karui: Karui, name: str) -> None:
    said = karui("run", f"{name}.toml", "--until", "train", "--set", "train.epochs=1", "--threads", "1")
    assert said.status == 0, said.err


# ── pictures ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_pictures_of_one_small_size_stay_as_they_are(karui: Karui) -> None:
    draw(Path("My Pets"), ["cat", "dög"], 12, side=24)
    said = karui("init", "My Pets")
    assert said.status == 0, said.err
    assert "24 pictures in 2 classes, 24×24 pixels, colour" in said.out
    assert said.out.splitlines()[-1] == "Next     karui run my-pets.toml"
    card = _card("my-pets")
    assert card["input"] == {"shape": [3, 24, 24], "divide": 255, "normalize": "train"}
    assert card["folder"] == "My Pets"
    _trains(karui, "my-pets")


@pytest.mark.parametrize("folders", [("train", "test"), ("train", "val", "test")])
def test_splits_that_the_folder_brings_are_kept(folders: tuple[str, ...], karui: Karui) -> None:
    for split in folders:
        draw(Path("pets") / split, ["cat", "dog"], 10, side=16)
    assert karui("init", "pets").status == 0
    assert _card("pets")["split"] == ({"seed": 0} if "val" in folders else {"seed": 0, "val": 0.15})
    _trains(karui, "pets")


def _photos(folder: Path, *, grey: bool = False, count: int = 12) -> None:
    random = np.random.default_rng(0)
    for name in ("cup", "pen"):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            height, width = (int(side) for side in random.integers(70, 300, 2))
            pixels = random.integers(0, 255, (height, width, 3)).astype(np.uint8)
            mode = "L" if grey else "RGBA" if number == 3 else "RGB"
            Image.fromarray(pixels).convert(mode).save(folder / name / f"{number}.png")


@pytest.mark.parametrize("grey", [False, True])
def test_pictures_of_many_sizes_get_one_that_most_have(grey: bool, karui: Karui) -> None:
    _photos(Path("photos"), grey=grey)
    said = karui("init", "photos")
    assert said.status == 0, said.err
    table = _card("photos")["input"]
    assert table == {"shape": [1 if grey else 3, 96, 96], "resize": "crop", "divide": 255, "normalize": "train"}


@pytest.mark.skipif("resize" not in InputSpec.model_fields, reason="cards cannot ask for a size yet")
def test_photos_of_many_sizes_are_trained_on(karui: Karui) -> None:
    _photos(Path("photos"))
    assert karui("init", "photos").status == 0
    _trains(karui, "photos")


def test_a_photo_on_its_side_is_measured_upright(karui: Karui) -> None:
    draw(Path("pets"), ["cat", "dog"], 10, side=16)
    for file in Path("pets").rglob("*.png"):
        pixels = np.asarray(Image.open(file).resize((16, 24)))
        turned = Image.Exif()
        turned[0x0112] = 6
        if file.stem == "000":  # a camera held on its side: the same picture, 24×16 in the file
            Image.fromarray(np.rot90(pixels)).save(file, exif=turned)
        else:
            Image.fromarray(pixels).save(file)
    assert "16×24 pixels" in karui("init", "pets").out


def test_few_pictures_of_many_classes_leave_none_out(karui: Karui) -> None:
    draw(Path("many"), [f"c{number:02}" for number in range(12)], 4, side=64)
    assert karui("init", "many").status == 0
    assert _card("many")["split"] == {"seed": 0, "val": 12, "test": 12}
    _trains(karui, "many")


# ── tables ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _table(karui: Karui, *, answer: str = "species", name: str = "beetles.csv") -> None:
    random = np.random.default_rng(0)
    rows = [f"id,length,colour,note,{answer},price"]
    for number in range(90):
        length = "" if number == 5 else f"{number % 3 + random.normal() / 9:.3f}"
        cells = (number + 1, length, ("red", "blue")[number % 2], f"found no. {number}", "abc"[number % 3])
        rows.append(",".join(map(str, cells)) + f",{number % 3 + 0.5 + number / 100}")
    karui.write(name, "\n".join(rows))


def test_the_columns_of_a_table_are_told_apart(karui: Karui) -> None:
    _table(karui)
    said = karui("init", "beetles.csv")
    assert said.status == 0, said.err
    assert "90 rows, 3 columns of features, 3 classes in 'species'" in said.out
    card = _card("beetles")
    assert card["label_column"] == "species"
    assert card["ignored_columns"] == ["id", "note"]
    assert card["categories"] == {"colour": "auto"}
    assert card["missing"] == "median"
    _trains(karui, "beetles")


def test_tables_with_semicolons_and_decimal_commas(karui: Karui) -> None:
    random = np.random.default_rng(0)
    rows = [
        f"{n % 3 + random.normal() / 9:.3f};{random.normal():.2f};{'abc'[n % 3]}".replace(".", ",") for n in range(90)
    ]
    karui.write("plants.csv", "\n".join(["length;light;species", *rows]))
    assert "90 rows, 2 columns of features, 3 classes in 'species'" in karui("init", "plants.csv").out
    assert _card("plants").get("ignored_columns", []) == []
    assert "categories" not in _card("plants")
    _trains(karui, "plants")
    karui.write("one.csv", "length;species\n" + "\n".join(f"{n % 3},{n};{'abc'[n % 3]}" for n in range(90)))
    assert "90 rows, 1 column of features" in karui("init", "one.csv").out


def test_a_number_is_predicted_where_it_is_asked_for(karui: Karui) -> None:
    _table(karui)
    said = karui("init", "--label", "price", "--name", "price")
    assert said.status == 0, said.err
    assert _card("price")["task"] == "regression"
    _trains(karui, "price")


def test_where_the_answer_is_unclear_somebody_must_say_it(karui: Karui) -> None:
    _table(karui, answer="sort")
    karui("init").refused(2, "which column is to be predicted? There are id, length", "--label 'price'")
    karui("init", "--label", "srt").refused(2, "has no column 'srt'; did you mean 'sort'?")
    assert not list(Path().glob("*.toml"))
    assert karui("init", "--yes").status == 0
    assert _card("beetles")["target_columns"] == ["price"]


def test_tables_named_after_splits_stay_apart(karui: Karui) -> None:
    _table(karui, name="set/train.csv")
    _table(karui, name="set/test.csv")
    assert karui("init", "set").status == 0
    assert set(_card("set")["files"]) == {"train", "test"}  # type: ignore[call-overload]
    _trains(karui, "set")


# ── arrays ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("suffixes", [("",), ("_train", "_test")])
def test_arrays(suffixes: tuple[str, ...], karui: Karui) -> None:
    x, y = squares(60, 3)
    np.savez("Set 1.npz", **{f"{name}{suffix}": array for suffix in suffixes for name, array in (("x", x), ("y", y))})  # type: ignore[arg-type]  # NumPy's stubs take any keyword for allow_pickle
    assert karui("init", "Set 1.npz").status == 0
    assert _card("set-1")["input"] == {"shape": [1, 8, 8], "divide": 255, "normalize": "train"}
    _trains(karui, "set-1")


@pytest.mark.parametrize("suffix", ["", "_train"])
def test_arrays_of_other_names(suffix: str, karui: Karui) -> None:
    x, y = squares(60, 3)
    np.savez("set.npz", **{f"images{suffix}": x, f"labels{suffix}": y, "names": np.array(["a", "b"])})  # type: ignore[arg-type]  # as above
    assert karui("init").status == 0
    assert _card("set")["arrays"] == {"x": "images", "y": "labels"}
    _trains(karui, "set")


def test_numbers_from_columns(karui: Karui) -> None:
    x = np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32)
    np.savez("set.npz", x=x, y=x[:, 0])
    assert karui("init").status == 0
    assert _card("set")["task"] == "regression"
    _trains(karui, "set")


def test_idx_files(karui: Karui) -> None:
    x, y = squares(60, 3)
    for split in ("train", "t10k"):
        for what, array in (("images-idx3", x[:, 0]), ("labels-idx1", y.astype(np.uint8))):
            header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
            path = Path("mnist") / f"{split}-{what}-ubyte.gz"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(gzip.compress(header + array.tobytes()))
    assert karui("init", "mnist").status == 0
    assert set(_card("mnist")["files"]) == {"train-images", "train-labels", "test-images", "test-labels"}  # type: ignore[call-overload]
    _trains(karui, "mnist")


# ── what is refused ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_no_data_is_answered_in_words(karui: Karui) -> None:
    karui("init", "nowhere").refused(2, "there is no 'nowhere'")
    karui("init", "~nosuchuser/data").refused(2, "there is no user 'nosuchuser'")
    Path("empty").mkdir()
    karui("init", "empty").refused(2, "no data found in 'empty'", "one folder of pictures per class")
    karui.write("notes.md", "hello")
    karui("init", "notes.md").refused(2, "'notes.md' is no kind of data that karui knows")
    draw(Path("flat"), ["x"], 3)
    for file in Path("flat/x").iterdir():
        file.rename(Path("flat") / file.name)
    Path("flat/x").rmdir()
    karui("init", "flat").refused(2, "holds 3 pictures and no folders of classes", "one folder per class")
    np.savez("odd.npz", data=np.zeros((3, 4)), features=np.zeros((3, 4)), target=np.zeros(3))
    karui("init", "odd.npz").refused(2, "holds no array 'x', found data, features, target", "np.savez_compressed")
    np.savez("last.npz", x=np.zeros((9, 8, 8, 3)), y=np.arange(9) % 3)
    karui("init", "last.npz").refused(2, "with the channels last", "np.moveaxis")
    karui("init").refused(2, "holds several data sets: last.npz, odd.npz", "karui init last.npz")
    for name in ("odd.npz", "last.npz"):
        Path(name).unlink()
    karui("init").refused(2, "lie in the working folder itself", "cd .. && karui init")
    assert not list(Path().glob("*.toml"))


def test_data_that_could_not_be_trained_on_write_nothing(karui: Karui) -> None:
    draw(Path("pets"), ["cat", "dog"], 2)
    karui("init", "pets").refused(4, "the smallest class has 2, expected at least 3", "add samples")
    draw(Path("one"), ["cat"], 9)
    karui("init", "one").refused(4, "there is nothing to tell apart")
    (Path("pets/cat") / "000.png").write_bytes(b"no picture")
    karui("init", "pets").refused(4, "cat/000.png: is no readable picture")
    karui.write("gap.csv", "a,label\n" + "1,x\n2,y\n" * 9 + "3,\n")
    karui("init", "gap.csv").refused(4)
    draw(Path("masked/train"), ["images", "masks"], 3)
    karui("init", "masked").refused(2, "pictures with masks", "models/segment.toml")
    assert not list(Path().glob("*.toml"))


def test_nothing_is_written_over_unasked(karui: Karui) -> None:
    draw(Path("pets"), ["cat", "dog"], 12, side=16)
    karui.write("pets.toml", "mine")
    karui("init", "pets").refused(2, "pets.toml is there already", "choose another --name, or say --yes")
    assert not Path("pets-data.toml").exists()
    assert karui("init", "pets", "--yes").status == 0
    assert catalog.load_recipe("pets.toml")[0].name == "pets"


def test_wrong_names_and_devices(karui: Karui) -> None:
    draw(Path("pets"), ["cat", "dog"], 12, side=16)
    karui("init", "pets", "--name", "My Pets").refused(2, "'My Pets' is no name")
    karui("init", "pets", "--target", "raspberry-pi-6").refused(2, "did you mean 'raspberry-pi-")
    karui("init", "pets", "--label", "x").refused(2, "--label is for tables")
    assert not list(Path().glob("*.toml"))


def test_a_device_of_ones_own_is_written(karui: Karui) -> None:
    draw(Path("pets"), ["cat", "dog"], 12, side=16)
    said = karui("init", "pets", "--target", "My Board.toml")
    assert "Next     karui run pets.toml --target 'My Board.toml'" in said.out
    assert catalog.load_target("My Board.toml").name == "my-board"


def test_names_that_would_break_a_comment(karui: Karui) -> None:
    rows = "\n".join(f"{number % 3},{'ab'[number % 2]}" for number in range(60))
    karui.write("t.csv", f'x,"class\nepochs = 3 \x1b[31m"\n{rows}')
    said = karui("init", "t.csv", "--yes")
    assert said.status == 0, said.err
    assert "\x1b" not in said.out
    assert _card("t")["label_column"] == "class\nepochs = 3 \x1b[31m"


# ── on a terminal ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_terminal_is_asked_three_questions(karui: Karui) -> None:
    _table(karui, answer="sort")
    terminal, theirs = pty.openpty()
    os.write(terminal, b"sort\nbugs\nhost\n")
    done = subprocess.run([*KARUI, "init"], stdin=theirs, capture_output=True, text=True, check=False)
    os.close(terminal)
    os.close(theirs)
    assert done.returncode == 0, done.stderr
    assert [
        question
        for question in ("Which column", "Name [beetles]", "Device [raspberry-pi-4]")
        if question in done.stdout
    ]
    assert "Next     karui run bugs.toml --target host" in done.stdout
    assert _card("bugs")["label_column"] == "sort"


def test_numbers_may_have_decimal_commas(karui: Karui) -> None:
    rows = [f"{n % 7},5;{n % 3};{n},25;{'ab'[n % 2]}" for n in range(60)]
    karui.write("maße.csv", "länge;stufe;gewicht;label\n" + "\n".join(rows))
    assert karui("init", "maße.csv", "--name", "mine").status == 0
    card = _card("mine")
    assert card["label_column"] == "label"
    assert "categories" not in card
    assert card.get("ignored_columns", []) == []
    karui("init", "maße.csv", "--name", "heavy", "--label", "gewicht")
    assert _card("heavy")["task"] == "regression"
