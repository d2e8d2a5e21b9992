"""What a network of an ONNX file is given and what it gives, sample by sample.

Shapes: n samples, C channels, H height, W width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import TensorProto

from pipeline.declare.card import outside_name
from pipeline.errors import ModelError, nearest
from pipeline.networks.onnx.constants import MOST_ELEMENTS
from pipeline.networks.onnx.files import OnnxFile, name_of, read_file
from pipeline.onboard.arrays import TensorSpec
from pipeline.visible import shown_text

_TAKEN_INPUTS = frozenset({TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16})
_NUMBERS = frozenset({TensorProto.UINT8, TensorProto.INT8, TensorProto.INT32, TensorProto.INT64})
_CHANNELS = (1, 3, 4)  # of pictures
_LAST = (0, 2, 3, 1)  # (n, C, H, W) → (n, H, W, C)
_AXES = {0: "", 1: "F", 2: "CT", 3: "CHW"}  # of a sample, by the number of its axes
_MOST_SHOWN = 20
Shapes = Sequence[int] | Mapping[str, Sequence[int]]  # of a sample of the only input, or of several by name


@dataclass(frozen=True, kw_only=True)
class Input:
    """How the file's input is read."""

    name: str
    shape: tuple[int, ...]  # in the file, for one call
    order: tuple[int, ...] | None  # of (n, C, H, W), where the file has (n, H, W, C)
    lifted: bool

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Return the shape of one sample as the network is given it."""
        if self.lifted:
            return self.shape
        if self.order is None:
            return self.shape[1:]
        height, width, channels = self.shape[1:]
        return channels, height, width


def input_names(path: Path) -> tuple[str, ...]:
    """Return what the inputs of a file are called.  Raises ModelError."""
    return tuple(each.name for each in read_file(path).inputs)


def inputs_of(file: OnnxFile, shapes: Shapes | None, *, whole: bool) -> tuple[Input, ...]:
    """Return how the inputs are read.  Raises ModelError."""
    if not file.inputs:
        raise ModelError("has no input", where=str(file.path))
    wanted = _shapes_by_name(file, shapes)
    return tuple(_input_of(file, given, wanted.get(given.name), whole=whole) for given in file.inputs)


def _shapes_by_name(file: OnnxFile, shapes: Shapes | None) -> Mapping[str, Sequence[int]]:
    names = [each.name for each in file.inputs]
    if shapes is None:
        return {}
    if isinstance(shapes, Mapping):
        outside = {outside_name(name): name for name in names}
        wanted = {outside.get(name, name): shape for name, shape in shapes.items()}
        unknown = [name for name in wanted if name not in names]
        if not unknown:
            return wanted
        what, remedy = f"has no input '{shown_text(unknown[0])}'; it has {_listed(names)}", ""
    elif len(names) == 1:
        return {names[0]: shapes}
    else:
        what = f"has {len(names)} inputs: {_listed(names)}"
        remedy = "the data need an array for each: [inputs.NAME] in their card"
    raise ModelError(what, where=str(file.path), remedy=remedy)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(shown_text, names[:_MOST_SHOWN]))


def _input_of(file: OnnxFile, given: onnx.ValueInfoProto, sample_shape: Sequence[int] | None, *, whole: bool) -> Input:
    tensor = given.type.tensor_type
    kind, dims = tensor.elem_type, [each.dim_value for each in tensor.shape.dim]
    if not given.type.HasField("tensor_type") or kind not in _TAKEN_INPUTS | _NUMBERS:
        known = {number: name.lower() for name, number in TensorProto.DataType.items()}
        name = known.get(kind, f"number {kind}")
        raise ModelError(f"input '{shown_text(given.name)}' is of type {name}", where=str(file.path))
    if kind in _NUMBERS:
        _check_made_real(file, given.name)
    if not dims and not whole:
        raise ModelError(f"input '{shown_text(given.name)}' has no axis for samples", where=str(file.path))
    if whole:
        return Input(name=given.name, shape=tuple(dims), order=None, lifted=True)
    shape, order = _one_sample(file, given, dims[1:], sample_shape)
    if math.prod(shape) > MOST_ELEMENTS:
        raise ModelError(f"input '{shown_text(given.name)}' is of impossible size", where=str(file.path))
    return Input(name=given.name, shape=(1, *shape), order=order, lifted=False)


def _one_sample(
    file: OnnxFile, given: onnx.ValueInfoProto, dims: list[int], wanted: Sequence[int] | None
) -> tuple[tuple[int, ...], tuple[int, ...] | None]:
    """Return a sample's shape in the file, and how (n, C, H, W) is turned into it where it lies otherwise."""
    last = _channels_last(file, given.name, dims)
    if wanted is not None:
        orders: list[tuple[int, ...] | None] = [_LAST, None] if last else [None, _LAST]
        for order in orders if len(wanted) == 3 else [None]:
            turned = tuple(wanted[axis - 1] for axis in order[1:]) if order else tuple(wanted)
            if len(turned) == len(dims) and all(side in (0, want) for side, want in zip(dims, turned, strict=True)):
                return turned, order
        raise ModelError(
            f"takes samples of shape {_said(dims)}, not {tuple(wanted)}",
            where=str(file.path),
            remedy="give the data this shape: a card's [input] says it",
        )
    if min(dims, default=1) < 1:
        name = shown_text(given.name)
        raise ModelError(
            f"input '{name}' has free axes: {_said([1, *dims])}",
            where=str(file.path),
            remedy=f"say their sizes, for example: --input {name}=1,3,224,224",
        )
    return tuple(dims), _LAST if last else None


