"""Finding, checking and fetching files: what is looked for where, and that nothing altered is ever used."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from pipeline.artifacts.networks import DataRef
from pipeline.data.calibration import calibration_indices
from pipeline.data.load import load, reference
from pipeline.declare.card import DatasetCard
from pipeline.errors import DataError
from tests.data.sets import all_of, card, labels, pictures, samples, write_npz

SHAPE = (1, 4, 4)


@pytest.fixture(autouse=True)
def own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the user's data and cache out of the tests."""
    monkeypatch.delenv("KARUI_DATA", raising=False)
    monkeypatch.setattr("platformdirs.user_cache_path", lambda *_, **__: tmp_path / "cache")


@pytest.fixture
def beside(tmp_path: Path) -> Path:
    """Return the card's folder."""
    folder = tmp_path / "cards"
    folder.mkdir()
    return folder


def write(path: Path, seed: int = 0) -> str:
    """Write a data set; return its sha256."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_npz(path, x=pictures(30, seed=seed), y=labels(30))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def declared(sha256: str | None = None, url: str | None = None, path: str = "s.npz") -> DatasetCard:
    return card("npz", SHAPE, files={"all": {"path": path, "sha256": sha256, "url": url}})


@pytest.mark.parametrize("place", ["cards/s.npz", "data/s.npz", "data/sub/s.npz", "cache/data/set/s.npz"])
def test_files_are_found_where_they_may_be(
    tmp_path: Path, beside: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setenv("KARUI_DATA", str(tmp_path / "data"))
    sha256 = write(tmp_path / place)
    assert len(load(reference(declared(sha256), beside)).train) == 18


def test_absolute_paths_are_taken_as_they_are(tmp_path: Path, beside: Path) -> None:
    write(tmp_path / "elsewhere" / "s.npz")
    found = reference(declared(path=str(tmp_path / "elsewhere" / "s.npz")), beside)
    assert len(load(found).train) == 18


def test_of_files_with_one_name_the_right_one_is_taken(
    tmp_path: Path, beside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KARUI_DATA", str(tmp_path / "data"))
    write(tmp_path / "data" / "mnist" / "s.npz", seed=1)
    sha256 = write(tmp_path / "data" / "z-fashion" / "s.npz", seed=2)
    train = load(reference(declared(sha256), beside)).train
    assert {sample.tobytes() for sample in samples(train)} <= {s.tobytes() for s in pictures(30, seed=2)}


def test_a_missing_file_says_where_it_was_looked_for(
    tmp_path: Path, beside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KARUI_DATA", str(tmp_path / "data"))
    with pytest.raises(DataError, match=r"set: 's\.npz' of the data set 'set' is missing") as caught:
        reference(declared(), beside)
    assert caught.value.exit_code == 4
    for part in ("put it beside the card", "set KARUI_DATA", str(beside / "s.npz"), str(tmp_path / "data" / "s.npz")):
        assert part in caught.value.remedy


def test_an_altered_file_shows_both_digests(beside: Path) -> None:
    found = write(beside / "s.npz")
    with pytest.raises(DataError, match=f"expected sha256 {'0' * 64}, found {found}") as caught:
        reference(declared("0" * 64, "https://example.org/s.npz"), beside)
    assert caught.value.where == str(beside / "s.npz")
    assert "fetch https://example.org/s.npz to " in caught.value.remedy


def test_a_file_that_is_altered_later_is_noticed(beside: Path) -> None:
    sha256 = write(beside / "s.npz")
    ref = reference(declared(sha256), beside)
    write(beside / "s.npz", seed=1)
    with pytest.raises(DataError, match=f"expected sha256 {sha256}, found "):
        load(ref)
    loose = reference(declared(), beside)
    write(beside / "s.npz", seed=2)
    with pytest.raises(DataError, match=f"expected digest {loose.digest}, found "):
        load(loose)


def test_the_digest_is_of_content_and_settings_not_of_places(tmp_path: Path, beside: Path) -> None:
    write(beside / "s.npz")
    write(tmp_path / "moved" / "t.npz")
    first = reference(declared(), beside)
    assert isinstance(first, DataRef)
    assert (first.folder, len(first.digest)) == (beside, 64)
    moved = declared(path="t.npz").model_copy(update={"title": "x", "licence": "MIT", "name": "other"})
    assert reference(moved, tmp_path / "moved").digest == first.digest
    for change in ({"seed": 1}, {"val": 0.3}, {"test": 0.3}):
        split = declared().split.model_copy(update=change)
        assert reference(declared().model_copy(update={"split": split}), beside).digest != first.digest
    write(beside / "s.npz", seed=1)
    assert reference(declared(), beside).digest != first.digest


def test_a_large_file_is_hashed_fast_and_without_torch(tmp_path: Path) -> None:
    (tmp_path / "s.npz").write_bytes(np.random.default_rng(0).bytes(26 << 20))
    code = (
        "import sys; from pathlib import Path; from tests.data.test_files import declared;"
        "from pipeline.data.load import reference; folder = Path(sys.argv[1]);"
        "print(reference(declared(), folder).digest); assert not {'torch', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    timings_s = []
    for number in range(3):
        (tmp_path / "s.npz").touch()
        (tmp_path / "s.npz").rename(tmp_path / f"{number}.npz")
        start = time.process_time()  # of this process: other work on the machine does not count
        reference(declared(path=f"{number}.npz"), tmp_path)
        timings_s.append(time.process_time() - start)
        (tmp_path / f"{number}.npz").rename(tmp_path / "s.npz")
    assert min(timings_s) < 0.15


# ── calibration indices ─────────────────────────────────────────────────────────────────────────────────────────────


def with_indices(folder: Path, indices: object) -> DatasetCard:
    write(folder / "s.npz")
    np.save(folder / "chosen.npy", np.asarray(indices))
    return card("npz", SHAPE, files=all_of("s.npz"), calibration={"indices": "chosen.npy"})


def test_calibration_indices_beside_the_card_are_used(beside: Path) -> None:
    ref = reference(with_indices(beside, [7, 0, 17]), beside)
    assert calibration_indices(load(ref)).tolist() == [0, 7, 17]
    assert reference(with_indices(beside, [7, 0, 16]), beside).digest != ref.digest


@pytest.mark.parametrize(
    ("indices", "says"),
    [
        ([0, 18], r"chosen\.npy: index 18 at place 1 is outside of the 18 training samples"),
        ([-1], r"index -1 at place 0 is outside"),
        ([3, 3, 4], r"holds 1 indices twice"),
        ([0.5], r"holds float64 of shape \(1,\), expected a list of whole numbers"),
        ([[1]], r"holds int64 of shape \(1, 1\)"),
        (np.zeros(0, dtype=np.int64), r"of shape \(0,\)"),
    ],
)
def test_bad_calibration_indices(beside: Path, indices: object, says: str) -> None:
    with pytest.raises(DataError, match=says):
        load(reference(with_indices(beside, indices), beside))


def test_missing_and_damaged_calibration_indices(beside: Path) -> None:
    declared_here = with_indices(beside, [1])
    path = beside / "chosen.npy"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"chosen\.npy: its header declares 8 bytes .* found 7"):
        load(reference(declared_here, beside))
    path.write_bytes(b"1 2 3")
    with pytest.raises(DataError, match=r"is no readable \.npy array"):
        load(reference(declared_here, beside))
    path.unlink()
    with pytest.raises(DataError, match=r"the calibration indices 'chosen\.npy' are missing"):
        reference(declared_here, beside)
