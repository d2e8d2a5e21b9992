"""What no graph can hold is refused by its name, with the layer and the user's line.

Shapes: N batch, C channels, H height, W width.
"""

from __future__ import annotations

import inspect

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from pipeline.errors import UnsupportedOpError
from pipeline.networks.from_torch import flat_graph
from tests.networks.nets import Applied, Function

SHAPE = (4, 6, 6)


def _first_sample(x: Tensor) -> Tensor:
    y = x + 0
    y[0] = 0
    return y


OF_THE_BATCH: dict[str, tuple[Function, str]] = {
    "reshape": (lambda x: x.reshape(-1, 2, 6, 6), "mixes the batch with other axes"),
    "cat": (lambda x: torch.cat([x, x], 0), "cat that mixes the batch with other axes"),
    "mean": (lambda x: x - x.mean(0, keepdim=True), "mean over the batch"),
    "sum of all": (lambda x: x * x.sum(), "sum over the batch"),
    "largest of all": (lambda x: x / x.max(), "max over the batch"),
    "spread of all": (lambda x: x / x.var(), "var over the batch"),
    "softmax": (lambda x: x.softmax(0), "softmax over the batch"),
    "cumsum": (lambda x: x.cumsum(0), "cumsum along the batch"),
    "roll": (lambda x: x.roll(1, 0), "roll along the batch"),
    "roll of all": (lambda x: torch.roll(x, 1), "roll over the batch"),
    "flip": (lambda x: x.flip(0), "flip along the batch"),
    "slice": (lambda x: x[:1], "slice along the batch"),
    "index": (lambda x: x[[0, 0]], "index along the batch"),
    "diagonal": (lambda x: x.diagonal(0, 0, 1), "diagonal along the batch"),
    "repeat": (lambda x: x.repeat(2, 1, 1, 1), "repeat that mixes the batch with other axes"),
    "repeat of each of all": (lambda x: x.repeat_interleave(2), "repeat_interleave that mixes the batch"),
    "pad": (lambda x: F.pad(x, (0, 0, 0, 0, 0, 0, 1, 0)), "padding that mixes the batch with other axes"),
    "assignment": (_first_sample, "select along the batch"),
    "two samples met": (lambda x: x.mean((1, 2), keepdim=True) + x[:, 0, 0], "add that mixes the batch"),
    "a constant for each of two": (lambda x: x * torch.ones(2, 1, 1, 1, 1), "mul that mixes the batch"),
    "product of samples": (lambda x: x[:, 0, 0] @ x[:, 0, 0].T, "matmul of values with 2 and 2 axes"),
    "einsum over samples": (lambda x: torch.einsum("bchw,bchw->chw", x, x), "einsum 'bchw,bchw->chw'"),
}

BY_NAME: dict[str, tuple[Function, str]] = {
    "cumprod": (lambda x: torch.cumprod(x, 1), "cumprod is not supported"),
    "a cast to whole numbers": (lambda x: x.int() * 2.0, "a cast of computed values to int32"),
    "a cast to fewer digits": (lambda x: x.half().float(), "a cast of computed values to float16"),
    "a choice by values": (lambda x: x.gather(1, x.argmax(1, keepdim=True)), "argmax is not supported"),
    "an index by values": (lambda x: x[x > 0], "indexing by computed values"),
    "an index of axes apart": (lambda x: x[:, [0, 1], :, [2, 3]], "indexing of axes that do not lie side by side"),
    "places of the largest": (lambda x: x * x.max(1, keepdim=True)[1], "reading the indices that max gives"),
    "places in windows": (
        lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), (2, 2)),
        "reading the indices that max_pool2d gives",
    ),
    "a computed exponent": (lambda x: x.abs() ** x, "pow with a computed exponent"),
    "a base below zero": (lambda x: (-2) ** x, "pow of a constant"),
    "thirds": (lambda x: x % 3, "remainder by something else than a power of two"),
    "a computed divisor": (lambda x: x // x, "floor_divide by something else than a power of two"),
    "a division by nothing": (lambda x: x / 0, "division by zero"),
    "a quotient rounded down": (lambda x: torch.div(x, 0.5, rounding_mode="floor"), "division with rounding_mode"),
    "the spread of one": (lambda x: x[:, :1].var(1), "var of 1 element, less a correction of 1, is not supported"),
    "a spread with too few": (lambda x: x.std(1, correction=5), "std of 4 elements, less a correction of 5,"),
    "logic of numbers": (lambda x: torch.logical_or(x, x > 1) * x, "logical_or of numbers"),
}


@pytest.mark.parametrize("name", OF_THE_BATCH)
def test_what_mixes_samples_is_refused(name: str) -> None:
    _refused(*OF_THE_BATCH[name])


@pytest.mark.parametrize("name", BY_NAME)
def test_a_refusal_names_operation_layer_and_line(name: str) -> None:
    _refused(*BY_NAME[name])


def _refused(function: Function, words: str) -> None:
    with pytest.raises(UnsupportedOpError, match=words) as caught:
        flat_graph(Applied(function).eval(), SHAPE)
    assert "layer 'block" in caught.value.where
    assert f"{inspect.getsourcefile(Applied)}:" in caught.value.where  # torch says the line of forward()
    assert "write this layer with supported torch.nn modules" in caught.value.remedy


def test_all_that_is_not_supported_is_said_at_once() -> None:
    network = nn.Sequential(nn.Conv2d(4, 4, 1), nn.FractionalMaxPool2d(2, 3))
    both = Applied(lambda x: torch.cumprod(x, 1) + torch.sort(x)[0])
    with pytest.raises(UnsupportedOpError, match=r"nn\.FractionalMaxPool2d is not supported"):
        flat_graph(network, SHAPE)
    with pytest.raises(UnsupportedOpError, match="cumprod is not supported") as caught:
        flat_graph(both.eval(), SHAPE)
    assert "sort is not supported (layer 'block'" in caught.value.remedy
    assert "did you mean" not in str(caught.value)
