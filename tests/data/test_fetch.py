"""Fetching a file from a real server on loopback that is slow, cut, endless, altered or leads elsewhere."""

from __future__ import annotations

import hashlib
import http.server
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from pipeline.data.fetch import fetched, without_password
from pipeline.data.files import cache_folder
from pipeline.data.load import load, reference
from pipeline.declare.card import DatasetCard, FileSpec
from pipeline.errors import ConfigError, DataError, KaruiError
from tests.data.sets import card, labels, pictures, write_npz

CONTENT = np.random.default_rng(0).integers(0, 256, 300_000, dtype=np.uint8).tobytes()
SHA256 = hashlib.sha256(CONTENT).hexdigest()

Handler = http.server.BaseHTTPRequestHandler


@dataclass(kw_only=True)
class Site:
    """What a server answers, and what it was asked."""

    address: str = ""
    answers: dict[str, Callable[[Handler], None]] = field(default_factory=dict)
    asked: list[tuple[str, str | None]] = field(default_factory=list)  # path, Range


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """Serve on loopback; nobody waits between two tries."""
    monkeypatch.setattr("pipeline.data.fetch._PAUSE_S", 0.0)
    served = Site()

    class Server(Handler):
        def do_GET(self) -> None:  # noqa: N802  the name that http.server looks for
            served.asked.append((self.path, self.headers.get("Range")))
            if self.path not in served.answers:
                self.send_error(404)
                return
            served.answers[self.path](self)

        def log_message(self, *_: object) -> None:
            """Be quiet."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        served.address = f"http://127.0.0.1:{server.server_port}"
        yield served
        server.shutdown()
        thread.join()


def whole(content: bytes, *, cut_after: int | None = None, etag: str = "", ranges: bool = True) -> Callable[..., None]:
    """Answer as a file server does; ``cut_after`` so many bytes of an answer the connection breaks."""

    def answer(handler: Handler) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", "") if ranges else "")
        if handler.headers.get("If-Range", etag) != etag:
            asked = None
        start = int(asked[1]) if asked else 0
        if start >= len(content):
            handler.send_response(416)
            handler.send_header("Content-Range", f"bytes */{len(content)}")
            handler.end_headers()
            return
        handler.send_response(206 if asked else 200)
        if asked:
            handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if etag:
            handler.send_header("ETag", etag)
        handler.send_header("Content-Length", str(len(content) - start))
        handler.end_headers()
        handler.wfile.write(content[start:][:cut_after])

    return answer


def leads_to(where: str) -> Callable[[Handler], None]:
    def answer(handler: Handler) -> None:
        handler.send_response(302)
        handler.send_header("Location", where)
        handler.end_headers()

    return answer


def endless(handler: Handler) -> None:
    handler.send_response(200)
    handler.end_headers()
    try:
        while True:
            handler.wfile.write(bytes(1 << 16))
    except OSError:
        pass


def dribbling(handler: Handler) -> None:
    """Send a byte every moment, so that no read ever times out."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(CONTENT)))
    handler.end_headers()
    try:
        for byte in CONTENT[:2000]:
            handler.wfile.write(bytes([byte]))
            time.sleep(0.01)
    except OSError:
        pass


