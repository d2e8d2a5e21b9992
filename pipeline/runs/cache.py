"""The folder that runs share, and who is working in it.

::

    steps/NAME-KEY.json   the record of a finished step: its ingredients, how long it took, its artifact
    store/SHA256          weights, predictions, model files
    work/NAME-KEY/        scratch of a step in progress; gone when its record is written
    locks/NAME-KEY        held by the process that is at this step
    busy/PID-….run        held by a run in progress; gone when it ends
    runs/…                where the run folders lie that have used this cache

Every lock dies with its process.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from pipeline.artifacts.networks import Digest
from pipeline.errors import RunBusyError
from pipeline.paths import expanded
from pipeline.runs.store import remove_leftovers, storage_error, storing, write_atomic

CACHE_VARIABLE = "KARUI_CACHE"
DEFAULT_CACHE = Path("runs") / ".cache"

Seen = frozenset[tuple[str, int, int]]  # name, inode and time of change of every record that was there


def cache_folder() -> Path:
    """Return the folder that runs share: what KARUI_CACHE names, else runs/.cache in the working folder."""
    named = os.environ.get(CACHE_VARIABLE)
    return expanded(named, where=CACHE_VARIABLE) if named else DEFAULT_CACHE


@dataclass(frozen=True, kw_only=True)
class Cache:
    """What lies where."""

    root: Path

    @property
    def steps(self) -> Path:
        """Return the folder of records."""
        return self.root / "steps"

    @property
    def store(self) -> Path:
        """Return the folder of ``Store``."""
        return self.root / "store"

    @property
    def work(self) -> Path:
        """Return the folder of scratch folders."""
        return self.root / "work"

    @property
    def locks(self) -> Path:
        """Return the folder of the steps' locks."""
        return self.root / "locks"

    @property
    def busy(self) -> Path:
        """Return the folder of the marks of runs in progress."""
        return self.root / "busy"

    @property
    def runs(self) -> Path:
        """Return the folder that names the run folders."""
        return self.root / "runs"

    def record_file(self, step: str, key: Digest) -> Path:
        """Return where the record of a step lies."""
        return self.steps / f"{step_id(step, key)}.json"

    def scratch(self, step: str, key: Digest) -> Path:
        """Return where a step may leave what it needs to go on after a kill."""
        return self.work / step_id(step, key)

    def lock_file(self, step: str, key: Digest) -> Path:
        """Return the lock of a step."""
        return self.locks / step_id(step, key)

    def seen(self) -> Seen:
        """Return which records are there now.  Raises StorageError."""
        with storing(self.steps):
            if not self.steps.is_dir():
                return frozenset()
            return frozenset(mark for file in self.steps.iterdir() if (mark := mark_of(file)))

    # ── who is working here ─────────────────────────────────────────────────────────────────────────────────────────

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Mark this process as working in the cache.  Raises StorageError.

        The first one there removes what killed writers left: nobody else can be writing then.
        """
        marker = self.busy / f"{os.getpid()}-{secrets.token_hex(4)}.run"
        lock = FileLock(marker)
        with self._gate():
            alone = not self.pids_at_work()
            with storing(marker):
                lock.acquire()
            if alone:
                remove_leftovers(self.steps)
                remove_leftovers(self.store)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                marker.unlink()
            lock.release()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keep every run from starting.  Raises RunBusyError while one is in progress, and StorageError."""
        with self._gate():
            if pids := self.pids_at_work():
                raise RunBusyError(
                    f"a run is in progress here (pid {', '.join(map(str, pids))})",
                    where=str(self.root),
                    remedy="wait until it is done, and try again",
                )
            yield

    def pids_at_work(self) -> tuple[int, ...]:
        """Return the processes whose runs are in progress.  Raises StorageError."""
        with storing(self.busy):
            return tuple(int(marker.name.partition("-")[0]) for marker in self.busy.glob("*.run") if _is_held(marker))

    @contextlib.contextmanager
    def _gate(self) -> Iterator[None]:
        """Let one process at a time see who is there and join them."""
        lock = FileLock(self.busy / "gate")
        with storing(self.busy):
            self.busy.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    # ── which run folders there are ─────────────────────────────────────────────────────────────────────────────────

    def register(self, folder: Path) -> None:
        """Remember that a run folder uses this cache.  Raises StorageError."""
        place = str(place_from(self.root, folder))
        file = self.runs / hashlib.sha256(place.encode()).hexdigest()[:16]
        if not file.exists():
            write_atomic(file, place.encode())

    def run_folders(self) -> dict[Path, Path]:
        """Return every run folder that has used this cache, and the file that names it.  Raises StorageError."""
        with storing(self.runs):
            if not self.runs.is_dir():
                return {}
            return {(self.root / file.read_text()).resolve(): file for file in sorted(self.runs.iterdir())}


def step_id(step: str, key: Digest) -> str:
    """Return the name of a step's files."""
    return f"{step}-{key[:16]}"


def mark_of(file: Path) -> tuple[str, int, int] | None:
    """Return what changes whenever a file is written anew; None when it is not there.  Raises OSError."""
    try:
        status = file.stat()
    except FileNotFoundError:
        return None
    return file.name, status.st_ino, status.st_mtime_ns


def place_from(origin: Path, place: Path) -> Path:
    """Return the way from ``origin`` to ``place``: it stays true when the working folder that holds both is moved."""
    here = Path.cwd()
    start, end = origin.resolve(), place.resolve()
    if start.is_relative_to(here) and end.is_relative_to(here):
        return Path(os.path.relpath(end, start))
    return end


@contextlib.contextmanager
def hold(file: Path, *, busy: Callable[[str], None]) -> Iterator[None]:
    """Hold a lock for this process alone.

    When somebody else has it, ``busy`` is told who, once; if it raises nothing, the lock is waited for.  Raises
    StorageError, and what ``busy`` raises.
    """
    owner = file.with_name(f"{file.name}.pid")  # filelock empties the lock file itself whenever somebody tries it
    with storing(file.parent):
        file.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(file)
    try:
        if not _acquired(lock):
            busy(_owner(owner))
            lock.acquire()
    except OSError as error:
        raise storage_error(error, file.parent) from error
    try:
        write_atomic(owner, str(os.getpid()).encode())
        yield
    finally:
        with contextlib.suppress(OSError):
            owner.unlink(missing_ok=True)
        lock.release()


def _acquired(lock: FileLock) -> bool:
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    return True


def _is_held(marker: Path) -> bool:
    """Tell whether a living process holds the lock; the mark of a dead one is taken away.  Only inside the gate."""
    lock = FileLock(marker)
    if not _acquired(lock):
        return True
    marker.unlink(missing_ok=True)
    lock.release()
    return False


def _owner(file: Path) -> str:
    try:
        return f"another karui process (pid {int(file.read_text())})"
    except (OSError, ValueError):  # it has the lock and did not get to write its pid yet
        return "another karui process"
