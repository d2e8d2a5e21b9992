"""Fetching one file of a data set from its public address: whole and as the card says, or not at all.

A download that was cut goes on where it stopped, if the server can (RFC 9110, 13.1.5 and 14.2): at once, a few times,
and when the same command runs again.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import requests
import urllib3
from filelock import FileLock, Timeout

from pipeline.declare.card import FileSpec
from pipeline.errors import ConfigError, DataError, StorageError
from pipeline.progress import Progress
from pipeline.runs.store import sha256_of_file, storage_error, storing

LARGEST_DOWNLOAD_BYTES = 8 << 30
_TIMEOUT_S = 30  # without a byte
_LONGEST_S = 6 * 3600  # for all of it
_CHUNK_BYTES = 1 << 16
_PATIENCE_S = 60  # after that, an answer slower than this is given up
_SLOWEST_BYTES_PER_S = 1000
_MOST_REDIRECTS = 10
_MOST_TRIES = 50
_MOST_VAIN_TRIES = 3  # in a row that bring nothing
_PAUSE_S = 1.0  # before the next try; twice as long after one in vain
_HEADERS = {"User-Agent": "karui", "Accept-Encoding": "identity"}  # the sha256 is that of the file as it lies there
_BY_HAND = "try again later, or fetch the file yourself and put it beside the card"
_CUT = (urllib3.exceptions.HTTPError, requests.ConnectionError, requests.Timeout, ConnectionError)
_SECRET = re.compile(r"""([?&;][^=&?\s]*(?:token|key|secret|sig|pass|auth|cred)[^=&?\s]*=)[^&#\s'")]+""", re.IGNORECASE)


def fetched(file: FileSpec, path: Path, card: str, progress: Progress, remedy: str) -> Path:
    """Return ``path``, where the file now is.

    It comes into a file beside it (``.part``), which is renamed when its sha256 is the card's and deleted when it is
    another; what came before a connection broke is kept.  Raises ConfigError for a card without sha256 or without an
    http address, DataError when the file does not come or is another one (``remedy``: what to do when it does not
    come), StorageError when it cannot be written.
    """
    asked = _Asked(url=_checked_url(file, card), size_bytes=file.size_bytes, remedy=remedy)
    with storing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with _alone(path, progress):
        if path.is_file() and sha256_of_file(path) == file.sha256:  # somebody else fetched it meanwhile
            return path
        progress.say(f"fetching {asked.shown}")
        part = _Part(file=path.with_name(path.name + ".part"))
        if _fetch(asked, part, progress) and sha256_of_file(part.file) != file.sha256:
            part.forget()  # the two halves may be of different files
            _fetch(asked, part, progress)
        _check_sha256(asked, part, file.sha256 or "", card)
        with storing(path):
            part.file.replace(path)
            part.forget()
    return path


def without_password(text: str) -> str:
    """Return a text without the names, passwords and keys that addresses in it may hold."""
    return _SECRET.sub(r"\1…", re.sub(r"(?<=//)[^/?#\s]*@", "", text))


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """What is to be fetched."""

    url: str
    size_bytes: int | None  # as the card says
    remedy: str

    @property
    def shown(self) -> str:
        return without_password(self.url)


@dataclass(frozen=True, kw_only=True)
class _Part:
    """What has come so far, and which version of the file the server called it."""

    file: Path

    @property
    def _mark_file(self) -> Path:
        return self.file.with_name(self.file.name + ".etag")

    @property
    def size_bytes(self) -> int:
        return self.file.stat().st_size if self.file.is_file() else 0

    def mark(self) -> str:
        """Return the server's name of the version that has come, or ""."""
        try:
            return self._mark_file.read_text(encoding="latin-1")
        except OSError:
            return ""

    def begin(self, mark: str) -> None:
        """Start anew."""
        with storing(self.file):
            self.file.write_bytes(b"")
            self._mark_file.write_text(mark, encoding="latin-1")

    def forget(self) -> None:
        """Take all of it away."""
        for path in (self.file, self._mark_file):
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def _alone(path: Path, progress: Progress) -> Iterator[None]:
    """Let one process at a time fetch a file."""
    lock = FileLock(path.with_name(path.name + ".lock"))
    with storing(path):
        try:
            lock.acquire(timeout=0)
        except Timeout:
            progress.say(f"waiting for another process that fetches {path.name}")
            lock.acquire()
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # Windows keeps files that are open
            Path(lock.lock_file).unlink()  # before it is free: nobody else can have it yet
        lock.release()


def _check_sha256(asked: _Asked, part: _Part, expected: str, card: str) -> None:
    found = sha256_of_file(part.file)
    if found != expected:
        part.forget()
        raise DataError(
            f"what came is not the file that the card '{card}' means: expected sha256 {expected}, found {found}",
            where=asked.shown,
            remedy="try again; if that does not help, get the file elsewhere and put it beside the card",
        )


# ── one download ────────────────────────────────────────────────────────────────────────────────────────────────────


def _fetch(asked: _Asked, part: _Part, progress: Progress) -> bool:
    """Get what is missing, with several tries; tell whether it came in pieces."""
    bar = _Bar(progress=progress, asked=asked)
    in_pieces, vain = False, 0
    for number in range(1, _MOST_TRIES + 1):
        before_bytes = part.size_bytes
        try:
            return _once(asked, part, bar) or in_pieces
        except _CUT as error:
            in_pieces = True
            vain = 0 if part.size_bytes > before_bytes else vain + 1
            if vain == _MOST_VAIN_TRIES or number == _MOST_TRIES:
                raise _does_not_come(asked, error, part) from error
            time.sleep(_PAUSE_S * 2 ** max(vain - 1, 0))
        except requests.RequestException as error:  # also of addresses that lead elsewhere than to http and https
            raise _does_not_come(asked, error, part) from error
    return in_pieces


def _does_not_come(asked: _Asked, error: Exception, part: _Part) -> DataError:
    if not part.size_bytes:
        part.forget()
    kept = f"; {part.size_bytes:,} bytes have come, the same command goes on from there" if part.size_bytes else ""
    why = without_password(str(error).replace(asked.url, asked.shown))
    return DataError(f"cannot be fetched: {why}{kept}", where=asked.shown, remedy=asked.remedy)


def _once(asked: _Asked, part: _Part, bar: _Bar) -> bool:
    """Ask for what is missing and take all that comes; tell whether it is the rest of what was here."""
    with requests.Session() as session, _answer(asked, part, session) as answer:
        total_bytes = _total(answer)
        if answer.status_code == requests.codes.requested_range_not_satisfiable:  # all of it is here, or too much
            if total_bytes == part.size_bytes:
                return True
            part.forget()
            raise ConnectionError("what has come is not what the server has now")
        answer.raise_for_status()
        goes_on = answer.status_code == requests.codes.partial_content
        here_bytes = part.size_bytes if goes_on else 0
        bar.expect(total_bytes, here_bytes)
        _check_room(part, total_bytes - here_bytes)
        if not goes_on:
            part.begin(answer.headers.get("ETag", ""))
        _take(answer, part, bar)
        if total_bytes and part.size_bytes != total_bytes:
            raise ConnectionError(f"{part.size_bytes:,} of {total_bytes:,} bytes came")
        return goes_on


def _answer(asked: _Asked, part: _Part, session: requests.Session) -> requests.Response:
    session.max_redirects = _MOST_REDIRECTS
    headers = dict(_HEADERS)
    if part.size_bytes:
        headers["Range"] = f"bytes={part.size_bytes}-"
        if part.mark() and not part.mark().startswith("W/"):  # a weak one may stand for other bytes
            headers["If-Range"] = part.mark()
    return session.get(asked.url, headers=headers, stream=True, timeout=_TIMEOUT_S)


def _total(answer: requests.Response) -> int:
    """Return how large the whole file is, as the server says; 0: it does not."""
    in_range = re.fullmatch(r"bytes (?:\d{1,18}-\d{1,18}|\*)/(\d{1,18})", answer.headers.get("Content-Range", ""))
    if in_range:
        return int(in_range[1])
    declared = answer.headers.get("Content-Length", "")
    return int(declared) if re.fullmatch(r"\d{1,18}", declared) and answer.status_code == requests.codes.ok else 0


def _take(answer: requests.Response, part: _Part, bar: _Bar) -> None:
    """Write what comes as it comes: a whole chunk of a slow server would keep us waiting for ever."""
    try:
        with part.file.open("ab") as file:
            while chunk := answer.raw.read1(_CHUNK_BYTES):
                file.write(chunk)
                bar.count(len(chunk))
    except DataError:
        if bar.has_too_much:
            part.forget()
        raise
    except (ConnectionError, TimeoutError):
        raise
    except OSError as error:
        raise storage_error(error, part.file) from error


def _check_room(part: _Part, missing_bytes: int) -> None:
    with storing(part.file):
        free_bytes = shutil.disk_usage(part.file.parent).free
    if missing_bytes > free_bytes:
        raise StorageError(
            f"there is no room for {missing_bytes:,} bytes more: {free_bytes:,} are free",
            where=str(part.file.parent),
            remedy="make room, and run the same command again",
        )


def _checked_url(file: FileSpec, card: str) -> str:
    url = file.url or ""
    if file.sha256 is None:
        raise ConfigError(
            f"[files] '{file.path}' has a url but no sha256: what comes could be anything",
            where=card,
            remedy="fetch the file yourself, look at it, and write the output of sha256sum into the card",
        )
    if not _is_http(url):
        shown = without_password(url)
        raise ConfigError(f"[files] '{file.path}': url = \"{shown}\" is no http or https address", where=card)
    return url


def _is_http(url: str) -> bool:
    """Tell whether this is an address that a request can be sent to."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # brackets that do not close, ports that are no numbers
        return False
    well_formed = url.isprintable() and " " not in url and port != 0
    return parts.scheme in ("http", "https") and bool(parts.hostname) and well_formed


class _Bar:
    """Shows how much has come, and ends what is too large, too slow or takes too long."""

    def __init__(self, *, progress: Progress, asked: _Asked) -> None:
        self._progress = progress
        self._asked = asked
        self._here_bytes = self._came_bytes = self._shown_kb = 0
        self._began_s = time.monotonic()

    @property
    def _most_bytes(self) -> int:
        return self._asked.size_bytes or LARGEST_DOWNLOAD_BYTES

    @property
    def has_too_much(self) -> bool:
        """Tell whether more came than the file can have."""
        return self._here_bytes > self._most_bytes

    def expect(self, total_bytes: int, here_bytes: int) -> None:
        """Begin, or go on, when ``here_bytes`` of the whole are here; refuse what the server says is too much."""
        asked_bytes = self._asked.size_bytes
        if total_bytes > LARGEST_DOWNLOAD_BYTES:
            raise self._ended(f"has {total_bytes:,} bytes, expected at most {LARGEST_DOWNLOAD_BYTES:,}")
        if asked_bytes and total_bytes and total_bytes != asked_bytes:
            raise self._ended(f"has {total_bytes:,} bytes, expected {asked_bytes:,} as the card says")
        self._here_bytes = here_bytes
        self._shown_kb = 0
        self._progress.start("fetching, kB", max(1, (total_bytes or LARGEST_DOWNLOAD_BYTES) // 1000))
        self._show()

    def count(self, size_bytes: int) -> None:
        """Count what came."""
        self._here_bytes += size_bytes
        self._came_bytes += size_bytes
        if self.has_too_much:
            raise self._ended(f"more than {self._most_bytes:,} bytes came")
        took_s = time.monotonic() - self._began_s
        if took_s > _PATIENCE_S and self._came_bytes < took_s * _SLOWEST_BYTES_PER_S:
            raise self._ended(f"comes too slowly: {self._came_bytes:,} bytes in {took_s:.0f} s")
        if took_s > _LONGEST_S:
            raise self._ended(f"took more than {_LONGEST_S / 3600:g} hours")
        self._show()

    def _show(self) -> None:
        here_kb = self._here_bytes // 1000
        self._progress.advance(here_kb - self._shown_kb)
        self._shown_kb = here_kb

    def _ended(self, what: str) -> DataError:
        return DataError(what, where=self._asked.shown, remedy=_BY_HAND)
