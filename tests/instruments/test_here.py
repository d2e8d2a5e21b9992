"""This machine as an instrument: real files in their runtimes, their time, their memory, and comparisons of speed."""

from __future__ import annotations

import itertools
import weakref
from pathlib import Path
from typing import cast

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from pipeline.artifacts.evidence import Place
from pipeline.artifacts.files import Exported, FileFormat, Variant, Way
from pipeline.declare.words import Precision, RuntimeName
from pipeline.errors import ModelError
from pipeline.host import machine_name
from pipeline.instruments import Contender, here
from pipeline.onboard import timing
from pipeline.onboard.arrays import Signature, TensorSpec
from pipeline.onboard.session import Session
from pipeline.runs.store import Store
from pipeline.runtimes import open_session, unavailable
from tests.onboard.small_models import SAMPLE_SHAPE, inputs, onnx_bytes, small_net, tflite_bytes

SIGNATURE = Signature(
    inputs=(TensorSpec("picture", "float32", SAMPLE_SHAPE, "CHW"),),
    outputs=(TensorSpec("kinds", "float32", (3,), "K"),),
)
FORMATS: tuple[FileFormat, ...] = ("onnx", "tflite")
PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")
TFLITE_RUNTIMES: tuple[RuntimeName, ...] = ("litert", "tflite-runtime")


def exported(store: Store) -> list[Exported]:
    files = []
    for file_format, precision in itertools.product(FORMATS, PRECISIONS):
        write = onnx_bytes if file_format == "onnx" else tflite_bytes
        content = write(small_net(), int8=precision == "int8")
        step = {"kinds": small_net().ranges["y"][0]} if precision == "int8" else {}
        files.append(
            Exported(
                variant=Variant(format=file_format, precision=precision, weight_bits=8 if step else 32),
                file=store.put(content),
                filename=f"small.{precision}.{file_format}",
                size_bytes=len(content),
                signature=SIGNATURE,
                steps=step,
            )
        )
    return files


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def files_of_two_sizes(folder: Path) -> tuple[Path, Path]:
    """Write two float files of which one takes several times as long."""
    small, large = folder / "small.onnx", folder / "large.onnx"
    small.write_bytes(onnx_bytes(small_net(), int8=False))
    large.write_bytes(deep_onnx())
    return small, large


def deep_onnx() -> bytes:
    """Multiply with a large matrix, twenty times."""
    weight = numpy_helper.from_array(np.eye(256, dtype=np.float32), "w")
    names = ["x", *(f"h{index}" for index in range(19)), "y"]
    nodes = [helper.make_node("MatMul", [before, "w"], [after]) for before, after in itertools.pairwise(names)]
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 256]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "deep", ends[:1], ends[1:], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return cast("bytes", model.SerializeToString())


# ── ways ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_file_once_in_every_usable_runtime(store: Store) -> None:
    files = exported(store)
    ways, not_usable = here.ways_of([*files, *files], store)
    expected = [
        Way(variant=file.variant, program=runtime)
        for file in files
        for runtime in (("onnxruntime",) if file.variant.format == "onnx" else TFLITE_RUNTIMES)
        if not unavailable(runtime)
    ]
    assert [each.way for each in ways] == expected
    assert not_usable == {name: unavailable(name) for name in TFLITE_RUNTIMES if unavailable(name)}


