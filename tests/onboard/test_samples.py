"""Files in, a network's inputs out: arrays, pictures, tables, folders of them; what is refused, in which words."""

from __future__ import annotations

import contextlib
import io
import struct
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipeline.onboard.about import ARRAY, PICTURE, TABLE, About, Column, Input, Raw, Stored
from pipeline.onboard.faults import FileRefused, InputRefused, OnboardFault
from pipeline.onboard.frontend import StepCall
from pipeline.onboard.samples import AT_ONCE, files_below, rows_of, samples_of
from tests.onboard.test_metadata import ABOUT


def taking(*inputs: tuple[str, Raw], steps: tuple[StepCall, ...] = ()) -> About:
    """Describe a network that takes these inputs, each through the same steps."""
    ends = [Input(name, "", raw.shape, raw, steps, Stored(name, "", "float32", raw.shape)) for name, raw in inputs]
    return replace(ABOUT, inputs=tuple(ends))


THREE = Raw(ARRAY, "float32", (3,))
GREY = Raw(PICTURE, "uint8", (1, 4, 5), colours="L")
COLOUR = Raw(PICTURE, "uint8", (3, 4, 5), colours="RGB")
COLUMNS = Raw(TABLE, "float32", (2,), columns=(Column("size"), Column("colour", ("red", "green"))))
ONE, TWO = taking(("signal", THREE)), taking(("a", THREE), ("b", Raw(ARRAY, "float32", ())))
GREYS, COLOURS, TABLES = taking(("picture", GREY)), taking(("picture", COLOUR)), taking(("row", COLUMNS))


def floats(*shape: int) -> NDArray[np.float32]:
    """Return 0, 1, 2 … in a shape."""
    return np.arange(np.prod(shape, dtype=int), dtype=np.float32).reshape(shape)


def saved(path: Path, array: object) -> Path:
    """Save a .npy file."""
    np.save(path, np.asarray(array))
    return path


def zipped(path: Path, **arrays: NDArray[Any]) -> Path:
    """Save an .npz file."""
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


def drawn(path: Path, value: int = 7, size: tuple[int, int] = (5, 4), mode: str = "RGB") -> Path:
    """Draw a picture of one colour (width × height)."""
    Image.new(mode, size, (value,) * 3 if mode == "RGB" else value).save(path)
    return path


def read(path: Path, about: About) -> tuple[list[str], dict[str, NDArray[Any]]]:
    """Return the names, without the folder they lie in, and the inputs of all portions."""
    portions = list(samples_of(path, about))
    names = [name.removeprefix(f"{path}").lstrip("/") for portion in portions for name in portion.names]
    inputs = {each.name: np.concatenate([portion.inputs[each.name] for portion in portions]) for each in about.inputs}
    return names, inputs


def refused(path: Path, about: About) -> str:
    """Return how a file is refused, without the folder that it lies in."""
    with pytest.raises(OnboardFault) as caught:
        list(samples_of(path, about))
    return str(caught.value).replace(f"{path.parent}/", "")


def header(shape: tuple[int, ...], descr: str = "<f4") -> bytes:
    """Return the beginning of a .npy file that declares such an array."""
    words = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(words)) + words


# ── .npy ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("about", "shape", "wanted"),
    [
        (ONE, (4, 3), (4, 3)),
        (ONE, (3,), (1, 3)),
        (ONE, (1, 3), (1, 3)),
        (ONE, (3, 3), (3, 3)),
        (COLOURS, (2, 3, 4, 5), (2, 3, 4, 5)),
        (COLOURS, (3, 4, 5), (1, 3, 4, 5)),
        (GREYS, (2, 1, 4, 5), (2, 1, 4, 5)),
        (GREYS, (1, 4, 5), (1, 1, 4, 5)),
        (GREYS, (4, 5), (1, 1, 4, 5)),
        (GREYS, (6, 4, 5), (6, 1, 4, 5)),
        (taking(("x", Raw(ARRAY, "float32", ()))), (), (1,)),
        (taking(("x", Raw(ARRAY, "float32", ()))), (3,), (3,)),
    ],
)
def test_an_array_holds_many_samples_or_one(
    tmp_path: Path, about: About, shape: tuple[int, ...], wanted: tuple[int, ...]
) -> None:
    names, inputs = read(saved(tmp_path / "x.npy", floats(*shape)), about)
    (array,) = inputs.values()
    assert array.shape == wanted
    assert array.ravel().tolist() == list(range(array.size))
    assert names == ([f"#{place}" for place in range(wanted[0])] if wanted[0] > 1 else [""])


