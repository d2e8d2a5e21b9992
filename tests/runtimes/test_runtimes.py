"""One small network as four files in every runtime: same outputs, the graph that runs, errors, single inferences."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from pipeline.artifacts import RUNTIME_OF_FORMAT
from pipeline.errors import ModelError
from pipeline.runtimes import RUNTIMES, Session, open_session, unavailable
from pipeline.runtimes.executed import executed_in_onnx
from pipeline.spec import RuntimeName
from tests.runtimes.small_models import SAMPLE_SHAPE, SmallNet, inputs, onnx_bytes, small_net, tflite_bytes

NET = small_net()
RUNTIME_NAMES: tuple[RuntimeName, ...] = ("onnxruntime", "litert", "tflite-runtime")
FLOAT_TOLERANCE = 5e-6  # float32 sums of 18 and 8 products of size 1
# three roundings on the way, each half a step of its own range, and the weights' own
INT8_TOLERANCE_STEPS = 5


def files(folder: Path, *, int8: bool) -> dict[str, Path]:
    written = {"onnx": onnx_bytes(NET, int8=int8), "tflite": tflite_bytes(NET, int8=int8)}
    for suffix, data in written.items():
        (folder / f"small-{int8}.{suffix}").write_bytes(data)
    return {suffix: folder / f"small-{int8}.{suffix}" for suffix in written}


def opened(folder: Path, runtime: RuntimeName, *, int8: bool) -> Session:
    reason = unavailable(runtime)
    if reason:
        pytest.skip(f"{runtime}: {reason}")
    suffix = "onnx" if runtime in RUNTIME_OF_FORMAT["onnx"] else "tflite"
    return open_session(files(folder, int8=int8)[suffix], runtime, threads=1)


def test_ci_has_every_runtime_that_this_python_can_have() -> None:
    """A runtime that is missing is skipped by the tests below; where they are to prove something, that must not be."""
    if os.environ.get("CI") == "true":
        wanted = RUNTIME_NAMES if sys.version_info < (3, 12) else ("onnxruntime", "litert")
        assert {runtime: unavailable(runtime) for runtime in wanted} == dict.fromkeys(wanted)


@pytest.mark.parametrize("runtime", RUNTIME_NAMES)
@pytest.mark.parametrize("count", [1, 256, 300])  # one, a whole batch, a batch and a part
def test_float_files_compute_the_network(tmp_path: Path, runtime: RuntimeName, count: int) -> None:
    session = opened(tmp_path, runtime, int8=False)
    x = inputs(count)
    y = session.run(x)
    assert y.shape == (count, 3)
    assert y.dtype == np.float32
    assert session.output_scale is None
    assert session.sample_shape == SAMPLE_SHAPE
    np.testing.assert_allclose(y, NET(x), atol=FLOAT_TOLERANCE)


@pytest.mark.parametrize("runtime", RUNTIME_NAMES)
def test_int8_files_compute_the_network_in_steps(tmp_path: Path, runtime: RuntimeName) -> None:
    session = opened(tmp_path, runtime, int8=True)
    x = np.clip(inputs(300), -3, 3)  # inside the calibrated range
    y = session.run(x)
    scale = NET.ranges["y"][0]
    assert session.output_scale == pytest.approx(scale, rel=1e-6)
    np.testing.assert_allclose(y, NET(x), atol=INT8_TOLERANCE_STEPS * scale)
    steps = y / np.float32(scale)
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-4)  # whole steps: really dequantized int8


def test_int8_files_agree_within_one_step(tmp_path: Path) -> None:
    x = inputs(600)  # also outside the range: all must saturate alike
    outputs = [opened(tmp_path, name, int8=True).run(x) for name in RUNTIME_NAMES if not unavailable(name)]
    for other in outputs[1:]:
        # one step: TFLite rounds its fixed-point multiplier, ONNX Runtime multiplies in float32
        assert np.abs(other - outputs[0]).max() <= 1.01 * NET.ranges["y"][0]


@pytest.mark.parametrize("runtime", RUNTIME_NAMES)
@pytest.mark.parametrize("int8", [False, True])
def test_every_executed_node_is_told(tmp_path: Path, runtime: RuntimeName, int8: bool) -> None:
    nodes = opened(tmp_path, runtime, int8=int8).executed()
    assert len(nodes) >= 3
    assert {node.integer for node in nodes} == {int8}
    assert all(bool(node.reason) is not node.integer for node in nodes)


def test_litert_shows_the_delegate(tmp_path: Path) -> None:
    ops = [node.op for node in opened(tmp_path, "litert", int8=True).executed()]
    assert ops == ["CONV_2D", "MEAN", "FULLY_CONNECTED", "DELEGATE"]


def test_a_float_island_is_named_with_its_reason(tmp_path: Path) -> None:
    path = tmp_path / "island.onnx"
    path.write_bytes(onnx_bytes(NET, int8=True, float_mean=True))
    nodes = {node.op: node for node in open_session(path, "onnxruntime", threads=1).executed() if not node.integer}
    assert set(nodes) == {"DequantizeLinear", "GlobalAveragePool", "Flatten", "QuantizeLinear"}
    assert nodes["DequantizeLinear"].reason == "converts to float for GlobalAveragePool"
    assert nodes["GlobalAveragePool"].reason == "computes in float: its input is not quantized"


def test_an_integer_kernel_that_writes_float_counts_only_at_the_end() -> None:
    """QGemm without output parameters: fine as the last node, a leak in the middle."""

    def model(outputs: list[str]) -> onnx.ModelProto:
        gemm = ["q", "s", "z", "w", "s", "z", ""]
        nodes = [
            helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
            helper.make_node("QGemm", gemm, ["y"], domain="com.microsoft"),
            helper.make_node("Tanh", ["y"], ["t"]),
        ]
        ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", *outputs)]
        tensors = [
            helper.make_tensor("s", TensorProto.FLOAT, [], [0.1]),
            helper.make_tensor("z", TensorProto.INT8, [], [0]),
            helper.make_tensor("w", TensorProto.INT8, [1, 1], [1]),
        ]
        return helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors))

    assert [node.reason for node in executed_in_onnx(model(["y", "t"]))][1] == ""
    inside = executed_in_onnx(model(["t"]))
    assert [node.reason for node in inside][1:] == ["writes float", "computes in float: its input is not quantized"]


@pytest.mark.parametrize("runtime", RUNTIME_NAMES)
def test_the_invoker_runs_and_leaves_the_session_alone(tmp_path: Path, runtime: RuntimeName) -> None:
    session = opened(tmp_path, runtime, int8=True)
    x = inputs(40)
    before = session.run(x)
    call = session.invoker(x[:1])
    for _ in range(3):
        call()
    np.testing.assert_array_equal(session.run(x), before)
    call()


@pytest.mark.parametrize("runtime", RUNTIME_NAMES)
@pytest.mark.parametrize("damage", ["empty", "noise", "cut"])
def test_a_damaged_file_is_named(tmp_path: Path, runtime: RuntimeName, damage: str) -> None:
    if runtime == "tflite-runtime" and damage == "cut":
        pytest.skip("tflite-runtime does not verify flatbuffers: a cut file may crash the process (LiteRT verifies)")
    session = opened(tmp_path, runtime, int8=True)
    del session
    suffix = "onnx" if runtime == "onnxruntime" else "tflite"
    whole = files(tmp_path, int8=True)[suffix].read_bytes()
    damaged = tmp_path / f"damaged.{suffix}"
    damaged.write_bytes({"empty": b"", "noise": b"\xff" * 500, "cut": whole[: len(whole) // 2]}[damage])
    with pytest.raises(ModelError, match="damaged"):
        open_session(damaged, runtime, threads=1)


@pytest.mark.parametrize("runtime", RUNTIME_NAMES)
def test_a_missing_file_and_wrong_inputs_are_errors_for_the_user(tmp_path: Path, runtime: RuntimeName) -> None:
    with pytest.raises(ModelError, match="no such model file"):
        open_session(tmp_path / "nothing.onnx", runtime, threads=1)
    with pytest.raises(ModelError, match="small-False"):
        opened(tmp_path, runtime, int8=False).run(np.zeros((4, 2, 5, 6), np.float32))


def test_every_runtime_is_listed_and_onnxruntime_is_there() -> None:
    assert set(RUNTIMES) == set(RUNTIME_NAMES)
    assert unavailable("onnxruntime") is None


def test_a_package_that_is_not_there_is_a_reason_and_no_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)  # import raises ImportError
    unavailable.cache_clear()
    assert "not installed" in (unavailable("litert") or "")
    unavailable.cache_clear()


def test_the_small_net_itself() -> None:
    """The expectation of this file against a second way of computing it."""
    torch = pytest.importorskip("torch")
    x = inputs(5)
    net: SmallNet = NET
    conv = torch.nn.functional.conv2d(*map(torch.from_numpy, (x, net.conv_weight, net.conv_bias))).relu()
    y = torch.nn.functional.linear(conv.mean((2, 3)), *map(torch.from_numpy, (net.linear_weight, net.linear_bias)))
    np.testing.assert_allclose(net(x), y.numpy(), atol=FLOAT_TOLERANCE)
