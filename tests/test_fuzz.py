"""Some hundred changed files of every kind: each is taken or refused in words, soon, in little memory.

``bench/bench_fuzz.py`` tries many more.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from pipeline.errors import ConfigError, KaruiError
from pipeline.onboard.faults import OnboardFault
from tests.fuzz import seeds, worker
from tests.fuzz.kinds import KINDS
from tests.fuzz.trying import shares, tried

INPUTS = 320
SEED = 20_000  # another one than the bench begins with


@pytest.fixture
def beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in a folder of sound files."""
    monkeypatch.chdir(tmp_path)
    seeds.write_beside(tmp_path)
    return tmp_path


def test_every_changed_file_is_taken_or_refused_in_words(tmp_path: Path) -> None:
    found = dict(tried(shares(INPUTS), SEED, tmp_path))
    assert [fault for tally in found.values() for fault in tally.faults] == []
    assert sum(sum(tally.counts.values()) for tally in found.values()) == INPUTS
    assert sum(tally.counts["accepted"] for tally in found.values()) > INPUTS / 20  # not all is nonsense


@pytest.mark.parametrize("name", KINDS)
def test_sound_files_are_taken_by_every_use(name: str, beside: Path) -> None:
    """What is never taken tests nothing but the first check."""
    kind = KINDS[name]
    taken = set()
    for content in kind.seeds():
        (beside / kind.file).write_bytes(content)
        for place, use in enumerate(kind.uses):
            try:
                use(beside / kind.file)
            except (KaruiError, OnboardFault):
                continue
            taken.add(place)
    assert taken == set(range(len(kind.uses)))


def _made(name: str, number: int) -> bytes:
    return worker.made(KINDS[name], name, SEED, number)


@pytest.mark.parametrize("name", KINDS)
def test_changed_files_are_the_same_for_the_same_number_and_differ_for_others(name: str) -> None:
    some = [_made(name, number) for number in range(30)]
    assert some == [_made(name, number) for number in range(30)]
    assert len(set(some)) > 25


def _raises(_: Path) -> None:
    raise AttributeError("nobody thought of it")


def _says_bug(_: Path) -> None:
    raise KaruiError("no", remedy="this is a bug in karui")


def _warns(_: Path) -> None:
    warnings.warn("odd", RuntimeWarning, stacklevel=1)


def _grows(_: Path) -> None:
    bytes(1 << 20) * 1100


def _refuses(_: Path) -> None:
    raise ConfigError("not like that")


@pytest.mark.parametrize(
    ("use", "outcome"),
    [
        (len, worker.RAISED),
        (_raises, worker.RAISED),
        (_says_bug, worker.RAISED),
        (_warns, worker.WARNED),
        (_grows, worker.GREW),
        (_refuses, worker.REFUSED),
        (str, worker.ACCEPTED),
    ],
)
@pytest.mark.filterwarnings("default")
def test_what_goes_wrong_is_seen(use: object, outcome: str, tmp_path: Path) -> None:
    assert worker._tried(use, tmp_path)[0] == outcome  # type: ignore[arg-type]


def test_what_is_slow_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "MOST_SECONDS", 1e-6)
    assert worker._tried(lambda _: sum(range(100_000)), tmp_path)[0] == worker.SLOW


def test_a_process_that_dies_is_seen_and_the_next_input_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(worker.DIES_AT, "csv 1")
    ((name, tally),) = tried({"csv": 3}, SEED, tmp_path)
    assert name == "csv"
    assert [(fault.number, fault.what) for fault in tally.faults] == [(1, "died")]
    assert sum(tally.counts.values()) == 3
