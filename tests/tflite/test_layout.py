"""Orders of axes: every reading of a tensor against numpy's own transposes and reshapes.

Shapes: N batch, C channels, H height, W width, L length.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.tflite import layout
from pipeline.tflite.layout import Axes
from pipeline.tflite.shapes import Shape

IMAGE = Shape(dims=(1, 3, 6, 5), batch=0)
SEQUENCE = Shape(dims=(1, 4, 9), batch=0)
FLAT = Shape(dims=(1, 7), batch=0)


@st.composite
def shaped(draw: st.DrawFn) -> tuple[Shape, Axes]:
    """Draw a shape and an order in which its axes lie; axes of one element may be missing or be made up."""
    rank = draw(st.integers(1, 4))
    dims = tuple(draw(st.lists(st.integers(1, 4), min_size=rank, max_size=rank)))
    shape = Shape(dims=dims, batch=draw(st.sampled_from([None, *range(rank)])))
    order = draw(st.permutations(range(rank)))
    axes: list[int | None] = [axis for axis in order if not shape.is_unit(axis) or draw(st.booleans())]
    for _ in range(draw(st.integers(0, 2))):
        axes.insert(draw(st.integers(0, len(axes))), None)
    return shape, tuple(axes)


def stored(values: np.ndarray, shape: Shape, axes: Axes) -> np.ndarray:
    """Lay an ONNX value out as the tensor holds it, by numpy alone."""
    present = [axis for axis in axes if axis is not None]
    missing = [axis for axis in range(shape.rank) if axis not in present]
    moved = values.transpose([*present, *missing]).reshape([values.shape[axis] for axis in present])
    for position, axis in enumerate(axes):
        if axis is None:
            moved = np.expand_dims(moved, position)
    return moved


# ── named orders ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("rank", "plain", "last", "image", "port"),
    [
        (1, (0,), (0,), (0,), (0,)),
        (2, (0, 1), (0, 1), (0, 1), (0, 1)),
        (3, (0, 1, 2), (0, 2, 1), (0, None, 2, 1), (0, 1, 2)),
        (4, (0, 1, 2, 3), (0, 2, 3, 1), (0, 2, 3, 1), (0, 2, 3, 1)),
        (5, (0, 1, 2, 3, 4), (0, 2, 3, 4, 1), (0, 2, 3, 4, 1), (0, 1, 2, 3, 4)),
    ],
)
def test_orders_by_rank(rank: int, plain: Axes, last: Axes, image: Axes, port: Axes) -> None:
    assert layout.plain(rank) == plain
    assert layout.channels_last(rank) == last
    assert layout.image(rank) == image
    assert layout.port(rank) == port


def test_an_image_is_stored_with_its_channels_last() -> None:
    assert layout.stored_dims(IMAGE, layout.channels_last(4)) == (1, 6, 5, 3)
    assert layout.stored_signature(IMAGE, layout.channels_last(4)) == (-1, 6, 5, 3)


def test_a_sequence_is_an_image_of_height_one() -> None:
    assert layout.stored_dims(SEQUENCE, layout.image(3)) == (1, 1, 9, 4)
    assert layout.stored_signature(SEQUENCE, layout.image(3)) == (-1, 1, 9, 4)


def test_without_a_batch_nothing_is_free() -> None:
    assert layout.stored_signature(Shape(dims=(1, 7), batch=None), (0, 1)) == (1, 7)


@given(shaped())
def test_stored_dims_are_those_of_the_laid_out_tensor(drawn: tuple[Shape, Axes]) -> None:
    shape, axes = drawn
    assert layout.stored_dims(shape, axes) == stored(np.zeros(shape.dims), shape, axes).shape


@given(shaped())
def test_the_signature_frees_the_batch_and_nothing_else(drawn: tuple[Shape, Axes]) -> None:
    shape, axes = drawn
    for axis, free, size in zip(
        axes, layout.stored_signature(shape, axes), layout.stored_dims(shape, axes), strict=True
    ):
        assert free == (-1 if axis is not None and axis == shape.batch else size)


# ── comparing ───────────────────────────────────────────────────────────────────────────────────────────────────────


@given(shaped())
def test_completing_is_a_reshape_away(drawn: tuple[Shape, Axes]) -> None:
    """The elements lie in the same order before and after."""
    shape, axes = drawn
    full = layout.completed(shape, axes)
    assert sorted(full) == list(range(shape.rank))
    values = np.arange(np.prod(shape.dims)).reshape(shape.dims)
    assert np.array_equal(stored(values, shape, full).ravel(), stored(values, shape, axes).ravel())


@given(shaped())
def test_equal_orders_hold_the_elements_in_the_same_sequence(drawn: tuple[Shape, Axes]) -> None:
    shape, axes = drawn
    values = np.arange(np.prod(shape.dims)).reshape(shape.dims)
    for other in (layout.plain(shape.rank), layout.channels_last(shape.rank)):
        same = layout.order(shape, axes) == layout.order(shape, other)
        if same:
            assert np.array_equal(stored(values, shape, axes).ravel(), stored(values, shape, other).ravel())


def test_axes_of_one_element_do_not_count_in_an_order() -> None:
    narrow = Shape(dims=(1, 1, 6, 5), batch=0)  # one channel: NCHW and NHWC are the same
    assert layout.order(narrow, layout.plain(4)) == layout.order(narrow, layout.channels_last(4)) == (0, 2, 3)
    assert layout.order(IMAGE, layout.plain(4)) != layout.order(IMAGE, layout.channels_last(4))


def test_the_batch_counts_though_it_may_be_one() -> None:
    assert layout.order(FLAT, (0, 1)) != layout.order(FLAT, (1, 0))


# ── other readings ──────────────────────────────────────────────────────────────────────────────────────────────────


@given(shaped(), st.data())
def test_a_transpose_is_another_reading(drawn: tuple[Shape, Axes], data: st.DataObject) -> None:
    shape, axes = drawn
    perm = data.draw(st.permutations(range(shape.rank)))
    values = np.arange(np.prod(shape.dims)).reshape(shape.dims)
    batch = None if shape.batch is None else perm.index(shape.batch)
    turned = Shape(dims=tuple(shape.dims[axis] for axis in perm), batch=batch)
    read = layout.relabelled(axes, perm.index)
    assert np.array_equal(stored(values.transpose(perm), turned, read), stored(values, shape, axes))


def test_relabelling_may_lose_an_axis() -> None:
    assert layout.relabelled((0, 2, None, 1), {0: 0, 2: 1}.get) == (0, 1, None, None)


@pytest.mark.parametrize(
    ("before", "after", "axes", "found"),
    [
        ((1, 6, 1, 1), (1, 6), (0, 2, 3, 1), (0, None, None, 1)),  # x.flatten(1) after a global mean
        ((1, 6), (1, 6, 1, 1), (0, 1), (0, 1)),
        ((1, 4, 9), (1, 4, 1, 9), (0, None, 2, 1), (0, None, 3, 1)),
        ((1, 4, 9), (1, 9, 4), (0, 1, 2), None),  # not the same sizes in the same order
        ((1, 4, 9), (1, 36), (0, 1, 2), None),
    ],
)
def test_squeezing_is_another_reading(
    before: tuple[int, ...], after: tuple[int, ...], axes: Axes, found: Axes | None
) -> None:
    result = layout.without_units(Shape(dims=before, batch=0), Shape(dims=after, batch=0), axes)
    assert result == found


def test_squeezing_never_moves_the_batch() -> None:
    """(N, 4) read as (4, N): the same two sizes where the batch is one, and yet another value."""
    before, after = Shape(dims=(1, 4), batch=0), Shape(dims=(1, 4), batch=None)
    assert layout.without_units(before, after, (0, 1)) is None


@given(shaped())
def test_unsqueezing_reads_the_same_tensor(drawn: tuple[Shape, Axes]) -> None:
    shape, axes = drawn
    wider = Shape(dims=(*shape.dims, 1), batch=shape.batch)
    values = np.arange(np.prod(shape.dims)).reshape(shape.dims)
    read = layout.without_units(shape, wider, axes)
    assert read is not None
    present = [axis for axis in range(wider.rank) if axis not in read]
    assert all(wider.is_unit(axis) for axis in present)
    assert np.array_equal(stored(values[..., None], wider, read).ravel(), stored(values, shape, axes).ravel())


# ── constants ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("dims", [(), (5,), (6, 5), (3, 1, 1), (1, 3, 1, 1), (1, 1, 6, 5), (3, 6, 5)])
@pytest.mark.parametrize("axes", [(0, 1, 2, 3), (0, 2, 3, 1), (0, None, 2, 3, 1)])
def test_a_constant_broadcasts_as_in_onnx(dims: tuple[int, ...], axes: Axes) -> None:
    rng = np.random.default_rng(0)
    constant, value = rng.normal(size=dims), rng.normal(size=(2, 3, 6, 5))
    shape = Shape(dims=(2, 3, 6, 5), batch=0)
    wanted = stored(value + constant, shape, axes)
    assert np.array_equal(stored(value, shape, axes) + layout.arranged(constant, 4, axes), wanted)


def test_a_constant_that_broadcasts_over_an_axis_that_is_not_stored() -> None:
    value, constant = np.arange(6.0).reshape(2, 3, 1, 1), np.arange(3.0).reshape(3, 1, 1)
    shape = Shape(dims=(2, 3, 1, 1), batch=0)
    wanted = stored(value * constant, shape, (0, 1))
    assert np.array_equal(stored(value, shape, (0, 1)) * layout.arranged(constant, 4, (0, 1)), wanted)
