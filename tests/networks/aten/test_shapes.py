"""Functions that move, join and pick elements: axes counted from the end, batches folded, parts assigned to.

Shapes: N batch, T steps, F features.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.networks.nets import Function, agrees

STEPS = (6, 8)  # (T, F)


def _assigned(x: Tensor) -> Tensor:
    y = torch.ones_like(x)
    y[:, 1:3] = 2.0
    y[..., -3:-1] = x[..., :2]
    y[:, -1] = x[:, 0]
    y[:, :, 0] += x[:, :, 1]
    y[:, :, 1::2] = x[:, :, ::2]
    return y


def _in_place(x: Tensor) -> Tensor:
    y = x + 1
    y.mul_(2).sub_(x).clamp_(-3, 3)
    y.unsqueeze_(1).squeeze_(1)
    return y.masked_fill_(x < 0, 0.5).neg_()


MOVED: dict[str, Function] = {
    "constants on both sides": lambda x: torch.cat([x.new_ones(len(x), 2, 8), x, x.new_zeros(len(x), 1, 8)], 1),
    "constants between computed values": lambda x: torch.cat(
        [torch.ones(1, 8).expand(len(x), 1, 8), x, torch.full((len(x), 2, 8), 3.0), x.relu(), x], -2
    ),
    "stacked behind": lambda x: torch.stack([x, x.relu()], -1),
    "stacked with a constant": lambda x: torch.stack([x, torch.ones_like(x)], 1),
    "joined with nothing": lambda x: torch.cat([x[:, :0], x, x], 1),
    "rolled twice along one axis": lambda x: x.roll((9, 1), (1, 1)).roll(-2, -1),
    "flipped from the end": lambda x: x.flip(-1, 1),
    "picked along the last axis": lambda x: x.index_select(-1, torch.tensor([3, 0, 3])),
    "picked from the end": lambda x: x[:, :, [-1, 0]],
    "picked by a table": lambda x: x[:, [[0, 1], [2, 3]]],
    "picked by tables that broadcast": lambda x: x[:, torch.arange(6)[:, None], torch.tensor([1, 2])],
    "a diagonal above, of turned axes": lambda x: x.diagonal(1, -1, -2),
    "each element repeated": lambda x: x.repeat_interleave(2, -1),
    "each sample repeated and taken apart": lambda x: x.repeat_interleave(2, 0).reshape(len(x), 2, 6, 8),
    "fewer repeats than axes": lambda x: x.tile(2),
    "windows of the last axis": lambda x: x.unfold(-1, 3, 2),
    "expanded to a new axis": lambda x: x.unsqueeze(1).expand(-1, 2, -1, -1),
    "broadcast to a shape": lambda x: torch.broadcast_to(x[:, :1], x.shape) + x,
    "uneven parts": lambda x: torch.cat([*torch.split(x, 4, -1)[::-1], *x.chunk(3, -1)], -1),
    "parts by their ends": lambda x: x.tensor_split((2, 5), 1)[1],
    "every third, from the end": lambda x: x[..., 1:-1:3].select(-1, -2),
    "axes exchanged by every name": lambda x: x.swapaxes(1, -1).swapdims(-1, 1).mT.transpose(-1, -2).movedim(-1, 1),
    "read in another shape where it does not lie so": lambda x: x.transpose(1, 2).reshape(len(x), 4, -1).flatten(-2),
    "the last axis apart": lambda x: torch.unflatten(x, -1, (2, -1)).flatten(1, -2),
    "the batch behind and in front again": lambda x: (x.permute(1, 2, 0) * 2).permute(2, 0, 1),
    "the batch behind, with a mean": lambda x: (x.permute(1, 2, 0) - x.permute(1, 2, 0).mean(0)).permute(2, 0, 1),
    "parts assigned to, from the end": _assigned,
    "in place": _in_place,
}


@pytest.mark.parametrize("name", MOVED)
def test_elements_are_moved(name: str) -> None:
    agrees(MOVED[name], STEPS)
