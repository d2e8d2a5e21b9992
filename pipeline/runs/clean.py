"""What runs share and none of them uses any more: how much it is, and away with it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.artifacts.networks import Digest
from pipeline.runs.cache import Cache, step_id
from pipeline.runs.finished import OUTCOME_FILE
from pipeline.runs.journal import steps_in_use
from pipeline.runs.records import Record, digests_in, from_sealed_json
from pipeline.runs.run import RUN_FILE
from pipeline.runs.store import remove_folder, storing


@dataclass(frozen=True, kw_only=True)
class Cleaning:
    """What can go from a cache, and what stays."""

    cache: Path
    everything: bool
    records: tuple[Path, ...]  # of steps that no run folder uses
    objects: tuple[Path, ...]  # of the store
    scratch: tuple[Path, ...]  # folders of steps that were killed and that nobody goes on with
    size_bytes: int  # of all of them
    kept_bytes: int  # of what stays
    runs: int  # run folders that use the cache
    gone: tuple[Path, ...]  # files that name run folders which are gone

    @property
    def summary(self) -> str:
        """Say what can be freed and what stays."""
        whose = f"{_counted(self.runs, 'run')} use{'s' * (self.runs == 1)} it"
        kept = f"{self.cache}: {_size(self.size_bytes + self.kept_bytes)}; {whose}"
        if not (self.records or self.objects or self.scratch):
            return f"{kept}; nothing to free"
        parts = {"finished step": self.records, "stored file": self.objects, "unfinished step": self.scratch}
        counts = ", ".join(_counted(len(paths), noun) for noun, paths in parts.items() if paths)
        why = "everything, also what runs use" if self.everything else "no run uses them"
        return f"{kept}; {_size(self.size_bytes)} can be freed: {counts} ({why})"

    def carry_out(self) -> Cleaning:
        """Delete what this plan names and is still unused; return what was deleted.

        Raises RunBusyError, having deleted nothing, while a run on this cache is in progress, and StorageError.
        """
        cache = Cache(root=self.cache)
        if not self.cache.is_dir():
            return self
        with cache.alone():
            # a run may have come and gone since the plan was made, and use again what it names
            now = plan_cleaning(self.cache, everything=self.everything)
            done = replace(
                now,
                records=_both(self.records, now.records),
                objects=_both(self.objects, now.objects),
                scratch=_both(self.scratch, now.scratch),
            )
            done = replace(done, size_bytes=_bytes((*done.records, *done.objects, *done.scratch)))
            for file in (*done.records, *done.objects, *done.gone):  # records first: none may name what is gone
                with storing(file):
                    file.unlink(missing_ok=True)
            for folder in (*done.scratch, cache.locks):  # nobody holds a lock: no run is in progress
                remove_folder(folder)
            return done


def plan_cleaning(cache: Path, *, everything: bool = False) -> Cleaning:
    """Find what no run folder uses any more, or with ``everything`` all there is; deletes nothing.

    A run folder uses what its latest finished run used and all that was begun in it since; one that is gone uses
    nothing.  Raises StorageError.
    """
    shared = Cache(root=cache)
    known = shared.run_folders()
    there = [folder for folder in known if (folder / RUN_FILE).is_file()]
    ids = set() if everything else {step_id(*step) for folder in there for step in steps_in_use(folder)}
    used = {shared.steps / f"{each}.json" for each in ids} | {shared.work / each for each in ids}
    digests = set() if everything else {digest for folder in there for digest in _digests_of(folder)}
    digests |= {digest for file in used for digest in _files_of(file)}
    used |= {shared.store / digest for digest in digests}
    records, objects, scratch = (_in(folder) for folder in (shared.steps, shared.store, shared.work))
    free = [path for path in (*records, *objects, *scratch) if path not in used]
    return Cleaning(
        cache=cache,
        everything=everything,
        records=_both(records, free),
        objects=_both(objects, free),
        scratch=_both(scratch, free),
        size_bytes=_bytes(free),
        kept_bytes=_bytes(path for path in (*records, *objects, *scratch) if path in used),
        runs=len(there),
        gone=tuple(file for folder, file in known.items() if folder not in there),
    )


def _in(folder: Path) -> tuple[Path, ...]:
    with storing(folder):
        return tuple(sorted(folder.iterdir())) if folder.is_dir() else ()


def _both(first: Iterable[Path], second: Iterable[Path]) -> tuple[Path, ...]:
    wanted = frozenset(second)
    return tuple(path for path in first if path in wanted)


def _files_of(record: Path) -> tuple[Digest, ...]:
    """Return what a record needs from the store; nothing where there is none or it is not believed."""
    with storing(record):
        data = record.read_bytes() if record.is_file() else b""
    try:
        return from_sealed_json(Record, data).files
    except ValueError:
        return ()


def _digests_of(folder: Path) -> tuple[Digest, ...]:
    """Return what the outcome in a run folder speaks of, were it altered or not."""
    file = folder / OUTCOME_FILE
    with storing(file):
        data = file.read_bytes() if file.is_file() else b"null"
    try:
        return digests_in(json.loads(data))
    except ValueError:
        return ()


def _bytes(paths: Iterable[Path]) -> int:
    return sum(size for path in paths for size in _sizes(path))


def _sizes(path: Path) -> Iterator[int]:
    files = (path, *path.rglob("*")) if path.is_dir() else (path,)
    for file in files:
        with contextlib.suppress(FileNotFoundError):  # of a run in progress, which has gone on
            if file.is_file():
                yield file.stat().st_size


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'s' * (count != 1)}"


def _size(size_bytes: int) -> str:
    size = float(size_bytes)
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