class Told:
    """Remembers what a job says."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.bars: list[list[int]] = []  # total, done

    def start(self, title: str, total: int) -> None:
        assert title == "fetching, kB"
        self.bars.append([total, 0])

    def advance(self, steps: int = 1, **numbers: float) -> None:
        assert not numbers
        self.bars[-1][1] += steps

    def say(self, text: str) -> None:
        self.lines.append(text)


def fetch(site: Site, folder: Path, told: Told | None = None, **of: object) -> bytes:
    """Fetch /s.npz; return what came."""
    spec = FileSpec.model_validate({"path": "s.npz", "sha256": SHA256, "url": f"{site.address}/s.npz", **of})
    return fetched(spec, folder / "s.npz", "set", told or Told(), "check the connection").read_bytes()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_comes_whole_and_the_bar_tells_how_much(tmp_path: Path, site: Site) -> None:
    site.answers["/s.npz"] = whole(CONTENT)
    told = Told()
    assert fetch(site, tmp_path, told) == CONTENT
    assert told.lines == [f"fetching {site.address}/s.npz"]
    assert told.bars == [[300, 300]]
    assert names(tmp_path) == ["s.npz"]


@pytest.mark.parametrize("etag", ["", '"v1"', 'W/"v1"'])
def test_a_cut_download_goes_on_where_it_stopped(tmp_path: Path, site: Site, etag: str) -> None:
    site.answers["/s.npz"] = whole(CONTENT, cut_after=100_000, etag=etag)
    told = Told()
    assert fetch(site, tmp_path, told) == CONTENT
    assert site.asked == [("/s.npz", None), ("/s.npz", "bytes=100000-"), ("/s.npz", "bytes=200000-")]
    assert told.bars == [[300, 100], [300, 200], [300, 300]]
    assert names(tmp_path) == ["s.npz"]


def test_the_same_command_goes_on_later(tmp_path: Path, site: Site) -> None:
    def once(handler: Handler) -> None:
        whole(CONTENT, cut_after=123_456)(handler)
        site.answers["/s.npz"] = lambda handler: handler.send_error(503)

    site.answers["/s.npz"] = once
    with pytest.raises(DataError, match=r"503 .*; 123,456 bytes have come, the same command goes on from there"):
        fetch(site, tmp_path)
    assert "s.npz" not in names(tmp_path)
    site.answers["/s.npz"] = whole(CONTENT)
    assert fetch(site, tmp_path) == CONTENT
    assert site.asked[-1] == ("/s.npz", "bytes=123456-")


@pytest.mark.parametrize("etag", ["", '"v2"'])
def test_half_of_another_file_is_not_kept(tmp_path: Path, site: Site, etag: str) -> None:
    # with an ETag the server says at once that it is another one; without, the sha256 does
    (tmp_path / "s.npz.part").write_bytes(bytes(1000))
    (tmp_path / "s.npz.part.etag").write_text('"v1"' if etag else "")
    site.answers["/s.npz"] = whole(CONTENT, etag=etag)
    assert fetch(site, tmp_path) == CONTENT
    assert site.asked == [("/s.npz", "bytes=1000-"), *([] if etag else [("/s.npz", None)])]


@pytest.mark.parametrize("here", [CONTENT, CONTENT + b"more"])
def test_all_of_it_was_here_or_too_much(tmp_path: Path, site: Site, here: bytes) -> None:
    (tmp_path / "s.npz.part").write_bytes(here)
    site.answers["/s.npz"] = whole(CONTENT)
    assert fetch(site, tmp_path) == CONTENT


def test_a_server_that_always_begins_anew_is_given_up(tmp_path: Path, site: Site) -> None:
    site.answers["/s.npz"] = whole(CONTENT, cut_after=1000, ranges=False)
    with pytest.raises(DataError, match=r"cannot be fetched: .*; 1,000 bytes have come"):
        fetch(site, tmp_path)
    assert len(site.asked) == 4  # one that brought something, three that did not


def test_another_file_is_refused_and_deleted(tmp_path: Path, site: Site) -> None:
    site.answers["/s.npz"] = whole(CONTENT[::-1])
    with pytest.raises(DataError, match=f"expected sha256 {SHA256}, found ") as caught:
        fetch(site, tmp_path)
    assert caught.value.where == f"{site.address}/s.npz"
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (leads_to("file:///etc/hostname"), "No connection adapters were found for 'file:"),
        (leads_to("ftp://127.0.0.1/s.npz"), "No connection adapters were found for 'ftp:"),
        (leads_to("/s.npz"), "Exceeded 10 redirects"),
        (lambda handler: handler.send_error(404), "cannot be fetched: 404"),
    ],
)
def test_what_leads_nowhere_leaves_nothing(tmp_path: Path, site: Site, answer: Callable[..., None], says: str) -> None:
    site.answers["/s.npz"] = answer
    with pytest.raises(DataError, match=says) as caught:
        fetch(site, tmp_path)
    assert caught.value.remedy == "check the connection"
    assert names(tmp_path) == []


def test_redirects_on_the_web_are_followed(tmp_path: Path, site: Site) -> None:
    site.answers |= {"/s.npz": leads_to("/there"), "/there": whole(CONTENT)}
    assert fetch(site, tmp_path) == CONTENT


def test_what_is_declared_too_large_does_not_begin_to_come(
    tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.answers["/s.npz"] = whole(CONTENT)
    told = Told()
    with pytest.raises(DataError, match="has 300,000 bytes, expected 299,999 as the card says"):
        fetch(site, tmp_path, told, size_bytes=299_999)
    monkeypatch.setattr("pipeline.data.fetch.LARGEST_DOWNLOAD_BYTES", 1000)
    with pytest.raises(DataError, match="has 300,000 bytes, expected at most 1,000"):
        fetch(site, tmp_path, told)
    assert told.bars == []
    assert names(tmp_path) == []


def test_an_endless_answer_is_cut_off(tmp_path: Path, site: Site) -> None:
    site.answers["/s.npz"] = endless
    with pytest.raises(DataError, match="more than 300,000 bytes came"):
        fetch(site, tmp_path, size_bytes=300_000)
    assert names(tmp_path) == []


def test_a_server_that_dribbles_is_given_up(tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.data.fetch._PATIENCE_S", 0.2)
    site.answers["/s.npz"] = dribbling
    began_s = time.monotonic()
    with pytest.raises(DataError, match="comes too slowly"):
        fetch(site, tmp_path)
    assert time.monotonic() - began_s < 5  # it would take 20 s for what it sends, and for ever for all of it


def test_a_download_ends_at_last(tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.data.fetch._LONGEST_S", 0.0)
    site.answers["/s.npz"] = whole(CONTENT)
    with pytest.raises(DataError, match="took more than 0 hours"):
        fetch(site, tmp_path)


def test_no_room_is_told_before_it_comes(tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("pipeline.data.fetch.shutil.disk_usage", lambda _path: usage)
    site.answers["/s.npz"] = whole(CONTENT)
    with pytest.raises(KaruiError, match="no room for 300,000 bytes more: 1,000 are free"):
        fetch(site, tmp_path)


def test_nobody_answers(tmp_path: Path, site: Site) -> None:
    with pytest.raises(DataError, match=r"cannot be fetched: .*refused"):
        fetch(site, tmp_path, url="http://127.0.0.1:9/s.npz")
    assert names(tmp_path) == []


def test_two_processes_fetch_it_once(tmp_path: Path, site: Site) -> None:
    def slowly(handler: Handler) -> None:
        time.sleep(0.3)
        whole(CONTENT)(handler)

    site.answers["/s.npz"] = slowly
    told = [Told(), Told()]
    threads = [threading.Thread(target=fetch, args=(site, tmp_path, each)) for each in told]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(site.asked) == 1
    assert sorted(each.lines[0].split()[0] for each in told) == ["fetching", "waiting"]


# ── what is told ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://me:secret@example.org/a?b=1", "https://example.org/a?b=1"),
        ("for url: https://me:secret@example.org/a", "for url: https://example.org/a"),
        ("https://example.org/a?X-Amz-Signature=abc&n=2", "https://example.org/a?X-Amz-Signature=…&n=2"),
        ("(url: /a?download=1&access_token=abc)", "(url: /a?download=1&access_token=…)"),
        ("https://example.org/@me", "https://example.org/@me"),
    ],
)
def test_what_is_secret_in_an_address(text: str, shown: str) -> None:
    assert without_password(text) == shown


@pytest.mark.parametrize("where", ["/gone", "/away"])
def test_a_password_is_in_no_message(tmp_path: Path, site: Site, where: str) -> None:
    site.answers["/away"] = leads_to("ftp://you:secret@127.0.0.1/s.npz?token=secret")
    told, url = Told(), site.address.replace("//", "//me:secret@") + where
    with pytest.raises(DataError, match="cannot be fetched") as caught:
        fetch(site, tmp_path, told, url=url)
    assert caught.value.where == f"{site.address}{where}"
    assert not [text for text in (*told.lines, str(caught.value), caught.value.remedy) if "secret" in text]


# ── as part of a data set ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def upstream(tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch) -> str:
    """Serve a data set at /s.npz; keep the user's data and cache out; return its sha256."""
    monkeypatch.delenv("KARUI_DATA", raising=False)
    monkeypatch.setattr("platformdirs.user_cache_path", lambda *_, **__: tmp_path / "cache")
    content = write_npz(tmp_path / "upstream.npz", x=pictures(30), y=labels(30)).read_bytes()
    site.answers["/s.npz"] = whole(content)
    return hashlib.sha256(content).hexdigest()


