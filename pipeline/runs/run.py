"""Runs a pipeline step by step in a folder: what was done before with the same ingredients is recalled.

A run folder is readable by people::

    run.json                     what was run, with which command and versions, when, and which cache it used
    journal.jsonl                one line per event
    run.log                      one line per stage and epoch

What steps make lies in a folder that runs share (``pipeline.runs.cache``).  The record of a step is written last and
whole, so ``kill -9`` loses at most the step in progress; two runs that need the same step make it once.
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
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from pydantic import ValidationError

from pipeline.artifacts.outcome import StageNote
from pipeline.declare.recipe import Recipe
from pipeline.errors import ConfigError, RunBusyError
from pipeline.progress import Progress
from pipeline.runs import journal
from pipeline.runs.board import BOARD_FOLDER, Board
from pipeline.runs.cache import CACHE_VARIABLE, Cache, Seen, cache_folder, hold, mark_of, place_from
from pipeline.runs.keys import Ingredients, ingredients, library_versions
from pipeline.runs.log import LOG_FILE, Logged
from pipeline.runs.records import (
    Record,
    artifact_from,
    digests_in,
    from_json,
    from_sealed_json,
    kind_of,
    refreshed,
    to_json,
    to_sealed_json,
)
from pipeline.runs.store import (
    DISK_ERRORS,
    Store,
    remove_folder,
    remove_leftovers,
    storage_error,
    storing,
    write_atomic,
)

P = ParamSpec("P")
A = TypeVar("A")
F = TypeVar("F", bound=Callable[..., object])
T = TypeVar("T")

RUN_FILE = "run.json"
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

    def decided(self, name: str, kind: type[T], make: Callable[[], T]) -> T:
        """Return a decision that the clock takes: ``make()`` once, the same answer after a kill.

        ``kind`` is the dataclass that ``make`` returns; ``name`` is its file in the scratch folder.  Raises
        StorageError, what ``make`` raises, and ValueError for a decision that would not come back as it went.
        """
        if not _STEP_NAME.fullmatch(name):
            raise TypeError(f"decision '{name}': names are small letters, digits and '-', '_', '.'")
        file = self.scratch / f"{name}.json"
        with storing(file):
            data = file.read_bytes() if file.exists() else b""
        if data:
            try:
                return from_sealed_json(kind, data)
            except ValueError as error:
                self.progress.say(f"{name}  is decided again: {file} cannot be used ({_first_line(error)})")
        data = to_sealed_json(make())
        decision = from_sealed_json(kind, data)
        write_atomic(file, data)
        return decision


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
    cache: Path  # what it shares with other runs, seen from the run folder where both can be moved together
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
    cache: Cache
    store: Store
    progress: Logged
    distrusted: Seen | None  # records that are not recalled; None: all are, and so is what killed processes left
    notes: list[StageNote] = dataclasses.field(default_factory=list)  # grows by one with every step

    def step(self, name: str, function: Callable[Concatenate[Work, P], A], /, *args: P.args, **inputs: P.kwargs) -> A:
        """Return the artifact of ``function(work, **inputs)``: recalled if it is known and whole, else made now.

        ``name`` stands in file names and on the console: ``train``, ``judge-raspberry-pi-4``.  While another process
        is at the same step, it is waited for.  Raises StorageError, and whatever the stage raises.
        """
        if args or not _STEP_NAME.fullmatch(name):
            raise TypeError(f"step '{name}': inputs go by keyword, names are small letters, digits and '-', '_', '.'")
        made_of = _ingredients_of(function, inputs)
        record, _ = self._recall(name, made_of)
        recalled = record is not None
        if record is None:
            record, recalled = self._recall_or_make(name, made_of, lambda work: function(work, *args, **inputs))
        else:
            self._tidy(name, made_of)
        note = StageNote(stage=name, recalled=recalled, duration_s=record.duration_s, summary=record.summary)
        self.notes.append(note)
        self._log("recalled" if recalled else "finished", name, made_of)
        self.progress.say(stage_line(note))
        artifact = artifact_from(record)
        if recalled:
            self.progress.recalled(name, artifact)
        return cast("A", refreshed(artifact, inputs))

    def _recall(self, name: str, made_of: Ingredients) -> tuple[Record | None, str]:
        """Return the record of a step, or None and, if there is one that is not believed, the reason."""
        file = self.cache.record_file(name, made_of.key)
        with storing(file):
            if not (mark := mark_of(file)) or mark in (self.distrusted or ()):
                return None, ""
            data = file.read_bytes()
        try:
            record = from_sealed_json(Record, data)
            artifact_from(record)
        except ValueError as error:
            return None, f"its record {file} cannot be used ({_first_line(error)})"
        for digest in record.files:
            if not self.store.is_whole(digest):
                return None, f"{self.store.root / digest} was altered or is gone"
        return (record if record.key == made_of.key else None), ""

    def _recall_or_make(self, name: str, made_of: Ingredients, call: Callable[[Work], object]) -> tuple[Record, bool]:
        """Return the record that another process has made by now, else that of a call; and whether it is recalled."""

        def busy(owner: str) -> None:
            self._log("waiting", name, made_of, detail=owner)
            self.progress.say(f"{name:<24}  waits for {owner}, which is at this step")

        with hold(self.cache.lock_file(name, made_of.key), busy=busy):
            record, reason = self._recall(name, made_of)
            recalled = record is not None
            if reason:
                self.progress.say(f"{name}  runs again: {reason}")
            scratch = self.cache.scratch(name, made_of.key)
            if record is None:
                if self.distrusted is not None:
                    remove_folder(scratch)
                record = self._make(name, made_of, scratch, call)
            remove_folder(scratch)
        return record, recalled

    def _make(self, name: str, made_of: Ingredients, scratch: Path, call: Callable[[Work], object]) -> Record:
        with storing(scratch):
            scratch.mkdir(parents=True, exist_ok=True)
        self._log("started", name, made_of)
        begin_s = time.monotonic()
        self.progress.begin(name)
        try:
            artifact = call(Work(store=self.store, scratch=scratch, progress=self.progress))
        except BaseException as error:
            self._log_failure(error, step=name, key=made_of.key)
            if isinstance(error, OSError) and error.errno in DISK_ERRORS:
                raise storage_error(error, Path(error.filename or scratch)) from error
            raise
        encoded = json.loads(to_json(artifact))
        record = Record(
            step=name,
            key=made_of.key,
            finished=journal.now(),
            duration_s=round(time.monotonic() - begin_s, 3),
            summary=str(getattr(artifact, "summary", "")),
            artifact_type=kind_of(artifact),
            artifact=encoded,
            files=tuple(digest for digest in digests_in(encoded) if self.store.is_whole(digest)),
            made_of=made_of,
        )
        artifact_from(record)  # what could not be recalled must not be recorded
        write_atomic(self.cache.record_file(name, made_of.key), to_sealed_json(record, indent=1))
        return record

    def _tidy(self, name: str, made_of: Ingredients) -> None:
        """Remove the scratch of a process that was killed right after its record, if nobody is at this step again."""

        def busy(owner: str) -> None:
            raise RunBusyError(f"is in use by {owner}")

        scratch = self.cache.scratch(name, made_of.key)
        if scratch.exists():
            with contextlib.suppress(RunBusyError), hold(self.cache.lock_file(name, made_of.key), busy=busy):
                remove_folder(scratch)

    def _log(self, event: str, step: str, made_of: Ingredients, *, detail: str = "") -> None:
        journal.append(self.folder, event, step=step, key=made_of.key, detail=detail)

    def _log_failure(self, error: BaseException, *, step: str = "", key: str = "") -> None:
        with contextlib.suppress(Exception):  # the disk may be full; the first error is the one to tell
            detail = f"{type(error).__name__}: {_first_line(error)}"
            journal.append(self.folder, "failed", step=step, key=key, detail=detail)


@contextlib.contextmanager
def open_run(
    folder: Path,
    *,
    progress: Progress,
    fresh: bool = False,
    recipe: Recipe | None = None,
    command: tuple[str, ...] = (),
    tensorboard: bool = False,
) -> Iterator[Run]:
    """Hold the run folder for this process alone and write its ``run.json``.

    ``fresh``: nothing that was made before is recalled; ``tensorboard``: curves are written for it.  Raises
    RunBusyError when another process holds the folder, StorageError when it or the cache cannot be written.
    """

    def busy(owner: str) -> None:
        remedy = "wait until it is done, or choose another folder with --out"
        raise RunBusyError(f"is in use by {owner}", where=str(folder), remedy=remedy)

    cache = Cache(root=_cache_for(folder))
    with hold(folder / "lock", busy=busy), cache.in_use():
        remove_leftovers(folder)
        info = RunInfo(
            name=folder.resolve().name,
            recipe=recipe,
            command=command,
            started=journal.now(),
            cache=place_from(folder, cache.root),
            platform=platform.platform(),
            versions=library_versions(),
        )
        write_atomic(folder / RUN_FILE, to_json(info, indent=2))
        cache.register(folder)
        board = Board(folder=folder / BOARD_FOLDER) if tensorboard else None
        log = Logged(watched=progress, file=folder / LOG_FILE, board=board)
        log.write(f"started: {' '.join(command)}")
        run = Run(
            folder=folder,
            cache=cache,
            store=Store(cache.store),
            progress=log,
            distrusted=cache.seen() if fresh else None,
        )
        journal.append(folder, journal.RUN_STARTED, detail=" ".join(command))
        try:
            yield run
        except BaseException as error:
            run._log_failure(error)
            with contextlib.suppress(Exception):  # the disk may be full; the first error is the one to tell
                log.write(f"stopped: {type(error).__name__}: {_first_line(error)}")
            raise
        journal.append(folder, journal.RUN_FINISHED)
        if board is not None:
            log.say(board.how_to_look)
        log.write("finished")


def _cache_for(folder: Path) -> Path:
    """Return the folder to share: the one KARUI_CACHE names, else the one this run used before, else the usual one."""
    if not os.environ.get(CACHE_VARIABLE) and (folder / RUN_FILE).is_file():
        with contextlib.suppress(ConfigError):  # its run.json is damaged
            used = folder / read_run(folder).cache
            if used.is_dir():
                return used
    return cache_folder()


def read_run(folder: Path) -> RunInfo:
    """Return what ``run.json`` says.  Raises ConfigError when ``folder`` is no run folder."""
    file = folder / RUN_FILE
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
    """One line for people: ``train  recalled  validation mIoU 97.8 %`` or ``train  12.3 s  97.8 % …``."""
    did = "recalled" if note.recalled else f"{note.duration_s:.1f} s"
    return f"{note.stage:<24}  {did:>8}  {note.summary}".rstrip()


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), "")
