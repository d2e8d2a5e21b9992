"""The instrument that models a target: knows which processors it can speak of, and finds less work cheaper there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from pipeline import catalog
from pipeline.declare.target import TargetProfile
from pipeline.declare.words import Precision
from pipeline.inspecting.works import works_of
from pipeline.instruments import Contender
from pipeline.instruments.known import kernels_of
from pipeline.instruments.modelled import RATIO_BARS, ByKernels, basis
from pipeline.networks.from_torch import folded_graph
from pipeline.quant.prepare import prepare

SHAPE = (3, 32, 32)
PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")


def contender(channels: int) -> Contender:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, channels, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(channels, channels, 3),
        nn.Flatten(),
        nn.LazyLinear(4),
    )
    network(torch.zeros(1, *SHAPE))
    folded = folded_graph(network.eval(), SHAPE)
    layers = works_of(folded, prepare(folded, weight_bits=8)).values()
    works = {precision: tuple(each[precision] for each in layers) for precision in PRECISIONS}
    return Contender(path=Path("no-such-file.onnx"), macs=1, works=lambda: works)


def modelled(target: str, precision: Precision = "int8", runtime: str = "auto") -> ByKernels:
    kernels = kernels_of(pinned(target, runtime))
    assert kernels is not None
    return ByKernels(kernels=kernels, precision=precision)


def pinned(target: str, runtime: str) -> TargetProfile:
    return catalog.load_target(target).model_copy(update={"runtime": runtime})


@pytest.mark.parametrize("target", ["raspberry-pi-4b", "raspberry-pi-5", "raspberry-pi-3b-plus"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_half_of_the_channels_is_cheaper_and_the_network_equals_itself(target: str, precision: Precision) -> None:
    whole, half = contender(64), contender(32)
    instrument = modelled(target, precision)
    paid = instrument.compare(half, whole, threads=1, budget_s=0.0, seed=0)
    assert 0.2 < paid.ratio < 0.6
    assert paid.low == pytest.approx(paid.ratio / RATIO_BARS[precision])
    assert paid.high == pytest.approx(paid.ratio * RATIO_BARS[precision])
    assert (paid.of, paid.place) == ("latency", instrument.place())
    again = instrument.compare(whole, whole, threads=4, budget_s=9.0, seed=1)
    assert (again.low, again.ratio, again.high) == (1, 1, 1)
    assert not again.cheaper


def test_it_names_the_processor_and_the_target() -> None:
    found = modelled("raspberry-pi-5").place()
    assert (found.how, found.profile) == ("estimated", "raspberry-pi-5")
    assert "cortex-a76" in found.name


def test_the_runtime_that_is_fastest_decides_or_the_one_that_is_pinned() -> None:
    whole, half = contender(64), contender(32)

    def ratio(runtime: str) -> float:
        found = modelled("raspberry-pi-4b", runtime=runtime)
        return found.compare(half, whole, threads=1, budget_s=0.0, seed=0).ratio

    assert ratio("onnxruntime") != ratio("litert")
    assert ratio("auto") in (ratio("onnxruntime"), ratio("litert"))


@pytest.mark.parametrize(
    ("target", "runtime"),
    [("x86-laptop-avx2", "auto"), ("x86-laptop-vnni", "auto"), ("raspberry-pi-4b", "tflite-runtime")],
)
def test_where_no_kernels_were_counted_there_is_no_model(target: str, runtime: str) -> None:
    assert kernels_of(pinned(target, runtime)) is None


def test_the_state_of_the_model_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = basis()
    assert before == basis()
    other = tmp_path / "static.json"
    other.write_text("{}")
    monkeypatch.setattr("pipeline.instruments.modelled.STATIC", other)
    assert basis() != before
