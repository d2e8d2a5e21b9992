"""Convolutions over volumes: depth, groups, gaps and pads, against ONNX Runtime and by hand.

Shapes: N batch, C channels, D depth, H height, W width.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pipeline.tflite import write_tflite
from pipeline.tflite.ops_volume import _turned
from tests.tflite.nets import Net, check, run_tflite

BATCHES = (1, 3)
CONVOLUTIONS: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "of one": ((1, 1, 1, 1), (1, 1, 1, 1, 1), {}),
    "one by one": ((2, 3, 4, 5), (3, 2, 1, 1, 1), {}),
    "depth alone": ((2, 4, 3, 2), (3, 2, 3, 1, 1), {"pads": [1, 0, 0, 1, 0, 0]}),
    "one frame at a time": ((2, 3, 4, 4), (3, 2, 1, 3, 2), {"pads": [0, 1, 0, 0, 1, 1]}),
    "pads before": ((2, 3, 3, 3), (2, 2, 2, 2, 2), {"pads": [2, 1, 1, 0, 0, 0]}),
    "pads behind": ((2, 3, 3, 3), (2, 2, 2, 2, 2), {"pads": [0, 0, 0, 1, 2, 1]}),
    "strides apart": ((1, 7, 5, 4), (2, 1, 2, 3, 1), {"strides": [3, 2, 1]}),
    "frames left out": ((2, 5, 3, 3), (3, 2, 1, 1, 1), {"strides": [2, 1, 1]}),
    "gaps": ((2, 6, 5, 7), (2, 2, 2, 2, 3), {"dilations": [3, 2, 2]}),
    "depthwise": ((3, 3, 3, 3), (3, 1, 2, 2, 2), {"group": 3}),
    "groups of two": ((4, 3, 3, 2), (2, 2, 3, 2, 1), {"group": 2, "strides": [1, 1, 2]}),
}


@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions(name: str, *, int8: bool) -> None:
    shape, weights, attributes = CONVOLUTIONS[name]
    net = Net(*shape, int8=int8)
    check(net, net.q(net.conv(net.input, weights[0], *weights[1:], **attributes)), batches=BATCHES)


TRANSPOSED: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "of one": ((1, 1, 1, 1), (1, 1, 1, 1, 1), {}),
    "as it comes": ((2, 2, 3, 2), (2, 3, 2, 2, 2), {}),
    "strides": ((2, 2, 3, 2), (2, 3, 2, 1, 3), {"strides": [3, 2, 1]}),
    "strides beyond the kernel": ((1, 2, 2, 3), (1, 1, 1, 1, 2), {"strides": [2, 3, 4]}),
    "an edge more": ((2, 2, 2, 2), (2, 2, 3, 3, 3), {"strides": [2, 2, 2], "output_padding": [1, 0, 1]}),
    "pads": ((2, 3, 3, 3), (2, 2, 3, 3, 3), {"pads": [1, 0, 2, 0, 1, 1]}),
    "pads beyond the kernel": ((1, 3, 4, 4), (1, 2, 2, 1, 2), {"pads": [1, 1, 0, 1, 1, 1], "strides": [2, 1, 1]}),
    "gaps": ((2, 2, 2, 2), (2, 3, 2, 2, 1), {"dilations": [2, 3, 1]}),
    "groups": ((4, 2, 2, 2), (4, 1, 2, 2, 2), {"group": 2, "strides": [1, 2, 1]}),
}


@pytest.mark.parametrize("name", TRANSPOSED)
def test_transposed_convolutions(name: str) -> None:
    shape, weights, attributes = TRANSPOSED[name]
    net = Net(*shape)
    bias = net.random(weights[1] * attributes.get("group", 1))
    check(net, net.op("ConvTranspose", net.input, net.random(*weights), bias, **attributes), batches=BATCHES)


def test_differences_of_frames_by_hand() -> None:
    """Weights -1, 1 along the depth of 1, 4, 9, 16."""
    net = Net(1, 4, 1, 1)
    net.samples[0] = np.array([1, 4, 9, 16], np.float32).reshape(1, 4, 1, 1)
    output = net.op("Conv", net.input, net.const([[[[[-1]], [[1]]]]]), net.const([0.5]))
    found = run_tflite(write_tflite(net.model(output)), net.samples[:1])
    assert found.values.ravel().tolist() == [3.5, 5.5, 7.5]


def test_what_a_transposed_kernel_spreads_by_hand() -> None:
    net = Net(1, 2, 1, 1)
    net.samples[0] = np.array([1, 2], np.float32).reshape(1, 2, 1, 1)
    weights = net.const(np.array([1, 10, 100]).reshape(1, 1, 3, 1, 1))
    output = net.op("ConvTranspose", net.input, weights, strides=[2, 1, 1])
    found = run_tflite(write_tflite(net.model(output)), net.samples[:1])
    assert found.values.ravel().tolist() == [1, 10, 102, 20, 200]


def test_a_transposed_kernel_is_turned_round_group_by_group() -> None:
    """(C, O/G, …) → (O, C/G, …): two groups of two channels, each with one output."""
    weights = np.arange(8).reshape(4, 1, 2, 1, 1)
    assert _turned(weights, 2).reshape(2, 2, 2).tolist() == [[[1, 0], [3, 2]], [[5, 4], [7, 6]]]
    assert _turned(weights, 1).reshape(1, 4, 2).tolist() == [[[1, 0], [3, 2], [5, 4], [7, 6]]]
    assert _turned(weights, 4).reshape(4, 1, 2).tolist() == [[[1, 0]], [[3, 2]], [[5, 4]], [[7, 6]]]
