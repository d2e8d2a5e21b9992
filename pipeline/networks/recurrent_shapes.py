"""While a network's code is only followed, an LSTM, GRU or RNN says its results' shapes and goes through no steps.

torch finds these shapes by taking the layer apart step after step, which takes seconds for a few hundred.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

_LAYERS = (
    torch.ops.aten.lstm.input,
    torch.ops.aten.gru.input,
    torch.ops.aten.rnn_tanh.input,
    torch.ops.aten.rnn_relu.input,
)


@contextlib.contextmanager
def recurrent_shapes() -> Iterator[None]:
    """Let recurrent layers give shapes alone to whoever asks torch's Python kernels, as tracing does."""
    before = [dict(layer.py_kernels) for layer in _LAYERS]
    try:
        for layer in _LAYERS:
            _replace(layer, dict.fromkeys(layer.py_kernels, _shapes))
        yield
    finally:
        for layer, kernels in zip(_LAYERS, before, strict=True):
            _replace(layer, kernels)


def _replace(layer: Any, kernels: dict[Any, Any]) -> None:
    layer.py_kernels.update(kernels)
    layer._dispatch_cache.clear()


def _shapes(  # noqa: PLR0917  (as torch calls it)
    x: Tensor,
    hx: Tensor | list[Tensor],
    params: list[Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, ...]:
    del params, has_biases, num_layers, dropout, train, batch_first
    states = [hx] if isinstance(hx, Tensor) else hx
    features = states[0].shape[-1] * (2 if bidirectional else 1)
    return (x.new_empty(*x.shape[:-1], features), *(torch.empty_like(each) for each in states))
