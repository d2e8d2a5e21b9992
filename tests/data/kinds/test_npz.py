"""``.npz`` files: what is read, and what is refused before it costs memory or runs code."""

from __future__ import annotations

import io
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.data.files import Found
from pipeline.data.kinds import npz
from pipeline.data.load import reference
from pipeline.data.source import ArraySource, everything
from pipeline.data.split import divide
from pipeline.declare.card import DatasetCard
from pipeline.errors import ConfigError, DataError
from pipeline.onboard.frontend import prepare
from tests.data.sets import all_of, card, classes_in, labels, loaded, pictures, samples, write_npz

SHAPE = (1, 4, 4)


def test_x_and_y_are_divided_and_kept_in_their_dtype(tmp_path: Path) -> None:
    x, y = pictures(50), labels(50, 5)
    write_npz(tmp_path / "s.npz", x=x, y=y)
    dataset = loaded(card("npz", SHAPE, files=all_of("s.npz")), tmp_path)
    assert dataset.classes == ("0", "1", "2", "3", "4")
    assert [len(split) for split in (dataset.train, dataset.val, dataset.test)] == [30, 10, 10]
    assert isinstance(dataset.train, ArraySource)
    read = [samples(split, np.arange(len(split))) for split in (dataset.train, dataset.val, dataset.test)]
    assert read[0].dtype == np.uint8
    # every sample is in one split, with its own label
    known = {sample.tobytes(): label for sample, label in zip(x, y, strict=True)}
    assert len(known) == 50
    for found, split in zip(read, (dataset.train, dataset.val, dataset.test), strict=True):
        assert [known.pop(sample.tobytes()) for sample in found] == classes_in(split).tolist()
    assert not known


def test_pictures_may_lack_their_single_channel(tmp_path: Path) -> None:
    write_npz(tmp_path / "s.npz", x=pictures(30)[:, 0], y=labels(30))
    assert samples(loaded(card("npz", SHAPE, files=all_of("s.npz")), tmp_path).test, np.arange(2)).shape == (2, *SHAPE)


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
    assert np.array_equal(samples(dataset.test, np.arange(6)), test)
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
    read = samples(dataset.train, np.arange(len(dataset.train)))
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
    ({"x": pictures(30), "labels": labels(30)}, r"holds no array 'y', found labels, x"),
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
    x = np.full((30, 4), np.finfo(np.float32).max)  # their sum overflows, the values do not
    write_npz(tmp_path / "s.npz", x=x, y=labels(30))
    assert len(loaded(card("npz", (4,), files=all_of("s.npz")), tmp_path).test) == 6


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_what_float32_cannot_hold_is_placed_in_every_split(tmp_path: Path, split: str) -> None:
    arrays: dict[str, Any] = {}
    for name in ("train", "val", "test"):
        arrays |= {f"x_{name}": np.ones((3000, 2)), f"y_{name}": labels(3000)}
    arrays[f"x_{split}"][2999, 1] = 1e39
    write_npz(tmp_path / "s.npz", **arrays)
    with pytest.raises(DataError, match=rf"s.npz: x_{split}: sample 2999 holds 1e\+39 at \(1,\), more than float32"):
        loaded(card("npz", (2,), files=all_of("s.npz")), tmp_path)


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
    with pytest.raises(ConfigError, match=r'set: kind = "npz" needs \[files\.all\]'):
        loaded(card("npz", SHAPE), tmp_path)


# ── other labels, groups, several inputs ────────────────────────────────────────────────────────────────────────────


def test_numbers_are_divided_by_what_the_card_says(tmp_path: Path) -> None:
    write_npz(tmp_path / "s.npz", x=pictures(30), y=np.stack([np.arange(30), -np.arange(30)], axis=1) * 1e3)
    declared = card("npz", SHAPE, files=all_of("s.npz"), task="regression", target_divide=1000)
    dataset = loaded(declared, tmp_path)
    wanted = dataset.train.wanted(np.arange(18))["number"]
    assert (wanted.dtype.str, wanted.shape) == ("<f4", (18, 2))
    assert np.array_equal(wanted[:, 0], -wanted[:, 1])
    assert set(wanted[:, 0].tolist()) <= set(range(30))
    assert dataset.train.strata is None
    # the numbers do not decide who is drawn, and stay with their samples
    first = {picture.tobytes(): number for number, picture in enumerate(pictures(30))}
    assert [first[picture.tobytes()] for picture in samples(dataset.train)] == wanted[:, 0].tolist()


