"""Samples for a network that is there already: with labels where they fit it, else arrays without.

Shapes: N samples, C channels, H height, W width.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.data.checks import UNREADABLE_ARCHIVE
from pipeline.data.folders import PictureFolder
from pipeline.data.npy import read_npz_member
from pipeline.declare.card import outside_name
from pipeline.errors import ConfigError, DataError
from pipeline.onboard.arrays import PictureForm, TensorSpec
from pipeline.onboard.faults import FileRefused
from pipeline.onboard.pictures import read_picture
from pipeline.starting import pictures
from pipeline.starting.arrays import called

MOST = 512  # samples without labels that are used
_MOST_BYTES = 256 << 20
FEWEST = 8
_BYTE = 255
_LEAST_PER_CLASS = 3  # one for each split


@dataclass(frozen=True, kw_only=True)
class Given:
    """What there is to measure a network with."""

    task: Literal["classification", "regression", "agreement"]
    kind: Literal["image-folder", "npz"]
    place: Path
    samples: int
    divide: int  # of raw values
    said: str
    arrays: tuple[tuple[str, str], ...] = ()  # x and y → what they are called in the file
    inputs: Mapping[str, NDArray[Any]] = field(default_factory=dict)  # (N, …) raw, where nothing fits as a label
    steps: int = 0  # of each sample, where it is a sequence


def given_by(place: Path, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> Given:
    """Return the samples at ``place`` for a network with these inputs and outputs.

    Raises ConfigError for what is not understood, DataError for damaged files.
    """
    if not place.exists():
        raise ConfigError(f"there is no '{place}'", where="--data", remedy="give a folder, an .npz file, or a card")
    given = _of_folder(place, inputs, outputs) if place.is_dir() else _of_arrays(place, inputs, outputs)
    if given.samples < FEWEST:
        raise DataError(f"{given.samples} samples, expected at least {FEWEST}", where=str(place))
    return given


# ── pictures ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _of_folder(folder: Path, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> Given:
    shape = inputs[0].shape
    if len(inputs) > 1 or len(shape) != 3 or shape[0] not in (1, 3):
        what = f"the network takes {_ends(inputs)}, no pictures"
        raise ConfigError(what, where="--data", remedy="save samples as an .npz file: np.savez(file, x=samples)")
    why = "no folders of classes"
    if pictures.are_in(folder):
        seen = pictures.look(folder)
        classes = len(seen.per_class)
        if [each.shape for each in outputs] == [(classes,)] and min(seen.per_class) >= _LEAST_PER_CLASS:
            return Given(
                task="classification", kind="image-folder", place=folder, samples=seen.samples, divide=_BYTE,
                said=seen.summary,
            )  # fmt: skip
        why = f"{classes} classes, and the network gives {_ends(outputs)}"
    listed = PictureFolder(folder=folder)
    paths = listed.pictures_in(folder)
    paths = [paths[int(place)] for place in _places(len(paths), int(np.prod(shape)))]
    try:
        x = np.stack([read_picture(path, PictureForm(shape, "crop", (_BYTE,) * 3)) for path in paths])
    except FileRefused as fault:
        raise DataError(fault.what, where=fault.where, remedy=fault.remedy) from fault
    return Given(
        task="agreement",
        kind="npz",
        place=folder,
        samples=len(x),
        divide=_BYTE,
        said=f"{len(x):,} pictures, {why}",
        inputs={"x": x},
    )


def _places(samples: int, bytes_each: int) -> NDArray[np.int64]:
    """Return where so many samples lie, all over the others, that they fit into memory."""
    most = max(1, min(MOST, _MOST_BYTES // max(1, bytes_each)))
    return np.unique(np.linspace(0, samples - 1, min(most, samples)).astype(np.int64))


def _ends(specs: Sequence[TensorSpec]) -> str:
    if len(specs) == 1:
        return _shown(specs[0].shape)
    return ", ".join(f"{spec.name} {_shown(spec.shape)}" for spec in specs)


def _shown(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape)) or "one number"


# ── arrays ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _of_arrays(file: Path, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> Given:
    if file.suffix.lower() != ".npz" and not zipfile.is_zipfile(file):
        what = f"'{file}' is no kind of samples that karui knows"
        remedy = "give a folder of pictures, an .npz file with x (and y), or a card"
        raise ConfigError(what, where="--data", remedy=remedy)
    arrays = read_arrays(file)
    names = _names(file, arrays, inputs)
    turned = {spec.name: _turned(arrays[names[spec.name]], spec.shape, file) for spec in inputs}
    count = _count(file, turned)
    label = called(sorted(arrays))["y"]
    y = arrays.get(label) if label not in names.values() else None
    as_stored = all(turned[name] is arrays[names[name]] for name in turned)
    task = _task_of(y, count, outputs) if as_stored else "agreement"
    if task != "agreement":
        own = {"x" if len(inputs) == 1 else outside_name(name): there for name, there in names.items()}
        said = f"{count:,} samples with labels"
        named = (*own.items(), ("y", label))
        return Given(task=task, kind="npz", place=file, samples=count, divide=1, said=said, arrays=named)
    several = "; say which one they are for: --output NAME" if len(outputs) > 1 else ""
    why = "without labels" if y is None else f"whose labels do not fit the network's {_ends(outputs)}{several}"
    some = _places(count, sum(each[:1].nbytes for each in turned.values()))
    return Given(
        task="agreement",
        kind="npz",
        place=file,
        samples=len(some),
        divide=1,
        said=f"{len(some):,} samples {why}",
        inputs={"x" if len(inputs) == 1 else outside_name(name): each[some] for name, each in turned.items()},
    )


def _names(file: Path, arrays: Mapping[str, NDArray[Any]], inputs: Sequence[TensorSpec]) -> dict[str, str]:
    """Return input → what its array is called in the file.  Raises ConfigError for what is not there."""
    held = ", ".join(sorted(arrays)) or "nothing"
    if len(inputs) == 1:
        found = called(sorted(arrays))["x"]
        name = next((each for each in (found, inputs[0].name) if each in arrays), "")
        name = name or (next(iter(arrays)) if len(arrays) == 1 else "")
        if not name:
            remedy = "np.savez(file, x=samples)"
            raise ConfigError(f"{file} holds no array 'x', found {held}", where="--data", remedy=remedy)
        return {inputs[0].name: name}
    names = {}
    for spec in inputs:
        own = next((each for each in (spec.name, spec.name.removesuffix("_in")) if each in arrays), "")
        if not own:
            wanted = ", ".join(f"{each.name} (N, {', '.join(map(str, each.shape))})" for each in inputs)
            raise ConfigError(
                f"{file} holds no array '{spec.name}', found {held}",
                where="--data",
                remedy=f"store an array for each input of the network: {wanted}",
            )
        names[spec.name] = own
    return names


def _count(file: Path, arrays: Mapping[str, NDArray[Any]]) -> int:
    counts = {name: len(each) for name, each in arrays.items()}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{count} of {name}" for name, count in counts.items())
        raise DataError(f"the inputs hold different numbers of samples: {told}", where=str(file))
    return next(iter(counts.values()))


def read_arrays(file: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays of an .npz file by name.  Raises DataError."""
    try:
        with zipfile.ZipFile(file) as archive:
            members = {each.filename.removesuffix(".npy"): each for each in archive.infolist()}
            return {name: read_npz_member(archive, member, file) for name, member in members.items()}
    except UNREADABLE_ARCHIVE as error:
        what = f"is no readable .npz file: {error}"
        raise DataError(what, where=str(file), remedy="make or fetch it again") from error


