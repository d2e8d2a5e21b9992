"""Runs a pipeline step by step in a folder: what was done before with the same ingredients is recalled.

A run folder is readable by people::

    run.json                     what was run, with which command and versions, and when
    journal.jsonl                one line per event
    steps/NAME-KEY.json          the record of a finished step: its ingredients, how long it took, its artifact
    store/SHA256                 weights, predictions, model files
    work/NAME-KEY/               scratch of a step in progress; gone when its record is written

The record is written last and whole, so ``kill -9`` loses at most the step in progress.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import json
import os
import platform
import re
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from filelock import FileLock, Timeout
from pydantic import JsonValue, ValidationError

from pipeline.artifacts import Digest, StageNote
from pipeline.errors import ConfigError, RunBusyError
from pipeline.keys import Ingredients, ingredients, library_versions
from pipeline.progress import Progress
from pipeline.records import (
    Record,
    artifact_from,
    digests_in,
    from_json,
    read_record,
    record_bytes,
    refreshed,
    summary_of,
    to_json,
)
from pipeline.spec import Recipe
from pipeline.store import DISK_ERRORS, Store, remove_folder, remove_leftovers, storage_error, storing, write_atomic

P = ParamSpec("P")
A = TypeVar("A")
F = TypeVar("F", bound=Callable[..., object])

UNREADABLE = "cannot be read: it is damaged, or another version of karui wrote it"
_THIS_TIME_ONLY = frozenset({"--fresh", "--json", "--quiet", "--debug"})
_STEP_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")
_VERSION_MARK = "karui_stage_version"


# ── stages ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a stage gets besides its inputs."""

    store: Store  # where the bytes of its artifact go
    scratch: Path  # its own folder; survives kill -9, so a stage can resume inside; removed when it is done
    progress: Progress
    device: str  # "cpu", "cuda" …


def stage(*, version: int) -> Callable[[F], F]:
    """Mark a function ``(work: Work, *, inputs…) -> artifact`` as a stage.

    ``version`` is part of its source and with it of the key of its steps: raise it when results change for a reason
    that no source shows, for example a download.
    """

    def mark(function: F) -> F:
        vars(function)[_VERSION_MARK] = version
        return function

    return mark


@dataclass(frozen=True, kw_only=True)
class Deferred:
    """A stage that is imported when it is called, so that a recalled run need not load torch."""

    module: str
    function: str

    def __call__(self, work: Work, /, **inputs: Any) -> Any:
        """Import and call the stage."""
        function = getattr(importlib.import_module(self.module), self.function)
        if _VERSION_MARK not in vars(function):
            raise TypeError(f"{self.module}.{self.function} is not marked with @stage")
        return function(work, **inputs)


def deferred(module: str, function: str) -> Deferred:
    """Name a stage without importing it; type checkers should see the real import under ``if TYPE_CHECKING``."""
    return Deferred(module=module, function=function)


def _ingredients_of(function: Callable[..., object], inputs: Mapping[str, object]) -> Ingredients:
    if isinstance(function, Deferred):
        return ingredients(function.module, function.function, inputs)
    if _VERSION_MARK not in vars(function):
        raise TypeError(f"{function.__qualname__} is not marked with @stage")
    return ingredients(function.__module__, function.__qualname__, inputs)


