"""What people see while a run works: bars on a terminal, plain lines elsewhere, nothing with ``--quiet``.

All of it goes to stderr; stdout carries results only.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TextIO

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Live

from pipeline.progress import Progress, Silent, numbers_text
from pipeline.visible import shown_text

_ROOM_FOR_ALL = 70  # characters; a narrower terminal gets a short bar and no number of steps
_STDOUT, _STDERR = 1, 2
_PIPE_WIDTH = 120  # characters of a table that goes into a file or pipe
_LINE_EVERY_S = 2.0  # no two plain lines closer than this …
_AT_ONCE_S = 0.5  # what is done that soon was done before
_LINE_AT_LEAST_EVERY_S = 15.0  # … and a slow job shows that it is alive
_ALIVE_AFTER_S = 0.9  # a job that has said nothing by then is named


@contextlib.contextmanager
def shown_progress(*, quiet: bool = False) -> Iterator[Progress]:
    """Give the Progress that suits stderr; what is still drawn at the end of the block is taken away."""
    if quiet:
        yield Silent()
        return
    console = Console(stderr=True, highlight=False)
    if not sys.stderr.isatty() or console.is_dumb_terminal:  # a dumb one cannot take a bar away
        lines = Lines(sys.stderr)
        try:
            yield lines
        finally:
            lines.close()
        return
    bars = Bars(console)
    try:
        yield bars
    finally:
        bars.close()


@contextlib.contextmanager
def results_alone() -> Iterator[None]:
    """Send what networks and libraries print to stderr, from Python and from C, and keep stdout for results."""
    kept = _moved_aside()
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        if kept is not None:
            _put_back(kept)


def _moved_aside() -> int | None:
    """Let file descriptor 1 be stderr; return what it was, or None where one of them is closed."""
    with contextlib.suppress(OSError, ValueError):
        _flush_all()
        kept = os.dup(_STDOUT)
        os.dup2(_STDERR, _STDOUT)
        return kept
    return None


def _put_back(kept: int) -> None:
    with contextlib.suppress(OSError, ValueError):
        _flush_all()
    os.dup2(kept, _STDOUT)
    os.close(kept)


def _flush_all() -> None:
    """Write what Python's stdout and that of C still hold, before the descriptor below them changes."""
    if sys.__stdout__ is not None:
        sys.__stdout__.flush()
    with contextlib.suppress(OSError, AttributeError, TypeError):  # no C library that can be asked by this name
        ctypes.CDLL(None).fflush(None)


def result_console() -> Console:
    """Return the console for final results: stdout, wide enough for tables when it is no terminal."""
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else _PIPE_WIDTH
    return Console(highlight=False, width=width)


class Bars:
    """Progress on a terminal: one bar with the newest numbers and the time left; finished jobs leave no bar."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None
        self._numbers: dict[str, float] = {}

    def start(self, title: str, total: int) -> None:
        """Draw a new bar in the place of the last one."""
        self.close()
        self._numbers = {}
        room = self._console.width >= _ROOM_FOR_ALL
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=30 if room else 5),
            *([MofNCompleteColumn()] if room else []),
            TextColumn("{task.fields[numbers]}"),
            TimeRemainingColumn(compact=True),
        )
        self._live = Live(*columns, console=self._console, transient=True)
        self._live.add_task(escape(shown_text(title)), total=total, numbers="")
        self._live.start()

    def advance(self, steps: int = 1, **numbers: float) -> None:
        """Move the bar; it goes away when it is full."""
        if self._live is None:
            return
        task = self._live.tasks[0]
        self._numbers |= numbers
        self._live.update(task.id, advance=steps, numbers=escape(shown_text(numbers_text(self._numbers))))
        if task.finished:
            self.close()

    def say(self, text: str) -> None:
        """Print above the bar."""
        self._console.print(shown_text(text), markup=False, soft_wrap=True)

    def close(self) -> None:
        """Take the bar away."""
        if self._live is not None:
            self._live.stop()
            self._live = None


class Lines:
    """Progress in a file or pipe: a line per quarter of a job, but not one every moment and not none for long."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._title = ""
        self._total = self._done = self._done_before = self._quarter = 0
        self._numbers: dict[str, float] = {}
        self._started_s = self._last_s = clock()
        self._writing = threading.Lock()
        self._alive: threading.Timer | None = None

    def start(self, title: str, total: int) -> None:
        """Remember the job; it is named if there is nothing to tell soon, by a thread: it may be loading libraries."""
        self.close()
        self._alive = threading.Timer(_ALIVE_AFTER_S, self._name, (title,))
        self._alive.daemon = True
        self._alive.start()
        self._title, self._total, self._done, self._done_before, self._quarter = title, total, 0, 0, 0
        self._numbers = {}
        self._started_s = self._last_s = self._clock()

    def advance(self, steps: int = 1, **numbers: float) -> None:
        """Write a line if it is time for one."""
        now_s = self._clock()
        if not self._done and not numbers and now_s - self._started_s < _AT_ONCE_S:
            self._done_before = steps  # by a process that was killed: says nothing about how fast this one is
        self._done += steps
        self._numbers |= numbers
        quarter = 4 * self._done // max(self._total, 1)
        silent_s = now_s - self._last_s
        if silent_s >= _LINE_AT_LEAST_EVERY_S or (quarter > self._quarter and silent_s >= _LINE_EVERY_S):
            parts = (f"{self._title}  {self._done}/{self._total}", numbers_text(self._numbers), self._left(now_s))
            self.say("  ".join(filter(None, parts)))
            self._quarter = quarter

    def _left(self, now_s: float) -> str:
        """Return how long the rest takes if it goes on like this; nothing where that is not known."""
        here = self._done - self._done_before
        left_s = (now_s - self._started_s) * (self._total - self._done) / here if here > 0 else 0.0
        minutes, seconds = divmod(round(left_s), 60)
        return f"{minutes // 60}:{minutes % 60:02}:{seconds:02} left" if left_s > 0 else ""

    def say(self, text: str) -> None:
        """Write one line."""
        self.close()
        self._write(text)
        self._last_s = self._clock()

    def close(self) -> None:
        """Name no job any more."""
        if self._alive is not None:
            self._alive.cancel()
            self._alive = None

    def _name(self, title: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # nobody listens any more: the main thread ends the run
            self._write(f"{title} …")

    def _write(self, text: str) -> None:
        with self._writing:
            self._stream.write(f"{shown_text(text)}\n")
            self._stream.flush()
