"""Pictures in folders: FOLDER/CLASS/*.png, or FOLDER/{train,val,test}/CLASS/*.png; also .jpg, .jpeg and .bmp.

Where masks are wanted: FOLDER/images/NAME.* and FOLDER/masks/NAME.png (the class of each pixel), or the same two
folders in FOLDER/{train,val,test}.  Folders whose pixels fit in memory are decoded once; larger ones are decoded when
read.  Nothing outside the folder is followed.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np
from pydantic import JsonValue

from pipeline.data.checks import class_names, missing_shape, picture_shape, several_inputs
from pipeline.data.files import Found, locate_folder, sha256_of_each
from pipeline.data.pictures import MaskedPictureSource, PictureSource, Shape
from pipeline.data.source import ArraySource, Parts, Source, Wanted, everything, fits_in_memory
from pipeline.declare import words
from pipeline.declare.card import DatasetCard
from pipeline.errors import DataError, nearest

LARGEST_FILE_BYTES = 64 << 20
_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png")
_SPLITS = ("train", "val", "test")
_IMAGES, _MASKS = "images", "masks"


class Spec(words.Spec):
    """What only a card of a folder says."""

    folder: str | None = None  # relative to the card, to $KARUI_DATA or absolute


def missing(card: DatasetCard, own: Spec, wanted: Wanted | None) -> str:
    """Say what the card needs and has not; empty when it has all."""
    if own.folder is None:
        return "kind = \"image-folder\" needs 'folder': the folder that holds one folder per class"
    if wanted not in ("class", "mask"):
        return f"kind = \"image-folder\" holds no numbers, which the task '{card.task}' learns from"
    return several_inputs(card) or missing_shape(card)


def content(card: DatasetCard, own: Spec, found: Found) -> JsonValue:
    """Return the names and sha256 of all pictures.  Raises DataError."""
    folder = _folder(card, own, found)
    paths = pictures(card, own, found)
    names = [path.relative_to(folder).as_posix() for path in paths]
    return [[name, digest] for name, digest in zip(names, sha256_of_each(paths), strict=True)]


def load(card: DatasetCard, own: Spec, found: Found, wanted: Wanted | None) -> Parts:
    """Return the pictures of the card's folder, decoded if they fit in memory.

    Raises DataError naming the file or the class; ConfigError when the card names no picture shape.
    """
    shape = picture_shape(card)
    folder = _folder(card, own, found)
    roots = _split_roots(folder)
    if wanted == "mask":
        masked = {split: _masked(root, folder, len(card.classes) or None, shape) for split, root in roots.items()}
        classes = class_names(card, *(source.wanted(everything(source))["mask"] for source in masked.values()))
        sources: dict[str, Source] = {split: _held(source) for split, source in masked.items()}
    else:
        classes = card.classes or tuple(path.name for path in _folders_in(roots["train"], folder))
        sources = {split: _held(_classified(root, folder, classes, shape)) for split, root in roots.items()}
    return Parts(classes=classes, train=sources["train"], val=sources.get("val"), test=sources.get("test"))


def pictures(card: DatasetCard, own: Spec, found: Found) -> list[Path]:
    """Return every picture of the folder in a fixed order, for the digest.  Raises DataError."""
    folder = _folder(card, own, found)
    return [
        picture
        for root in _split_roots(folder).values()
        for class_folder in _folders_in(root, folder)
        for picture in _pictures_in(class_folder, folder)
    ]


# ── listing ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _folder(card: DatasetCard, own: Spec, found: Found) -> Path:
    return locate_folder(own.folder or ".", card, found.beside)


def _split_roots(folder: Path) -> dict[str, Path]:
    """Return split → folder of its classes; only "train" when the folder is not divided."""
    if not (folder / "train").is_dir():
        return {"train": folder}
    return {split: folder / split for split in _SPLITS if (folder / split).is_dir()}


def _classified(root: Path, folder: Path, classes: tuple[str, ...], shape: Shape) -> PictureSource:
    paths: list[Path] = []
    labels: list[int] = []
    for class_folder in _folders_in(root, folder):
        if class_folder.name not in classes:
            raise DataError(
                f"'{class_folder.name}' is no class of the data set{nearest(class_folder.name, classes)}",
                where=str(class_folder),
                remedy="name it in the card's classes, or take the folder away",
            )
        here = _pictures_in(class_folder, folder)
        paths += here
        labels += [classes.index(class_folder.name)] * len(here)
    return PictureSource(paths=tuple(paths), labels=np.array(labels, dtype=np.int64), shape=shape)


def _masked(root: Path, folder: Path, classes: int | None, shape: Shape) -> MaskedPictureSource:
    """Pair every picture with the mask of its name."""
    for name in (_IMAGES, _MASKS):
        if not (root / name).is_dir():
            raise DataError(
                f"holds no folder '{name}'", where=str(root), remedy=f"put pictures into {_IMAGES}, masks into {_MASKS}"
            )
    paths = _pictures_in(root / _IMAGES, folder)
    masks = {path.stem: path for path in _pictures_in(root / _MASKS, folder)}
    for path in paths:
        if path.stem not in masks:
            raise DataError(
                f"has no mask '{path.stem}.png'{nearest(path.stem, masks)}",
                where=str(path),
                remedy=f"put the class of each of its pixels into {root / _MASKS / path.stem}.png",
            )
    chosen = tuple(masks[path.stem] for path in paths)
    return MaskedPictureSource(paths=tuple(paths), masks=chosen, shape=shape, classes=classes)


def _held(source: PictureSource | MaskedPictureSource) -> Source:
    if not fits_in_memory(len(source), source.shape):
        source.check()  # better now than in the middle of the training
        return source
    batch = source.read(everything(source))
    return ArraySource(inputs=batch.inputs, labels=batch.wanted, strata=source.strata)


def _folders_in(root: Path, folder: Path) -> list[Path]:
    found = sorted(root / entry.name for entry in _entries(root) if entry.is_dir())
    for path in found:
        _check_name(path)
        _check_inside(path, folder)
    if not found:
        raise DataError(
            "holds no folders", where=str(root), remedy="make one folder per class and put its pictures there"
        )
    return found


def _pictures_in(class_folder: Path, folder: Path) -> list[Path]:
    """Return the pictures of a folder by name; asked at every start, so with few calls."""
    found = sorted(
        (entry for entry in _entries(class_folder) if entry.name.lower().endswith(_SUFFIXES)),
        key=lambda entry: entry.name,
    )
    if not found:
        raise DataError(
            f"holds no pictures ({', '.join(_SUFFIXES)})",
            where=str(class_folder),
            remedy="put pictures of this class there, or take the folder away",
        )
    for entry in found:
        if entry.is_symlink():
            _check_inside(Path(entry.path), folder)
        _check_file(entry)
    return [class_folder / entry.name for entry in found]


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(f"cannot be listed: {error.strerror}", where=str(folder)) from error


def _check_file(entry: os.DirEntry[str]) -> None:
    try:
        status = entry.stat()
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=entry.path) from error
    if not stat.S_ISREG(status.st_mode):  # a pipe would keep the reader waiting for ever
        raise DataError("is no file but something else with a file's name", where=entry.path, remedy="take it away")
    if status.st_size > LARGEST_FILE_BYTES:
        raise DataError(f"has {status.st_size:,} bytes, expected at most {LARGEST_FILE_BYTES:,}", where=entry.path)


def _check_name(path: Path) -> None:
    try:
        path.name.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"the folder's name is no UTF-8 text ({path.name!a})",
            where=str(path.parent),
            remedy="rename it; if it looks right in a file browser, set PYTHONUTF8=1",
        ) from error


def _check_inside(path: Path, folder: Path) -> None:
    if path.is_symlink() and not path.resolve().is_relative_to(folder.resolve()):
        raise DataError(
            f"is a link to {path.resolve()}, which lies outside of {folder}",
            where=str(path),
            remedy="copy the file into the folder",
        )
