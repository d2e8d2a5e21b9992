"""check: what it counts, what it leaves alone, and that it tries only what the recipe asks for."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch

from pipeline.artifacts.networks import NetworkCheck, NetworkRef
from pipeline.errors import UnsupportedOpError
from pipeline.progress import Silent
from pipeline.runs.run import Work
from pipeline.stages.check import check
from pipeline.runs.store import Store
from tests.learnable import CONVOLUTIONAL

# one Linear called twice: fine in float, but its integer bias would need two scales
TWICE = """
from torch import nn

class Twice(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.square, self.fc = nn.Linear(12, 12), nn.Linear(12, classes)

    def forward(self, x):
        return self.fc(self.square(self.square(x.flatten(1)).relu()))

def build(input_shape, classes):
    return Twice(classes)
"""


def checked(folder: Path, source: str, *, pruned: bool, quantized: bool) -> NetworkCheck:
    path = folder / "net.py"
    path.write_text(source)
    digest = hashlib.sha256(source.encode()).hexdigest()
    network = NetworkRef(sha256=digest, options={}, input_shape=(3, 2, 2), classes=4, path=path)
    work = Work(store=Store(folder / "store"), scratch=folder, progress=Silent(), device="cpu")
    return check(work, network=network, pruned=pruned, quantized=quantized)


def test_layers_and_parameters_are_those_of_the_float_file(tmp_path: Path) -> None:
    before = torch.random.get_rng_state()
    # Conv 3*8*9 and Conv 8*8*9, each with the bias its folded batch norm leaves, Linear 8*4 + 4
    parameters = 3 * 8 * 9 + 8 + 8 * 8 * 9 + 8 + 8 * 4 + 4
    found = checked(tmp_path, CONVOLUTIONAL, pruned=True, quantized=True)
    assert found.parameters == parameters
    assert found.layers == 7  # Conv, Relu, Conv, Relu, GlobalAveragePool, Reshape, Gemm
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not (tmp_path / "store").exists()


def test_only_what_the_recipe_asks_for_can_be_refused(tmp_path: Path) -> None:
    assert checked(tmp_path, TWICE, pruned=False, quantized=False).layers
    with pytest.raises(UnsupportedOpError, match="called more than once") as caught:
        checked(tmp_path, TWICE, pruned=False, quantized=True)
    assert caught.value.where == f"{tmp_path / 'net.py'}: layer 'square'"
