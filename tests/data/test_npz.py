"""``.npz`` files: what is read, and what is refused before it costs memory or runs code."""

from __future__ import annotations

import io
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.data.source import ArraySource
from pipeline.errors import ConfigError, DataError
from tests.data.sets import all_of, card, labels, loaded, pictures, write_npz

SHAPE = (1, 4, 4)


def test_x_and_y_are_divided_and_kept_in_their_dtype(tmp_path: Path) -> None:
    x, y = pictures(50), labels(50, 5)
    write_npz(tmp_path / "s.npz", x=x, y=y)
    dataset = loaded(card("npz", SHAPE, files=all_of("s.npz")), tmp_path)
    assert dataset.classes == ("0", "1", "2", "3", "4")
    assert [len(split) for split in (dataset.train, dataset.val, dataset.test)] == [30, 10, 10]
    assert isinstance(dataset.train, ArraySource)
    read = [split.read(np.arange(len(split))) for split in (dataset.train, dataset.val, dataset.test)]
    assert read[0].dtype == np.uint8
    # every sample is in one split, with its own label
    everything = {sample.tobytes(): label for sample, label in zip(x, y, strict=True)}
    assert len(everything) == 50
    for samples, split in zip(read, (dataset.train, dataset.val, dataset.test), strict=True):
        assert [everything.pop(sample.tobytes()) for sample in samples] == split.labels.tolist()
    assert not everything


def test_pictures_may_lack_their_single_channel(tmp_path: Path) -> None:
    write_npz(tmp_path / "s.npz", x=pictures(30)[:, 0], y=labels(30))
    assert loaded(card("npz", SHAPE, files=all_of("s.npz")), tmp_path).test.read(np.arange(2)).shape == (2, *SHAPE)


@pytest.mark.parametrize("own_val", [False, True])
def test_own_splits_in_one_file_are_kept(tmp_path: Path, own_val: bool) -> None:
    test = pictures(6, seed=1)
    arrays: dict[str, Any] = {
        "x_train": pictures(30), "y_train": labels(30), "x_test": test, "y_test": labels(6),
    }  # fmt: skip
    if own_val:
        arrays |= {"x_val": pictures(9, seed=2), "y_val": labels(9)}
    write_npz(tmp_path / "s.npz", **arrays)
    dataset = loaded(card("npz", SHAPE, files=all_of("s.npz"), classes=["a", "b", "c"]), tmp_path)
    assert np.array_equal(dataset.test.read(np.arange(6)), test)
    assert (len(dataset.train), len(dataset.val)) == ((30, 9) if own_val else (24, 6))
    assert dataset.classes == ("a", "b", "c")


def test_one_file_per_split(tmp_path: Path) -> None:
    write_npz(tmp_path / "a.npz", x=pictures(30), y=labels(30))
    write_npz(tmp_path / "b.npz", x=pictures(6), y=labels(6))
    files = {"train": {"path": "a.npz"}, "test": {"path": "b.npz"}}
    dataset = loaded(card("npz", SHAPE, files=files), tmp_path)
    assert (len(dataset.train), len(dataset.val), len(dataset.test)) == (24, 6, 6)


def test_big_endian_and_fortran_order_are_read_right(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(30, 3)).astype(">f4")
    write_npz(tmp_path / "s.npz", x=np.asfortranarray(x), y=labels(30).astype(">u2"))
    dataset = loaded(card("npz", (3,), files=all_of("s.npz")), tmp_path)
    read = dataset.train.read(np.arange(len(dataset.train)))
    assert read.dtype == np.dtype("=f4")
    assert {row.tobytes() for row in read} <= {row.astype("=f4").tobytes() for row in x}


BAD: list[tuple[dict[str, Any], str]] = [
    ({"x": pictures(30), "y": labels(30) + 1}, r"y: sample 2 has the label 3, expected 0 … 2 \(10 of 30"),
    ({"x": pictures(30), "y": labels(30) - 1}, r"sample 0 has the label -1"),
    ({"x": pictures(30), "y": labels(29)}, r"labels have the shape \(29,\), expected \(30,\)"),
    ({"x": pictures(30), "y": labels(30) / 1}, r"labels are of type float64, expected whole numbers"),
    ({"x": pictures(30), "y": labels(30) * 0}, r"all 30 samples are of one class, 'a'"),
    ({"x": pictures(30), "y": np.minimum(labels(30), 1)}, r"train split \(30 samples\) holds none of the class 'c'"),
    ({"x": pictures(30, (1, 5, 4)), "y": labels(30)}, r"shape \(1, 5, 4\), expected \(1, 4, 4\)"),
    ({"x": pictures(0), "y": labels(0)}, r"the training split is empty"),
    ({"x": pictures(30).astype(str), "y": labels(30)}, r"expected numbers"),
    ({"x": pictures(30), "labels": labels(30)}, r"holds no array 'y', found x"),
    ({"x": np.array([{}] * 30), "y": labels(30)}, r"holds Python objects"),
    ({"x_train": pictures(30), "y_train": labels(30), "x_test": pictures(9)}, r"holds no array 'y_test'"),
    (
        {"x_train": pictures(30), "y_train": labels(30), "x_test": pictures(6), "y_test": labels(6) % 2},
        r"test split \(6 samples\) holds none of the class 'c'",
    ),
]


