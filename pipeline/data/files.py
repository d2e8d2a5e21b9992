"""Where the files of a data set lie: beside the card, in ``$KARUI_DATA``, in the user's cache, or at their address.

A file counts as found when its sha256 is the card's.  Nothing is fetched while a file of that name is on the disk, and
nothing is fetched whose sha256 is unknown.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import secrets
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO
from urllib.parse import urlsplit

import platformdirs

from pipeline.artifacts import Digest
from pipeline.errors import ConfigError, DataError
from pipeline.progress import Progress
from pipeline.spec import DatasetCard, FileSpec
from pipeline.store import sha256_of_file, storing

DATA_VARIABLE = "KARUI_DATA"
LARGEST_DOWNLOAD_BYTES = 8 << 30
_CHUNK_BYTES = 1 << 20
_TIMEOUT_S = 30
_HASHING_THREADS = 4  # hashlib lets go of the interpreter's lock

# path → (mark of the file's state, sha256): a file is hashed once per process unless it changes
_Mark = tuple[int, int, int]
_hashed: dict[Path, tuple[_Mark, Digest]] = {}


@dataclass(frozen=True, kw_only=True)
class Found:
    """The files of a data set on this disk, checked against the card."""

    files: Mapping[str, Path] = field(default_factory=dict)  # role → file
    folder: Path | None = None  # of an image folder

    def file(self, card: DatasetCard, role: str) -> Path:
        """Return the file of a role.  Raises ConfigError when the card names none."""
        if role not in self.files:
            raise ConfigError(
                f"[files] has no '{role}', which the kind '{card.kind}' needs",
                where=card.name,
                remedy=f'add {role} = {{ path = "…" }} to [files] in the card',
            )
        return self.files[role]


def locate(card: DatasetCard, beside: Path, progress: Progress) -> Found:
    """Return all files (and the folder) of a card, fetching what is nowhere on the disk.

    Raises DataError naming the file that is missing or altered, ConfigError for a card that cannot be meant.
    """
    files = {role: _locate_file(file, card, beside, progress) for role, file in card.files.items()}
    folder = _locate_folder(card, beside) if card.folder is not None else None
    return Found(files=files, folder=folder)


def sha256_of(path: Path) -> Digest:
    """Return the sha256 of a file; one that did not change since it was last asked for is not read again.

    Raises DataError when it cannot be read.
    """
    try:
        status = path.stat()
        mark = (status.st_size, status.st_mtime_ns, status.st_ino)
        known = _hashed.get(path)
        if known is None or known[0] != mark:
            known = _hashed[path] = (mark, sha256_of_file(path))
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", where=str(path)) from error
    return known[1]


def sha256_of_each(paths: Sequence[Path]) -> list[Digest]:
    """Return the sha256 of many files, hashed side by side.  Raises DataError for the first unreadable one."""
    with ThreadPoolExecutor(_HASHING_THREADS) as pool:
        return list(pool.map(sha256_of, paths, chunksize=1))


def cache_folder(card: DatasetCard) -> Path:
    """Return where fetched files of this card are kept: in the user's cache, which may be emptied at any time."""
    return Path(platformdirs.user_cache_path("karui", appauthor=False)) / "data" / card.name


def places(path: str, beside: Path) -> list[Path]:
    """Return where a relative path may lie on this disk: beside the card, in ``$KARUI_DATA`` and one level down."""
    given = Path(path).expanduser()
    if given.is_absolute():
        return [given]
    found = [beside / given]
    if root := os.environ.get(DATA_VARIABLE):
        data = Path(root).expanduser()
        found.append(data / given)
        if data.is_dir():
            found += [folder / given for folder in sorted(data.iterdir()) if folder.is_dir()]
    return found


