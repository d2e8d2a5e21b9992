"""Peak memory as a device measures it: a program of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.onboard.memory import STATUS
from tests.onboard import odd_models
from tests.onboard.small_models import onnx_bytes, small_net, tflite_bytes

pytestmark = pytest.mark.skipif(not STATUS.exists(), reason="reads /proc")


def measured(path: Path, runtime: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipeline.onboard.memory", str(path), runtime, "1"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("runtime", ["onnxruntime", "litert"])
def test_it_prints_bytes(tmp_path: Path, runtime: str) -> None:
    if runtime == "litert":
        pytest.importorskip("ai_edge_litert")
    (tmp_path / "small").write_bytes((onnx_bytes if runtime == "onnxruntime" else tflite_bytes)(small_net(), int8=True))
    done = measured(tmp_path / "small", runtime)
    assert 0 < int(done.stdout) < 40 * 2**20


def test_inputs_have_the_files_own_types(tmp_path: Path) -> None:
    (tmp_path / "words.onnx").write_bytes(odd_models.words_onnx())
    assert int(measured(tmp_path / "words.onnx", "onnxruntime").stdout) > 0


def test_what_does_not_run_is_said(tmp_path: Path) -> None:
    done = measured(tmp_path / "nothing.onnx", "onnxruntime")
    assert done.returncode == 1
    assert done.stderr.strip().endswith("nothing.onnx: no such model file")
    assert "Traceback" not in done.stderr
