"""Slices and gathers along one axis: int8 stays what it is.

Kernels take no more than five axes, so what lies before and behind the axis is read as one axis each.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from pipeline.errors import UnsupportedOpError
from pipeline.tflite import layout, opcodes
from pipeline.tflite.draft import Draft, Stored
from pipeline.tflite.graph import Node
from pipeline.tflite.options import options
from pipeline.tflite.shapes import Shape


def slice_(draft: Draft, node: Node) -> Stored:
    """Slice; several axes one after the other."""
    x = draft.value(node)
    side = x.shape.dims
    axes = draft.constant_of(node, 3).values.ravel() if node.input(3) else range(draft.constant_of(node, 1).values.size)
    steps = draft.constant_of(node, 4).values.ravel() if node.input(4) else [1] * len(list(axes))
    starts, ends = (draft.constant_of(node, index).values.ravel() for index in (1, 2))
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        place = int(axis) % x.shape.rank
        if place == x.shape.batch or step < 1:
            what = "a slice of the batch" if place == x.shape.batch else "a slice backwards"
            raise UnsupportedOpError(what, where=node.where, remedy="take elements of other axes, forwards")
        begin, stop, stride = slice(int(start), int(end), int(step)).indices(side[place])
        x = _sliced(draft, node, x, place, range(begin, stop, stride))
    return x


def _sliced(draft: Draft, node: Node, x: Stored, axis: int, places: range) -> Stored:
    count, begin, stop, step = len(places), places.start, places.stop, places.step
    shape = x.shape.with_dims({axis: count})
    if axis not in x.axes:
        return replace(x, shape=shape)
    flat = _three_axes(draft, x, x.axes.index(axis))
    cut = draft.new(node.name, flat.shape.with_dims({1: count}), layout.plain(3), x.params)
    if step == 1:
        sizes = [-1 if each == flat.shape.batch else size for each, size in enumerate(cut.shape.dims)]
        bounds = [draft.constant(np.array(each, np.int32)) for each in ([0, begin, 0], sizes)]
        draft.op(opcodes.SLICE, [flat, *bounds], cut, options("Slice"))
    else:
        # the first and the last axis whole, whatever the batch is
        bounds = [draft.constant(np.array(each, np.int32)) for each in ([0, begin, 0], [0, stop, 0], [1, step, 1])]
        draft.op(opcodes.STRIDED_SLICE, [flat, *bounds], cut, options("StridedSlice", beginMask=0b101, endMask=0b101))
    return _back(draft, node, cut, shape, x)


def gather(draft: Draft, node: Node) -> Stored:
    """Gather with constant indices in one row."""
    x, indices = draft.value(node), draft.constant_of(node, 1).values
    axis = node.integer("axis", 0) % x.shape.rank
    if indices.ndim != 1 or axis == x.shape.batch:
        raise UnsupportedOpError(
            "indices of more than one axis" if indices.ndim != 1 else "a choice of the batch",
            where=node.where,
            remedy="choose by a row of constant indices along another axis",
        )
    if axis not in x.axes:
        x = draft.in_axes(x, layout.plain(x.shape.rank))
    flat = _three_axes(draft, x, x.axes.index(axis))
    rows = draft.constant((indices % x.shape.dims[axis]).astype(np.int32))
    taken = draft.new(node.name, flat.shape.with_dims({1: indices.size}), layout.plain(3), x.params)
    draft.op(opcodes.GATHER, [flat, rows], taken, options("Gather", axis=1))
    return _back(draft, node, taken, x.shape.with_dims({axis: indices.size}), x)


def _three_axes(draft: Draft, x: Stored, position: int) -> Stored:
    """Read a tensor as (before, the axis, behind)."""
    dims = x.dims
    parts = (math.prod(dims[:position]), dims[position], math.prod(dims[position + 1 :]))
    batch = next((place for place, axis in enumerate(x.axes) if axis is not None and axis == x.shape.batch), None)
    shape = Shape(dims=parts, batch=None if batch is None else 0 if batch < position else 2)
    if len(dims) == 3 and dims == parts:
        return replace(x, shape=shape, axes=layout.plain(3))
    return draft.reshape(x, draft.new(f"{x.name}:three", shape, layout.plain(3), x.params))


def _back(draft: Draft, node: Node, flat: Stored, shape: Shape, like: Stored) -> Stored:
    if layout.stored_dims(shape, like.axes) == flat.dims and len(like.axes) == 3:
        return replace(flat, shape=shape, axes=like.axes)
    return draft.reshape(flat, draft.new(f"{node.name}:shaped", shape, like.axes, flat.params))
