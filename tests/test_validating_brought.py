"""``karui validate --measurements``: what the target itself took, in place of an estimate."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.runs.measurements import write_measurements
from pipeline.validating import Question, validate
from tests.own_project import Karui
from tests.own_project import karui as karui  # noqa: PLC0414  a fixture
from tests.runs.test_measurements import benched, measurements
from tests.test_validating import _files as _files  # noqa: PLC0414  a fixture

FILE = Path("measurements.json")


def bring(model: str, *, threads: int = 1, p50_ms: float = 2.0) -> None:
    sha256 = hashlib.sha256(Path(model).read_bytes()).hexdigest()
    write_measurements(FILE, measurements(benched(sha256, threads=threads, p50_ms=p50_ms)))


def question(target: str = "raspberry-pi-4") -> Question:
    return Question(model=Path("int8.onnx"), data="labelled.npz", target=target, measurements=(FILE,))


def test_what_was_measured_on_the_target_meets_its_limits_or_not(karui: Karui) -> None:
    bring("int8.onnx", p50_ms=2.0)
    profile = Path("mine.toml")
    profile.write_text(
        'name = "raspberry-pi-4b"\ntitle = "Mine"\nos = "Debian 12"\npython = "3.11"\n[cpu]\narchitecture = "aarch64"\n'
        'model = "Cortex-A72"\ncores = 4\nclock_mhz = 1500\n[memory]\nsize_bytes = "1 GiB"\n'
        '[limits]\nlatency_p95_ms = 2.0\npeak_memory_bytes = "2 MiB"\n'
    )
    done = karui(
        "validate", "int8.onnx", "--data", "labelled.npz", "--target", "mine.toml", "--measurements", str(FILE)
    )
    assert "measured there  p50 2.00 ms, p95 2.40 ms (Raspberry Pi 4 Model B" in done.out
    assert "1 thread; 12 sessions in 1.32.0, 48 °C)" in done.out
    assert "✗ latency p95 (int8): 2.40 ms, asked ≤ 2.00 ms: missed" in done.out
    assert "✓ peak memory (int8): 1.0 MiB, asked ≤ 2.0 MiB: met" in done.out
    assert done.status == 3


def test_of_another_file_with_other_threads_or_for_no_target_is_refused() -> None:
    bring("float.onnx")
    with pytest.raises(ConfigError, match=r"holds no times of int8\.onnx \([0-9a-f]{12}\), but of net\.int8\.onnx"):
        validate(question())
    bring("int8.onnx", threads=4)
    with pytest.raises(ConfigError, match=r"int8\.onnx was measured in onnxruntime with 4 threads"):
        validate(question())
    bring("int8.onnx")
    with pytest.raises(ConfigError, match="stands for a target"):
        validate(question(target=""))
    with pytest.raises(ConfigError, match=r"is the target raspberry-pi-4b, and not raspberry-pi-5"):
        validate(question(target="raspberry-pi-5"))
