"""Networks with auxiliary heads: trained on all their outputs, used and written with the main one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pipeline import tasks
from pipeline.artifacts.networks import NetworkRef
from pipeline.declare.recipe import TrainSpec
from pipeline.errors import ModelError
from pipeline.networks.build import build_network, check_training_step
from pipeline.networks.from_torch import folded_graph
from pipeline.networks.outputs import auxiliary_outputs
from pipeline.training.loop import loss_of
from tests import learnable

HEADS = """
from collections import namedtuple
from torch import nn
Outputs = namedtuple("Outputs", "logits aux2 aux1")

class Net(nn.Module):
    def __init__(self, channels, classes):
        super().__init__()
        self.body = nn.Conv2d(channels, 8, 3)
        self.fc, self.aux1, self.aux2 = (nn.Linear(8, classes) for _ in range(3))

    def forward(self, x):
        x = self.body(x).relu().mean((2, 3))
        {returns}

def build(input_shape, classes):
    return Net(input_shape[0], classes)
"""
RETURNS = {
    "tuple of three": "return Outputs(self.fc(x), self.aux2(x), self.aux1(x)) if self.training else self.fc(x)",
    "tuple of two": "return (self.fc(x), self.aux1(x)) if self.training else self.fc(x)",
    "none": "return Outputs(self.fc(x), None, None) if self.training else self.fc(x)",
    "dict": "return {'aux': self.aux1(x), 'out': self.fc(x)}",
    "dict of one": "return {'out': self.fc(x)}",
}


def reference(folder: Path, returns: str) -> NetworkRef:
    return learnable.network(folder, HEADS.replace("{returns}", RETURNS.get(returns, returns)))


def batch() -> tuple[Tensor, dict[str, Tensor]]:
    x, labels = learnable.pictures(6, 0)
    return torch.from_numpy(x), {"class": torch.from_numpy(labels)}


@pytest.mark.parametrize("returns", RETURNS)
def test_the_main_output_is_what_the_network_gives(tmp_path: Path, returns: str) -> None:
    ref = reference(tmp_path, returns)
    network = build_network(ref, seed=0)
    check_training_step(network, ref)
    inputs, _ = batch()
    expected = network.get_submodule("fc")(network.get_submodule("body")(inputs).relu().mean((2, 3)))
    for mode in (True, False):
        assert torch.equal(network.train(mode)(inputs), expected)
    folded = folded_graph(network, learnable.SHAPE)
    assert torch.allclose(folded(inputs), expected, atol=1e-5)
    assert not any("aux" in name for name, _ in folded.named_parameters())


@pytest.mark.parametrize(
    ("returns", "weights"),
    [("tuple of three", (0.3, 0.3)), ("tuple of two", (0.4, 0)), ("dict", (0.4, 0)), ("none", (0, 0))],
)
def test_auxiliary_losses_are_added_with_their_weights(
    tmp_path: Path, returns: str, weights: tuple[float, float]
) -> None:
    network = build_network(reference(tmp_path, returns), seed=0)
    inputs, wanted = batch()
    (update,) = tasks.named("classification").updates(TrainSpec())
    loss = loss_of(update, network, inputs, wanted)
    maps = network.get_submodule("body")(inputs).relu().mean((2, 3))
    expected = sum(
        weight * nn.functional.cross_entropy(network.get_submodule(head)(maps), wanted["class"])
        for head, weight in zip(("fc", "aux1", "aux2"), (1, *weights), strict=True)
    )
    assert torch.isclose(loss, torch.as_tensor(expected), atol=1e-6)
    loss.backward()  # type: ignore[no-untyped-call]
    for head, weight in zip(("aux1", "aux2"), weights, strict=True):
        assert (network.get_parameter(f"{head}.weight").grad is not None) == (weight > 0)


def test_nothing_is_collected_in_use(tmp_path: Path) -> None:
    network = build_network(reference(tmp_path, "dict"), seed=0).eval()
    with auxiliary_outputs() as others:
        network(batch()[0])
    assert others == []


@pytest.mark.parametrize(
    ("returns", "what"),
    [
        ("return (self.fc(x), x) if self.training else self.fc(x)", "forward() returns (2, 8) beside its main output"),
        ("return (self.fc(x), 'x') if self.training else self.fc(x)", "forward() returns a str beside its main"),
    ],
)
def test_outputs_of_another_kind_are_refused(tmp_path: Path, returns: str, what: str) -> None:
    ref = reference(tmp_path, returns)
    with pytest.raises(ModelError) as caught:
        check_training_step(build_network(ref, seed=0), ref)
    assert caught.value.what.startswith(what)
    assert caught.value.where == str(ref.path)


def test_a_dict_without_a_main_output_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="forward\\(\\) returned a dict, not a tensor"):
        build_network(reference(tmp_path, "return {'first': self.fc(x)}"), seed=0)
