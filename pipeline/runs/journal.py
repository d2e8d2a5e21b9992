"""The journal of a run folder: one JSON line per event, and which steps' results the folder stands on."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from pipeline.artifacts.networks import Digest
from pipeline.runs.records import from_json
from pipeline.runs.store import storing

JOURNAL_FILE = "journal.jsonl"
RUN_STARTED, RUN_FINISHED = "run started", "run finished"


@dataclass(frozen=True, kw_only=True)
class Event:
    """One line; ``event`` is "run started", "started", "waiting", "recalled", "finished", "failed", "run finished"."""

    when: str  # ISO 8601, UTC
    event: str
    step: str = ""
    key: Digest = ""
    detail: str = ""
    pid: int


def now() -> str:
    """Return the time as journals and records write it: ISO 8601 in UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def append(folder: Path, event: str, *, step: str = "", key: str = "", detail: str = "") -> None:
    """Append an event; after a line that a killed process left unfinished, start a new one.  Raises StorageError."""
    fields = {"when": now(), "event": event, "step": step, "key": key, "detail": detail, "pid": os.getpid()}
    line = json.dumps({name: value for name, value in fields.items() if value != ""}, ensure_ascii=False)
    file = folder / JOURNAL_FILE
    with storing(file), file.open("a+b") as journal:
        end = journal.seek(0, os.SEEK_END)
        if end:
            journal.seek(end - 1)
        torn = bool(end) and journal.read(1) != b"\n"
        journal.write(b"\n" * torn + line.encode() + b"\n")


def events(folder: Path) -> Iterator[Event]:
    """Every whole event, the oldest first; none where there is no journal.  Raises StorageError."""
    file = folder / JOURNAL_FILE
    with storing(file):
        lines = file.read_bytes().splitlines() if file.exists() else []
    for line in lines:
        with contextlib.suppress(ValidationError):  # torn by a kill
            yield from_json(Event, line)


def steps_in_use(folder: Path) -> set[tuple[str, Digest]]:
    """Return name and key of every step that the latest finished run in this folder used, and of all begun since."""
    used: set[tuple[str, Digest]] = set()
    began: set[tuple[str, Digest]] = set()  # by the run whose events are being read
    for event in events(folder):
        if event.event == RUN_STARTED:
            used, began = used | began, set()
        elif event.event == RUN_FINISHED:
            used = began
        elif event.step and event.key:
            began.add((event.step, event.key))
    return used | began
