"""How long layers are estimated to take on targets: which runtimes and precisions there are, and at once."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from pipeline import catalog
from pipeline.declare.target import TargetProfile
from pipeline.inspecting.network import inspect_network
from pipeline.inspecting.subject import Asked, inspect
from pipeline.inspecting.timed import on_target
from pipeline.networks.from_torch import folded_graph
from tests import learnable
from tests.inspecting.test_files import READERS, network, quantized, written

AT_ONCE_S = 1.0


def target(name: str = "raspberry-pi-4b", **other: object) -> TargetProfile:
    return catalog.load_target(name).model_copy(update=other)


def test_a_network_is_estimated_in_both_precisions() -> None:
    found = inspect_network(network(), learnable.SHAPE, subject="x")
    timed = on_target(found, target()).timed
    assert [each.precision for each in timed] == ["fp32", "int8"]
    for each in timed:
        assert len(each.layers_ms) == len(found.layers)
        free = {layer.op for layer, ms in zip(found.layers, each.layers_ms, strict=True) if not ms}
        assert free == {"Relu", "Reshape"}  # inside the convolution, and nothing at all


@pytest.mark.parametrize(("file_format", "runtime"), [("onnx", "onnxruntime"), ("tflite", "litert")])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_file_is_estimated_as_it_is(tmp_path: Path, file_format: str, runtime: str, precision: str) -> None:
    graph = folded_graph(network(), learnable.SHAPE) if precision == "fp32" else quantized(network())
    found = READERS[file_format](written(tmp_path, graph, file_format))
    (timed,) = on_target(found, target()).timed
    assert (timed.runtime, timed.precision) == (runtime, precision)


def test_a_target_may_name_its_runtime() -> None:
    found = inspect_network(network(), learnable.SHAPE, subject="x")
    assert {each.runtime for each in on_target(found, target(runtime="onnxruntime")).timed} == {"onnxruntime"}
    old = on_target(found, target(runtime="tflite-runtime"))
    assert (old.timed, old.why_not) == ((), "its runtime is tflite-runtime, of which no kernels were counted")


def test_a_faster_board_is_faster_and_integers_are_on_it() -> None:
    """A Cortex-A76 adds four 8-bit products in one step."""
    found = inspect(Asked(subject="cnn", shape=(3, 32, 32)))
    slow, fast = (
        {each.precision: each.latency_ms for each in on_target(found, target(name)).timed}
        for name in ("raspberry-pi-4b", "raspberry-pi-5")
    )
    assert fast["fp32"] is not None
    assert fast["int8"] is not None
    assert slow["fp32"] is not None
    assert fast["fp32"].value < slow["fp32"].value / 2
    assert fast["int8"].value < fast["fp32"].value / 2


def test_an_estimate_is_there_at_once() -> None:
    found = inspect(Asked(subject="mobilenet_v2", shape=(3, 64, 64)))
    started = time.process_time()
    assert len(on_target(found, target()).timed) == 2
    assert time.process_time() - started < AT_ONCE_S