def _turned(x: NDArray[Any], shape: tuple[int, ...], file: Path) -> NDArray[Any]:
    """Return samples as (N, *shape), with the channels first.  Raises DataError for another shape."""
    if x.shape[1:] == shape:
        return x
    if len(shape) == 3 and x.shape[1:] == (*shape[1:], shape[0]):
        return np.ascontiguousarray(np.moveaxis(x, -1, 1))
    if len(shape) == 3 and shape[0] == 1 and x.shape[1:] == shape[1:]:
        return x
    if x.ndim == len(shape) + 2 and x.shape[1] == 1 and x.shape[2:] == shape:
        return x[:, 0]  # samples for one call each
    raise DataError(
        f"samples have the shape {x.shape[1:]}, and the network takes {shape}",
        where=str(file),
        remedy="store them as (N, *shape), pictures as (N, C, H, W)",
    )


def _task_of(
    y: NDArray[Any] | None, samples: int, outputs: Sequence[TensorSpec]
) -> Literal["classification", "regression", "agreement"]:
    if y is None or y.ndim == 0 or len(y) != samples or len(outputs) != 1 or len(outputs[0].shape) != 1:
        return "agreement"
    (values,) = outputs[0].shape
    if y.dtype.kind in "iub" and y.ndim == 1:
        found, counts = np.unique(y, return_counts=True)
        whole = found.tolist() == list(range(values)) and int(counts.min()) >= _LEAST_PER_CLASS
        return "classification" if whole and values > 1 else "agreement"
    return "regression" if y.dtype.kind == "f" and y.reshape(samples, -1).shape[1] == values else "agreement"
