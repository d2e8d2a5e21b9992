"""One small network as four files in every runtime: same outputs, the graph that runs, errors, single inferences."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from pipeline import runtimes
from pipeline.artifacts.files import RUNTIME_OF_FORMAT
from pipeline.declare.words import RuntimeName
from pipeline.errors import ModelError
from pipeline.onboard.arrays import Signature, TensorSpec
from pipeline.onboard.session import MODULES
from pipeline.runtimes import ABSENT, RUNTIMES, Session, executed, open_session, unavailable, version
from pipeline.runtimes.child import TFLITE_RUNTIME_PYTHON
from pipeline.runtimes.executed import executed_in_onnx, steps_in_onnx
from tests.onboard import odd_models
from tests.onboard.small_models import (
    MAPS_SHAPE,
    SAMPLE_SHAPE,
    SmallNet,
    inputs,
    onnx_bytes,
    small_net,
    tflite_bytes,
)

NET = small_net()
FLOAT_TOLERANCE = 5e-6  # float32 sums of 18 and 8 products of size 1
# three roundings on the way, each half a step of its own range, and the weights' own
INT8_TOLERANCE_STEPS = 5


def written(folder: Path, runtime: RuntimeName, *, int8: bool, maps: bool = False) -> Path:
    """Write the small network in the runtime's format; skip where the runtime is not there."""
    reason = unavailable(runtime)
    if reason:
        pytest.skip(f"{runtime}: {reason}")
    suffix, write = ("onnx", onnx_bytes) if runtime in RUNTIME_OF_FORMAT["onnx"] else ("tflite", tflite_bytes)
    path = folder / f"small-{int8}.{suffix}"
    path.write_bytes(write(NET, int8=int8, maps=maps))
    return path


def opened(folder: Path, runtime: RuntimeName, *, int8: bool, maps: bool = False) -> Session:
    return open_session(written(folder, runtime, int8=int8, maps=maps), runtime)


def test_ci_has_every_runtime() -> None:
    """A runtime that is missing is skipped by the tests below; where they are to prove something, that must not be."""
    if os.environ.get("CI") == "true":
        assert {runtime: unavailable(runtime) for runtime in RUNTIMES} == dict.fromkeys(RUNTIMES)


# ── what files compute ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("count", [0, 1, 256, 300])  # none, one, a whole batch, a batch and a part
def test_float_files_compute_the_network(tmp_path: Path, runtime: RuntimeName, count: int) -> None:
    session = opened(tmp_path, runtime, int8=False)
    x = inputs(count)
    y = session.run({"x": x})["y"]
    assert y.shape == (count, 3)
    assert y.dtype == np.float32
    assert session.steps == {}
    assert session.signature == Signature(
        (TensorSpec("x", "float32", SAMPLE_SHAPE, "CHW"),), (TensorSpec("y", "float32", (3,), "K"),)
    )
    np.testing.assert_allclose(y, NET(x), atol=FLOAT_TOLERANCE)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_int8_files_compute_the_network_in_steps(tmp_path: Path, runtime: RuntimeName) -> None:
    session = opened(tmp_path, runtime, int8=True)
    x = np.clip(inputs(300), -3, 3)  # inside the calibrated range
    y = session.run({"x": x})["y"]
    scale = NET.ranges["y"][0]
    assert session.steps == {"y": pytest.approx(scale, rel=1e-6)}
    np.testing.assert_allclose(y, NET(x), atol=INT8_TOLERANCE_STEPS * scale)
    steps = y / np.float32(scale)
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-4)  # whole steps: really dequantized int8


