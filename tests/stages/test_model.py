"""model: every file gets a time on a target that is not at hand, from what it holds; nothing is run there."""

from __future__ import annotations

import pytest

from pipeline import catalog
from pipeline.artifacts.evidence import Observed
from pipeline.artifacts.files import Exported
from pipeline.instruments.known import kernels_of
from pipeline.runtimes import unavailable
from pipeline.stages.model import model
from tests.stages.networks_made import make


@pytest.fixture(scope="module")
def modelled(tmp_path_factory: pytest.TempPathFactory) -> tuple[tuple[Exported, ...], Observed]:
    made = make(tmp_path_factory.mktemp("model"))
    files = tuple(file for each in made.exports() for file in each.files)
    kernels = kernels_of(catalog.load_target("raspberry-pi-4b"))
    assert kernels is not None
    found = model(made.work, data=made.data, files=files, kernels=kernels, place=kernels.place, runtimes={})
    return files, found


def test_every_file_has_a_range_in_the_runtimes_whose_kernels_are_known(
    modelled: tuple[tuple[Exported, ...], Observed],
) -> None:
    files, found = modelled
    programs = {"onnx": "onnxruntime", "tflite": "litert"}
    expected = {(file.variant, programs[file.variant.format]) for file in files}
    expected = {each for each in expected if not unavailable(each[1])}
    for quantity in ("latency_p50_ms", "latency_p95_ms"):
        own = [each for each in found.measurements if each.quantity == quantity]
        assert {(each.way.variant, each.way.program) for each in own} == expected
        assert len(own) == len(expected)
    for each in found.measurements:
        assert 0 < each.low < each.value < each.high < 10  # a network of a few thousand multiply-accumulates
        assert (each.place.how, each.place.profile, each.threads) == ("estimated", "raspberry-pi-4b", 1)
        assert f" in {each.way.program} within a factor of " in each.basis


def test_nothing_else_is_claimed(modelled: tuple[tuple[Exported, ...], Observed]) -> None:
    _, found = modelled
    assert (found.answers, found.comparisons, found.timings, found.executed) == ((), (), (), ())
    assert "estimated on the basis of a model of the kernels of a cortex-a72" in found.summary