@pytest.mark.parametrize(("arrays", "says"), BAD, ids=range(len(BAD)))
def test_bad_arrays_are_named(tmp_path: Path, arrays: dict[str, Any], says: str) -> None:
    write_npz(tmp_path / "s.npz", **arrays)
    with pytest.raises(DataError, match=says):
        loaded(card("npz", SHAPE, files=all_of("s.npz"), classes=["a", "b", "c"]), tmp_path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_placed(tmp_path: Path, value: float) -> None:
    x = np.ones((30, 2, 3), dtype=np.float32)
    x[17, 1, 2] = value
    write_npz(tmp_path / "s.npz", x=x, y=labels(30))
    with pytest.raises(DataError, match=rf"s.npz: x: sample 17 holds {value} at \(1, 2\)"):
        loaded(card("npz", (2, 3), files=all_of("s.npz")), tmp_path)


def test_large_finite_values_are_no_infinity(tmp_path: Path) -> None:
    x = np.full((30, 4), np.finfo(np.float64).max)  # their sum overflows, the values do not
    write_npz(tmp_path / "s.npz", x=x, y=labels(30))
    assert len(loaded(card("npz", (4,), files=all_of("s.npz")), tmp_path).test) == 6


def test_a_truncated_file_is_damaged(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "s.npz", x=pictures(30), y=labels(30))
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"s\.npz: is no readable \.npz file"):
        loaded(card("npz", SHAPE, files=all_of("s.npz")), tmp_path)


def test_flipped_bits_are_damaged(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "s.npz", x=pictures(30), y=labels(30))
    data = bytearray(path.read_bytes())
    data[200] ^= 0xFF  # inside the compressed pixels
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match="is no readable"):
        loaded(card("npz", SHAPE, files=all_of("s.npz")), tmp_path)


def test_no_zip_at_all(tmp_path: Path) -> None:
    (tmp_path / "s.npz").write_bytes(b"<html>not found</html>")
    with pytest.raises(DataError, match=r"is no readable \.npz file"):
        loaded(card("npz", SHAPE, files=all_of("s.npz")), tmp_path)


def _with_member(path: Path, name: str, header_shape: str, content_bytes: int) -> None:
    """Write a zip whose member has this .npy header and so many zero bytes of content."""
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {header_shape}, }}".encode()
    header += b" " * (-(10 + len(header) + 1) % 64) + b"\n"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open(name, "w", force_zip64=True) as member:
            member.write(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
            for _ in range(content_bytes >> 24):
                member.write(bytes(1 << 24))
        y = io.BytesIO()
        np.save(y, labels(30))
        archive.writestr("y.npy", y.getvalue())


def _refused_within(path: Path, says: str, most_bytes: int) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=says):
            loaded(card("npz", SHAPE, files=all_of(path.name)), path.parent)
        assert tracemalloc.get_traced_memory()[1] < most_bytes
    finally:
        tracemalloc.stop()


def test_a_zip_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.data.checks.LARGEST_ARRAY_BYTES", 32 << 20)  # a bomb of 64 MiB is made faster
    _with_member(tmp_path / "s.npz", "x.npy", "(4194304, 16)", 64 << 20)
    assert (tmp_path / "s.npz").stat().st_size < 1 << 20
    _refused_within(tmp_path / "s.npz", r"x\.npy: declares 67,\d+,\d+ bytes, expected at most 33,554,432", 8 << 20)


def test_a_header_that_claims_more_than_there_is(tmp_path: Path) -> None:
    _with_member(tmp_path / "s.npz", "x.npy", "(99999999999, 1, 4, 4)", 0)
    _refused_within(tmp_path / "s.npz", r"its header declares 1,599,999,999,984 bytes .* found 0", 8 << 20)


def test_other_members_are_left_alone(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "s.npz", x=pictures(30), y=labels(30))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("../../evil.npy", b"not an array")
        archive.writestr("notes.txt", b"hello")
    assert len(loaded(card("npz", SHAPE, files=all_of("s.npz")), tmp_path).train) == 18


def test_the_card_must_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"set: \[files\] has no 'all'"):
        loaded(card("npz", SHAPE), tmp_path)