@pytest.mark.parametrize(
    ("y", "says"),
    [
        (np.full(30, np.nan), r"s\.npz: y: sample 0 holds nan"),
        (np.full((30, 2), 1e300), r"s\.npz: y: sample 0 holds inf at \(0,\)"),
        (np.zeros(29), r"the numbers to predict are float64 of shape \(29,\), expected \(30,\) or \(30, T\)"),
        (np.zeros((30, 2, 2)), r"of shape \(30, 2, 2\)"),
        (np.array(["a"] * 30), r"are <U1 of shape"),
    ],
)
def test_numbers_that_cannot_be_predicted(tmp_path: Path, y: np.ndarray, says: str) -> None:
    write_npz(tmp_path / "s.npz", x=pictures(30), y=y)
    with pytest.raises(DataError, match=says):
        loaded(card("npz", SHAPE, files=all_of("s.npz"), task="regression"), tmp_path)


@pytest.mark.parametrize("channel", [False, True])
def test_masks_are_a_byte_per_pixel(tmp_path: Path, channel: bool) -> None:
    masks = np.random.default_rng(0).integers(0, 3, (30, 1, 4, 4) if channel else (30, 4, 4))
    write_npz(tmp_path / "s.npz", x=pictures(30), y=masks)
    declared = card("npz", SHAPE, files=all_of("s.npz"), task="segmentation", classes=["a", "b", "c"])
    dataset = loaded(declared, tmp_path)
    found = dataset.test.wanted(np.arange(6))["mask"]
    assert (found.dtype.str, found.shape) == ("|u1", (6, 4, 4))
    first = {picture.tobytes(): mask.reshape(4, 4) for picture, mask in zip(pictures(30), masks, strict=True)}
    assert all(
        np.array_equal(first[picture.tobytes()], mask)
        for picture, mask in zip(samples(dataset.test), found, strict=True)
    )
    assert dataset.classes == ("a", "b", "c")


def test_masks_that_name_no_class(tmp_path: Path) -> None:
    masks = np.zeros((30, 4, 4), dtype=np.uint8)
    masks[7, 2, 3] = 3
    write_npz(tmp_path / "s.npz", x=pictures(30), y=masks)
    declared = card("npz", SHAPE, files=all_of("s.npz"), task="segmentation", classes=["a", "b", "c"])
    with pytest.raises(DataError, match=r"y: sample 7 has the class 3 at row 2, column 3, expected 0 … 2"):
        loaded(declared, tmp_path)
    assert loaded(declared.model_copy(update={"classes": ()}), tmp_path).classes == ("0", "1", "2", "3")
    write_npz(tmp_path / "s.npz", x=pictures(30), y=masks[:, :3])
    with pytest.raises(DataError, match=r"masks are uint8 of shape \(30, 3, 4\), expected .* of shape \(30, 4, 4\)"):
        loaded(declared, tmp_path)


@pytest.mark.parametrize("names", [np.arange(30) // 3, np.array([f"speaker {n // 3}" for n in range(30)])])
def test_groups_stay_together(tmp_path: Path, names: np.ndarray) -> None:
    write_npz(tmp_path / "s.npz", x=pictures(30), y=labels(30), groups=names)
    dataset = loaded(card("npz", SHAPE, files=all_of("s.npz")), tmp_path)
    number = {picture.tobytes(): index // 3 for index, picture in enumerate(pictures(30))}
    groups = [
        {number[picture.tobytes()] for picture in samples(split)}
        for split in (dataset.train, dataset.val, dataset.test)
    ]
    assert [len(each) for each in groups] == [6, 2, 2]
    assert len(set.union(*groups)) == 10


def test_groups_of_another_length(tmp_path: Path) -> None:
    write_npz(tmp_path / "s.npz", x=pictures(30), y=labels(30), groups=np.zeros(29, dtype=int))
    with pytest.raises(DataError, match=r"the groups of train have the shape \(29,\), expected \(30,\)"):
        loaded(card("npz", SHAPE, files=all_of("s.npz")), tmp_path)


def test_a_group_in_two_splits_of_the_source(tmp_path: Path) -> None:
    arrays: dict[str, Any] = {
        "x_train": pictures(30),
        "y_train": labels(30),
        "groups_train": np.array(["anna"] * 15 + ["ben"] * 15),
    }
    write_npz(
        tmp_path / "s.npz", **arrays, x_test=pictures(6), y_test=labels(6), groups_test=np.array(["ben", "cleo"] * 3)
    )
    declared = card("npz", SHAPE, files=all_of("s.npz"), split={"val": 15})
    with pytest.raises(DataError, match=r"1 groups are in the (train|val) split and in the test split too"):
        loaded(declared, tmp_path)


def two_inputs(**more: Any) -> DatasetCard:
    inputs = {"camera": {"shape": SHAPE, "divide": 255}, "speed": {"shape": [2], "normalize": "train"}}
    declared = {"name": "set", "title": "", "kind": "npz", "files": all_of("s.npz"), "inputs": inputs, **more}
    return DatasetCard.model_validate(declared)


def test_several_inputs_each_with_its_own_preprocessing(tmp_path: Path) -> None:
    speed = np.stack([np.arange(30.0), np.arange(30.0) % 3 - 1], axis=1)
    write_npz(tmp_path / "s.npz", camera=pictures(30), speed=speed, y=labels(30))
    dataset = loaded(two_inputs(), tmp_path)
    batch = dataset.train.read(everything(dataset.train))
    assert {name: array.shape[1:] for name, array in batch.inputs.items()} == {"camera": SHAPE, "speed": (2,)}
    number = {picture.tobytes(): index for index, picture in enumerate(pictures(30))}
    found = [number[picture.tobytes()] for picture in batch.inputs["camera"]]
    assert batch.inputs["speed"][:, 0].tolist() == found  # what belongs together stays together
    seen = prepare(batch.inputs, dataset.frontend)
    assert seen["camera"].max() <= 1
    assert seen["speed"].mean(0) == pytest.approx([0, 0], abs=1e-6)
    assert seen["speed"].std(0) == pytest.approx([1, 1], abs=1e-6)


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"camera": pictures(30), "y": labels(30)}, "holds no array 'speed', found camera, y"),
        (
            {"camera": pictures(30), "speed": np.zeros((29, 2)), "y": labels(30)},
            "the inputs hold different numbers of samples: 30 of camera, 29 of speed",
        ),
        (
            {"camera": pictures(30), "speed": np.zeros((30, 3)), "y": labels(30)},
            r"s\.npz: speed: samples have the shape \(3,\), expected \(2,\)",
        ),
    ],
)
def test_inputs_that_do_not_fit(tmp_path: Path, arrays: dict[str, Any], says: str) -> None:
    write_npz(tmp_path / "s.npz", **arrays)
    with pytest.raises(DataError, match=says):
        loaded(two_inputs(), tmp_path)


