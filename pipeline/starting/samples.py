"""Samples for a network that is there already: with labels where they fit it, else arrays without.

Shapes: N samples, C channels, H height, W width.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.data.checks import UNREADABLE_ARCHIVE
from pipeline.data.folders import PictureFolder
from pipeline.data.npy import read_npz_member
from pipeline.errors import ConfigError, DataError
from pipeline.onboard.arrays import PictureForm
from pipeline.onboard.faults import FileRefused
from pipeline.onboard.pictures import read_picture
from pipeline.starting import pictures
from pipeline.starting.arrays import called

MOST = 512  # samples without labels that are used
_MOST_BYTES = 256 << 20
_FEWEST = 8
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
    x: NDArray[Any] | None = None  # (N, …) raw, where nothing fits as a label


def given_by(place: Path, shape: tuple[int, ...], outputs: tuple[int, ...]) -> Given:
    """Return the samples at ``place`` for a network that takes ``shape`` and gives ``outputs``.

    Raises ConfigError for what is not understood, DataError for damaged files.
    """
    if not place.exists():
        raise ConfigError(f"there is no '{place}'", where="--data", remedy="give a folder, an .npz file, or a card")
    given = _of_folder(place, shape, outputs) if place.is_dir() else _of_arrays(place, shape, outputs)
    if given.samples < _FEWEST:
        raise DataError(f"{given.samples} samples, expected at least {_FEWEST}", where=str(place))
    return given


# ── pictures ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _of_folder(folder: Path, shape: tuple[int, ...], outputs: tuple[int, ...]) -> Given:
    if len(shape) != 3 or shape[0] not in (1, 3):
        what = f"the network takes {shape}, no pictures"
        raise ConfigError(what, where="--data", remedy="save samples as an .npz file: np.savez(file, x=samples)")
    why = "no folders of classes"
    if pictures.are_in(folder):
        seen = pictures.look(folder)
        classes = len(seen.per_class)
        if outputs == (classes,) and min(seen.per_class) >= _LEAST_PER_CLASS:
            return Given(
                task="classification", kind="image-folder", place=folder, samples=seen.samples, divide=_BYTE,
                said=seen.summary,
            )  # fmt: skip
        why = f"{classes} classes, and the network gives {_shown(outputs)}"
    listed = PictureFolder(folder=folder)
    paths = _spread(listed.pictures_in(folder), int(np.prod(shape)))
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
        x=x,
    )


def _spread(samples: Any, values: int, bytes_each: int = 1) -> Any:
    """Return so many samples, from all over, that they fit into memory."""
    most = max(1, min(MOST, _MOST_BYTES // max(1, values * bytes_each)))
    if len(samples) <= most:
        return samples
    places = np.unique(np.linspace(0, len(samples) - 1, most).astype(int))
    return [samples[int(place)] for place in places] if isinstance(samples, list) else samples[places]


def _shown(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape)) or "one number"


# ── arrays ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _of_arrays(file: Path, shape: tuple[int, ...], outputs: tuple[int, ...]) -> Given:
    if file.suffix.lower() != ".npz" and not zipfile.is_zipfile(file):
        what = f"'{file}' is no kind of samples that karui knows"
        remedy = "give a folder of pictures, an .npz file with x (and y), or a card"
        raise ConfigError(what, where="--data", remedy=remedy)
    arrays = _read(file)
    found = called(sorted(arrays))
    name = found["x"] if found["x"] in arrays else next(iter(arrays)) if len(arrays) == 1 else ""
    if not name:
        held = ", ".join(sorted(arrays)) or "nothing"
        raise ConfigError(
            f"{file} holds no array 'x', found {held}", where="--data", remedy="np.savez(file, x=samples)"
        )
    x, y = arrays[name], arrays.get(found["y"])
    turned = _turned(x, shape, file)
    task = _task_of(y, len(x), outputs) if turned is x else "agreement"
    if task != "agreement":
        named = (("x", name), ("y", found["y"]))
        said = f"{len(x):,} samples with labels"
        return Given(task=task, kind="npz", place=file, samples=len(x), divide=1, said=said, arrays=named)
    why = "without labels" if y is None else f"whose labels do not fit the network's {_shown(outputs)}"
    some = _spread(turned, int(np.prod(shape)), turned.dtype.itemsize)
    return Given(
        task="agreement",
        kind="npz",
        place=file,
        samples=len(some),
        divide=1,
        said=f"{len(some):,} samples {why}",
        x=some,
    )


def _read(file: Path) -> dict[str, NDArray[Any]]:
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
    y: NDArray[Any] | None, samples: int, outputs: tuple[int, ...]
) -> Literal["classification", "regression", "agreement"]:
    if y is None or len(y) != samples or len(outputs) != 1:
        return "agreement"
    if y.dtype.kind in "iub" and y.ndim == 1:
        values, counts = np.unique(y, return_counts=True)
        whole = values.tolist() == list(range(outputs[0])) and int(counts.min()) >= _LEAST_PER_CLASS
        return "classification" if whole and outputs[0] > 1 else "agreement"
    return "regression" if y.dtype.kind == "f" and y.reshape(samples, -1).shape[1:] == outputs else "agreement"
