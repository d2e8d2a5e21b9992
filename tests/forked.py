"""karui in a process of its own that has everything imported already: a copy of one that waits for it.

What it does is the same, some seconds earlier; but how fast files are is measured in two sessions of each.  What a test
says about imports, about the environment that libraries read when they are imported, or about a terminal, needs
``own_project.in_a_process``.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any, NoReturn

_PRELOADED = (
    *("torch.export", "onnxruntime", "ai_edge_litert.interpreter", "scipy.special", "matplotlib.figure", "jinja2"),
    *(f"pipeline.stages.{path.stem}" for path in Path(__file__).parents[1].glob("pipeline/stages/[!_]*.py")),
)


def run(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run karui to its end, with what it says on both streams."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        with started(*arguments, cwd=cwd, out=out, err=err) as process:
            status = process.wait()
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode())
    return subprocess.CompletedProcess([*map(str, arguments)], status, *texts)


@dataclass(kw_only=True)
class Process:
    """A karui that runs."""

    pid: int
    _line: socket.socket
    _status: int | None = None

    def poll(self) -> int | None:
        """Return the exit status, minus the signal's number where one ended it; None while it runs."""
        self._line.setblocking(False)
        try:
            return self.wait()
        except BlockingIOError:
            return None
        finally:
            self._line.setblocking(True)

    def wait(self) -> int:
        """Wait for the end and return the exit status."""
        if self._status is None:
            self._status = int(self._line.recv(64))
        return self._status

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the process."""
        os.kill(self.pid, number)


@contextmanager
def started(
    *arguments: str | Path, cwd: Path, out: IO[bytes] | None = None, err: IO[bytes] | None = None
) -> Iterator[Process]:
    """Start karui and give its process; at the end of the block it is killed if it still runs."""
    with socket.socket(socket.AF_UNIX) as line, Path(os.devnull).open("r+b") as nowhere:
        line.connect(_server())
        asked = {"arguments": [*map(str, arguments)], "cwd": str(cwd), "environment": dict(os.environ)}
        streams = [nowhere.fileno(), (out or nowhere).fileno(), (err or nowhere).fileno()]
        content = json.dumps(asked).encode()
        socket.send_fds(line, [len(content).to_bytes(4, "big")], streams)
        line.sendall(content)
        process = Process(pid=int.from_bytes(line.recv(4), "big"), _line=line)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.wait()


@cache
def _server() -> str:
    """Start the process that waits, once; return the socket where it listens.  It ends with this one."""
    place = str(Path(tempfile.mkdtemp(), "line"))
    server = subprocess.Popen([sys.executable, __file__, place], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert server.stdout is not None
    assert server.stdout.readline() == b"ready\n"
    atexit.register(_end, server, Path(place))
    return place


def _end(server: subprocess.Popen[bytes], place: Path) -> None:
    server.communicate()  # it ends when its stdin does
    shutil.rmtree(place.parent)


# ── the process that waits ──────────────────────────────────────────────────────────────────────────────────────────


def _serve(place: str) -> NoReturn:
    import importlib  # noqa: PLC0415  (nothing of this part is for the tests' own process)
    import selectors  # noqa: PLC0415

    from torch import nn  # noqa: PLC0415

    from pipeline.instruments import here  # noqa: PLC0415
    from pipeline.networks.from_torch import folded_graph  # noqa: PLC0415
    from pipeline.runs import keys  # noqa: PLC0415

    for name in _PRELOADED:
        importlib.import_module(name)
        if name.startswith("pipeline.stages."):
            keys._closure(name, frozenset())  # what the code does is read once
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(place)
    listener.listen()
    folded_graph(nn.Linear(2, 2), (2,))  # what is imported when it is first needed
    here.SESSIONS = 2
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # who watches a process is not waited for
    waiting = selectors.DefaultSelector()
    waiting.register(listener, selectors.EVENT_READ)
    waiting.register(sys.stdin, selectors.EVENT_READ)
    while True:
        for key, _ in waiting.select():
            if key.fileobj is sys.stdin:
                os._exit(0)
            line, _ = listener.accept()
            if os.fork() == 0:
                _watch(line)
            line.close()


def _watch(line: socket.socket) -> NoReturn:
    """Make the process that was asked for, and say at its end how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    size, streams, _, _ = socket.recv_fds(line, 4, 3)
    content = b""
    while len(content) < int.from_bytes(size, "big"):
        content += line.recv(65536)
    asked = json.loads(content)
    child = os.fork()
    if child == 0:
        line.close()
        _become(asked, streams)
    line.sendall(child.to_bytes(4, "big"))
    _, status = os.waitpid(child, 0)
    line.sendall(str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def _become(asked: dict[str, Any], streams: list[int]) -> NoReturn:
    from pipeline.cli import main  # noqa: PLC0415

    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    arguments = asked["arguments"]
    sys.argv, sys.path[0] = ["karui", *arguments], asked["cwd"]
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w", buffering=1)  # noqa: SIM115
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it, and so its children
    status = 70
    try:
        status = main(arguments)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)


if __name__ == "__main__":
    _serve(sys.argv[1])