@pytest.mark.parametrize("maps", [False, True])
def test_int8_files_agree_within_one_step(tmp_path: Path, maps: bool) -> None:
    x = inputs(600)  # also outside the range: all must saturate alike
    sessions = [opened(tmp_path, name, int8=True, maps=maps) for name in RUNTIMES if not unavailable(name)]
    outputs = [next(iter(session.run({"x": x}).values())) for session in sessions]
    for other in outputs[1:]:
        assert other.shape == outputs[0].shape == (600, *(MAPS_SHAPE if maps else (3,)))
        # one step: TFLite rounds its fixed-point multiplier, ONNX Runtime multiplies in float32
        assert np.abs(other - outputs[0]).max() <= 1.01 * NET.ranges["conv" if maps else "y"][0]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_signed_names_and_given_steps_reach_every_runtime(tmp_path: Path, runtime: RuntimeName) -> None:
    signature = Signature((TensorSpec("p", "float32", SAMPLE_SHAPE, "CHW"),), (TensorSpec("q", "float32", (3,), "K"),))
    path = written(tmp_path, runtime, int8=True)
    session = open_session(path, runtime, signature=signature)
    assert session.signature == signature
    assert session.steps == {"q": pytest.approx(NET.ranges["y"][0], rel=1e-6)}
    assert list(session.run({"p": inputs(2)})) == ["q"]
    if runtime == "onnxruntime":  # for others the file decides
        assert open_session(path, runtime, signature=signature, steps={"q": 0.5}).steps == {"q": 0.5}
        assert open_session(path, runtime, signature=signature, steps={}).steps == {}
    wrong = Signature(signature.inputs, (TensorSpec("q", "float32", (4,), "K"),))
    with pytest.raises(ModelError, match=r"'q' has the shape \(3,\) in the file and \(4,\) in its signature"):
        open_session(path, runtime, signature=wrong)


def test_steps_of_an_onnx_file_are_in_its_order(tmp_path: Path) -> None:
    scales = {"a": 0.25, "c": 0.5}
    nodes = [helper.make_node("Relu", ["x"], ["b"]), helper.make_node("QuantizeLinear", ["x", "a_s", "z"], ["q"])]
    nodes += [helper.make_node("DequantizeLinear", ["q", f"{name}_s", "z"], [name]) for name in scales]
    tensors = [helper.make_tensor(f"{name}_s", TensorProto.FLOAT, [], [scale]) for name, scale in scales.items()]
    tensors.append(helper.make_tensor("z", TensorProto.UINT8, [], [0]))
    x, *ends = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2]) for name in "xcba")
    graph = helper.make_graph(nodes, "g", [x], ends, tensors)
    path = tmp_path / "three.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    assert steps_in_onnx(path) == (0.5, 0.0, 0.25)
    assert open_session(path, "onnxruntime").steps == {"c": 0.5, "a": 0.25}


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_several_inputs_and_outputs(tmp_path: Path, runtime: RuntimeName) -> None:
    written(tmp_path, runtime, int8=False)  # skips
    path = tmp_path / "two"
    data = odd_models.two_by_two_onnx() if runtime == "onnxruntime" else odd_models.two_by_two_tflite()
    path.write_bytes(data)
    session = open_session(path, runtime)
    rng = np.random.default_rng(1)
    first, second = (rng.normal(size=(5, *shape)).astype(np.float32) for shape in ((3, 4, 5), (3, 1, 1)))
    names = [spec.name for spec in session.signature.inputs]
    shifted, mean = session.run(dict(zip(names, (first, second), strict=True))).values()
    np.testing.assert_array_equal(shifted, first + second)
    np.testing.assert_allclose(mean, (first + second).mean((2, 3)), atol=FLOAT_TOLERANCE)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_timer_runs_and_leaves_the_session_alone(tmp_path: Path, runtime: RuntimeName) -> None:
    session = opened(tmp_path, runtime, int8=True)
    x = inputs(40)
    before = session.run({"x": x})["y"]
    timer = session.timer({"x": x[:1]})
    times = timer(5)
    assert len(times) == 5
    assert all(0 < each < 1000 for each in times)
    np.testing.assert_array_equal(session.run({"x": x})["y"], before)
    del session
    assert len(timer(1)) == 1  # it holds what it needs, a process too


# ── what is executed ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("int8", [False, True])
def test_every_executed_node_is_told(tmp_path: Path, runtime: RuntimeName, int8: bool) -> None:
    nodes = executed(written(tmp_path, runtime, int8=int8), runtime)
    assert len(nodes) >= 3
    assert {node.integer for node in nodes} == {int8}
    assert all(bool(node.reason) is not node.integer for node in nodes)


def test_litert_shows_the_delegate(tmp_path: Path) -> None:
    nodes = executed(written(tmp_path, "litert", int8=True), "litert")
    assert [node.op for node in nodes] == ["CONV_2D", "MEAN", "FULLY_CONNECTED", "DELEGATE"]
    assert nodes[-1].name == "delegate 1"


