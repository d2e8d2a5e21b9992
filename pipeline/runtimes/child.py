"""A runtime in a process of its own: tflite-runtime in its environment with numpy 1, and all on an emulated processor.

The child runs the very files of ``pipeline/onboard`` (``onboard.worker``) and nothing else of this package.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from numpy.typing import NDArray

import pipeline
from pipeline.declare.words import RuntimeName
from pipeline.onboard.arrays import Arrays, Signature
from pipeline.onboard.faults import FAULTS, FrameRefused, OnboardFault, ProcessDied, RuntimeMissing
from pipeline.onboard.frames import Frame, read_frame, signature_from, signature_words, write_frame
from pipeline.onboard.session import Timer

TFLITE_RUNTIME_PYTHON = "KARUI_TFLITE_RUNTIME"  # names the Python that has tflite-runtime and numpy 1
_PACKAGE = Path(pipeline.__file__).resolve().parent
# ``pipeline`` becomes an empty package whose only content is this folder: nothing of the environment that this process
# runs in, numpy 2 above all, comes into the child's path, wherever the package is installed
_START = (
    "import importlib, sys, types; own = types.ModuleType('pipeline'); own.__path__ = [sys.argv[1]]; "
    "sys.path[:0] = sys.argv[2:]; "
    "sys.modules['pipeline'] = own; importlib.import_module('pipeline.onboard.worker').main()"
)
_END_TIMEOUT_S = 10


def python_of(runtime: RuntimeName) -> Path:
    """Return the Python that has a runtime.  Raises RuntimeMissing where tflite-runtime has no environment."""
    if runtime != "tflite-runtime":
        return Path(sys.executable)
    named = os.environ.get(TFLITE_RUNTIME_PYTHON)
    python = Path(named) if named else Path(sys.prefix) / "tflite-runtime" / "bin" / "python"
    if not os.access(python, os.X_OK) or python.is_dir():
        raise RuntimeMissing(
            f"tflite-runtime has no environment of its own here: there is no Python {python}",
            remedy=f"make tflite-runtime, or name a Python that has it and numpy 1: {TFLITE_RUNTIME_PYTHON}=…",
        )
    return python


@dataclass(frozen=True, kw_only=True)
class Home:
    """Where a runtime lives: how its Python is started, and further folders of packages for it."""

    command: tuple[str, ...]
    sites: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)  # beside this process's own

    @classmethod
    def of(cls, runtime: RuntimeName) -> Home:
        """Return a runtime's home on this machine.  Raises RuntimeMissing."""
        # -I: neither the user's PYTHONPATH nor the folder that he stands in; -P where user-installed packages count
        isolation = "-I" if runtime == "tflite-runtime" else "-P"
        return cls(command=(str(python_of(runtime)), isolation))


class Child:
    """A process that works with one runtime; ends with this object, at the latest with this process."""

    def __init__(self, runtime: RuntimeName, home: Home | None = None) -> None:
        self.runtime, self.home = runtime, home or Home.of(runtime)
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  # closed by _end
        try:
            self._process = subprocess.Popen(  # noqa: S603  # own module in a Python that make or the user named
                [*self.home.command, "-c", _START, str(_PACKAGE), *self.home.sites],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
                env={**os.environ, **self.home.environment},
            )
        except OSError as error:
            self._said.close()
            raise RuntimeMissing(f"{self.home.command[0]} does not start: {error}") from error
        self.close = weakref.finalize(self, _end, self._process, self._said)

    def ask(
        self, what: str, words: Mapping[str, object], arrays: Arrays | None = None, *, timeout_s: float | None = None
    ) -> Frame:
        """Ask for one thing and wait for the answer.

        Raises the fault that the child reports, and ProcessDied, with the signal, when it comes to an end meanwhile.
        """
        where = str(words.get("path", ""))
        if not self.close.alive:
            raise ProcessDied(f"{self.runtime} was closed", where=where)
        too_late = threading.Event()
        with _alarm(self._process, timeout_s, too_late):
            try:
                write_frame(self._process.stdin, Frame({"ask": what, **words}, arrays or {}))  # type: ignore[arg-type]  # PIPE
                answer = read_frame(self._process.stdout)  # type: ignore[arg-type]  # PIPE
            except (OSError, FrameRefused):  # a closed pipe; half an answer
                answer = None
        if too_late.is_set():
            raise ProcessDied(f"{self.runtime} did not finish in {timeout_s:g} s", where=where)
        if answer is None:
            raise ProcessDied(f"{self.runtime} {self._how_it_ended()}", where=where)
        if not answer.header["ok"]:
            kind = FAULTS.get(answer.header["fault"], OnboardFault)
            raise kind(answer.header["what"], where=answer.header["where"], remedy=answer.header["remedy"])
        return answer

    def _how_it_ended(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_TIMEOUT_S)
        status = self._process.returncode
        if status is None:
            return "gave no answer that can be read"
        if status < 0:
            return f"was ended by {signal.Signals(-status).name}"
        self._said.seek(0)
        last = self._said.read().decode(errors="replace").strip().splitlines()[-1:]
        return f"ended with status {status}" + (f": {last[0]}" if last else "")


