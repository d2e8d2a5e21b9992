"""Tries changed files in a process that is watched: how many are taken or refused in words, and what goes wrong."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.fuzz.kinds import KINDS
from tests.fuzz.worker import ACCEPTED, REFUSED

DIED, HUNG = "died", "hung"
LIMIT_S = 60.0  # by the clock, for what does not even work: see ``worker.MOST_SECONDS``
_START_S = 120.0


@dataclass(frozen=True, kw_only=True)
class Fault:
    """An input that was neither taken nor refused in words."""

    kind: str
    number: int
    what: str  # raised, warned, grew, slow, died, hung
    why: str


@dataclass(kw_only=True)
class Tally:
    """How the inputs of one kind ended: accepted, where any of its uses took them."""

    counts: Counter[str] = field(default_factory=Counter)
    faults: list[Fault] = field(default_factory=list)
    slowest_s: float = 0.0


class _Worker:
    """The process that tries the inputs."""

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.worker", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
        self._fresh = True

    def ask(self, line: str) -> tuple[list[tuple[str, str]], float] | str:
        """Return how each use of an input ended and the seconds of all, or that the process hung or died."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{line}\n".encode())
        self._process.stdin.flush()
        with selectors.DefaultSelector() as waiting:
            waiting.register(self._process.stdout, selectors.EVENT_READ)
            if not waiting.select(LIMIT_S + self._fresh * _START_S):
                return HUNG
        self._fresh = False
        answer = self._process.stdout.readline()
        if not answer:
            return DIED
        words = json.loads(answer)
        return [tuple(each) for each in words["found"]], words["took_s"]

    def end(self) -> str:
        """End the process; return how it ended, if by itself."""
        try:
            status = self._process.wait(2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        return f"exit status {status}"


def tried(kinds: dict[str, int], seed: int, folder: Path) -> Iterator[tuple[str, Tally]]:
    """Try so many inputs of each kind; yield each kind and how its inputs ended."""
    worker = _Worker(folder)
    try:
        for name, count in kinds.items():
            tally = Tally()
            for number in range(count):
                answer = worker.ask(f"{name} {seed} {number}")
                if isinstance(answer, str):
                    found = [(answer, worker.end())]
                    worker = _Worker(folder)
                else:
                    found, took_s = answer
                    tally.slowest_s = max(tally.slowest_s, took_s)
                _count(tally, name, number, found)
            yield name, tally
    finally:
        worker.end()


def _count(tally: Tally, name: str, number: int, answer: list[tuple[str, str]]) -> None:
    wrong = [each for each in answer if each[0] not in (ACCEPTED, REFUSED)]
    taken = any(what == ACCEPTED for what, _ in answer)
    tally.counts[wrong[0][0] if wrong else ACCEPTED if taken else REFUSED] += 1
    tally.faults += [Fault(kind=name, number=number, what=what, why=why) for what, why in wrong]


def shares(inputs: int, only: tuple[str, ...] = ()) -> dict[str, int]:
    """Return how many of so many inputs each kind gets: as many as any other."""
    names = only or tuple(KINDS)
    return {name: inputs // len(names) + (place < inputs % len(names)) for place, name in enumerate(names)}