def _locate_file(file: FileSpec, card: DatasetCard, beside: Path, progress: Progress) -> Path:
    cached = cache_folder(card) / PurePosixPath(file.path).name
    candidates = [*places(file.path, beside), cached]
    present = [path for path in candidates if path.is_file()]
    for path in present:
        if file.sha256 is None or sha256_of(path) == file.sha256:
            return path.resolve()
    if present:
        raise DataError(
            f"is not the file that the card '{card.name}' means: "
            f"expected sha256 {file.sha256}, found {sha256_of(present[0])}",
            where=str(present[0]),
            remedy=_how_to_get(file, cached, "take this file away, or put the right one in its place"),
        )
    if file.url is None:
        remedy = _how_to_get(file, cached, "put it beside the card")
        raise _missing(file.path, candidates[:-1], card, remedy, sha256=file.sha256)
    return _fetch(file, cached, card, progress)


def _locate_folder(card: DatasetCard, beside: Path) -> Path:
    name = card.folder or "."
    candidates = places(name, beside)
    for path in candidates:
        if path.is_dir():
            return path.resolve()
    raise _missing(
        name, candidates, card, f"put it beside the card, or set {DATA_VARIABLE} to the folder that holds it"
    )


def _missing(
    name: str, candidates: Sequence[Path], card: DatasetCard, remedy: str, *, sha256: Digest | None = None
) -> DataError:
    looked = "looked for " + ", ".join(map(str, candidates))
    expected = f" (expected sha256 {sha256})" if sha256 else ""
    return DataError(
        f"'{name}' of the data set '{card.name}' is missing{expected}", where=card.name, remedy=f"{remedy}; {looked}"
    )


def _how_to_get(file: FileSpec, cached: Path, first: str) -> str:
    by_hand = f", or fetch {file.url} to {cached}" if file.url else ""
    return f"{first}, or set {DATA_VARIABLE} to the folder that holds it{by_hand}"


# ── fetching ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _fetch(file: FileSpec, path: Path, card: DatasetCard, progress: Progress) -> Path:
    """Bring the file from its address into the cache: whole and as the card says, or not at all."""
    url = file.url or ""
    if file.sha256 is None:
        raise ConfigError(
            f"[files] '{file.path}' has a url but no sha256: what comes could be anything",
            where=card.name,
            remedy="fetch the file yourself, look at it, and write the output of sha256sum into the card",
        )
    if urlsplit(url).scheme not in ("http", "https"):
        raise ConfigError(f"[files] '{file.path}': url = \"{url}\" is no http or https address", where=card.name)
    progress.say(f"fetching {url}")
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        found = _save(_chunks(url, _how_to_get(file, path, "check the connection")), temporary)
        if found != file.sha256:
            raise DataError(
                f"what came is not the file that the card '{card.name}' means: "
                f"expected sha256 {file.sha256}, found {found}",
                where=url,
                remedy="try again; if that does not help, get the file elsewhere and put it beside the card",
            )
        with storing(path):
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _save(chunks: Iterator[bytes], path: Path) -> Digest:
    """Write the chunks to a new file, flushed to the disk; return their sha256.  Raises StorageError."""
    sha = hashlib.sha256()
    with storing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            for chunk in chunks:
                sha.update(chunk)
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
    return sha.hexdigest()


def _chunks(url: str, remedy: str) -> Iterator[bytes]:
    request = urllib.request.Request(url, headers={"User-Agent": "karui"})  # noqa: S310 — http(s) was checked
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:  # noqa: S310 — as above
            yield from _read(answer, url)
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # it is the answer too, with an open connection
        raise DataError(f"cannot be fetched: {error}", where=url, remedy=remedy) from error


def _read(answer: IO[bytes], url: str) -> Iterator[bytes]:
    total_bytes = 0
    while chunk := answer.read(_CHUNK_BYTES):
        total_bytes += len(chunk)
        if total_bytes > LARGEST_DOWNLOAD_BYTES:
            raise DataError(f"more than {LARGEST_DOWNLOAD_BYTES:,} bytes came", where=url)
        yield chunk