def test_a_float_island_is_named_with_its_reason(tmp_path: Path) -> None:
    path = tmp_path / "island.onnx"
    path.write_bytes(onnx_bytes(NET, int8=True, float_mean=True))
    nodes = {node.op: node for node in executed(path, "onnxruntime") if not node.integer}
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


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_damaged_file_executes_nothing(tmp_path: Path, runtime: RuntimeName) -> None:
    written(tmp_path, runtime, int8=False)  # skips
    (tmp_path / "damaged").write_bytes(b"\xff" * 500)
    with pytest.raises(ModelError, match=r"damaged: .*cannot load this file"):
        executed(tmp_path / "damaged", runtime)


# ── refusals ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("damage", ["empty", "noise", "cut"])
def test_a_damaged_file_is_named(tmp_path: Path, runtime: RuntimeName, damage: str) -> None:
    whole = written(tmp_path, runtime, int8=True).read_bytes()
    damaged = tmp_path / "damaged"
    damaged.write_bytes({"empty": b"", "noise": b"\xff" * 500, "cut": whole[: len(whole) // 2]}[damage])
    # tflite-runtime does not verify files: a cut one may kill it, but only it
    with pytest.raises(ModelError, match="damaged: "):
        open_session(damaged, runtime).run({"x": inputs(1)})


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_missing_file_and_wrong_inputs_are_errors_for_the_user(tmp_path: Path, runtime: RuntimeName) -> None:
    with pytest.raises(ModelError, match="no such model file"):
        open_session(tmp_path / "nothing.onnx", runtime)
    session = opened(tmp_path, runtime, int8=False)
    for use in (session.run, session.timer):
        with pytest.raises(ModelError, match=r"small-False.*input 'x' has the shape \(4, 2, 5, 6\)"):
            use({"x": np.zeros((4, 2, 5, 6), np.float32)})


# ── which runtimes there are ────────────────────────────────────────────────────────────────────────────────────────


def test_every_runtime_is_listed_and_onnxruntime_is_there() -> None:
    assert set(RUNTIMES) == set(MODULES) == set(get_args(RuntimeName))
    assert {name for names in RUNTIME_OF_FORMAT.values() for name in names} == set(RUNTIMES)
    assert unavailable("onnxruntime") is None


@pytest.fixture
def fresh() -> None:
    """Forget what was found out about runtimes, before and after."""
    for cached in (unavailable, runtimes._tried):
        cached.cache_clear()


@pytest.mark.usefixtures("fresh")
def test_a_package_that_is_not_there_is_a_reason_and_no_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)  # import raises ImportError
    assert "not installed" in (unavailable("litert") or "")
    monkeypatch.undo()
    unavailable.cache_clear()
    runtimes._tried.cache_clear()


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_version_is_told_without_loading_the_runtime(tmp_path: Path, runtime: RuntimeName) -> None:
    session = opened(tmp_path, runtime, int8=False)
    assert version(runtime) == session.version
    assert session.label == f"{runtime} {version(runtime)}"


@pytest.mark.usefixtures("fresh")
def test_a_runtime_that_is_not_there_has_no_version(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(TFLITE_RUNTIME_PYTHON, str(tmp_path / "python"))
    assert version("tflite-runtime") == ABSENT
    reason = unavailable("tflite-runtime") or ""
    assert reason.startswith("tflite-runtime has no environment of its own here: there is no Python ")
    assert TFLITE_RUNTIME_PYTHON in reason
    unavailable.cache_clear()


def test_the_small_net_itself() -> None:
    """The expectation of this file against a second way of computing it."""
    torch = pytest.importorskip("torch")
    x = inputs(5)
    net: SmallNet = NET
    conv = torch.nn.functional.conv2d(*map(torch.from_numpy, (x, net.conv_weight, net.conv_bias))).relu()
    y = torch.nn.functional.linear(conv.mean((2, 3)), *map(torch.from_numpy, (net.linear_weight, net.linear_bias)))
    np.testing.assert_allclose(net.maps(x), conv.numpy(), atol=FLOAT_TOLERANCE)
    np.testing.assert_allclose(net(x), y.numpy(), atol=FLOAT_TOLERANCE)
