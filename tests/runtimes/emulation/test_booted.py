"""The first program of an emulated machine: it says what a file takes, or how its process ended."""

from __future__ import annotations

import json
import shutil
import signal
import sys
from pathlib import Path

import pytest

from pipeline import onboard
from pipeline.runtimes.emulation.booted import answer, out_of_memory, weighed
from tests.onboard import odd_models
from tests.onboard.small_models import small_net, tflite_bytes

pytestmark = pytest.mark.skipif(not Path("/proc/vmstat").exists(), reason="reads /proc")


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """Lay out a job's disk: a small file, one that is damaged and one that kills its runtime."""
    shutil.copytree(Path(onboard.__file__).parent, tmp_path / "pipeline" / "onboard")
    (tmp_path / "pipeline" / "__init__.py").touch()
    (tmp_path / "small.tflite").write_bytes(tflite_bytes(small_net(), int8=True))
    (tmp_path / "damaged.tflite").write_bytes(b"nothing")
    (tmp_path / "deadly.tflite").write_bytes(odd_models.deadly_tflite())
    return tmp_path


def asked(file: str) -> dict[str, object]:
    return {"file": file, "runtime": "litert", "site": sys.path[-1], "threads": 1}


def test_a_file_that_runs_takes_so_many_bytes(job: Path) -> None:
    found = weighed(asked("small.tflite"), job)
    assert found.keys() == {"bytes"}
    assert 0 < found["bytes"] < 40 << 20


def test_a_file_that_is_refused_has_its_words(job: Path) -> None:
    found = weighed(asked("damaged.tflite"), job)
    assert (found["signal"], found["out_of_memory"]) == (0, False)
    assert "damaged.tflite" in found["said"]


def test_a_file_that_kills_its_runtime_has_its_signal(job: Path) -> None:
    found = weighed(asked("deadly.tflite"), job)
    assert found["signal"] in (signal.SIGFPE, signal.SIGABRT, signal.SIGSEGV)
    assert not found["out_of_memory"]


def test_all_that_is_asked_is_answered_in_order(job: Path) -> None:
    (job / "job.json").write_text(json.dumps([asked("deadly.tflite"), asked("small.tflite")]))
    with (job / "answers").open("w+b") as answers:
        answer(answers, job)
    first, second = map(json.loads, (job / "answers").read_text().splitlines())
    assert "signal" in first
    assert "bytes" in second


def test_how_many_processes_memory_was_too_small_for() -> None:
    assert out_of_memory() >= 0
