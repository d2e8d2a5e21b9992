"""Pools, pads and resizes with the options that are easily got wrong.

Shapes: N batch, C channels, L length, D depth, H height, W width.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.networks.from_torch import flat_graph
from tests.networks.files import drawn
from tests.networks.nets import ROUNDING, Block, Function, agrees

MAP = (3, 5, 6)  # (C, H, W)
SHAPES = {"row": (3, 7), "map": MAP, "volume": (2, 4, 5, 6)}

WINDOWS: dict[str, tuple[str, Function]] = {
    "mean, another window for each axis": (
        "map", lambda x: F.avg_pool2d(x, (1, 3), (2, 1), padding=(0, 1), count_include_pad=False),
    ),
    "mean, a divisor that turns the sign": (
        "map", lambda x: F.avg_pool2d(x, (2, 3), (2, 1), padding=(0, 1), divisor_override=-2),
    ),
    "mean, one more window in one axis alone": (
        "map", lambda x: F.avg_pool2d(x, (2, 3), (3, 2), padding=1, ceil_mode=True),
    ),
    "mean of a row, one more window": ("row", lambda x: F.avg_pool1d(x, 4, 2, 1, ceil_mode=True)),
    "mean of a volume, a window in pads alone": ("volume", lambda x: F.avg_pool3d(x, 2, 3, 1, ceil_mode=True)),
    "maximum, dilated, one more window": (
        "map", lambda x: F.max_pool2d(x, 2, 3, padding=1, dilation=2, ceil_mode=True),
    ),
    "maximum of a volume, dilated in one axis": (
        "volume", lambda x: F.max_pool3d(x, (1, 2, 2), 2, dilation=(1, 2, 1), ceil_mode=True),
    ),
    "adaptive mean that leaves an axis": ("map", lambda x: F.adaptive_avg_pool2d(x, (None, 4))),
    "adaptive mean of as many": ("map", lambda x: F.adaptive_avg_pool2d(x, (5, 6)) + 1),
    "adaptive maximum of a volume": ("volume", lambda x: F.adaptive_max_pool3d(x, (1, 2, 4))),
    "pads of minus infinity": ("row", lambda x: F.max_pool1d(F.pad(x, (1, 1), value=float("-inf")), 3, 1)),
    "pads that cut and reflect": ("row", lambda x: F.pad(x, (-1, 2), mode="reflect")),
    "pads that cut and repeat": ("row", lambda x: F.pad(x, (2, -1), mode="replicate")),
    "pads that cut and go round": ("row", lambda x: F.pad(x, (-1, 2), mode="circular")),
    "pads that go round and cut": ("map", lambda x: F.pad(x, (2, -2, -1, 3), mode="circular")),
    "rows resized to one": ("row", lambda x: F.interpolate(x, size=1, mode="linear", align_corners=True)),
    "corners with a factor that leaves a rest": (
        "map", lambda x: F.interpolate(x, scale_factor=1.3, mode="bilinear", align_corners=True),
    ),
    "a factor made anew from the size": (
        "map", lambda x: F.interpolate(x, scale_factor=1.3, mode="bilinear", recompute_scale_factor=True),
    ),
    "area": ("map", lambda x: F.interpolate(x, size=(2, 4), mode="area")),
    "cubic with corners": ("map", lambda x: F.interpolate(x, size=(7, 3), mode="bicubic", align_corners=True)),
    "cubic, smaller without aliases": (
        "map", lambda x: F.interpolate(x, size=(3, 4), mode="bicubic", antialias=True),
    ),
    "windows that overlap, folded again": (
        "map", lambda x: F.fold(F.unfold(x, (2, 3), padding=(1, 0), stride=(2, 1)), (5, 6), (2, 3), padding=(1, 0),
                                stride=(2, 1)),
    ),
    "cast to a row of weights": ("row", lambda x: F.conv1d(x, torch.ones(6, 1, 4), groups=3, dilation=2, padding=3)),
}  # fmt: skip


@pytest.mark.parametrize("name", WINDOWS)
def test_windows(name: str) -> None:
    of, function = WINDOWS[name]
    agrees(function, SHAPES[of])


@settings(max_examples=12, deadline=None, derandomize=True)
@given(data=st.data())
def test_a_mean_has_as_many_windows_as_in_torch_and_counts_as_it_does(data: st.DataObject) -> None:
    side, kernel = data.draw(st.integers(4, 9)), data.draw(st.integers(1, 4))
    options: dict[str, Any] = {
        "stride": data.draw(st.integers(1, 4)),
        "padding": data.draw(st.integers(0, kernel // 2)),
        "ceil_mode": data.draw(st.booleans()),
        "count_include_pad": data.draw(st.booleans()),
    }
    network, x = Block(lambda x: F.avg_pool2d(x, kernel, **options)).eval(), drawn((2, side, 6), 3)
    torch.testing.assert_close(flat_graph(network, (2, side, 6))(x), network(x), rtol=ROUNDING, atol=ROUNDING)