# innermost last; each holds processes whose sessions were closed
_reused: list[list[Child]] = []


@contextlib.contextmanager
def reusing_children() -> Iterator[None]:
    """Let sessions have the processes of closed ones: starting a process takes longer than most sessions live."""
    spare: list[Child] = []
    _reused.append(spare)
    try:
        yield
    finally:
        _reused.remove(spare)
        for child in spare:
            child.close()


def _started(runtime: RuntimeName, home: Home) -> Child:
    """Return a spare process for a runtime, or a new one."""
    for spare in reversed(_reused):
        for child in [each for each in spare if (each.runtime, each.home) == (runtime, home) and each.close.alive]:
            spare.remove(child)
            return child
    return Child(runtime, home)


class ChildSession:
    """A model file in a runtime that has a process of its own."""

    def __init__(
        self,
        path: Path,
        runtime: RuntimeName,
        threads: int,
        signature: Signature | None,
        home: Home | None = None,
    ) -> None:
        self.runtime: str = runtime
        self._path = str(path.resolve())
        self._child = _started(runtime, home or Home.of(runtime))
        self._closed = False
        # asked first, so that the version can be told where the file kills the process
        self.version = str(self._child.ask("version", {"runtime": runtime}).header["version"])
        words = {"runtime": runtime, "threads": threads, "signature": signature and signature_words(signature)}
        opened = self._ask("open", words).header
        self.signature = signature_from(opened["signature"])
        self.steps: Mapping[str, float] = dict(opened["steps"])

    @property
    def label(self) -> str:
        """Runtime and version."""
        return f"{self.runtime} {self.version}"

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Return outputs (n, …) of inputs (n, …)."""
        return dict(self._ask("run", {}, inputs).arrays)

    def timer(self, inputs: Arrays) -> Timer:
        """Return a timer; the clock is read in the child."""
        number = self._ask("timer", {}, inputs).header["timer"]
        return lambda count: list(self._ask("time", {"timer": number, "count": count}).header["ms"])

    def mark(self, inputs: Arrays, counts: Sequence[int]) -> None:
        """Run so many inferences in each of several marked regions (``onboard.marks``)."""
        number = self._ask("timer", {}, inputs).header["timer"]
        self._ask("mark", {"timer": number, "counts": list(counts)})

    def close(self) -> None:
        """End the process, or keep it for the next session (``reusing_children``)."""
        if self._closed:
            return
        self._closed = True
        if _reused:
            with contextlib.suppress(OnboardFault):
                self._child.ask("close", {})
                _reused[-1].append(self._child)
                return
        self._child.close()

    def _ask(self, what: str, words: Mapping[str, object], arrays: Arrays | None = None) -> Frame:
        if self._closed:
            raise ProcessDied(f"{self.label} was closed", where=self._path)
        try:
            return self._child.ask(what, {**words, "path": self._path}, arrays)
        except ProcessDied as fault:
            raise ProcessDied(
                fault.what.replace(self.runtime, self.label, 1),
                where=self._path,
                remedy="the file is damaged or asks for what this runtime cannot do; it does not check files first",
            ) from fault


@contextlib.contextmanager
def _alarm(process: subprocess.Popen[bytes], timeout_s: float | None, too_late: threading.Event) -> Iterator[None]:
    if timeout_s is None:
        yield
        return

    def ring() -> None:
        too_late.set()
        process.kill()

    timer = threading.Timer(timeout_s, ring)
    timer.daemon = True  # one that Ctrl-C keeps from being cancelled holds no process back
    try:
        timer.start()
        yield
    finally:
        timer.cancel()


def _end(process: subprocess.Popen[bytes], said: IO[bytes]) -> None:
    process.kill()
    for stream in (process.stdin, process.stdout, said):
        with contextlib.suppress(OSError):  # what could not be sent to a child that is gone
            stream.close()  # type: ignore[union-attr]  # PIPE
    process.wait(_END_TIMEOUT_S)
