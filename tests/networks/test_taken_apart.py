"""What torch says a function is made of, where the call stands; what it does not say; parts that are assigned to."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, fx, nn

from pipeline.networks.taken_apart import taken_apart, writes_into_parts


class Called(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def calls(function: Callable[[Tensor], Tensor]) -> list[fx.Node]:
    """Return the ATen calls of a function of (2, 4)."""
    exported = torch.export.export(Called(function), (torch.zeros(2, 4),), strict=False)
    return [node for node in exported.graph.nodes if node.op == "call_function"]


def test_parts_compute_the_same_and_stand_where_the_call_stands() -> None:
    (call,) = calls(lambda x: F.glu(x, 1))
    parts = taken_apart(call)
    assert parts is not None
    x = torch.randn(2, 4)
    torch.testing.assert_close(parts(x)[0], F.glu(x, 1))
    inner = [node for node in parts.graph.nodes if node.op == "call_function"]
    assert len(inner) > 1
    assert {node.meta["stack_trace"] for node in inner} == {call.meta["stack_trace"]}


def test_what_torch_has_no_parts_of() -> None:
    assert taken_apart(calls(lambda x: torch.sort(x)[0])[0]) is None


@pytest.mark.parametrize(
    ("function", "assigns"),
    [
        (lambda x: (x + 1).relu_(), False),
        (lambda x: x[:, :2].relu_() + x[:, 2:], True),
        (lambda x: x.clone().index_fill_(1, torch.tensor([0]), 1.0), False),
        (lambda x: torch.zeros_like(x).copy_(x), True),
    ],
)
def test_what_is_assigned_to_a_part_is_noticed(function: Callable[[Tensor], Tensor], *, assigns: bool) -> None:
    assert writes_into_parts(calls(function)[0].graph) is assigns
