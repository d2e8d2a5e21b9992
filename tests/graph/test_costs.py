"""MACs and parameters of every kind of layer, against counting by hand."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from pipeline.graph.costs import layer_costs, total_macs
from pipeline.networks.from_torch import folded_graph
from tests.quant import networks

SHAPE = networks.SAMPLE_SHAPE  # (3, 8, 8)


class One(nn.Module):
    """One layer, flattened."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return torch.flatten(self.layer(x), 1)


def products(layer: nn.Conv2d | nn.ConvTranspose2d, size: int) -> int:
    """Count the products of one sample by summing ones times ones (there is no padding)."""
    ones = copy.deepcopy(layer)
    ones.bias = None
    nn.init.ones_(ones.weight)
    with torch.no_grad():
        return int(ones(torch.ones(1, 3, size, size)).sum())


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(3, 6, 3),
        nn.Conv2d(3, 6, (3, 1), stride=2),
        nn.Conv2d(3, 6, 3, groups=3),
        nn.Conv2d(3, 6, 1, bias=False),
        nn.ConvTranspose2d(3, 4, 2, stride=2),
        nn.ConvTranspose2d(3, 4, 3, stride=2),
        nn.ConvTranspose2d(3, 6, 3, groups=3),
    ],
    ids=str,
)
def test_convolutions_count_every_product(layer: nn.Conv2d | nn.ConvTranspose2d) -> None:
    row = layer_costs(folded_graph(One(layer), SHAPE))[0]
    assert row.macs == products(layer, 8)
    assert row.parameters == sum(p.numel() for p in layer.parameters())
    assert row.output_shape == tuple(layer(torch.zeros(1, *SHAPE)).shape[1:])


def test_padding_counts_as_the_field_counts_it() -> None:
    """Products with padding zeros are counted, as everywhere: output elements times kernel elements."""
    row = layer_costs(folded_graph(One(nn.Conv2d(3, 5, 3, padding=1)), SHAPE))[0]
    assert row.macs == 5 * 8 * 8 * 3 * 3 * 3


def test_one_row_per_operation_with_the_users_names() -> None:
    rows = layer_costs(folded_graph(networks.build("residual"), SHAPE))
    found = [(row.layer, row.op, row.output_shape, row.parameters, row.macs) for row in rows]
    assert found == [
        ("conv1", "Conv", (8, 8, 8), 3 * 8 * 9 + 8, 64 * 8 * 27),  # the batch norm became its bias
        ("relu", "Relu", (8, 8, 8), 0, 0),
        ("conv2", "Conv", (8, 8, 8), 8 * 8 * 9 + 8, 64 * 8 * 72),
        ("add", "Add", (8, 8, 8), 0, 0),
        ("relu_2", "Relu", (8, 8, 8), 0, 0),
        ("pool", "MaxPool", (8, 4, 4), 0, 0),
        ("mean", "GlobalAveragePool", (8, 1, 1), 0, 0),
        ("mean_2", "Reshape", (8,), 0, 0),
        ("fc", "Gemm", (5,), 8 * 5 + 5, 40),
    ]


def test_the_total_is_the_sum() -> None:
    folded = folded_graph(networks.build("tanh-mlp"), SHAPE)
    assert total_macs(folded) == 192 * 16 + 16 * 16 + 16 * 5
    assert sum(row.parameters for row in layer_costs(folded)) == 192 * 16 + 16 + 16 * 16 + 16 + 16 * 5 + 5


def test_weights_that_are_used_twice_count_once_and_multiply_twice() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            return torch.flatten(F.relu(self.conv(self.conv(x))), 1)

    rows = [row for row in layer_costs(folded_graph(Twice(), SHAPE)) if row.op == "Conv"]
    assert [row.parameters for row in rows] == [12, 0]
    assert [row.macs for row in rows] == [math.prod(SHAPE) * 3] * 2


def test_a_sequence() -> None:
    rows = layer_costs(folded_graph(One(nn.Conv1d(4, 6, 3)), (4, 10)))
    assert (rows[0].output_shape, rows[0].macs, rows[0].parameters) == ((6, 8), 6 * 8 * 4 * 3, 6 * 4 * 3 + 6)
