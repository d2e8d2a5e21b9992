"""Edits: what each takes away of each kind of layer, one after the other, and what does not fit."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import nn

from pipeline.artifacts.training import Edit
from pipeline.errors import ModelError
from pipeline.networks.edits import apply

Side = Literal["out", "in"]


def edit(side: Side, *indices: int, layer: str = "0") -> Edit:
    return Edit(layer=layer, side=side, indices=indices)


def only(layer: nn.Module) -> nn.Sequential:
    return nn.Sequential(layer)


@pytest.mark.parametrize(
    ("layer", "out_axis"),
    [(nn.Linear(5, 4), 0), (nn.Conv1d(5, 4, 3), 0), (nn.Conv2d(5, 4, 3), 0), (nn.ConvTranspose2d(5, 4, 3), 1)],
    ids=lambda value: type(value).__name__,
)
def test_weights_and_biases_of_kept_channels_stay(layer: nn.Module, out_axis: int) -> None:
    weight, bias = layer.get_parameter("weight").detach().clone(), layer.get_parameter("bias").detach().clone()
    changed = apply(only(layer), [edit("out", 1, 3), edit("in", 0, 3)]).get_submodule("0")
    kept = weight.index_select(out_axis, torch.tensor([0, 2])).index_select(1 - out_axis, torch.tensor([1, 2, 4]))
    assert torch.equal(changed.get_parameter("weight"), kept)
    assert torch.equal(changed.get_parameter("bias"), bias[[0, 2]])
    assert changed(torch.zeros(1, 3, *[9] * (weight.dim() - 2))).shape[1] == 2
    assert all(parameter.requires_grad for parameter in changed.parameters())


def test_statistics_of_batch_norms_go_with_their_channels() -> None:
    norm = nn.BatchNorm2d(4)
    for name, tensor in norm.state_dict().items():
        if name != "num_batches_tracked":
            tensor.copy_(torch.arange(4.0))
    apply(only(norm), [edit("out", 1)])
    assert norm.num_features == 3
    for name in ("weight", "bias", "running_mean", "running_var"):
        assert norm.state_dict()[name].tolist() == [0, 2, 3]


def test_a_depthwise_convolution_stays_depthwise() -> None:
    layer = nn.Conv2d(4, 4, 3, groups=4)
    weight = layer.weight.detach().clone()
    apply(only(layer), [edit("out", 0, 2)])
    assert (layer.groups, layer.in_channels, layer.out_channels) == (2, 2, 2)
    assert torch.equal(layer.weight, weight[[1, 3]])
    assert layer(torch.zeros(1, 2, 5, 5)).shape == (1, 2, 3, 3)


def test_a_grouped_convolution_loses_the_same_channels_of_every_group() -> None:
    layer = nn.Conv2d(6, 8, 1, groups=2)
    weight = layer.weight.detach().clone()
    apply(only(layer), [edit("in", 1, 4), edit("out", 0, 1, 5, 6)])
    assert (layer.groups, layer.in_channels, layer.out_channels) == (2, 4, 4)
    assert torch.equal(layer.weight, weight[[2, 3, 4, 7]][:, [0, 2]])


@pytest.mark.parametrize("side", ["in", "out"])
def test_a_grouped_convolution_cannot_lose_channels_of_one_group_only(side: Side) -> None:
    with pytest.raises(ModelError, match="does not fit this layer"):
        apply(only(nn.Conv2d(12, 8, 1, groups=2)), [edit(side, 0, 1)])


def test_indices_are_those_that_earlier_edits_have_left() -> None:
    layer = nn.Linear(1, 5)
    weight = layer.weight.detach().clone()
    apply(only(layer), [edit("out", 0), edit("out", 0, 3)])
    assert torch.equal(layer.weight, weight[[2, 3]])


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        (edit("out", 0, layer="9"), "names '9', which this network has not"),
        (edit("out", 4), "layer '0': the pruning plan does not fit"),
        (edit("in", -1), "layer '0': the pruning plan does not fit"),
        (edit("out", 0, layer="1"), "layer '1': the pruning plan does not fit"),
        (edit("in", 0, 1, 2, 3, 4), "layer '0': the pruning plan does not fit"),
    ],
)
def test_a_plan_of_another_network_is_refused(wrong: Edit, complaint: str) -> None:
    with pytest.raises(ModelError, match=complaint) as caught:
        apply(nn.Sequential(nn.Linear(5, 4), nn.ReLU()), [wrong])
    assert "another network" in caught.value.remedy
    assert caught.value.exit_code == 4


class Gained(nn.Conv2d):
    """A convolution with a factor of its own for each output channel."""

    def __init__(self) -> None:
        super().__init__(3, 4, 1)
        self.gain = nn.Parameter(torch.arange(4.0).reshape(4, 1, 1, 1))


def test_what_a_layer_holds_for_each_channel_is_cut_too() -> None:
    layer = apply(nn.Sequential(Gained()), [Edit(layer="0", side="out", indices=(1, 2))])
    assert layer.get_parameter("0.gain").flatten().tolist() == [0, 3]
    assert len(layer.get_parameter("0.bias")) == 2


def test_a_plan_for_filters_of_several_outputs_a_channel_is_refused() -> None:
    with pytest.raises(ModelError, match="does not fit this layer"):
        apply(nn.Sequential(nn.Conv2d(4, 8, 1, groups=4)), [Edit(layer="0", side="in", indices=(1,))])
