"""Layers and functions of every kind, one after the other: as a graph, as float files, and as integers.

Shapes: N batch, T steps, F features, C channels, D depth, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pipeline.errors import UnsupportedOpError
from pipeline.graph.costs import layer_costs
from pipeline.networks.from_torch import flat_graph, folded_graph
from pipeline.quant.to_onnx import write_onnx
from pipeline.tflite import write_tflite
from tests.networks.files import in_int8_files, in_the_files

Shape = tuple[int, ...]
Function = Callable[..., Tensor]
STEPS: Shape = (6, 8)  # (T, F)


class With(nn.Module):
    """A function of the input and of some layers."""

    def __init__(self, function: Function, *layers: nn.Module) -> None:
        super().__init__()
        self.function, self.layers = function, nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, *self.layers)


def _sequence(x: Tensor, layer: nn.Module) -> Tensor:
    result: Tensor = layer(x)[0]
    return result


def _steps_first(x: Tensor, layer: nn.Module) -> Tensor:
    return _sequence(x.transpose(0, 1), layer).transpose(0, 1)


def _last_states(x: Tensor, layer: nn.Module) -> Tensor:
    states = layer(x)[1]
    states = torch.stack(states) if isinstance(states, tuple) else states.unsqueeze(0)  # (1 or 2, L * D, N, H)
    return states.permute(2, 0, 1, 3).flatten(1)


def _cells(x: Tensor, cell: nn.Module) -> Tensor:
    state: Any = None
    for step in x.unbind(1):
        state = cell(step, state)
    last: Tensor = state[0] if isinstance(state, tuple) else state
    return last


RECURRENT: dict[str, nn.Module] = {
    "the last step": With(lambda x, layer: layer(x)[0][:, -1], nn.LSTM(8, 5, batch_first=True)),
    "without biases": With(_sequence, nn.GRU(8, 5, batch_first=True, bias=False)),
    "relu": With(_sequence, nn.RNN(8, 5, batch_first=True, nonlinearity="relu")),
    "from computed states": With(
        lambda x, gru, first: gru(x, first(x[:, 0]).unsqueeze(0))[0], nn.GRU(8, 5, batch_first=True), nn.Linear(8, 5)
    ),
    "from computed states and cells, both ways": With(
        lambda x, lstm, first: lstm(x, tuple(first(x[:, :2].transpose(0, 1)).chunk(2, -1)))[0],
        nn.LSTM(8, 5, batch_first=True, bidirectional=True),
        nn.Linear(8, 10),
    ),
    **{
        f"{make.__name__}, {name}": With(function, make(8, 5, **options))
        for make in (nn.LSTM, nn.GRU, nn.RNN)
        for name, function, options in (
            ("steps first", _steps_first, {}),
            ("two layers, both ways", _sequence, {"num_layers": 2, "bidirectional": True, "batch_first": True}),
            ("last states", _last_states, {"num_layers": 2, "bidirectional": True, "batch_first": True}),
        )
    },
}


@pytest.mark.parametrize("name", RECURRENT)
def test_recurrent_layers(name: str) -> None:
    _right(RECURRENT[name], STEPS)


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (nn.LSTM(8, 5, batch_first=True, proj_size=3), "nn.LSTM with proj_size"),
        (nn.GRU(8, 5, batch_first=True), "nn.GRU that starts from a constant other than zero"),
    ],
)
def test_recurrent_layers_that_are_refused_by_name(layer: nn.Module, words: str) -> None:
    def forward(x: Tensor, layer: nn.Module) -> Tensor:
        first = (torch.ones(1, len(x), 5),) if isinstance(layer, nn.GRU) else ()
        result: Tensor = layer(x, *first)[0]
        return result

    with pytest.raises(UnsupportedOpError, match=f"{words} is not supported"):
        flat_graph(With(forward, layer).eval(), STEPS)


def test_too_many_steps_are_refused_in_tflite_alone() -> None:
    graph = folded_graph(With(_sequence, nn.LSTM(1, 1, batch_first=True)).eval(), (513, 1))
    model = write_onnx(graph, name="net")
    with pytest.raises(UnsupportedOpError, match="LSTM over 513 steps") as caught:
        write_tflite(model)
    assert "layer 'layers.0' (LSTM)" in caught.value.where


def test_a_recurrent_layer_counts_the_products_of_all_its_steps() -> None:
    network = With(_sequence, nn.LSTM(8, 5, 2, batch_first=True, bidirectional=True)).eval()
    first, second = layer_costs(folded_graph(network, STEPS))
    assert first.macs == 6 * 2 * 4 * 5 * (8 + 5)
    assert second.macs == 6 * 2 * 4 * 5 * (10 + 5)
    assert first.parameters + second.parameters == sum(each.numel() for each in network.parameters())


def _right(network: nn.Module, shape: Shape) -> None:
    graph = folded_graph(network.eval(), shape)
    in_the_files(graph, network, shape)
    in_int8_files(graph, shape)
