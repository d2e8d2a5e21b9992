"""Bytes kept under their sha256: written whole or not at all, checked when read.  Knows nothing of machine learning.

Every file goes to a temporary name in its own folder, is flushed to the disk and only then renamed, so that a killed
process or a full disk leaves the old file or none, never half of one.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.networks import Digest
from pipeline.errors import StorageError

_DIGEST = re.compile(r"[0-9a-f]{64}")
_LEFTOVERS = ".*.tmp"

DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}  # the disk's fault, whoever wrote

_ELSEWHERE = "another folder: --out for the results, KARUI_CACHE for what runs share"
_NO_SPACE = f"free some space on that disk (karui clean), or choose {_ELSEWHERE}, and run the same command again"
_NO_RIGHT = f"make the folder writable, or choose {_ELSEWHERE}"
_REMEDIES = {
    errno.ENOSPC: _NO_SPACE,
    errno.EDQUOT: _NO_SPACE,
    errno.EFBIG: "raise the limit on the size of files (ulimit -f), and run the same command again",
    errno.EACCES: _NO_RIGHT,
    errno.EPERM: _NO_RIGHT,
    errno.EROFS: _NO_RIGHT,
    errno.ENOTDIR: f"a file lies where a folder is needed: move it away, or choose {_ELSEWHERE}",
    errno.EEXIST: f"a file lies where a folder is needed: move it away, or choose {_ELSEWHERE}",
    errno.EISDIR: f"a folder lies where a file is needed: move it away, or choose {_ELSEWHERE}",
}


def storage_error(error: OSError, path: Path) -> StorageError:
    """Put an error of the operating system about ``path`` into words: what, which file, what to do."""
    reason = (error.strerror or str(error)).lower()
    remedy = _REMEDIES.get(error.errno or 0, "see that the disk is in order, and run the same command again")
    return StorageError(f"cannot be written or read: {reason}", where=str(path), remedy=remedy)


@contextlib.contextmanager
def storing(path: Path) -> Iterator[None]:
    """Turn every OSError inside the block into a StorageError about ``path``."""
    try:
        yield
    except OSError as error:
        raise storage_error(error, path) from error


def write_atomic(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path``, whole or not at all; missing folders are made.

    Raises StorageError when the disk is full, the folder is read-only and so on; the old file, if any, then stays.
    """
    temporary = path.parent / f".{secrets.token_hex(8)}.tmp"
    with storing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with storing(temporary), temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        with storing(path):
            temporary.replace(path)
            _flush_folder(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def remove_leftovers(folder: Path) -> None:
    """Delete what killed writers left in ``folder``; only for a folder that no other process writes to."""
    with storing(folder):
        for leftover in folder.glob(_LEFTOVERS):
            leftover.unlink(missing_ok=True)


def sha256_of_file(path: Path) -> Digest:
    """Return the sha256 of a file's bytes in hex.  Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Store:
    """A folder of files, each named by the sha256 of its content.

    Whoever asks for a digest gets exactly the bytes that were put, or a StorageError.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        # digest → (size, mtime, inode) of the file when it was last found whole; saves hashing large files again
        self._seen_whole: dict[Digest, tuple[int, int, int]] = {}

    def put(self, data: bytes) -> Digest:
        """Keep ``data``; return its sha256.  Nothing is written when it is there already.  Raises StorageError."""
        digest = hashlib.sha256(data).hexdigest()
        if not self.is_whole(digest):  # an altered file is replaced: running a stage again mends the store
            write_atomic(self.root / digest, data)
        return digest

    def put_array(self, array: NDArray[Any]) -> Digest:
        """Keep an array as ``.npy`` bytes (no pickle); return their sha256.  Raises StorageError."""
        buffer = io.BytesIO()
        np.save(buffer, array, allow_pickle=False)
        return self.put(buffer.getvalue())

    def get(self, digest: Digest) -> bytes:
        """Return the bytes of ``digest``.  Raises StorageError when they are missing or altered."""
        path = self._path_of(digest)
        data = self._read(path)
        if hashlib.sha256(data).hexdigest() != digest:
            raise _altered(path)
        return data

    def get_array(self, digest: Digest) -> NDArray[Any]:
        """Return the array of ``digest``.  Raises StorageError when it is missing, altered or no array."""
        try:
            array: NDArray[Any] = np.load(io.BytesIO(self.get(digest)), allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise StorageError(f"is no .npy array: {error}", where=str(self.root / digest)) from error
        return array

    def path(self, digest: Digest) -> Path:
        """Return the file of ``digest``, its content checked, for libraries that want a path.  Raises StorageError."""
        path = self._path_of(digest)
        if not path.is_file():
            raise _missing(path)
        if not self.is_whole(digest):
            raise _altered(path)
        return path

    def is_whole(self, digest: Digest) -> bool:
        """Tell whether ``digest`` is here and unaltered.  Raises StorageError when the file cannot be read."""
        path = self._path_of(digest)
        with storing(path):
            try:
                status = path.stat()
            except FileNotFoundError:
                return False
            mark = (status.st_size, status.st_mtime_ns, status.st_ino)
            if self._seen_whole.get(digest) == mark:
                return True
            if not path.is_file() or sha256_of_file(path) != digest:
                return False
        self._seen_whole[digest] = mark
        return True

    def _path_of(self, digest: Digest) -> Path:
        if not _DIGEST.fullmatch(digest):  # would otherwise name a file outside the store
            raise StorageError(f"'{digest}' is no sha256", where=str(self.root))
        return self.root / digest

    @staticmethod
    def _read(path: Path) -> bytes:
        try:
            return path.read_bytes()
        except FileNotFoundError as error:
            raise _missing(path) from error
        except OSError as error:
            raise storage_error(error, path) from error


def _missing(path: Path) -> StorageError:
    return StorageError(
        "this file is gone from the store",
        where=str(path),
        remedy="run the same command again, if need be with --fresh: the stage that made it then runs again",
    )


def _altered(path: Path) -> StorageError:
    return StorageError(
        "this file was altered after it was stored: its content is not what its name says",
        where=str(path),
        remedy="delete it, or run with --fresh: the stage that made it then runs again",
    )


def _flush_folder(folder: Path) -> None:
    """Make a rename survive a power cut; only POSIX can open a folder."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_folder(folder: Path) -> None:
    """Delete a folder and all in it; a missing one is fine.  Raises StorageError."""
    with storing(folder), contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)
