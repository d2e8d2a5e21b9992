"""In which order the axes of an ONNX value lie in its TFLite tensor.

``Axes`` has one entry per axis of the stored tensor: the ONNX axis that lies there, or None for an axis of one element
that ONNX does not have.  ONNX axes of one element may be missing.  For an ONNX value (N, C, H, W):

    (0, 1, 2, 3)     as in ONNX
    (0, 2, 3, 1)     channels last (N, H, W, C), which all image kernels of TFLite want
    (0, None, 2, 1)  an ONNX (N, C, L) as the image (N, 1, L, C)

So transposing, squeezing and unsqueezing are only another reading of the same tensor, until a kernel asks for an order.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pipeline.tflite.shapes import Shape

Axes = tuple[int | None, ...]


def plain(rank: int) -> Axes:
    """Return the order of ONNX."""
    return tuple(range(rank))


def channels_last(rank: int) -> Axes:
    """Return the order with axis 1 at the end: (N, …, C)."""
    return (0, *range(2, rank), 1) if rank > 2 else plain(rank)


def image(rank: int) -> Axes:
    """Return the order of image kernels: (N, H, W, C); (N, 1, L, C) for an ONNX (N, C, L)."""
    return (0, None, 2, 1) if rank == 3 else channels_last(rank)


def port(rank: int) -> Axes:
    """Return the order at the graph's inputs and outputs: NHWC for images, as in ONNX for all others."""
    return channels_last(rank) if rank == 4 else plain(rank)


def stored_dims(shape: Shape, axes: Axes) -> tuple[int, ...]:
    """Return the shape of the stored tensor, for a batch of one."""
    return tuple(1 if axis is None else shape.dims[axis] for axis in axes)


def stored_signature(shape: Shape, axes: Axes) -> tuple[int, ...]:
    """Return the shape of the stored tensor with -1 where the batch is."""
    return tuple(1 if axis is None else -1 if axis == shape.batch else shape.dims[axis] for axis in axes)


def order(shape: Shape, axes: Axes) -> tuple[int, ...]:
    """Return the ONNX axes of more than one element in the order in which they are stored."""
    return tuple(axis for axis in axes if axis is not None and not shape.is_unit(axis))


def completed(shape: Shape, axes: Axes) -> tuple[int, ...]:
    """Return the axes without None and with all that are missing: a reshape away from ``axes``."""
    present = tuple(axis for axis in axes if axis is not None)
    return present + tuple(axis for axis in range(shape.rank) if axis not in present)


def relabelled(axes: Axes, rename: Callable[[int], int | None]) -> Axes:
    """Return the axes under the names of another value that reads the same tensor."""
    return tuple(None if axis is None else rename(axis) for axis in axes)


def without_units(before: Shape, after: Shape, axes: Axes) -> Axes | None:
    """Return how ``after`` reads the tensor of ``before`` when they differ only by axes of one element, else None."""
    kept, wanted = ([a for a in range(shape.rank) if not shape.is_unit(a)] for shape in (before, after))
    same = [before.dims[a] for a in kept] == [after.dims[a] for a in wanted]
    same &= [a == before.batch for a in kept] == [a == after.batch for a in wanted]
    return relabelled(axes, dict(zip(kept, wanted, strict=True)).get) if same else None


def arranged(values: NDArray[np.generic], rank: int, axes: Axes) -> NDArray[np.generic]:
    """Return a constant that broadcasts against an ONNX value of this rank, so that it does so against its tensor."""
    full = values.reshape((1,) * (rank - values.ndim) + values.shape)
    missing = [axis for axis in range(rank) if axis not in axes]  # of one element in the value
    moved = full.transpose([axis for axis in axes if axis is not None] + missing)
    moved = moved.reshape(moved.shape[: rank - len(missing)])
    for position, axis in enumerate(axes):
        if axis is None:
            moved = np.expand_dims(moved, position)
    return moved
