"""Sliding windows of convolutions and pools: sizes, strides and pads of ONNX, and what TFLite's padding makes of them.

TFLite knows two paddings: VALID (none) and SAME (the output has ceil(size / stride) positions; of an odd number of
padded positions the larger half lies at the end).  All other pads become a PAD operator before a VALID window.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.errors import ModelError
from pipeline.tflite import opcodes
from pipeline.tflite.draft import Draft, Stored
from pipeline.tflite.graph import Node
from pipeline.tflite.options import SAME, VALID, options
from pipeline.tflite.shapes import Shape

Pair = tuple[int, int]  # height, width
_LOWEST_FLOAT = float(np.finfo(np.float32).min)


@dataclass(frozen=True, kw_only=True)
class Window:
    """A window over an image; height first.  A one-dimensional window has height 1."""

    size: Pair
    strides: Pair
    dilations: Pair
    before: Pair
    after: Pair

    @property
    def has_pads(self) -> bool:
        """Whether anything is padded."""
        return any(self.before) or any(self.after)

    @property
    def reach(self) -> Pair:
        """Positions from the first to the last that the window reads, dilation included."""
        height, width = ((size - 1) * gap + 1 for size, gap in zip(self.size, self.dilations, strict=True))
        return height, width

    def is_same(self, image: Pair) -> bool:
        """Whether TFLite's SAME pads an image of this size as this window does."""
        needed = [
            max((-(-size // stride) - 1) * stride + reach - size, 0)
            for size, stride, reach in zip(image, self.strides, self.reach, strict=True)
        ]
        halves = tuple(total // 2 for total in needed)
        return self.before == halves and self.after == tuple(t - h for t, h in zip(needed, halves, strict=True))

    def positions(self, image: Pair) -> Pair:
        """Return how many positions the window takes, rounding down."""
        height, width = (
            (size + before + after - reach) // stride + 1
            for size, before, after, reach, stride in zip(
                image, self.before, self.after, self.reach, self.strides, strict=True
            )
        )
        return height, width


def window_of(node: Node, shape: Shape, size: Sequence[int]) -> Window:
    """Return the window of a convolution or pool over a value (N, C, H, W) or (N, C, L).

    Raises ModelError for other ranks and for negative pads.
    """
    if shape.rank not in (3, 4):
        raise ModelError(
            f"works on {shape.rank} axes", where=node.where, remedy="use images (N, C, H, W) or sequences (N, C, L)"
        )
    count = shape.rank - 2
    pads = node.integers("pads", [0] * 2 * count)
    if min(pads) < 0:
        raise ModelError(f"negative pads {pads}", where=node.where, remedy="crop before this layer")
    window = Window(
        size=_pair(size, 1),
        strides=_pair(node.integers("strides", [1] * count), 1),
        dilations=_pair(node.integers("dilations", [1] * count), 1),
        before=_pair(pads[:count], 0),
        after=_pair(pads[count:], 0),
    )
    automatic = node.text("auto_pad", "NOTSET")
    return _padded_automatically(window, automatic, image_size(shape)) if automatic.startswith("SAME") else window


def image_size(shape: Shape) -> Pair:
    """Height and width of a value (N, C, H, W), or 1 and L of (N, C, L)."""
    return _pair(shape.dims[2:], 1)


def _pair(values: Sequence[int], missing: int) -> Pair:
    return (missing, values[0]) if len(values) == 1 else (values[0], values[1])


def _padded_automatically(window: Window, automatic: str, image: Pair) -> Window:
    needed = [
        max((-(-size // stride) - 1) * stride + reach - size, 0)
        for size, stride, reach in zip(image, window.strides, window.reach, strict=True)
    ]
    small, large = (needed[0] // 2, needed[1] // 2), (-(-needed[0] // 2), -(-needed[1] // 2))
    before, after = (large, small) if automatic == "SAME_LOWER" else (small, large)
    return Window(size=window.size, strides=window.strides, dilations=window.dilations, before=before, after=after)


def apply_pads(draft: Draft, x: Stored, window: Window, *, lowest: bool = False) -> tuple[Stored, int]:
    """Return the image to slide over and TFLite's padding; pads with zero, or with the lowest number.

    SAME reads zeros in convolutions and ignores what it pads in pools.
    """
    if window.has_pads and window.is_same(image_size(x.shape)):
        return x, SAME
    return padded(draft, x, window, lowest=lowest), VALID


def padded(draft: Draft, x: Stored, window: Window, *, lowest: bool = False) -> Stored:
    """Return the image with the window's pads written out."""
    if not window.has_pads:
        return x
    rows, columns = zip(window.before, window.after, strict=True)
    last = x.shape.rank - 1
    pads = {last: columns} if x.shape.rank == 3 else {2: rows, last: columns}
    fill = None if not lowest else _LOWEST_FLOAT if x.params is None else x.params.lowest
    return pad(draft, x, pads, fill=fill)


def pad(
    draft: Draft, x: Stored, pads: Mapping[int, Pair], *, fill: float | None = None, name: str | None = None
) -> Stored:
    """Add positions before and after ONNX axes; ``fill`` None stands for zero."""
    shape = x.shape.with_dims({axis: x.shape.dims[axis] + sum(pair) for axis, pair in pads.items()})
    result = draft.new(name or f"{x.name}:padded", shape, x.axes, x.params)
    amounts = [(0, 0) if axis is None else pads.get(axis, (0, 0)) for axis in x.axes]
    inputs: list[Stored | int] = [x, draft.constant(np.array(amounts, np.int32))]  # (stored axes, 2)
    if fill is None:
        return draft.op(opcodes.PAD, inputs, result, options("Pad"))
    if x.params is None:
        inputs.append(draft.constant(np.array([fill], np.float32)))
    else:
        inputs.append(draft.constant(np.array([x.params.quantize(fill)], np.int8), x.params))
    return draft.op(opcodes.PADV2, inputs, result, options("PadV2"))
