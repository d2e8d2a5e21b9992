"""Peak memory from a fresh process: grows with the weights, does not hold the library; and its first answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pipeline.declare.words import RuntimeName
from pipeline.errors import ModelError
from pipeline.runtimes import RUNTIMES, cold_start, peak_memory_bytes, unavailable
from tests.onboard.small_models import inputs, onnx_bytes, small_net, tflite_bytes

MIB = 2**20
needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")


def linear(path: Path, inputs: int, outputs: int) -> Path:
    weight = numpy_helper.from_array(np.ones((inputs, outputs), np.float32), "w")
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["b", s]) for n, s in (("x", inputs), ("y", outputs))]
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", ends[:1], ends[1:], [weight])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


@needs_proc
def test_memory_follows_the_weights(tmp_path: Path) -> None:
    small = peak_memory_bytes(linear(tmp_path / "small.onnx", 64, 64), "onnxruntime", threads=1)
    large = peak_memory_bytes(linear(tmp_path / "large.onnx", 2048, 2048), "onnxruntime", threads=1)
    assert small is not None
    assert large is not None
    assert 0 < small < 40 * MIB  # the imported library alone would be more than 60
    weights = 2048 * 2048 * 4
    # held at least once, and at most three times: file, parsed, packed for the kernel
    assert 0.9 * weights < large - small < 3.5 * weights


@needs_proc
def test_a_file_that_does_not_run_is_an_error_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"\xff" * 100)
    with pytest.raises(ModelError, match=r"bad\.onnx"):
        peak_memory_bytes(tmp_path / "bad.onnx", "onnxruntime", threads=1)


@needs_proc
@pytest.mark.parametrize("runtime", ["litert", "tflite-runtime"])
def test_tflite_files_have_a_peak_too(tmp_path: Path, runtime: RuntimeName) -> None:
    reason = unavailable(runtime)
    if reason:
        pytest.skip(f"{runtime}: {reason}")
    (tmp_path / "small.tflite").write_bytes(tflite_bytes(small_net(), int8=True))
    peak = peak_memory_bytes(tmp_path / "small.tflite", runtime, threads=1)
    assert peak is not None
    assert 0 < peak < 40 * MIB


@needs_proc
def test_a_path_may_be_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    linear(tmp_path / "small.onnx", 8, 8)
    monkeypatch.chdir(tmp_path)
    assert peak_memory_bytes(Path("small.onnx"), "onnxruntime", threads=1)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_first_answer_takes_library_file_and_inference(tmp_path: Path, runtime: RuntimeName) -> None:
    if unavailable(runtime):
        pytest.skip(str(unavailable(runtime)))
    path = tmp_path / "small.model"
    path.write_bytes((onnx_bytes if runtime == "onnxruntime" else tflite_bytes)(small_net(), int8=True))
    found = [cold_start(path, runtime, threads=1, sample={"x": inputs(1)}) for _ in range(3)]
    # all of it, not a package that loads it later: then the first file would be slow and the library quick
    assert min(each.library_ms for each in found) > min(each.load_ms for each in found) > 0
    assert min(each.first_ms for each in found) > 0
    with pytest.raises(ModelError, match="no such model file"):
        cold_start(tmp_path / "gone", runtime, threads=1, sample={})
