"""Fetching one file of a data set from its public address, with pooch: whole and as the card says, or not at all."""

from __future__ import annotations

import contextlib
import logging
import re
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pooch
import requests

from pipeline.declare.card import FileSpec
from pipeline.errors import ConfigError, DataError
from pipeline.progress import Progress
from pipeline.runs.store import storage_error

LARGEST_DOWNLOAD_BYTES = 8 << 30
_TIMEOUT_S = 30
_CHUNK_BYTES = 1 << 16
_PATIENCE_S = 60  # after that, an answer slower than this is given up
_SLOWEST_BYTES_PER_S = 1000
_HEADERS = {"User-Agent": "karui", "Accept-Encoding": "identity"}  # the sha256 is that of the file as it lies there


def fetched(file: FileSpec, path: Path, card: str, progress: Progress, remedy: str) -> Path:
    """Return ``path``, where the file now is.

    It goes to a temporary file beside it, is renamed when its sha256 is the card's, and deleted otherwise.  Raises
    ConfigError for a card without sha256 or without an http address, DataError when the file does not come or is
    another one (``remedy``: what to do when it does not come), StorageError when it cannot be written.
    """
    url = _checked_url(file, card)
    shown = without_password(url)
    progress.say(f"fetching {shown}")
    # pooch would say the same once more, in a log of its own
    pooch.get_logger().setLevel(logging.WARNING)
    try:
        with contextlib.ExitStack() as answers:
            download = _downloader(_Bytes(shown, progress), answers)
            pooch.retrieve(url, f"sha256:{file.sha256}", path.name, path.parent, downloader=download)
    except requests.RequestException as error:  # also of addresses that lead elsewhere than to http and https
        why = str(error).replace(url, shown)
        raise DataError(f"cannot be fetched: {why}", where=shown, remedy=remedy) from error
    except ValueError as error:  # of pooch, for another sha256; the message names both
        found = re.search(r"but got ([0-9a-f]{64})", str(error))
        raise DataError(
            f"what came is not the file that the card '{card}' means: expected sha256 {file.sha256}, "
            f"found {found[1] if found else 'another one'}",
            where=shown,
            remedy="try again; if that does not help, get the file elsewhere and put it beside the card",
        ) from error
    except OSError as error:
        raise storage_error(error, path) from error
    return path


def without_password(url: str) -> str:
    """Return an address without the name and password that it may hold, for messages."""
    return re.sub(r"(?<=//)[^/?#]*@", "", url)


def _downloader(bar: _Bytes, answers: contextlib.ExitStack) -> pooch.HTTPDownloader:
    """Return what fetches; ``answers`` closes the connections, which pooch leaves to chance when it fails."""

    def remember(answer: Any, **_: object) -> None:
        answers.callback(answer.close)

    return pooch.HTTPDownloader(
        progressbar=bar,
        chunk_size=_CHUNK_BYTES,
        timeout=_TIMEOUT_S,
        headers=_HEADERS,
        hooks={"response": remember},
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


class _Bytes:
    """The progress bar that pooch fills, told on; it ends a download that is too large."""

    def __init__(self, url: str, progress: Progress) -> None:
        self.total = 0  # what the server promises, written here by pooch; 0: nothing
        self._url = url
        self._progress = progress
        self._came_bytes = 0
        self._began_s = time.monotonic()
        self._done = False

    def update(self, size_bytes: int) -> None:
        """Count a chunk; the last one may be shorter than it is said to be."""
        if self._done:
            return
        if not self._came_bytes:
            self._progress.start("fetching", max(self.total, size_bytes))
        self._came_bytes += size_bytes
        if max(self._came_bytes, self.total) > LARGEST_DOWNLOAD_BYTES:
            raise DataError(f"more than {LARGEST_DOWNLOAD_BYTES:,} bytes came", where=self._url)
        took_s = time.monotonic() - self._began_s
        if took_s > _PATIENCE_S and self._came_bytes < took_s * _SLOWEST_BYTES_PER_S:
            raise DataError(
                f"comes too slowly: {self._came_bytes:,} bytes in {took_s:.0f} s",
                where=self._url,
                remedy="try again later, or fetch the file yourself and put it beside the card",
            )
        self._progress.advance(size_bytes)

    def reset(self) -> None:
        """Take it as the end: pooch now tells everything once more, so that rounded numbers end at the total."""
        self._done = True

    def close(self) -> None:
        """Do nothing: the console draws on its own."""
