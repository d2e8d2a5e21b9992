"""Atoms of channels through operations that move, cut, join or pass them; ``coupling`` says what atoms are.

Shapes: arrays of atoms have a value's axes without the batch, with one element along axes where all is alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from torch import fx, nn

from pipeline.graph import ops

Atoms = NDArray[np.int64]
Move = Callable[[nn.Module, list[Atoms], fx.Node], Atoms | None]

FIXED = -1  # what is no atom
_LARGEST_RESHAPE = 1 << 23  # elements of a value that is followed through a reshape
_EACH = frozenset(  # functions of each element by itself
    [
        "Relu",
        "Clip",
        "LeakyRelu",
        "Elu",
        "Gelu",
        "Mish",
        "Pow",
        "Softplus",
        "HardSwish",
        "HardSigmoid",
        "Tanh",
        "Sigmoid",
    ]
) | frozenset(ops.FUNCTIONS)
_WINDOWS = frozenset(["MaxPool", "AveragePool", "GlobalAveragePool", "ResizeNearest", "ResizeLinear"])


def all_fixed(axes: int) -> Atoms:
    """Return the array of a value in which nothing can go."""
    return np.full((1,) * axes, FIXED, dtype=np.int64)


def varying(atoms: Atoms) -> list[int]:
    """Return the axes along which atoms differ."""
    return [axis for axis, side in enumerate(atoms.shape) if side > 1]


def compressed(atoms: Atoms) -> Atoms:
    """Return one element along axes where all is alike."""
    for axis in range(atoms.ndim):
        first = atoms.take([0], axis)
        if (atoms == first).all():
            atoms = first
    return atoms


# each returns None where what becomes of a channel cannot be said


def unknown(_: nn.Module, _inputs: list[Atoms], _node: fx.Node) -> Atoms | None:
    """Follow nothing."""
    return None


def _same(_: nn.Module, inputs: list[Atoms], _node: fx.Node) -> Atoms | None:
    return inputs[0]


def _windows(_: nn.Module, inputs: list[Atoms], _node: fx.Node) -> Atoms | None:
    return inputs[0] if all(axis == 0 for axis in varying(inputs[0])) else None


def _concat(module: nn.Module, inputs: list[Atoms], node: fx.Node) -> Atoms | None:
    assert isinstance(module, ops.Concat)  # noqa: S101  (its kind says so)
    axis = module.axis - 1
    shapes = [list(each.meta["shape"][1:]) for each in node.args if isinstance(each, fx.Node)]
    sides = [max(each.shape[other] for each in inputs) for other in range(inputs[0].ndim)]
    parts = []
    for atoms, shape in zip(inputs, shapes, strict=True):
        if atoms.shape[axis] == 1 and shape[axis] > 1 and (atoms != FIXED).any():
            return None
        parts.append(np.broadcast_to(atoms, [*sides[:axis], shape[axis], *sides[axis + 1 :]]))
    return compressed(np.concatenate(parts, axis))


def _reshape(_: nn.Module, inputs: list[Atoms], node: fx.Node) -> Atoms | None:
    before = next(tuple(each.meta["shape"][1:]) for each in node.args if isinstance(each, fx.Node))
    after, atoms = tuple(node.meta["shape"][1:]), inputs[0]
    if not varying(atoms):
        return atoms.reshape((1,) * len(after))
    if np.prod(before) > _LARGEST_RESHAPE:
        return None
    moved = compressed(np.broadcast_to(atoms, before).reshape(after))
    return moved if len(varying(moved)) == 1 else None  # split channels have a structure of their own


def _transpose(module: nn.Module, inputs: list[Atoms], _node: fx.Node) -> Atoms | None:
    assert isinstance(module, ops.Permute)  # noqa: S101  (its kind says so)
    return inputs[0].transpose([axis - 1 for axis in module.order[1:]])


def _cut(module: nn.Module, inputs: list[Atoms], _node: fx.Node) -> Atoms | None:
    assert isinstance(module, ops.Gather)  # noqa: S101  (its kind says so)
    return None if module.axis - 1 in varying(inputs[0]) else inputs[0]


def _pad(_: nn.Module, inputs: list[Atoms], node: fx.Node) -> Atoms | None:
    before = next(tuple(each.meta["shape"]) for each in node.args if isinstance(each, fx.Node))
    grown = [axis for axis, (old, new) in enumerate(zip(before[1:], node.meta["shape"][1:], strict=True)) if old != new]
    return None if set(grown) & set(varying(inputs[0])) else inputs[0]


def _reduce(module: nn.Module, inputs: list[Atoms], _node: fx.Node) -> Atoms | None:
    assert isinstance(module, ops.Reduce)  # noqa: S101  (its kind says so)
    axes, ours = {axis - 1 for axis in module.axes}, set(varying(inputs[0]))
    if not axes & ours:
        return inputs[0]
    return all_fixed(inputs[0].ndim) if ours <= axes else None  # a mean over whatever channels there are


def _scale(module: nn.Module, inputs: list[Atoms], _node: fx.Node) -> Atoms | None:
    """Pass numbers; a constant with a value for each channel cannot be cut."""
    assert isinstance(module, ops.Scale)  # noqa: S101  (its kind says so)
    for constant in (module.factor, module.offset):
        shape = (1,) * (inputs[0].ndim + 1 - constant.dim()) + tuple(constant.shape)
        if any(shape[axis + 1] > 1 for axis in varying(inputs[0])):
            return None
    return inputs[0]


def _softmax(module: nn.Module, inputs: list[Atoms], _node: fx.Node) -> Atoms | None:
    assert isinstance(module, nn.Softmax)  # noqa: S101  (its kind says so)
    axis = (module.dim if module.dim is not None else -1) % (inputs[0].ndim + 1) - 1
    return None if axis in varying(inputs[0]) else inputs[0]


def _prelu(module: nn.Module, inputs: list[Atoms], _node: fx.Node) -> Atoms | None:
    assert isinstance(module, nn.PReLU)  # noqa: S101  (its kind says so)
    return inputs[0] if module.num_parameters == 1 else None


MOVES: Mapping[str, Move] = {
    **dict.fromkeys(_EACH, _same),
    **dict.fromkeys(_WINDOWS, _windows),
    "Concat": _concat,
    "Reshape": _reshape,
    "Transpose": _transpose,
    "Gather": _cut,
    "Pad": _pad,
    "ReduceMean": _reduce,
    "ReduceMax": _reduce,
    "Scale": _scale,
    "Softmax": _softmax,
    "PRelu": _prelu,
}
