"""The worker as a process: every question gets an answer, whatever the runtime prints and whatever goes wrong."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.onboard.arrays import Signature, TensorSpec
from pipeline.onboard.frames import Frame, read_frame, signature_from, signature_words, write_frame
from pipeline.onboard.worker import Worker
from tests.onboard.small_models import SAMPLE_SHAPE, inputs, onnx_bytes, small_net

NET = small_net()
Process = subprocess.Popen[bytes]


@pytest.fixture
def worker() -> Iterator[Process]:
    command = [sys.executable, "-m", "pipeline.onboard.worker"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        yield process
        process.kill()


def ask(process: Process, what: str, arrays: dict[str, np.ndarray] | None = None, **words: Any) -> Frame:
    assert process.stdin is not None
    assert process.stdout is not None
    write_frame(process.stdin, Frame({"ask": what, **words}, arrays or {}))  # type: ignore[arg-type]  # a pipe
    answer = read_frame(process.stdout)  # type: ignore[arg-type]  # a pipe
    assert answer is not None
    return answer


def model(folder: Path, *, int8: bool = False) -> str:
    path = folder / "small.onnx"
    path.write_bytes(onnx_bytes(NET, int8=int8))
    return str(path)


def test_a_session_over_messages(tmp_path: Path, worker: Process) -> None:
    signature = Signature(
        (TensorSpec("picture", "float32", SAMPLE_SHAPE, "CHW"),), (TensorSpec("scores", "float32", (3,), "K"),)
    )
    opened = ask(
        worker,
        "open",
        path=model(tmp_path, int8=True),
        runtime="onnxruntime",
        threads=1,
        signature=signature_words(signature),
        steps={"scores": 0.25},
    ).header
    assert opened["ok"]
    assert signature_from(opened["signature"]) == signature
    assert opened["steps"] == {"scores": 0.25}
    assert opened["version"] == ask(worker, "version", runtime="onnxruntime").header["version"]
    assert ask(worker, "why_not", runtime="onnxruntime").header == {"ok": True, "reason": None}

    x = inputs(300)
    y = ask(worker, "run", {"picture": x}).arrays["scores"]
    assert (y.shape, y.dtype.name) == ((300, 3), "float32")
    np.testing.assert_allclose(y, NET(x), atol=0.8)  # int8, also outside the calibrated range: which file it was

    timers = [ask(worker, "timer", {"picture": x[:1]}).header["timer"] for _ in range(2)]
    assert timers == [0, 1]
    times = ask(worker, "time", timer=1, count=5).header["ms"]
    assert len(times) == 5
    assert all(0 < each < 1000 for each in times)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_memory_over_messages(tmp_path: Path, worker: Process) -> None:
    answer = ask(worker, "memory", path=model(tmp_path), runtime="onnxruntime", threads=1)
    assert 0 < answer.header["bytes"] < 40 * 2**20


def test_a_first_answer_over_messages(tmp_path: Path, worker: Process) -> None:
    words = {"path": model(tmp_path), "runtime": "onnxruntime", "threads": 1}
    first = ask(worker, "cold", {"x": inputs(1)}, **words).header
    assert all(first[name] > 0 for name in ("library_ms", "load_ms", "first_ms"))
    again = ask(worker, "cold", {"x": inputs(1)}, **words).header
    assert again["library_ms"] < first["library_ms"] / 10  # the library is there already
    refused = ask(worker, "cold", {"x": inputs(1)[:, :1]}, **words).header
    assert refused["fault"] == "InputRefused"


@pytest.mark.parametrize(
    ("what", "words", "fault", "says"),
    [
        ("dance", {}, "FrameRefused", "nothing known is asked: 'dance'; known: version, why_not, open"),
        ("run", {}, "FrameRefused", "no file is open"),
        ("open", {"path": "no.onnx", "runtime": "onnxruntime", "threads": 1}, "FileRefused", "no such model file"),
        ("open", {"path": __file__, "runtime": "onnxruntime", "threads": 1}, "FileRefused", "cannot load"),
        ("open", {"path": __file__, "runtime": "abacus", "threads": 1}, "RuntimeMissing", "no runtime 'abacus'"),
        ("open", {"runtime": "onnxruntime"}, "OnboardFault", "KeyError: 'path'"),
        ("time", {"timer": 3, "count": 1}, "OnboardFault", "IndexError"),
        ("version", {"runtime": "abacus"}, "RuntimeMissing", "no runtime 'abacus'"),
    ],
)
def test_what_goes_wrong_is_an_answer_and_it_goes_on(
    worker: Process, what: str, words: dict[str, Any], fault: str, says: str
) -> None:
    answer = ask(worker, what, **words).header
    assert (answer["ok"], answer["fault"]) == (False, fault)
    assert says in answer["what"]
    assert ask(worker, "version", runtime="onnxruntime").header["ok"]


def test_inputs_that_do_not_fit_are_an_answer(tmp_path: Path, worker: Process) -> None:
    path = model(tmp_path)
    ask(worker, "open", path=path, runtime="onnxruntime", threads=1)
    answer = ask(worker, "run", {"x": np.zeros((2, 3))}).header
    assert (answer["fault"], answer["where"]) == ("InputRefused", path)
    assert ask(worker, "run", {"x": inputs(2)}).header["ok"]


@pytest.mark.parametrize(
    "bad", [b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"karu\x00\x00\x00\x02" + b"\x00" * 8 + b"{]"]
)
def test_what_is_no_message_ends_it_with_an_answer(worker: Process, bad: bytes) -> None:
    out, _ = worker.communicate(bad, timeout=60)
    assert worker.returncode == 0
    assert b'"FrameRefused"' in out


def test_it_ends_with_its_input(worker: Process) -> None:
    out, said = worker.communicate(b"", timeout=60)
    assert (worker.returncode, out, said) == (0, b"", b"")


def test_ctrl_c_is_for_the_process_that_asks(worker: Process) -> None:
    assert ask(worker, "version", runtime="onnxruntime").header["ok"]  # it is up
    os.kill(worker.pid, signal.SIGINT)
    assert ask(worker, "version", runtime="onnxruntime").header["ok"]


def test_what_a_runtime_prints_is_no_message() -> None:
    """Both Python's and C's standard output, in the middle of an answer."""
    noisy = (
        "import os, sys; from pipeline.onboard import worker; own = worker.Worker._version\n"
        "def version(self, frame):\n"
        "    print('from Python', flush=True); os.write(1, b'from C'); return own(self, frame)\n"
        "worker.Worker._version = version; worker.main()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", noisy], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert ask(process, "version", runtime="onnxruntime").header["ok"]
        assert ask(process, "version", runtime="onnxruntime").header["ok"]
        out, said = process.communicate(timeout=60)
    assert out == b""
    assert said.count(b"from Python") == said.count(b"from C") == 2


def test_a_second_file_takes_the_place_of_the_first(tmp_path: Path) -> None:
    worker = Worker()
    about = {"ask": "open", "runtime": "onnxruntime", "threads": 1}
    worker.answer(Frame({**about, "path": model(tmp_path)}))
    worker.answer(Frame({"ask": "timer"}, {"x": inputs(1)}))
    worker.answer(Frame({**about, "path": model(tmp_path)}))
    assert worker.answer(Frame({"ask": "time", "timer": 0, "count": 1})).header["fault"] == "OnboardFault"