def _said(dims: Sequence[int]) -> str:
    return f"({', '.join(str(each) if each > 0 else '?' for each in dims)})"


def _channels_last(file: OnnxFile, name: str, dims: Sequence[int]) -> bool:
    """Tell whether a file has pictures as (H, W, C), as TensorFlow writes them."""
    if len(dims) != 3:
        return False
    if dims[2] in _CHANNELS and dims[0] not in _CHANNELS:
        return True
    readers = [node for node in file.model.graph.node if name in node.input]
    while len(readers) == 1 and readers[0].op_type in ("Cast", "Identity", "QuantizeLinear", "DequantizeLinear"):
        readers = [node for node in file.model.graph.node if readers[0].output[0] in node.input]
    turned = len(readers) == 1 and readers[0].op_type == "Transpose"
    return turned and [list(each.ints) for each in readers[0].attribute] == [[0, 3, 1, 2]]


def _check_made_real(file: OnnxFile, name: str) -> None:
    """Refuse whole numbers that are more than values: they are taken as real ones of the same size."""
    for node in file.model.graph.node:
        if name in node.input and node.op_type not in ("Cast", "DequantizeLinear"):
            raise ModelError(
                f"input '{shown_text(name)}' is of whole numbers, as node '{shown_text(name_of(node))}' needs them",
                where=str(file.path),
                remedy="karui takes whole numbers that a Cast makes real ones",
            )


def outputs_of(file: OnnxFile, wanted: str) -> tuple[str, ...]:
    """Return the names of the wanted outputs ("a" or "a,b"), or of all.  Raises ModelError."""
    names = file.outputs
    if not names:
        raise ModelError("has no output", where=str(file.path))
    chosen = (wanted,) if wanted in names else tuple(filter(None, map(str.strip, wanted.split(","))))
    for name in chosen:
        if name not in names:
            guess = nearest(name, names)
            raise ModelError(f"has no output '{shown_text(name)}'{shown_text(guess)}", where=str(file.path))
    return chosen or names


def spec_of(name: str, shape: tuple[int, ...]) -> TensorSpec:
    """Describe an input or output of the network."""
    return TensorSpec(name, "float32", shape, _AXES.get(len(shape), "?" * len(shape)))
