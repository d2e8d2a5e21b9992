"""A runtime in a process of its own: tflite-runtime in another environment, and gone when it is no longer needed."""

from __future__ import annotations

import gc
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import ModelError
from pipeline.onboard.faults import FrameRefused, ProcessDied, RuntimeMissing
from pipeline.runtimes import open_session, unavailable
from pipeline.runtimes.boundary import GuardedSession
from pipeline.runtimes.child import (
    TFLITE_RUNTIME_PYTHON,
    Child,
    ChildSession,
    _alarm,
    python_of,
    reusing_children,
)
from tests.onboard import odd_models
from tests.onboard.small_models import inputs, small_net, tflite_bytes

needs_tflite = pytest.mark.skipif(unavailable("tflite-runtime") is not None, reason=f"{unavailable('tflite-runtime')}")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "small.tflite"
    path.write_bytes(tflite_bytes(small_net(), int8=True))
    return path


def child_of(session: object) -> Child:
    assert isinstance(session, GuardedSession)
    assert isinstance(session._session, ChildSession)
    return session._session._child


def gone(pid: int) -> bool:
    """Tell whether there is no such process, not even as a zombie."""
    for _ in range(200):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


# ── its environment ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_its_python_is_found_beside_this_one_or_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert python_of("litert") == python_of("onnxruntime") == Path(sys.executable)
    monkeypatch.setenv(TFLITE_RUNTIME_PYTHON, sys.executable)
    assert python_of("tflite-runtime") == Path(sys.executable)
    monkeypatch.delenv(TFLITE_RUNTIME_PYTHON)
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    with pytest.raises(RuntimeMissing, match="no environment of its own"):
        python_of("tflite-runtime")
    python = tmp_path / "tflite-runtime" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    assert python_of("tflite-runtime") == python


@needs_tflite
def test_nothing_of_this_environment_comes_into_its_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Numpy 2 of this environment, the user's PYTHONPATH and his folders named like ours stay out."""
    trap = tmp_path / "pipeline" / "__init__.py"
    trap.parent.mkdir()
    trap.write_text("raise SystemExit('the wrong pipeline')")
    (tmp_path / "numpy.py").write_text("raise SystemExit('the wrong numpy')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    child = Child("tflite-runtime")
    assert child.ask("why_not", {"runtime": "tflite-runtime"}).header["reason"] is None
    with pytest.raises(RuntimeMissing, match="not installed"):
        child.ask("version", {"runtime": "litert"})
    child.close()


def test_a_python_without_the_runtime_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TFLITE_RUNTIME_PYTHON, sys.executable)  # the project's own: it has none since it has numpy 2
    child = Child("tflite-runtime")
    with pytest.raises(RuntimeMissing, match="tflite-runtime is not installed"):
        child.ask("version", {"runtime": "tflite-runtime"})
    child.close()


def test_a_python_without_numpy_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "bare")], check=True)
    monkeypatch.setenv(TFLITE_RUNTIME_PYTHON, str(tmp_path / "bare" / "bin" / "python"))
    child = Child("tflite-runtime")
    with pytest.raises(ProcessDied, match="ended with status 1: ModuleNotFoundError: No module named 'numpy'"):
        child.ask("version", {"runtime": "tflite-runtime"})
    child.close()


def test_a_file_that_is_no_python_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "python").write_text("no program")
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setenv(TFLITE_RUNTIME_PYTHON, str(tmp_path / "python"))
    with pytest.raises(RuntimeMissing, match="does not start"):
        Child("tflite-runtime")


# ── its end ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@needs_tflite
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
def test_a_child_that_dies_is_an_error_that_names_the_signal(model: Path, number: signal.Signals) -> None:
    session = open_session(model, "tflite-runtime")
    timer = session.timer({"x": inputs(1)})
    pid = child_of(session)._process.pid
    os.kill(pid, number)
    said = re.escape(f"{model}: {session.label} was ended by {number.name}")
    for use in (lambda: session.run({"x": inputs(1)}), lambda: timer(1), lambda: session.timer({"x": inputs(1)})):
        with pytest.raises(ModelError, match=said) as found:
            use()
        assert "does not check files" in found.value.remedy
    assert gone(pid)


