"""How long layers are estimated to take on targets: which runtimes and precisions there are, and at once."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
from torch import nn

from pipeline import catalog
from pipeline.declare.target import TargetProfile
from pipeline.inspecting.layers import Inspected
from pipeline.inspecting.network import inspect_network
from pipeline.inspecting.subject import Asked, inspect
from pipeline.inspecting.timed import Timed, on_target
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


@pytest.mark.parametrize("name", ["raspberry-pi-4b", "raspberry-pi-5"])
def test_of_two_runtimes_the_faster_one_is_estimated(name: str) -> None:
    found = inspect_network(network(), learnable.SHAPE, subject="x")
    either = on_target(found, target(name)).timed
    for index, best in enumerate(either):
        each = [on_target(found, target(name, runtime=runtime)).timed[index] for runtime in ("onnxruntime", "litert")]
        assert best == min(each, key=took_ms)


def test_more_channels_take_no_less() -> None:
    wide = [took_ms(timed) for width in (4, 8, 9, 16, 32) for timed in on_target(of_width(width), target()).timed]
    assert wide[::2] == sorted(wide[::2])
    assert wide[1::2] == sorted(wide[1::2])


def of_width(width: int) -> Inspected:
    layers = [nn.Conv2d(3, width, 3), nn.ReLU(), nn.Conv2d(width, width, 3, groups=width), nn.Conv2d(width, 8, 1)]
    return inspect_network(nn.Sequential(*layers), learnable.SHAPE, subject="x")


def took_ms(timed: Timed) -> float:
    assert timed.latency_ms is not None
    return timed.latency_ms.value


def test_layers_and_the_rest_are_the_whole() -> None:
    for timed in on_target(inspect_network(network(), learnable.SHAPE, subject="x"), target()).timed:
        assert sum(timed.layers_ms) + timed.rest_ms == pytest.approx(took_ms(timed))


def test_why_there_is_no_estimate() -> None:
    found = inspect_network(network(), learnable.SHAPE, subject="x")
    assert on_target(replace(found, layers=()), target()).why_not == "there are no layers"
    laptop = on_target(found, target("x86-laptop-avx2"))
    assert laptop.timed == ()
    assert laptop.why_not
    onnx = replace(found, kind="onnx")
    assert "of which no kernels were counted" in on_target(onnx, target(runtime="litert")).why_not


def test_an_estimate_is_there_at_once() -> None:
    found = inspect(Asked(subject="mobilenet_v2", shape=(3, 64, 64)))
    started = time.process_time()
    assert len(on_target(found, target()).timed) == 2
    assert time.process_time() - started < AT_ONCE_S
