"""Arrays: ``.npz`` files with x and y, and IDX files as MNIST has them."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.checks import UNREADABLE_ARCHIVE
from pipeline.data.kinds.idx import read_idx
from pipeline.data.npy import read_npz_member
from pipeline.errors import ConfigError, DataError
from pipeline.starting.seen import Seen

_SPLITS = {"train": "train", "t10k": "test", "test": "test", "val": "val"}
_CHANNELS = (1, 3)
_OTHER_NAMES = {
    "x": ("x", "images", "image", "data", "features", "inputs", "samples"),
    "y": ("y", "labels", "label", "target", "targets", "classes"),
}
_HOW_TO_SAVE = "np.savez_compressed(file, x=samples, y=labels), or x_train, y_train, x_test, y_test"


def look_at_npz(file: Path) -> Seen:
    """Return what an .npz file holds.  Raises ConfigError where x and y cannot be told, DataError for a bad file."""
    try:
        with zipfile.ZipFile(file) as archive:
            members = {each.filename.removesuffix(".npy"): each for each in archive.infolist()}
            found = called(sorted(members))
            suffix = "_train" if f"{found['x']}_train" in members else ""
            for axis, name in found.items():
                if f"{name}{suffix}" not in members:
                    raise ConfigError(
                        f"{file} holds no array '{axis}{suffix}', found {', '.join(sorted(members)) or 'nothing'}",
                        where="init",
                        remedy=f'save it again: {_HOW_TO_SAVE}; or write a card with [arrays] x = "…", y = "…"',
                    )
            x, y = (read_npz_member(archive, members[f"{found[axis]}{suffix}"], file) for axis in ("x", "y"))
    except UNREADABLE_ARCHIVE as error:
        raise DataError(
            f"is no readable .npz file: {error}", where=str(file), remedy="make or fetch it again"
        ) from error
    splits = tuple(split for split in ("val", "test") if f"{found['x']}_{split}" in members) if suffix else ()
    seen = _seen("npz", {"all": file}, x, y, splits)
    return replace(seen, arrays={axis: name for axis, name in found.items() if axis != name})


def called(names: Sequence[str]) -> dict[str, str]:
    """Return what x and y are called in a file: by their names, or by others that people give them."""
    found = {}
    for axis, words in _OTHER_NAMES.items():
        plain = dict.fromkeys(name.removesuffix("_train") for name in names)
        others = [name for name in plain if name.lower() in words]
        found[axis] = others[0] if axis not in plain and len(others) == 1 else axis
    return found


def idx_files(folder: Path) -> dict[str, Path]:
    """Return role → file for the pairs of pictures and labels in a folder; {} without a pair to train on."""
    found: dict[str, Path] = {}
    for file in sorted(folder.iterdir()) if folder.is_dir() else ():
        name = file.name.lower()
        if "idx" not in name and "ubyte" not in name:
            continue
        split = next((split for word, split in _SPLITS.items() if word in name), "train")
        what = next((what for what in ("images", "labels") if what in name), None)
        if what:
            found.setdefault(f"{split}-{what}", file)
    pairs = {role: file for role, file in found.items() if _other(role) in found}
    return pairs if "train-images" in pairs else {}


def look_at_idx(files: Mapping[str, Path]) -> Seen:
    """Return what IDX files hold.  Raises DataError for a bad file."""
    x, y = read_idx(files["train-images"]), read_idx(files["train-labels"])
    splits = tuple(split for split in ("val", "test") if f"{split}-images" in files)
    return _seen("idx", files, x, y, splits)


def _other(role: str) -> str:
    split, what = role.split("-")
    return f"{split}-{'labels' if what == 'images' else 'images'}"


def _seen(kind: Any, files: Mapping[str, Path], x: NDArray[Any], y: NDArray[Any], splits: tuple[str, ...]) -> Seen:
    first = next(iter(files.values()))
    shape = _shape(x, first)
    is_class = y.dtype.kind in "iub" and y.ndim == 1
    if not is_class and (y.dtype.kind != "f" or y.ndim not in (1, 2) or not y.size):
        raise ConfigError(
            f"{first}: the labels are {y.dtype} of shape {y.shape}, expected a whole number from 0 per sample "
            "(a class), or numbers to predict",
            where="init",
            remedy="number the classes 0, 1, 2 …",
        )
    counts = np.unique_counts(y).counts if is_class else np.zeros(0, dtype=np.int64)
    predicted = f"{len(counts)} classes" if is_class else f"{y.reshape(len(y), -1).shape[1]} numbers to predict"
    return Seen(
        kind=kind,
        task="classification" if is_class else "regression",
        place=first if len(files) == 1 else first.parent,
        samples=len(x),
        summary=f"{len(x):,} samples of shape {'×'.join(map(str, shape))}, {predicted}",
        per_class=tuple(int(count) for count in counts),
        own_splits=splits,
        shape=shape,
        divide=255 if x.dtype == np.uint8 and len(shape) == 3 else 1,
        files=files,
    )


def _shape(x: NDArray[Any], file: Path) -> tuple[int, ...]:
    """Return the shape of a sample, with a channel where pictures come without."""
    shape = tuple(int(side) for side in x.shape[1:])
    if len(shape) == 2:
        return (1, *shape)
    if len(shape) == 3 and shape[0] not in _CHANNELS and shape[-1] in _CHANNELS:
        raise ConfigError(
            f"{file}: the samples have the shape {shape}, with the channels last",
            where="init",
            remedy="store them as (N, C, H, W): x = np.ascontiguousarray(np.moveaxis(x, -1, 1))",
        )
    if len(shape) not in (1, 3) or not len(x):
        raise ConfigError(
            f"{file}: x has the shape {x.shape}, expected (N, columns), (N, H, W) or (N, C, H, W)", where="init"
        )
    return shape
