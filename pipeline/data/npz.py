"""Arrays in ``.npz`` files: ``x`` and ``y``, or ``x_train``, ``y_train`` and the same with ``_val`` and ``_test``.

One file with the role "all", or one file per split with the roles "train", "val", "test", each holding ``x`` and ``y``.
Nothing is unpickled, and no array is read whose declared size is absurd or does not agree with its header.
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from pipeline.data.checks import checked_labels, checked_samples, class_names, read_npy
from pipeline.data.files import Found
from pipeline.data.source import ArraySource, Parts
from pipeline.errors import DataError
from pipeline.spec import DatasetCard

_SPLITS = ("train", "val", "test")


def load(card: DatasetCard, found: Found) -> Parts:
    """Return what the card's ``.npz`` files hold: samples as stored, (N, *shape).

    Raises DataError naming file, array and sample; ConfigError when the card names neither "all" nor "train".
    """
    if "train" in found.files:
        files = {split: found.files[split] for split in _SPLITS if split in found.files}
        sources = {split: _source(card, _arrays(path), path, "x", "y") for split, path in files.items()}
    else:
        path = found.file(card, "all")
        sources = _splits_of_one(card, path)
    classes = class_names(card, *(source.labels for source in sources.values()))
    return Parts(classes=classes, train=sources["train"], val=sources.get("val"), test=sources.get("test"))


def _splits_of_one(card: DatasetCard, path: Path) -> dict[str, ArraySource]:
    arrays = _arrays(path)
    if "x_train" not in arrays:
        return {"train": _source(card, arrays, path, "x", "y")}
    present = [split for split in _SPLITS if f"x_{split}" in arrays]
    return {split: _source(card, arrays, path, f"x_{split}", f"y_{split}") for split in present}


def _source(card: DatasetCard, arrays: dict[str, NDArray[Any]], path: Path, x: str, y: str) -> ArraySource:
    for name in (x, y):
        if name not in arrays:
            raise DataError(
                f"holds no array '{name}', found {', '.join(sorted(arrays)) or 'nothing'}",
                where=str(path),
                remedy="np.savez_compressed(file, x=samples, y=labels), or x_train, y_train, x_test, y_test",
            )
    samples = checked_samples(arrays[x], card.input.shape, f"{path}: {x}")
    labels = checked_labels(arrays[y], len(samples), len(card.classes) or None, f"{path}: {y}")
    return ArraySource(samples=samples, labels=labels)


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays whose names mean something here; others are not even unpacked."""
    wanted = {"x", "y", *(f"{axis}_{split}" for axis in "xy" for split in _SPLITS)}
    try:
        with zipfile.ZipFile(path) as archive:
            members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
            return {name: _member(archive, members[name], path) for name in sorted(wanted & set(members))}
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError) as error:
        raise DataError(
            f"is no readable .npz file: {error}", where=str(path), remedy="the file is damaged: make or fetch it again"
        ) from error


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> NDArray[Any]:
    with archive.open(member) as file:
        return read_npy(file, member.file_size, f"{path}: {member.filename}")