def test_samples_need_no_labels(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "s.npz", x=pictures(30))
    declared = card("npz", SHAPE, files=all_of("s.npz"))
    parts = npz.load(declared, npz.Spec(), Found(beside=tmp_path, files={"all": path}), None)
    splits = divide(parts, declared)
    assert [len(splits[name]) for name in ("train", "val", "test")] == [18, 6, 6]
    assert splits["train"].read(np.arange(2)).wanted == {}


def test_keys_of_other_kinds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the top level has no 'label_column'; known: "):
        reference(card("npz", SHAPE, files=all_of("s.npz"), label_column="y"), tmp_path)
    with pytest.raises(ConfigError, match="the top level has no 'clases'; did you mean 'classes'"):
        reference(card("npz", SHAPE, files=all_of("s.npz"), clases=["a"]), tmp_path)


# ── other names ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_other_names_are_listed_with_the_key_that_names_them(tmp_path: Path) -> None:
    write_npz(tmp_path / "s.npz", images=pictures(30), target=labels(30))
    with pytest.raises(DataError, match="holds no array 'x', found images, target") as caught:
        loaded(card("npz", SHAPE, files=all_of("s.npz")), tmp_path)
    assert '[arrays] x = "NAME"' in caught.value.remedy


def test_messages_call_arrays_as_the_file_does(tmp_path: Path) -> None:
    write_npz(tmp_path / "s.npz", images=pictures(30), target=labels(30))
    with pytest.raises(DataError, match="holds no array 'n', found images, target"):
        loaded(card("npz", SHAPE, files=all_of("s.npz"), arrays={"x": "n", "y": "target"}), tmp_path)
    with pytest.raises(DataError, match=r"s\.npz: images"):
        loaded(card("npz", (2, 2, 2), files=all_of("s.npz"), arrays={"x": "images", "y": "target"}), tmp_path)


@pytest.mark.parametrize(
    "arrays", [{"x": "images", "y": "target"}, {"x_train": "images_train", "y_train": "target_train"}]
)
def test_the_card_names_the_arrays(tmp_path: Path, arrays: dict[str, str]) -> None:
    divided = "x_train" in arrays
    suffix = "_train" if divided else ""
    stored: dict[str, Any] = {f"images{suffix}": pictures(30), f"target{suffix}": labels(30)}
    write_npz(tmp_path / "s.npz", **stored)
    dataset = loaded(card("npz", SHAPE, files=all_of("s.npz"), arrays=arrays), tmp_path)
    assert len(dataset.train) + len(dataset.val) + len(dataset.test) == 30


def test_what_is_said_of_x_holds_in_every_split(tmp_path: Path) -> None:
    named: dict[str, Any] = {}
    for split in ("train", "test"):
        named |= {f"images_{split}": pictures(30), f"t_{split}": labels(30)}
    write_npz(tmp_path / "s.npz", **named)
    dataset = loaded(card("npz", SHAPE, files=all_of("s.npz"), arrays={"x": "images", "y": "t"}), tmp_path)
    assert (len(dataset.train), len(dataset.test)) == (24, 30)


def test_a_key_of_arrays_that_means_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\[arrays\] has no 'z'"):
        loaded(card("npz", SHAPE, files=all_of("s.npz"), arrays={"z": "images"}), tmp_path)
