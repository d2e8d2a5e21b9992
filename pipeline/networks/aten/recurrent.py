"""LSTM, GRU and RNN: one operation for each layer; last states are read off the sequence.

Shapes: N batch, T steps, F features, L layers, D directions, H hidden features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import fx, nn

from pipeline.graph.recurrent import Recurrent
from pipeline.networks.aten.joins import stacked
from pipeline.networks.aten.shapes import Handler, selected, sliced
from pipeline.networks.aten.weights import parameter
from pipeline.networks.axes import BATCH, Value, plain
from pipeline.networks.flat import Call, Constant, FlatGraph, Refusal

_Layer = type[nn.LSTM] | type[nn.GRU] | type[nn.RNN]
_NAMES = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")


def _recurrent(make: _Layer, **options: Any) -> Handler:
    def convert(flat: FlatGraph, call: Call) -> tuple[Value, ...]:
        if not isinstance(call["input"], Value) or len(call["input"].axes) != 3:
            raise Refusal(f"nn.{make.__name__} of packed sequences, or of one without a batch", whole=True)
        order = (0, 1, 2) if call["batch_first"] else (1, 0, 2)
        value = flat.plain(call, call["input"].permuted(order))
        layers, directions = call["num_layers"], 2 if call["bidirectional"] else 1
        states = _given(call, make)
        lasts, cells = list[Value](), list[Value]()
        for number in range(layers):
            named = call.within(f"layer{number}") if layers > 1 else call
            layer = _layer(call, make, number, options)
            first = [_first(flat, named, each, number * directions, directions) for each in states]
            inputs = [value.node, *first]
            dims = (*value.dims[:2], directions * layer.hidden_size)
            value = plain(flat.add(named, Recurrent(layer), inputs, dims), dims)
            lasts += _lasts(flat, named, value, layer.hidden_size)
            if make is nn.LSTM:
                ends = (BATCH, dims[-1])
                node = flat.add(named.within("cells"), Recurrent(layer, gives_cells=True), inputs, ends)
                cells += _apart(flat, named, plain(node, ends), layer.hidden_size)
        joined = [_layers_first(flat, call, each) for each in (lasts, cells) if each]
        return (value.permuted(order), *joined)

    return convert


def _layer(call: Call, make: _Layer, number: int, options: Mapping[str, Any]) -> nn.LSTM | nn.GRU | nn.RNN:
    """Build one layer, both directions, around the very tensors that the call reads."""
    directions, biased = 2 if call["bidirectional"] else 1, call["has_biases"]
    names = _NAMES if biased else _NAMES[:2]
    weights = call["params"]
    if len(weights) != len(names) * directions * call["num_layers"]:
        raise Refusal(f"nn.{make.__name__} with proj_size", whole=True)
    if not all(isinstance(each, Constant) for each in weights):
        raise Refusal(f"nn.{make.__name__} with computed weights", whole=True)
    own = weights[len(names) * directions * number :]
    hidden, features = own[1].tensor.shape[1], own[0].tensor.shape[1]
    layer = make(
        features, hidden, batch_first=True, bias=biased, bidirectional=directions > 1, device="meta", **options
    )
    for direction, suffix in enumerate(("", "_reverse")[:directions]):
        for place, name in enumerate(names):
            setattr(layer, name + suffix, parameter(own[direction * len(names) + place]))
    return layer


def _given(call: Call, make: _Layer) -> list[Value]:
    """Return the states (L * D, N, H) that it starts from; none where they are zeros."""
    given = call["hx"] if isinstance(call["hx"], Sequence) else [call["hx"]]
    computed = [each for each in given if isinstance(each, Value)]
    if len(computed) < len(given) and any(isinstance(each, Constant) and each.tensor.any() for each in given):
        raise Refusal(f"nn.{make.__name__} that starts from a constant other than zero", whole=True)
    if computed and len(computed) < len(given):
        raise Refusal(f"nn.{make.__name__} that starts from only one computed state", whole=True)
    return computed


def _first(flat: FlatGraph, call: Call, states: Value, start: int, directions: int) -> fx.Node:
    """Return the states of one layer, (N, D * H)."""
    own = sliced(flat, call.within("first"), states, 0, range(start, start + directions)).permuted((1, 0, 2))
    return flat.plain(call, flat.reshaped(call.within("first"), own, (BATCH, directions * states.shape[-1]))).node


def _lasts(flat: FlatGraph, call: Call, sequence: Value, hidden: int) -> list[Value]:
    """Return the last states (N, H): forwards the last step's, backwards the first one's."""
    steps, width = sequence.dims[1:]
    last = call.within("last")
    ends = [sliced(flat, last, selected(flat, last, sequence, 1, steps - 1), 1, range(hidden))]
    if width > hidden:
        ends.append(sliced(flat, last, selected(flat, last, sequence, 1, 0), 1, range(hidden, width)))
    return ends


def _apart(flat: FlatGraph, call: Call, states: Value, hidden: int) -> list[Value]:
    width = states.dims[1]
    return [
        sliced(flat, call.within("last"), states, 1, range(start, start + hidden)) for start in range(0, width, hidden)
    ]


def _layers_first(flat: FlatGraph, call: Call, states: list[Value]) -> Value:
    """(N, H) of each layer and direction → (L * D, N, H)."""
    if len(states) == 1:
        return replace(states[0], axes=((), *states[0].axes))
    shape = (BATCH, len(states), states[0].shape[-1])
    return stacked(flat, replace(call, name="stack", shape=shape).within("last"), states, 1).permuted((1, 0, 2))


RECURRENT: Mapping[str, Handler] = {
    "lstm": _recurrent(nn.LSTM),
    "gru": _recurrent(nn.GRU),
    "rnn_tanh": _recurrent(nn.RNN),
    "rnn_relu": _recurrent(nn.RNN, nonlinearity="relu"),
}
