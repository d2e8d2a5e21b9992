"""Finding, checking and fetching files: what is looked for where, and that nothing altered is ever used."""

from __future__ import annotations

import hashlib
import http.server
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from pipeline.artifacts.networks import DataRef
from pipeline.data.calibration import calibration_indices
from pipeline.data.files import cache_folder
from pipeline.data.load import load, reference
from pipeline.declare.card import DatasetCard
from pipeline.errors import ConfigError, DataError
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


# ── fetching ────────────────────────────────────────────────────────────────────────────────────────────────────────


class _Site(http.server.BaseHTTPRequestHandler):
    files: ClassVar[dict[str, bytes]] = {}
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        type(self).asked.append(self.path)
        content = self.files.get(self.path)
        if self.path == "/away":
            self.send_response(302)
            self.send_header("Location", "file:///etc/hostname")
            self.end_headers()
            return
        if content is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content) + (1000 if self.path == "/cut" else 0)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Be quiet."""


@pytest.fixture
def site() -> Iterator[str]:
    """Serve ``_Site.files`` on loopback; yield the address."""
    _Site.files, _Site.asked = {}, []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Site) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


class _Told:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def start(self, title: str, total: int) -> None:
        """Ignore."""

    def advance(self, steps: int = 1, **numbers: float) -> None:
        """Ignore."""

    def say(self, text: str) -> None:
        self.lines.append(text)


def served(tmp_path: Path, name: str = "/s.npz") -> str:
    """Let the site serve a data set under this name; return its sha256."""
    sha256 = write(tmp_path / "upstream.npz")
    _Site.files[name] = (tmp_path / "upstream.npz").read_bytes()
    return sha256


def test_what_is_nowhere_is_fetched_once(tmp_path: Path, beside: Path, site: str) -> None:
    sha256, told = served(tmp_path), _Told()
    wanted = declared(sha256, f"{site}/s.npz")
    for _ in range(2):
        assert len(load(reference(wanted, beside, told)).train) == 18
    assert _Site.asked == ["/s.npz"]
    assert told.lines == [f"fetching {site}/s.npz"]
    assert [path.name for path in cache_folder(wanted).iterdir()] == ["s.npz"]


def test_what_is_here_is_not_fetched(tmp_path: Path, beside: Path, site: str) -> None:
    sha256 = served(tmp_path)
    write(beside / "s.npz")
    reference(declared(sha256, f"{site}/s.npz"), beside)
    with pytest.raises(DataError, match="expected sha256"):  # nor is an altered file passed over in silence
        reference(declared("0" * 64, f"{site}/s.npz"), beside)
    assert not _Site.asked


@pytest.mark.parametrize(
    "case",
    [
        ("/gone", None, "cannot be fetched: 404"),
        ("/away", None, "cannot be fetched: No connection adapters were found for 'file:"),
        ("/s.npz", "0" * 64, f"expected sha256 {'0' * 64}, found "),
        ("/cut", None, "expected sha256|cannot be fetched"),
    ],
)
def test_a_fetch_that_fails_leaves_nothing(
    tmp_path: Path, beside: Path, site: str, case: tuple[str, str | None, str]
) -> None:
    name, sha256, says = case
    right = served(tmp_path)
    _Site.files["/cut"] = _Site.files["/s.npz"][:500]
    wanted = declared(sha256 or right, site + name)
    with pytest.raises(DataError, match=says) as caught:
        reference(wanted, beside)
    assert caught.value.where == site + name
    assert caught.value.remedy
    assert not cache_folder(wanted).exists() or not list(cache_folder(wanted).iterdir())


def test_a_password_is_in_no_message(tmp_path: Path, beside: Path, site: str) -> None:
    told, url = _Told(), site.replace("//", "//me:secret@") + "/gone"
    with pytest.raises(DataError, match="cannot be fetched: 404") as caught:
        reference(declared(write(tmp_path / "upstream.npz"), url), beside, told)
    assert caught.value.where == f"{site}/gone"
    assert not [text for text in (*told.lines, str(caught.value)) if "secret" in text]


def test_an_answer_that_comes_too_slowly_is_given_up(
    tmp_path: Path, beside: Path, site: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.data.fetch._PATIENCE_S", -1.0)
    monkeypatch.setattr("pipeline.data.fetch._SLOWEST_BYTES_PER_S", 1e12)
    with pytest.raises(DataError, match="comes too slowly"):
        reference(declared(served(tmp_path), f"{site}/s.npz"), beside)


def test_nobody_answers(tmp_path: Path, beside: Path) -> None:
    sha256 = write(tmp_path / "upstream.npz")
    with pytest.raises(DataError, match=r"cannot be fetched: .*refused") as caught:
        reference(declared(sha256, "http://127.0.0.1:9/s.npz"), beside)
    assert "KARUI_DATA" in caught.value.remedy


def test_an_endless_answer_is_cut_off(tmp_path: Path, beside: Path, site: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.data.fetch.LARGEST_DOWNLOAD_BYTES", 100)
    wanted = declared(served(tmp_path), f"{site}/s.npz")
    with pytest.raises(DataError, match="more than 100 bytes came"):
        reference(wanted, beside)
    assert not list(cache_folder(wanted).iterdir())


@pytest.mark.parametrize("path", ["../../evil.npz", "../s.npz"])
def test_a_card_cannot_write_outside_of_the_cache(tmp_path: Path, beside: Path, site: str, path: str) -> None:
    wanted = declared(served(tmp_path), f"{site}/s.npz", path=path)
    reference(wanted, beside)
    written = [file for file in tmp_path.rglob("*.npz") if file.name != "upstream.npz"]
    assert written == [cache_folder(wanted) / Path(path).name]


def test_a_url_needs_a_sha256_and_http(beside: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has a url but no sha256"):
        reference(declared(None, "https://example.org/s.npz"), beside)
    sha256 = write(tmp_path / "s.npz")
    with pytest.raises(ConfigError, match="is no http or https address"):
        reference(declared(sha256, f"file://{tmp_path}/s.npz"), beside)


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