def declared(sha256: str | None, url: str, path: str = "s.npz") -> DatasetCard:
    return card("npz", (1, 4, 4), files={"all": {"path": path, "sha256": sha256, "url": url}})


def test_what_is_nowhere_is_fetched_once(tmp_path: Path, site: Site, upstream: str) -> None:
    wanted = declared(upstream, f"{site.address}/s.npz")
    for _ in range(2):
        assert len(load(reference(wanted, tmp_path)).train) == 18
    assert site.asked == [("/s.npz", None)]
    assert names(cache_folder(wanted)) == ["s.npz"]


def test_what_is_here_is_not_fetched(tmp_path: Path, site: Site, upstream: str) -> None:
    (tmp_path / "s.npz").write_bytes((tmp_path / "upstream.npz").read_bytes())
    reference(declared(upstream, f"{site.address}/s.npz"), tmp_path)
    with pytest.raises(DataError, match="expected sha256"):  # nor is an altered file passed over in silence
        reference(declared("0" * 64, f"{site.address}/s.npz"), tmp_path)
    assert not site.asked


@pytest.mark.parametrize("path", ["../../evil.npz", "../s.npz"])
def test_a_card_cannot_write_outside_of_the_cache(tmp_path: Path, site: Site, upstream: str, path: str) -> None:
    beside = tmp_path / "cards"
    beside.mkdir()
    wanted = declared(upstream, f"{site.address}/s.npz", path=path)
    reference(wanted, beside)
    written = [file for file in tmp_path.rglob("*.npz") if file.name != "upstream.npz"]
    assert written == [cache_folder(wanted) / Path(path).name]


def test_a_url_needs_a_sha256_and_http(tmp_path: Path, upstream: str) -> None:
    with pytest.raises(ConfigError, match="has a url but no sha256"):
        reference(declared(None, "https://example.org/s.npz"), tmp_path)
    with pytest.raises(ConfigError, match="is no http or https address"):
        reference(declared(upstream, f"file://{tmp_path}/upstream.npz"), tmp_path)
