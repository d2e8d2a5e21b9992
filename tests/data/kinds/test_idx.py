"""IDX files: headers are big-endian and believed only as far as the file goes."""

from __future__ import annotations

import gzip
import hashlib
import os
import struct
from pathlib import Path

import numpy as np
import pytest

from pipeline.catalog import load_card
from pipeline.data.kinds.idx import read_idx
from pipeline.data.load import load, reference
from pipeline.errors import ConfigError, DataError
from tests.data.sets import card, classes_in, labels, loaded, pictures, samples


def idx_bytes(shape: tuple[int, ...], content: bytes, code: int = 0x08) -> bytes:
    return bytes([0, 0, code, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + content


def write_set(folder: Path, prefix: str, samples: int, compressed: bool = True) -> dict[str, dict[str, str]]:
    x, y = pictures(samples)[:, 0], labels(samples).astype(np.uint8)
    pack = gzip.compress if compressed else bytes
    (folder / f"{prefix}-x").write_bytes(pack(idx_bytes(x.shape, x.tobytes())))
    (folder / f"{prefix}-y").write_bytes(pack(idx_bytes(y.shape, y.tobytes())))
    return {f"{prefix}-images": {"path": f"{prefix}-x"}, f"{prefix}-labels": {"path": f"{prefix}-y"}}


@pytest.mark.parametrize("compressed", [True, False])
def test_pictures_get_their_channel(tmp_path: Path, compressed: bool) -> None:
    dataset = loaded(card("idx", (1, 4, 4), files=write_set(tmp_path, "train", 30, compressed)), tmp_path)
    read = samples(dataset.test, np.arange(len(dataset.test)))
    assert read.shape == (6, 1, 4, 4)
    whole = {sample.tobytes(): label for sample, label in zip(pictures(30), labels(30), strict=True)}
    assert [whole[sample.tobytes()] for sample in read] == classes_in(dataset.test).tolist()


def test_own_test_files_are_kept(tmp_path: Path) -> None:
    files = write_set(tmp_path, "train", 30) | write_set(tmp_path, "test", 9)
    dataset = loaded(card("idx", (1, 4, 4), files=files), tmp_path)
    assert (len(dataset.train), len(dataset.val), len(dataset.test)) == (24, 6, 9)


@pytest.mark.parametrize(
    ("code", "dtype"), [(0x08, "u1"), (0x09, "i1"), (0x0B, "i2"), (0x0C, "i4"), (0x0D, "f4"), (0x0E, "f8")]
)
def test_every_type_is_read_big_endian(tmp_path: Path, code: int, dtype: str) -> None:
    values = np.array([[1, 2, 3], [100, 7, 0]], dtype=dtype)
    (tmp_path / "a").write_bytes(idx_bytes((2, 3), values.astype(f">{dtype}").tobytes(), code))
    read = read_idx(tmp_path / "a")
    assert read.dtype == np.dtype(dtype)
    assert np.array_equal(read, values)


def zipped(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


GOOD = idx_bytes((3, 2), bytes(6))
NOISE = np.random.default_rng(0).bytes(400)
HUGE = idx_bytes((50_000, 28, 28), bytes(6))
ABSURD = idx_bytes((4_000_000_000, 4_000_000_000), bytes(6))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (GOOD[:-1], r"\(3, 2\) declares 6 bytes, found 5"),
        (GOOD + b"\0", r"declares 6 bytes, found more"),
        (GOOD[:9], r"ends inside its header of 2 axes"),
        (b"", r"is no IDX file: it begins with nothing"),
        (b"<html>", r"is no IDX file: it begins with 3c68746d, expected for example 00000803"),
        (GOOD[::-1], r"is no IDX file"),
        (HUGE, r"its header claims 39,200,000 bytes"),
        (ABSURD, r"declares 16,000,000,000,000,000,000 bytes, expected at most"),
        (zipped(GOOD[:-1]), r"declares 6 bytes, found 5"),
        (zipped(GOOD)[:-5], r"cannot be read: Compressed file ended"),
        (zipped(GOOD)[:-8] + bytes(8), r"cannot be read: CRC check failed"),
        (zipped(idx_bytes((400,), NOISE))[:200] + bytes(200), r"cannot be read"),
        (zipped(ABSURD), r"declares 16,000,000,000,000,000,000 bytes, expected at most"),
        (zipped(HUGE), r"its header claims 39,200,000 bytes"),
    ],
    ids=range(14),
)
def test_damaged_files_are_named(tmp_path: Path, data: bytes, says: str) -> None:
    path = tmp_path / "images.gz"
    path.write_bytes(data)
    with pytest.raises(DataError, match=says) as caught:
        read_idx(path)
    assert caught.value.where == str(path)
    assert caught.value.exit_code == 4


def test_labels_out_of_range_name_file_and_sample(tmp_path: Path) -> None:
    files = write_set(tmp_path, "train", 30)
    with pytest.raises(DataError, match=r"train-y: sample 2 has the label 2, expected 0 … 1"):
        loaded(card("idx", (1, 4, 4), files=files, classes=["a", "b"]), tmp_path)


def test_the_card_must_name_the_labels(tmp_path: Path) -> None:
    files = write_set(tmp_path, "train", 30)
    del files["train-labels"]
    with pytest.raises(ConfigError, match=r"\[files\] has no 'train-labels', which the kind 'idx' needs"):
        loaded(card("idx", (1, 4, 4), files=files), tmp_path)


def test_fashion_mnist_as_the_card_says() -> None:
    declared, folder = load_card("fashion-mnist")
    root = Path(os.environ.get("KARUI_DATA", "/nowhere"))
    images = declared.files["train-images"].path
    if not list(root.glob(images)) + list(root.glob(f"*/{images}")):
        pytest.skip(f"Fashion-MNIST not tested: KARUI_DATA names no folder that holds {images}")
    dataset = load(reference(declared, folder))
    assert [len(split) for split in (dataset.train, dataset.val, dataset.test)] == [48_000, 2_000, 10_000]
    assert np.bincount(classes_in(dataset.test)).tolist() == [1_000] * 10
    # the test split must stay what it is, for ever: other figures are compared with it
    digest = hashlib.sha256(samples(dataset.test, np.arange(10_000)).tobytes()).hexdigest()
    assert digest.startswith("aea06100313dac42")
    pixels = samples(dataset.train, np.arange(48_000)) / declared.input.divide
    assert (pixels.mean(), pixels.std()) == pytest.approx((declared.input.mean[0], declared.input.std[0]), abs=5e-5)
