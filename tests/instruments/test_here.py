"""Files in every runtime that can run them, chosen for a target, with their time and memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.artifacts.files import Exported, FileFormat, TensorSpec
from pipeline.instruments import here as cost
from pipeline.runtimes import unavailable
from pipeline.declare.words import Precision, RuntimeName
from pipeline.runs.store import Store
from tests.runtimes.small_models import inputs, onnx_bytes, small_net, tflite_bytes


def exported(store: Store) -> list[Exported]:
    files = []
    kinds: list[tuple[FileFormat, Precision]] = [("onnx", "fp32"), ("tflite", "fp32"), ("onnx", "int8")]
    for file_format, precision in [*kinds, ("tflite", "int8")]:
        write = onnx_bytes if file_format == "onnx" else tflite_bytes
        data = write(small_net(), int8=precision == "int8")
        end = TensorSpec(name="x", dtype="float32", shape=(None, 2, 6, 6))
        files.append(
            Exported(
                key=f"{file_format}-{precision}",
                file=store.put(data),
                filename=f"small.{precision}.{file_format}",
                format=file_format,
                precision=precision,
                size_bytes=len(data),
                input=end,
                output=end,
                opset=None,
            )
        )
    return files


def test_every_file_in_every_usable_runtime(tmp_path: Path) -> None:
    store = Store(tmp_path)
    loaded, skipped = cost.load_files(exported(store), store, threads=1)
    expected = {"onnx-fp32 in onnxruntime", "onnx-int8 in onnxruntime"}
    for runtime in ("litert", "tflite-runtime"):
        if not unavailable(runtime):
            expected |= {f"tflite-fp32 in {runtime}", f"tflite-int8 in {runtime}"}
    assert {each.id for each in loaded} == expected
    assert {runtime for runtime, _ in skipped} == {r for r in ("litert", "tflite-runtime") if unavailable(r)}


def test_a_runtime_that_is_not_usable_is_told_once_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    monkeypatch.setattr(cost, "unavailable", lambda runtime: "not installed" if runtime == "litert" else None)
    _, skipped = cost.load_files(exported(store), store, threads=1)
    assert skipped == (("litert", "not installed"),)


@pytest.mark.parametrize("runtime", ["onnxruntime", "litert", "tflite-runtime"])
def test_the_targets_runtime_is_chosen_and_else_the_other_of_its_format(tmp_path: Path, runtime: RuntimeName) -> None:
    store = Store(tmp_path)
    loaded, skipped = cost.load_files(exported(store), store, threads=1)
    if skipped:
        pytest.skip(f"needs all runtimes: {skipped}")
    chosen = cost.choose(loaded, runtime, "int8")
    assert chosen is not None
    assert chosen.runtime == runtime
    if runtime != "onnxruntime":
        rest = [each for each in loaded if each.runtime != runtime]
        other = cost.choose(rest, runtime, "int8")
        assert other is not None
        assert other.file == chosen.file
        assert cost.choose([each for each in rest if each.file.format == "onnx"], runtime, "int8") is None


def test_costs_are_measured_for_each(tmp_path: Path) -> None:
    store = Store(tmp_path)
    loaded, _ = cost.load_files(exported(store)[::2], store, threads=1)  # the two ONNX files
    costs = cost.measure_costs(loaded, inputs(1), rounds=30, budget_s=2)
    assert set(costs) == {each.id for each in loaded}
    for each in costs.values():
        assert 0 < each.p50_ms.low <= each.p50_ms.value <= each.p50_ms.high
        assert each.p50_ms.value <= each.p95_ms.value
        assert each.p50_ms.value < 1  # microseconds of work
        assert each.peak_memory_bytes is None or 0 < each.peak_memory_bytes < 2**28
    again = cost.time_ratio(loaded[0], loaded[0], costs)
    assert again is not None
    assert (again.low, again.value, again.high) == (1, 1, 1)
    assert cost.time_ratio(None, loaded[0], costs) is None
    assert cost.measure_costs((), inputs(1), rounds=30, budget_s=2) == {}
