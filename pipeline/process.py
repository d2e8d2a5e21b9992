"""The command line as a process: streams that may be closed or know ASCII alone, and signals that end it in words."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import threading
from pathlib import Path
from typing import TextIO

from pipeline.ending import Stopped


def usable_streams() -> None:
    """Let what is printed never raise: a closed stream swallows it, one without UTF-8 shows question marks."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115  until the process ends
        elif not is_utf8(stream) and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def is_utf8(stream: TextIO) -> bool:
    """Tell whether a stream can show every character."""
    return (stream.encoding or "").lower().replace("-", "") == "utf8"


def nobody_listens() -> int:
    """Go on without standard output, whose reader has gone, and return the exit status: that is their right."""
    sys.stdout = None  # nothing is to be flushed at exit either
    return 0


def close_results() -> None:
    """Send what is printed from now on to stderr: a network's code may print while the process ends."""
    if sys.stdout is None:
        return
    with contextlib.suppress(OSError, ValueError):
        try:
            sys.stdout.flush()
        except OSError:  # nobody listens: what is left must not come out elsewhere
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        else:
            os.dup2(sys.stderr.fileno(), sys.stdout.fileno())


def listen_to_signals() -> None:
    """Let SIGTERM and SIGHUP end a run in words, with nothing half-written; only the main thread may say so."""
    if threading.current_thread() is not threading.main_thread():
        return
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name) and signal.getsignal(getattr(signal, name)) == signal.SIG_DFL:
            signal.signal(getattr(signal, name), _stop)


def _stop(number: int, _frame: object) -> None:
    raise Stopped(number)
