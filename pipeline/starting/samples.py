"""Samples for a network that is there already: with labels where they fit it, else arrays without.

Shapes: N samples, C channels, H height, W width.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.checks import UNREADABLE_ARCHIVE
from pipeline.data.folders import PictureFolder
from pipeline.data.kinds.idx import read_idx
from pipeline.data.npy import read_npz_member
from pipeline.declare.card import outside_name
from pipeline.errors import ConfigError, DataError
from pipeline.onboard.arrays import PictureForm, TensorSpec
from pipeline.onboard.faults import FileRefused
from pipeline.onboard.pictures import read_picture
from pipeline.starting import pictures
from pipeline.starting.arrays import called, idx_files
from pipeline.starting.given import BYTE, FEWEST, LEAST_PER_CLASS, Given, ends, places, task_of, why_not
from pipeline.starting.rows import rows_by, tables_at


def given_by(place: Path, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> Given:
    """Return the samples at ``place`` for a network with these inputs and outputs.

    Raises ConfigError for what is not understood, DataError for damaged files.
    """
    if not place.exists():
        raise ConfigError(
            f"there is no '{place}'", where="--data", remedy="give a folder, a .csv or .npz file, or a card"
        )
    given = _given(place, inputs, outputs)
    if given.samples < FEWEST:
        raise DataError(f"{given.samples} samples, expected at least {FEWEST}", where=str(place))
    return given


def _given(place: Path, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> Given:
    if files := tables_at(place):
        return rows_by(files, inputs, outputs)
    if files := _idx_files_at(place):
        return _of_idx(files, inputs, outputs)
    return _of_folder(place, inputs, outputs) if place.is_dir() else _of_arrays(place, inputs, outputs)


# ── pictures ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _of_folder(folder: Path, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> Given:
    shape = inputs[0].shape
    if len(inputs) > 1 or len(shape) != 3 or shape[0] not in (1, 3):
        what = f"the network takes {ends(inputs)}, no pictures"
        raise ConfigError(what, where="--data", remedy="save samples as an .npz file: np.savez(file, x=samples)")
    why = "no folders of classes"
    if pictures.are_in(folder):
        seen = pictures.look(folder)
        classes = len(seen.per_class)
        if [each.shape for each in outputs] == [(classes,)] and min(seen.per_class) >= LEAST_PER_CLASS:
            return Given(
                task="classification", kind="image-folder", place=folder, samples=seen.samples, divide=BYTE,
                said=seen.summary,
            )  # fmt: skip
        why = f"{classes} classes, and the network gives {ends(outputs)}"
    listed = PictureFolder(folder=folder)
    paths = listed.pictures_in(folder)
    paths = [paths[int(place)] for place in places(len(paths), int(np.prod(shape)))]
    try:
        x = np.stack([read_picture(path, PictureForm(shape, "crop", (BYTE,) * 3)) for path in paths])
    except FileRefused as fault:
        raise DataError(fault.what, where=fault.where, remedy=fault.remedy) from fault
    return Given(
        task="agreement",
        kind="npz",
        place=folder,
        samples=len(x),
        divide=BYTE,
        said=f"{len(x):,} pictures, {why}",
        inputs={"x": x},
    )


# ── arrays ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _of_arrays(file: Path, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> Given:
    if file.suffix.lower() != ".npz" and not zipfile.is_zipfile(file):
        what = f"'{file}' is no kind of samples that karui knows"
        remedy = "give a folder of pictures, a .csv table, an .npz file with x (and y), IDX files, or a card"
        raise ConfigError(what, where="--data", remedy=remedy)
    arrays = read_arrays(file)
    names = _names(file, arrays, inputs)
    turned = {spec.name: _turned(arrays[names[spec.name]], spec.shape, file) for spec in inputs}
    count = _count(file, turned)
    label = called(sorted(arrays))["y"]
    y = arrays.get(label) if label not in names.values() else None
    as_stored = all(turned[name] is arrays[names[name]] for name in turned)
    task = task_of(y, count, outputs) if as_stored else "agreement"
    if task != "agreement":
        own = {"x" if len(inputs) == 1 else outside_name(name): there for name, there in names.items()}
        said = f"{count:,} samples with labels"
        named = (*own.items(), ("y", label))
        return Given(task=task, kind="npz", place=file, samples=count, divide=1, said=said, arrays=named)
    some = places(count, sum(each[:1].nbytes for each in turned.values()))
    return Given(
        task="agreement",
        kind="npz",
        place=file,
        samples=len(some),
        divide=1,
        said=f"{len(some):,} samples {why_not(y, outputs)}",
        inputs={"x" if len(inputs) == 1 else outside_name(name): each[some] for name, each in turned.items()},
    )


def _idx_files_at(place: Path) -> dict[str, Path]:
    """Return role → file of IDX files; pictures alone where their labels are missing, {} for anything else."""
    found = idx_files(place if place.is_dir() else place.parent)
    if place.is_dir() or place in found.values():
        return found
    return {"train-images": place} if any(word in place.name.lower() for word in ("idx", "ubyte")) else {}


def _of_idx(files: Mapping[str, Path], inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> Given:
    place = files["train-images"]
    if len(inputs) > 1:
        what = f"the network takes {ends(inputs)}, and {place} holds one array"
        raise ConfigError(what, where="--data", remedy="save an .npz file with an array for each input, under its name")
    x = read_idx(place)
    y = read_idx(files["train-labels"]) if "train-labels" in files else None
    divide = BYTE if x.dtype == np.uint8 and x.ndim > 2 else 1
    turned = _turned(x, inputs[0].shape, place)
    task = task_of(y, len(x), outputs) if turned is x else "agreement"
    if task != "agreement":
        said = f"{len(x):,} samples with labels"
        return Given(task=task, kind="idx", place=place, samples=len(x), divide=divide, said=said, files=files)
    some = places(len(x), turned[:1].nbytes)
    said = f"{len(some):,} samples {why_not(y, outputs)}"
    return Given(
        task=task, kind="npz", place=place, samples=len(some), divide=divide, said=said, inputs={"x": turned[some]}
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