def test_a_runtime_that_is_not_usable_is_told_once_with_its_reason(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(here, "unavailable", lambda runtime: "not installed" if runtime == "litert" else None)
    ways, not_usable = here.ways_of(exported(store), store)
    assert not_usable == {"litert": "not installed"}
    assert "litert" not in {each.runtime for each in ways}


def test_sessions_speak_in_the_names_and_layout_of_the_trained_network(store: Store) -> None:
    ways, _ = here.ways_of(exported(store), store)
    wanted = small_net()(inputs(4))
    for each in ways:
        session = each.open(threads=1)
        got = session.run({"picture": inputs(4)})
        assert list(got) == ["kinds"]
        step = each.file.steps.get("kinds", 0.0)
        assert dict(session.steps) == pytest.approx(each.file.steps)
        np.testing.assert_allclose(got["kinds"], wanted, rtol=0, atol=1e-4 + 4 * step)


def test_the_place_is_this_machine() -> None:
    assert here.place() == Place(how="measured", name=machine_name())
    assert here.place("host").profile == "host"


# ── costs ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_all_ways_are_timed_together(store: Store) -> None:
    ways, _ = here.ways_of(exported(store)[:2], store)  # the two ONNX files
    times = here.time_ways(ways, {"picture": inputs(1)}, threads=1, seed=0)
    assert list(times) == [each.way for each in ways]
    first, second = times.values()
    assert first.shape == second.shape
    assert timing.LEAST_SESSIONS <= len(first) <= here.SESSIONS
    for each in (first, second):
        assert 0 < each.min() <= np.median(each) < 5  # microseconds of work, on a busy machine too
    assert here.time_ways((), {}, threads=1, seed=0) == {}


def test_memory_of_each_way_in_a_process_of_its_own(store: Store) -> None:
    ways, _ = here.ways_of(exported(store)[:2], store)
    found = here.memory_of(ways, threads=1)
    if Path("/proc/self/status").exists():
        assert list(found) == [each.way for each in ways]
    assert all(0 < each < 2**28 for each in found.values())


def test_a_session_is_closed_when_its_timer_is_let_go(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    alive: weakref.WeakSet[Session] = weakref.WeakSet()
    most = []

    def opened(path: Path, runtime: RuntimeName, *, threads: int) -> Session:
        most.append(len(alive))
        session = open_session(path, runtime, threads=threads)
        alive.add(session)
        return session

    monkeypatch.setattr(here, "open_session", opened)
    file = store.path(store.put(onnx_bytes(small_net(), int8=False)))
    here.compare_speed(file, file, threads=1, budget_s=0.0)
    assert set(most) == {0, 1}  # two at a time, over and over
    assert len(most) == 2 * timing.LEAST_SESSIONS
    assert len(alive) == 0


# ── comparisons ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_cheaper_file_is_found_whichever_way_round(tmp_path: Path) -> None:
    small, large = files_of_two_sizes(tmp_path)
    got = here.compare_speed(small, large, threads=1, budget_s=5.0, seed=0)
    assert got.cheaper
    assert got.low <= got.ratio <= got.high < 1
    assert (got.of, got.place) == ("latency", here.place())
    first, second = (Contender(path=path, macs=1, works=dict) for path in (large, small))
    back = here.compare(first, second, threads=1, budget_s=5.0, seed=0)
    assert back.low > 1
    assert not back.cheaper


def test_a_file_is_not_cheaper_than_itself(tmp_path: Path) -> None:
    small, _ = files_of_two_sizes(tmp_path)
    found = [here.compare_speed(small, small, threads=1, budget_s=1.0, seed=seed) for seed in range(8)]
    # 2 % are allowed for: more than 2 of 8 by chance in one of 2,600 runs of this test
    assert sum(each.high < 1 or each.low > 1 for each in found) <= 2


@pytest.mark.parametrize("runtime", TFLITE_RUNTIMES)
def test_speed_in_tflites_runtimes(tmp_path: Path, runtime: RuntimeName) -> None:
    if unavailable(runtime):
        pytest.skip(f"{runtime}: {unavailable(runtime)}")
    file = tmp_path / "small.tflite"
    file.write_bytes(tflite_bytes(small_net(), int8=True))
    got = here.compare_speed(file, file, runtime=runtime, threads=1, budget_s=0.0)
    assert got.low <= got.ratio <= got.high


def test_a_file_that_cannot_be_run_is_told(tmp_path: Path) -> None:
    small, _ = files_of_two_sizes(tmp_path)
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    with pytest.raises(ModelError, match="broken"):
        here.compare_speed(broken, small, threads=1, budget_s=1.0)