@pytest.mark.parametrize(
    ("about", "shape", "words"),
    [
        (ONE, (4, 2), "has the shape (4, 2), (n, 3) is wanted"),
        (ONE, (), "has the shape (), (n, 3) is wanted"),
        (ONE, (3, 1), "has the shape (3, 1), (n, 3) is wanted"),
        (ONE, (2, 2, 3), "has the shape (2, 2, 3), (n, 3) is wanted"),
        (COLOURS, (4, 5, 3), "has the shape (4, 5, 3), (n, 3, 4, 5) is wanted"),
        (COLOURS, (4, 5), "has the shape (4, 5), (n, 3, 4, 5) is wanted"),
        (GREYS, (2, 5, 4), "has the shape (2, 5, 4), (n, 1, 4, 5) is wanted"),
    ],
)
def test_another_shape_is_refused_with_both(tmp_path: Path, about: About, shape: tuple[int, ...], words: str) -> None:
    assert refused(saved(tmp_path / "x.npy", floats(*shape)), about) == f"x.npy: {words}"


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", "float16", "float64", ">f4", ">i2"])
def test_numbers_of_any_type_are_samples(tmp_path: Path, dtype: str) -> None:
    _, inputs = read(saved(tmp_path / "x.npy", np.array([[0, 1, 1]], dtype)), ONE)
    assert inputs["signal"].tolist() == [[0, 1, 1]]


@pytest.mark.parametrize("dtype", ["U3", "S3", "complex64", "datetime64[s]", [("a", "f4")]])
def test_values_that_are_no_numbers_are_refused(tmp_path: Path, dtype: Any) -> None:
    array = np.zeros((2, 3), dtype)
    assert refused(saved(tmp_path / "x.npy", array), ONE) == (
        f"x.npy: holds values of type {array.dtype}, numbers are wanted"
    )


def test_arrays_of_objects_are_refused_and_nothing_of_them_is_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "sprung",)

    trap = np.array([Trap()] * 3, object)
    assert "is no readable .npy file" in refused(saved(tmp_path / "x.npy", trap), ONE)
    assert "is no readable .npz file" in refused(zipped(tmp_path / "x.npz", x=trap), ONE)
    assert not (tmp_path / "sprung").exists()
    np.load(tmp_path / "x.npy", allow_pickle=True)
    assert (tmp_path / "sprung").exists()  # the trap itself works


@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
def test_files_that_are_cut_or_changed_are_refused_or_read(tmp_path: Path, name: str) -> None:
    path, draws, kinds = tmp_path / name, np.random.default_rng(0), set()
    (saved if name == "x.npy" else lambda path, array: zipped(path, x=array))(path, floats(4, 3))
    whole = path.read_bytes()
    for cut in range(0, len(whole), 7):
        path.write_bytes(whole[:cut])
        kinds.add(refused(path, ONE).split(":")[0])
    assert kinds == {name}
    for _ in range(600):
        changed = bytearray(whole)
        for place in draws.integers(0, len(whole), draws.integers(1, 4)):
            changed[place] = draws.choice([0, 1, 40, 91, 123, 255, int(draws.integers(256))])
        path.write_bytes(changed)
        with contextlib.suppress(InputRefused):
            assert read(path, ONE)[1]["signal"].shape[1:] == (3,)


@pytest.mark.parametrize("rows", [10**9, 10**15, 2**62])
def test_an_array_that_declares_more_than_the_file_holds_is_refused(tmp_path: Path, rows: int) -> None:
    (tmp_path / "x.npy").write_bytes(header((rows, 3)) + bytes(120))
    assert refused(tmp_path / "x.npy", ONE).startswith("x.npy: is no readable .npy file: ")


def test_a_header_that_ends_in_the_middle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.npy").write_bytes(header((4, 3)).replace(b"}", b" ") + bytes(48))
    assert refused(tmp_path / "x.npy", ONE).startswith("x.npy: is no readable .npy file: ")


def test_an_array_without_samples_is_refused(tmp_path: Path) -> None:
    assert refused(zipped(tmp_path / "x.npz", x=floats(0, 3)), ONE) == "x.npz: holds no samples"


