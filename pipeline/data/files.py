"""Where the files of a data set lie: beside the card, in ``$KARUI_DATA``, in the user's cache, or at their address.

A file counts as found when its sha256 is the card's.  Nothing is fetched while a file of that name is on the disk, and
nothing is fetched whose sha256 is unknown.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import platformdirs

from pipeline.artifacts.networks import Digest
from pipeline.data.fetch import fetched, without_password
from pipeline.declare.card import DatasetCard, FileSpec
from pipeline.errors import ConfigError, DataError
from pipeline.paths import expanded, resolved
from pipeline.progress import Progress
from pipeline.runs.store import sha256_of_file
from pipeline.shipped import shipped_folder

DATA_VARIABLE = "KARUI_DATA"
_HASHING_THREADS = 4  # hashlib lets go of the interpreter's lock
_SMALL_BYTES = 1 << 20
_LIKELIEST = 2  # of the places where a missing file could lie are named: beside the card, and in $KARUI_DATA

# path → (mark of the file's state, sha256): a file is hashed once per process unless it changes
_Mark = tuple[int, int, int]
_hashed: dict[Path, tuple[_Mark, Digest]] = {}


@dataclass(frozen=True, kw_only=True)
class Found:
    """The files of a data set on this disk, checked against the card."""

    beside: Path  # the card's folder
    files: Mapping[str, Path] = field(default_factory=dict)  # role → file

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
    """Return all files of a card, fetching what is nowhere on the disk.

    Raises DataError naming the file that is missing or altered, ConfigError for a card that cannot be meant.
    """
    files = {role: _locate_file(file, card, beside, progress) for role, file in card.files.items()}
    return Found(files=files, beside=beside)


def locate_folder(name: str, card: DatasetCard, beside: Path) -> Path:
    """Return a folder that a card names.  Raises DataError with the places where it was looked for."""
    candidates = places(name, beside)
    for path in candidates:
        if path.is_dir():
            return resolved(path)
    raise _missing(
        name, candidates, card, f"put it beside the card, or set {DATA_VARIABLE} to the folder that holds it"
    )


def locate_code(name: str, card: DatasetCard, beside: Path) -> Path:
    """Return a Python file that a card names: beside it, or among the shipped ones.  Raises DataError."""
    given = expanded(name, where=card.name)
    candidates = [given] if given.is_absolute() else [beside / given, shipped_folder("calibration_data") / given]
    for path in candidates:
        if path.is_file():
            return resolved(path)
    raise _missing(name, candidates, card, "put it beside the card")


def sha256_of(path: Path) -> Digest:
    """Return the sha256 of a file; one that did not change since it was last asked for is not read again.

    Raises DataError when it cannot be read.
    """
    try:
        status = path.stat()
        mark = (status.st_size, status.st_mtime_ns, status.st_ino)
        known = _hashed.get(path)
        if known is None or known[0] != mark:
            known = _hashed[path] = (mark, _sha256_of_content(path, status.st_size))
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", where=str(path)) from error
    return known[1]


def sha256_of_each(paths: Sequence[Path]) -> list[Digest]:
    """Return the sha256 of many files, large ones hashed side by side.  Raises DataError for an unreadable one."""
    with ThreadPoolExecutor(_HASHING_THREADS) as pool:  # small files are over before a thread has been told of them
        for _ in pool.map(sha256_of, [path for path in paths if _is_large(path)]):
            pass
    return [sha256_of(path) for path in paths]


def _is_large(path: Path) -> bool:
    try:
        return path.stat().st_size > _SMALL_BYTES
    except OSError:
        return False  # the one who reads it says why


def _sha256_of_content(path: Path, size_bytes: int) -> Digest:
    if size_bytes > _SMALL_BYTES:
        return sha256_of_file(path)
    with path.open("rb", buffering=0) as file:
        return hashlib.sha256(file.read()).hexdigest()


def cache_folder(card: DatasetCard) -> Path:
    """Return where fetched files of this card are kept: in the user's cache, which may be emptied at any time."""
    return Path(platformdirs.user_cache_path("karui", appauthor=False)) / "data" / card.name


def places(path: str, beside: Path) -> list[Path]:
    """Return where a relative path may lie on this disk: beside the card, in ``$KARUI_DATA`` and one level down."""
    given = expanded(path)
    if given.is_absolute():
        return [given]
    found = [beside / given]
    if root := os.environ.get(DATA_VARIABLE):
        data = expanded(root, where=DATA_VARIABLE)
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
            return resolved(path)
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
    return fetched(file, cached, card.name, progress, _how_to_get(file, cached, "check the connection"))


def _missing(
    name: str, candidates: Sequence[Path], card: DatasetCard, remedy: str, *, sha256: Digest | None = None
) -> DataError:
    likeliest = list(dict.fromkeys(map(str, candidates)))[:_LIKELIEST]
    more = f" and in {len(candidates) - len(likeliest)} folders of {DATA_VARIABLE}" if candidates[_LIKELIEST:] else ""
    looked = f"looked for {' and '.join(likeliest)}{more}"
    expected = f" (expected sha256 {sha256})" if sha256 else ""
    return DataError(
        f"'{name}' of the data set '{card.name}' is missing{expected}", where=card.name, remedy=f"{remedy}; {looked}"
    )


def _how_to_get(file: FileSpec, cached: Path, first: str) -> str:
    by_hand = f", or fetch {without_password(file.url)} to {cached}" if file.url else ""
    return f"{first}, or set {DATA_VARIABLE} to the folder that holds it{by_hand}"
