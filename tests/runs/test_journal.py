"""A journal tells what happened in a run folder, and from that which steps the folder stands on."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pipeline.errors import StorageError
from pipeline.runs.journal import RUN_FINISHED, RUN_STARTED, append, events, steps_in_use

KEY = "a" * 64


def _tell(folder: Path, *told: str) -> None:
    """``>`` and ``<`` begin and end a run, ``!`` fails it, everything else is a step."""
    for word in told:
        match word:
            case ">":
                append(folder, RUN_STARTED)
            case "<":
                append(folder, RUN_FINISHED)
            case "!":
                append(folder, "failed", detail="no luck")
            case step:
                append(folder, "started", step=step, key=KEY)
                append(folder, "finished", step=step, key=KEY)


def test_events_come_back_without_what_is_empty(tmp_path: Path) -> None:
    append(tmp_path, "failed", step="train", key=KEY, detail='"ü"')
    append(tmp_path, RUN_FINISHED)
    first, second = events(tmp_path)
    assert (first.event, first.step, first.key, first.detail, first.pid) == ("failed", "train", KEY, '"ü"', os.getpid())
    assert (second.step, second.detail) == ("", "")
    assert first.when <= second.when
    assert json.loads((tmp_path / "journal.jsonl").read_text().splitlines()[1]).keys() == {"when", "event", "pid"}


def test_a_torn_line_is_left_out_and_the_next_one_is_not(tmp_path: Path) -> None:
    append(tmp_path, RUN_STARTED)
    with (tmp_path / "journal.jsonl").open("a") as journal:
        journal.write('{"when": "20')
    append(tmp_path, RUN_FINISHED)
    assert [event.event for event in events(tmp_path)] == [RUN_STARTED, RUN_FINISHED]


def test_where_nothing_was_run(tmp_path: Path) -> None:
    assert list(events(tmp_path)) == []
    assert steps_in_use(tmp_path) == set()
    with pytest.raises(StorageError):
        append(tmp_path / "nowhere", RUN_STARTED)


@pytest.mark.parametrize(
    ("told", "used"),
    [
        ("> a b <", "ab"),
        ("> a b < > b c <", "bc"),
        ("> a b < > c !", "abc"),
        ("> a b < > c ! > b d <", "bd"),
        ("> a b < > c > d", "abcd"),
        ("> a", "a"),
        ("> a > b <", "b"),
        ("> a < > <", ""),
    ],
)
def test_a_folder_stands_on_its_latest_finished_run_and_what_began_since(tmp_path: Path, told: str, used: str) -> None:
    _tell(tmp_path, *told.split())
    assert steps_in_use(tmp_path) == {(step, KEY) for step in used}
