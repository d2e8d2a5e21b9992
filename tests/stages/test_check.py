"""check: what it counts and leaves alone, that it tries only what the recipe asks for, and that it runs the files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from pipeline.artifacts.networks import NetworkCheck, NetworkRef
from pipeline.errors import ModelError
from pipeline.runtimes import written
from pipeline.stages.check import check
from pipeline.tflite import write_tflite
from tests import learnable

# one Linear called twice: fine in float, but its integer bias would need two scales
HARD_CODED = """
from torch import nn

class HardCoded(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(512, classes)

    def forward(self, x):
        return self.fc(self.conv(x).relu().view(-1, 512))

def build(input_shape, classes):
    return HardCoded(classes)
"""


def checked(
    folder: Path,
    code: str = learnable.CONVOLUTIONAL,
    *,
    pruned: bool = False,
    quantized: bool = False,
    start: NetworkRef | None = None,
    numbers: bool = False,
) -> NetworkCheck:
    data = learnable.numbers(folder) if numbers else learnable.dataset(folder)
    facts = learnable.facts(data)
    ref = learnable.network(folder, code, classes=facts.signature.output.shape[0])
    return check(
        learnable.work(folder),
        data=data,
        facts=facts,
        network=ref,
        pruned=pruned,
        quantized=quantized,
        start_network=start,
    )


def test_layers_and_parameters_are_those_of_the_float_file(tmp_path: Path) -> None:
    before = torch.random.get_rng_state()
    # Conv 3*8*9 and Conv 8*8*9, each with the bias its folded batch norm leaves, Linear 8*4 + 4
    parameters = 3 * 8 * 9 + 8 + 8 * 8 * 9 + 8 + 8 * 4 + 4
    found = checked(tmp_path, pruned=True, quantized=True)
    assert found.parameters == parameters
    assert found.layers == 7  # Conv, Relu, Conv, Relu, GlobalAveragePool, Reshape, Gemm
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not (tmp_path / "store").exists()
    assert not list((tmp_path / "scratch").iterdir())


def test_only_what_the_recipe_asks_for_can_be_refused(tmp_path: Path) -> None:
    assert checked(tmp_path, HARD_CODED, quantized=True).layers
    with pytest.raises(ModelError, match="its own code counts on the number of channels") as caught:
        checked(tmp_path, HARD_CODED, pruned=True)
    assert caught.value.where.startswith(f"{tmp_path / 'small.py'}")


def test_a_network_that_gives_numbers_goes_all_the_way(tmp_path: Path) -> None:
    assert checked(tmp_path, pruned=True, quantized=True, numbers=True).layers == 7


def test_weights_to_start_from_that_do_not_fit_are_refused_before_they_are_trained(tmp_path: Path) -> None:
    wider = learnable.network(tmp_path, name="start", width=12)
    with pytest.raises(ModelError, match="those of another network") as caught:
        checked(tmp_path, start=wider)
    assert caught.value.where == str(wider.path)
    assert "expected (8, 3, 3, 3), found (12, 3, 3, 3)" in caught.value.remedy


def test_a_head_for_other_classes_fits(tmp_path: Path) -> None:
    assert checked(tmp_path, start=learnable.network(tmp_path, name="start", classes=9)).layers


def one_weight_changed(model: onnx.ModelProto, *, bytes_in: bool = False) -> bytes:
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    tensor = next(each for each in changed.graph.initializer if "fc.w" in each.name and each.dims)
    values = numpy_helper.to_array(tensor).copy()
    values.flat[0] = -values.flat[0] + (values.dtype == np.int8) * 60
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return write_tflite(changed, bytes_in=bytes_in)


def test_files_that_compute_something_else_are_refused_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(written, "write_tflite", one_weight_changed)
    with pytest.raises(ModelError, match=r"computes something else than the network: .* where rounding explains"):
        checked(tmp_path)


def test_a_runtime_that_is_missing_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(written, "unavailable", lambda runtime: "gone" if runtime != "onnxruntime" else None)
    monkeypatch.setattr(written, "write_tflite", one_weight_changed)
    assert checked(tmp_path).layers == 7


SQUASHED = """
from torch import nn

def build(input_shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(192, classes), {end})
"""


@pytest.mark.parametrize(
    ("end", "said"),
    [
        ("nn.Softmax(dim=1)", "the network ends in a softmax (layer 2)"),
        ("nn.Softmax(dim=1), nn.Flatten()", "the network ends in a softmax (layer 2)"),
        ("nn.Sigmoid()", "the network ends in a sigmoid (layer 2)"),
        ("nn.ReLU()", ""),
        ("nn.Softmax(dim=1), nn.Linear(classes, classes)", ""),
    ],
)
def test_a_softmax_that_training_applies_too_is_pointed_out(tmp_path: Path, end: str, said: str) -> None:
    hints = checked(tmp_path, SQUASHED.format(end=end)).hints
    assert [hint.partition(",")[0] for hint in hints] == ([said] if said else [])


def test_numbers_may_end_in_anything(tmp_path: Path) -> None:
    assert checked(tmp_path, SQUASHED.format(end="nn.Sigmoid()"), numbers=True).hints == ()
