"""Recurrent layers give torch's own shapes without going through their steps, and only while they are asked to."""

from __future__ import annotations

import time

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from pipeline.networks.recurrent_shapes import recurrent_shapes

LAYERS = [
    nn.LSTM(3, 5, 2, bidirectional=True),
    nn.GRU(3, 5, bidirectional=True, batch_first=True),
    nn.RNN(3, 5),
    nn.RNN(3, 5, nonlinearity="relu", batch_first=True),
]


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_shapes_are_torch_s_own(layer: nn.Module) -> None:
    wanted = _shapes(layer(torch.zeros(4, 7, 3)))
    with FakeTensorMode(allow_non_fake_inputs=True), recurrent_shapes():
        assert _shapes(layer(torch.zeros(4, 7, 3))) == wanted


def test_no_step_is_taken_and_all_is_as_before_afterwards() -> None:
    kernels = dict(torch.ops.aten.lstm.input.py_kernels)
    started = time.process_time()
    with FakeTensorMode(allow_non_fake_inputs=True), recurrent_shapes():
        nn.LSTM(3, 5)(torch.zeros(10**4, 1, 3))
    assert time.process_time() - started < 5  # step by step it takes minutes
    assert torch.ops.aten.lstm.input.py_kernels == kernels


def _shapes(result: object) -> list[torch.Size]:
    if isinstance(result, torch.Tensor):
        return [result.shape]
    assert isinstance(result, tuple)
    return [shape for each in result for shape in _shapes(each)]