@needs_tflite
def test_a_file_that_kills_the_runtime_kills_nobody_else(tmp_path: Path) -> None:
    path = tmp_path / "deadly.tflite"
    path.write_bytes(odd_models.deadly_tflite())
    with pytest.raises(ModelError, match=r"deadly\.tflite: tflite-runtime .* was ended by SIG(ABRT|FPE)"):
        open_session(path, "tflite-runtime").run({"x": np.ones((1, 3), np.int8)})


def test_litert_apart_computes_the_same(model: Path) -> None:
    x = inputs(5)
    apart, beside = (open_session(model, "litert", apart=where) for where in (True, False))
    assert child_of(apart).runtime == "litert"
    np.testing.assert_array_equal(apart.run({"x": x})["y"], beside.run({"x": x})["y"])


def test_a_file_that_kills_litert_apart_kills_nobody_else(tmp_path: Path) -> None:
    path = tmp_path / "deadly.tflite"
    path.write_bytes(odd_models.deadly_tflite())
    with pytest.raises(ModelError, match=r"deadly\.tflite: litert .* was ended by SIG(ABRT|FPE|SEGV)"):
        open_session(path, "litert", apart=True).run({"x": np.ones((1, 3), np.int8)})


@needs_tflite
def test_it_ends_with_its_session(model: Path) -> None:
    closed, dropped = (open_session(model, "tflite-runtime") for _ in range(2))
    pids = [child_of(session)._process.pid for session in (closed, dropped)]
    assert len(set(pids)) == 2
    closed.close()
    assert gone(pids[0])
    with pytest.raises(ModelError, match="was closed"):
        closed.run({"x": inputs(1)})
    closed.close()  # again: nothing more to do
    del dropped
    gc.collect()
    assert gone(pids[1])


@needs_tflite
def test_a_process_serves_one_session_after_the_other_where_it_may(model: Path) -> None:
    def pid_of(session: object) -> int:
        return child_of(session)._process.pid

    with reusing_children():
        first, beside = (open_session(model, "tflite-runtime") for _ in range(2))
        pids = [pid_of(first), pid_of(beside)]
        wanted = first.run({"x": inputs(2)})
        timer = first.timer({"x": inputs(1)})
        first.close()
        with pytest.raises(ModelError, match="was closed"):
            timer(1)
        second = open_session(model, "tflite-runtime")
        assert (pid_of(second), pid_of(beside)) == (pids[0], pids[1])
        got = second.run({"x": inputs(2)})
        assert all(np.array_equal(got[name], wanted[name]) for name in wanted)
        os.kill(pids[1], signal.SIGKILL)
        beside.close()  # a dead one is not kept
        third = open_session(model, "tflite-runtime")
        assert pid_of(third) not in pids
        second.close()
        third.close()
    assert all(gone(pid) for pid in pids)


@needs_tflite
@pytest.mark.parametrize("end", ["", "raise SystemExit(3)", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_it_ends_with_this_process(model: Path, end: str) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path; from pipeline.runtimes import open_session\n"
        f"session = open_session(Path({str(model)!r}), 'tflite-runtime')\n"
        f"print(session._session._child._process.pid, flush=True)\n{end}"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert gone(int(done.stdout))
    assert "Exception ignored" not in done.stderr


def test_a_child_that_takes_too_long_is_ended() -> None:
    child = Child("onnxruntime")
    pid = child._process.pid
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(ProcessDied, match=r"onnxruntime did not finish in 0\.2 s"):
        child.ask("version", {"runtime": "onnxruntime"}, timeout_s=0.2)
    child.close()
    assert gone(pid)


def test_a_question_in_time_is_answered() -> None:
    child = Child("onnxruntime")
    answer = child.ask("version", {"runtime": "onnxruntime"}, timeout_s=60)
    assert answer.header["version"][0].isdigit()
    with pytest.raises(FrameRefused, match="nothing known is asked: 'sing'"):
        child.ask("sing", {})
    assert child.ask("version", {"runtime": "onnxruntime"}).header["ok"]  # it goes on
    child.close()


def test_a_time_limit_never_holds_the_process_back() -> None:
    """Ctrl-C may come between the start of its thread and whatever would cancel it."""
    with subprocess.Popen([sys.executable, "-c", ""], stdin=subprocess.PIPE) as process:
        with _alarm(process, 60.0, threading.Event()):
            waiting = [each for each in threading.enumerate() if isinstance(each, threading.Timer)]
        assert waiting
        assert all(each.daemon for each in waiting)
        process.wait()
