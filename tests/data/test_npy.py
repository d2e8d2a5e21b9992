"""Arrays in .npz files: which are mapped, which are read, and what neither takes in memory."""

from __future__ import annotations

import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.data.npy import read_npz_member
from pipeline.data.source import INPUT, ArraySource
from pipeline.errors import DataError
from tests.data.sets import all_of, card, loaded, samples

ARRAY = np.arange(600, dtype=np.float32).reshape(20, 5, 6)


def read(path: Path, name: str = "x") -> NDArray[Any]:
    with zipfile.ZipFile(path) as archive:
        return read_npz_member(archive, archive.getinfo(f"{name}.npy"), path)


def is_mapped(array: NDArray[Any]) -> bool:
    base: object = array
    while isinstance(base, np.ndarray):
        if isinstance(base, np.memmap):
            return True
        base = base.base
    return False


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("array", [ARRAY, np.asfortranarray(ARRAY), ARRAY.astype(">i2"), ARRAY.astype("U4")])
def test_values_are_the_same_mapped_or_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, array: NDArray[Any], save: Any
) -> None:
    save(tmp_path / "s.npz", before=np.ones(3), x=array)
    whole = read(tmp_path / "s.npz")
    monkeypatch.setattr("pipeline.data.npy.MAPPED_FROM_BYTES", 1)
    mapped = read(tmp_path / "s.npz")
    assert is_mapped(mapped) == (save is np.savez)
    assert not is_mapped(whole)
    for found in (whole, mapped):
        assert (found.dtype, type(found)) == (array.dtype, np.ndarray)
        assert np.array_equal(found, array)


def test_a_mapped_array_lies_where_its_own_header_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # something before the archive and a long extra field, which the directory does not have: offsets move
    monkeypatch.setattr("pipeline.data.npy.MAPPED_FROM_BYTES", 1)
    np.save(tmp_path / "x.npy", ARRAY)
    member = zipfile.ZipInfo("x.npy")
    member.extra = b"\xfe\xca\x04\x00abcd"
    with (tmp_path / "s.npz").open("wb") as file:
        file.write(b"#!/bin/sh\n")
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr(member, (tmp_path / "x.npy").read_bytes())
    assert np.array_equal(read(tmp_path / "s.npz"), ARRAY)


def test_damage_inside_of_a_mapped_array_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.data.npy.MAPPED_FROM_BYTES", 1)
    np.savez(tmp_path / "s.npz", x=ARRAY, y=np.arange(20) % 2)
    content = bytearray((tmp_path / "s.npz").read_bytes())
    content[600] ^= 1
    (tmp_path / "s.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"s\.npz: is no readable \.npz file: Bad CRC-32"):
        loaded(card("npz", (5, 6), files=all_of("s.npz")), tmp_path)


def test_objects_are_refused_before_they_are_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.data.npy.MAPPED_FROM_BYTES", 1)
    np.savez(tmp_path / "s.npz", allow_pickle=True, x=np.array([{}, 1], dtype=object))
    with pytest.raises(DataError, match="Python objects"):
        read(tmp_path / "s.npz")


def test_reading_a_compressed_array_takes_little_more_than_the_array(tmp_path: Path) -> None:
    array = np.zeros((64, 1 << 20), np.uint8)
    np.savez_compressed(tmp_path / "s.npz", x=array)
    tracemalloc.start()
    found = read(tmp_path / "s.npz")
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert np.array_equal(found, array)
    assert peak_bytes < 1.1 * array.nbytes  # pieces of 1 MiB beside it; joining them would take twice as much


def test_using_a_large_array_takes_no_memory_of_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # 100 MB as bytes, 400 MB as what a network sees; a view of the file is read, checked, measured and divided
    count, shape = 8192, (3, 64, 64)
    x = np.random.default_rng(0).integers(0, 256, (count, *shape), dtype=np.uint8)
    np.savez(tmp_path / "s.npz", x=x, y=np.arange(count) % 4)
    whole_bytes = x.nbytes
    del x
    monkeypatch.setattr("pipeline.data.source.MEMORY_BUDGET_BYTES", 1 << 20)
    tracemalloc.start()
    dataset = loaded(card("npz", shape, files=all_of("s.npz")), tmp_path)
    batch = samples(dataset.train, np.arange(128))
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert batch.shape == (128, *shape)
    assert peak_bytes < whole_bytes / 2


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux how much of a file is in memory")
def test_what_was_read_of_a_mapped_file_leaves_the_memory(tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 256, (100, 1 << 20), dtype=np.uint8)
    np.savez(tmp_path / "s.npz", x=x)
    source = ArraySource(inputs={INPUT: read(tmp_path / "s.npz")})
    before_bytes = resident_file_bytes()
    for start in range(0, 100, 5):
        some = np.arange(start, start + 5)
        assert np.array_equal(source.read(some).inputs[INPUT], x[some])
        assert resident_file_bytes() - before_bytes < x.nbytes / 4
    assert source.inputs[INPUT].sum(dtype=np.int64) == x.sum(dtype=np.int64)
    assert resident_file_bytes() - before_bytes > x.nbytes / 2  # this is what would be taken else


def resident_file_bytes() -> int:
    """Return how much of all mapped files is in memory."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssFile"))
    return int(line.split()[1]) * 1024


def test_only_what_is_read_whole_has_a_largest_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.data.npy.MAPPED_FROM_BYTES", 1)
    monkeypatch.setattr("pipeline.data.checks.LARGEST_ARRAY_BYTES", 1000)
    np.savez(tmp_path / "plain.npz", x=ARRAY)
    np.savez_compressed(tmp_path / "packed.npz", x=ARRAY)
    assert np.array_equal(read(tmp_path / "plain.npz"), ARRAY)
    with pytest.raises(DataError, match="declares 2,528 bytes, expected at most 1,000") as caught:
        read(tmp_path / "packed.npz")
    assert "np.savez(…)" in caught.value.remedy