# ── .npz ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("there", "taken"),
    [
        (["signal", "x", "y"], "signal"),
        (["y", "x"], "x"),
        (["whatever"], "whatever"),
        (["x", "signal"], "signal"),
    ],
)
def test_the_array_is_found_by_its_name(tmp_path: Path, there: list[str], taken: str) -> None:
    arrays = {name: floats(2, 3) + 100 * place for place, name in enumerate(there)}
    _, inputs = read(zipped(tmp_path / "x.npz", **arrays), ONE)
    assert inputs["signal"].tolist() == arrays[taken].tolist()


def test_several_inputs_are_found_by_their_names(tmp_path: Path) -> None:
    names, inputs = read(zipped(tmp_path / "x.npz", b=floats(2), a=floats(2, 3) + 9, c=floats(5)), TWO)
    assert names == ["#0", "#1"]
    assert {name: array.tolist() for name, array in inputs.items()} == {
        "a": [[9, 10, 11], [12, 13, 14]],
        "b": [0, 1],
    }


@pytest.mark.parametrize(
    ("about", "arrays", "words"),
    [
        (ONE, {"y": floats(2, 3), "z": floats(2, 3)}, "x.npz: holds no array 'x', found y, z"),
        (ONE, {}, "x.npz: holds no array 'x', found nothing"),
        (ONE, {"x": floats(2, 4)}, "x.npz: x: has the shape (2, 4), (n, 3) is wanted"),
        (TWO, {"a": floats(2, 3), "x": floats(2)}, "x.npz: holds no array 'b', found a, x"),
        (TWO, {"a": floats(2, 3), "b": floats(3)}, "x.npz: its arrays hold different numbers of samples: [2, 3]"),
        (TWO, {"a": floats(2, 3), "b": floats(2, 1)}, "x.npz: b: has the shape (2, 1), (n, ) is wanted"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(
    tmp_path: Path, about: About, arrays: dict[str, NDArray[Any]], words: str
) -> None:
    assert refused(zipped(tmp_path / "x.npz", **arrays), about) == words


@pytest.mark.parametrize("name", ["x.npy", "x.csv", "x.png"])
def test_a_network_of_several_inputs_takes_npz_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    assert refused(tmp_path / name, TWO) == (
        f"{name}: the network has the inputs a, b\n  give an .npz file with one array for each"
    )


@pytest.mark.parametrize("member", ["x.npy", "x"])
def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, member: str) -> None:
    rows = 3 * 2**26  # of 3 floats: 2.25 GiB
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(member, header((rows, 3)) + bytes(1200))
    content = bytearray((tmp_path / "x.npz").read_bytes())
    directory = content.index(b"PK\x01\x02")
    struct.pack_into("<I", content, directory + 24, 12 * rows + 128)  # the size that the directory declares
    (tmp_path / "x.npz").write_bytes(content)
    # whoever begins to read finds out that there is less, and says so in other words
    assert refused(tmp_path / "x.npz", ONE) == "x.npz: the array 'x' is too large"


@pytest.mark.parametrize(
    ("place", "value"), [(8, 1), (10, 99), (6, 200)], ids=["encrypted", "packed otherwise", "version"]
)
def test_archives_of_another_make_are_refused(tmp_path: Path, place: int, value: int) -> None:
    content = bytearray(zipped(tmp_path / "x.npz", x=floats(2, 3)).read_bytes())
    content[content.index(b"PK\x01\x02") + place] = value
    content[{8: 6, 10: 8, 6: 4}[place]] = value  # the same before the array itself
    (tmp_path / "x.npz").write_bytes(content)
    assert refused(tmp_path / "x.npz", ONE).startswith("x.npz: is no readable .npz file: ")


def test_files_under_a_wrong_name_are_refused(tmp_path: Path) -> None:
    zipped(tmp_path / "x.npz", x=floats(2, 3)).rename(tmp_path / "x.npy")
    assert refused(tmp_path / "x.npy", ONE).startswith("x.npy: is no readable .npy file: ")
    saved(tmp_path / "y.npy", floats(2, 3)).rename(tmp_path / "y.npz")
    assert refused(tmp_path / "y.npz", ONE).startswith("y.npz: is no readable .npz file: ")
    with zipfile.ZipFile(tmp_path / "z.npz", "w") as archive:
        archive.writestr("x", "some words")
    assert refused(tmp_path / "z.npz", ONE).startswith("z.npz: x: holds no array\n  write it with numpy.save")


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