# ── a run ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, kw_only=True)
class RunInfo:
    """What ``run.json`` says about a run."""

    name: str
    recipe: Recipe | None
    command: tuple[str, ...]
    started: str  # of the latest start, ISO 8601 in UTC
    device: str
    platform: str
    versions: dict[str, str]

    @property
    def again(self) -> str:
        """The command that finishes this run, or makes its results anew; empty when it is not known."""
        return shlex.join(repeatable(self.command))


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run folder that this process holds the lock of; made by ``open_run``."""

    folder: Path
    store: Store
    progress: Progress
    device: str
    notes: list[StageNote] = dataclasses.field(default_factory=list)  # grows by one with every step

    def step(self, name: str, function: Callable[Concatenate[Work, P], A], /, *args: P.args, **inputs: P.kwargs) -> A:
        """Return the artifact of ``function(work, **inputs)``: recalled if it is known and whole, else made now.

        ``name`` stands in file names and on the console: ``train``, ``validate-raspberry-pi-4b``.  Raises StorageError,
        and whatever the stage raises.
        """
        if args or not _STEP_NAME.fullmatch(name):
            raise TypeError(f"step '{name}': inputs go by keyword, names are small letters, digits and '-', '_', '.'")
        made_of = _ingredients_of(function, inputs)
        record = self._recall(name, made_of)
        recalled = record is not None
        if record is None:
            record = self._make(name, made_of, lambda work: function(work, *args, **inputs))
        remove_folder(self._scratch(name, made_of.key))  # also of a process that was killed right after its record
        note = StageNote(stage=name, recalled=recalled, duration_s=record.duration_s, summary=record.summary)
        self.notes.append(note)
        self._log("recalled" if recalled else "finished", step=name, key=made_of.key)
        self.progress.say(stage_line(note))
        return cast("A", refreshed(artifact_from(record), inputs))

    def _recall(self, name: str, made_of: Ingredients) -> Record | None:
        file = self._record_file(name, made_of.key)
        with storing(file):
            if not file.exists():
                return None
            data = file.read_bytes()
        try:
            record = read_record(data)
            artifact_from(record)
        except ValueError as error:
            self.progress.say(f"{name}  runs again: its record {file} cannot be read ({_first_line(error)})")
            return None
        damaged = [digest for digest in record.files if not self.store.is_whole(digest)]
        if damaged:
            self.progress.say(f"{name}  runs again: {self.store.root / damaged[0]} was altered or is gone")
        return None if damaged or record.key != made_of.key else record

    def _make(self, name: str, made_of: Ingredients, call: Callable[[Work], object]) -> Record:
        scratch = self._scratch(name, made_of.key)
        with storing(scratch):
            scratch.mkdir(parents=True, exist_ok=True)
        self._log("started", step=name, key=made_of.key)
        begin_s = time.monotonic()
        try:
            artifact = call(Work(store=self.store, scratch=scratch, progress=self.progress, device=self.device))
        except BaseException as error:
            self._log_failure(error, step=name, key=made_of.key)
            if isinstance(error, OSError) and error.errno in DISK_ERRORS:
                raise storage_error(error, Path(error.filename or scratch)) from error
            raise
        encoded = json.loads(to_json(artifact))
        record = Record(
            step=name,
            key=made_of.key,
            finished=_now(),
            duration_s=round(time.monotonic() - begin_s, 3),
            device=self.device,
            summary=summary_of(artifact),
            artifact_type=type(artifact).__name__,
            artifact=encoded,
            files=tuple(digest for digest in digests_in(encoded) if self.store.is_whole(digest)),
            made_of=made_of,
        )
        artifact_from(record)  # what could not be recalled must not be recorded
        write_atomic(self._record_file(name, made_of.key), record_bytes(record))
        return record

    def _record_file(self, name: str, key: Digest) -> Path:
        return self.folder / "steps" / f"{name}-{key[:16]}.json"

    def _scratch(self, name: str, key: Digest) -> Path:
        return self.folder / "work" / f"{name}-{key[:16]}"

    def _log(self, event: str, *, step: str = "", key: str = "", detail: str = "") -> None:
        _append_line(
            self.folder / "journal.jsonl",
            {"when": _now(), "event": event, "step": step, "key": key, "detail": detail, "pid": os.getpid()},
        )

    def _log_failure(self, error: BaseException, *, step: str = "", key: str = "") -> None:
        with contextlib.suppress(Exception):  # the disk may be full; the first error is the one to tell
            detail = f"{type(error).__name__}: {_first_line(error)}"
            self._log("failed", step=step, key=key, detail=detail)


@contextlib.contextmanager
def open_run(
    folder: Path,
    *,
    progress: Progress,
    device: str = "cpu",
    fresh: bool = False,
    recipe: Recipe | None = None,
    command: tuple[str, ...] = (),
) -> Iterator[Run]:
    """Hold the run folder for this process alone and write its ``run.json``; ``fresh`` forgets what was done before.

    Raises RunBusyError when another process holds it, StorageError when it cannot be written.
    """
    with _locked(folder):
        store = Store(folder / "store")
        for place in (folder, folder / "steps", store.root):
            remove_leftovers(place)
        if fresh:
            remove_folder(folder / "steps")
            remove_folder(folder / "work")
        info = RunInfo(
            name=folder.resolve().name,
            recipe=recipe,
            command=command,
            started=_now(),
            device=device,
            platform=platform.platform(),
            versions=library_versions(),
        )
        write_atomic(folder / "run.json", to_json(info, indent=2))
        run = Run(folder=folder, store=store, progress=progress, device=device)
        run._log("run started", detail=" ".join(command))
        try:
            yield run
        except BaseException as error:
            run._log_failure(error)
            raise
        run._log("run finished")


def read_run(folder: Path) -> RunInfo:
    """Return what ``run.json`` says.  Raises ConfigError when ``folder`` is no run folder."""
    file = folder / "run.json"
    try:
        return from_json(RunInfo, file.read_bytes())
    except FileNotFoundError as error:
        remedy = "name a folder that karui run made, or the name of one under runs/"
        raise ConfigError("is no run folder: it has no run.json", where=str(folder), remedy=remedy) from error
    except ValidationError as error:
        remedy = "run its recipe again with the same --out: this file is written anew"
        raise ConfigError(UNREADABLE, where=str(file), remedy=remedy) from error
    except OSError as error:
        raise storage_error(error, file) from error


def repeatable(command: Sequence[str]) -> tuple[str, ...]:
    """Return a command without what was meant for one time: how to print, how far to go, what to forget."""
    kept = [word for word in command if word not in _THIS_TIME_ONLY and not word.startswith("--until=")]
    if "--until" in kept:
        place = kept.index("--until")
        kept[place : place + 2] = []
    return tuple(kept)


def stage_line(note: StageNote) -> str:
    """One line for people: ``train  recalled  97.8 % validation accuracy`` or ``train  12.3 s  97.8 % …``."""
    did = "recalled" if note.recalled else f"{note.duration_s:.1f} s"
    return f"{note.stage:<24}  {did:>8}  {note.summary}".rstrip()


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    owner = folder / "lock.pid"  # filelock empties the lock file itself whenever somebody tries it
    with storing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / "lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:  # first: it is an OSError too
        remedy = "wait until it is done, or choose another folder with --out"
        raise RunBusyError(f"is in use by {_owner(owner)}", where=str(folder), remedy=remedy) from error
    except OSError as error:
        raise storage_error(error, folder) from error
    try:
        write_atomic(owner, str(os.getpid()).encode())
        yield
    finally:
        with contextlib.suppress(OSError):
            owner.unlink(missing_ok=True)
        lock.release()


def _owner(file: Path) -> str:
    try:
        return f"another karui process (pid {int(file.read_text())})"
    except (OSError, ValueError):  # it has the lock and did not get to write its pid yet
        return "another karui process"


def _append_line(file: Path, event: dict[str, JsonValue]) -> None:
    """Append one JSON line; after a line that a killed process left unfinished, start a new one."""
    with storing(file), file.open("a+b") as journal:
        end = journal.seek(0, os.SEEK_END)
        if end:
            journal.seek(end - 1)
        torn = bool(end) and journal.read(1) != b"\n"
        line = json.dumps({name: value for name, value in event.items() if value != ""}, ensure_ascii=False)
        journal.write(b"\n" * torn + line.encode() + b"\n")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), "")
