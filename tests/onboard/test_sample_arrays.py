"""Arrays in .npy and .npz files as inputs of a network; what is refused, in which words."""

from __future__ import annotations

import contextlib
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.onboard.about import ARRAY, About, Raw
from pipeline.onboard.faults import InputRefused
from tests.onboard.samples_made import COLOURS, GREYS, ONE, TWO, floats, read, refused, saved, taking, zipped


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


@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
def test_files_of_python_2_are_read_in_silence(tmp_path: Path, name: str) -> None:
    array = header((2, 3)).replace(b"(2, 3)", b"(2L,3)") + floats(2, 3).tobytes()
    (tmp_path / name).write_bytes(array)
    if name == "x.npz":
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("x.npy", array)
    _, found = read(tmp_path / name, ONE)
    np.testing.assert_array_equal(found["signal"], floats(2, 3))
