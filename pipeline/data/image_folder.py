"""Pictures in folders: FOLDER/CLASS/*.png, or FOLDER/{train,val,test}/CLASS/*.png; also .jpg, .jpeg and .bmp.

Folders whose pixels fit in memory are decoded once; larger ones are decoded when read, by a few threads, since the
decoders let go of the interpreter's lock.  Pictures must have the card's size: nothing is scaled behind one's back.
Only the three named formats are decoded, nothing outside the folder is followed, and no picture is unpacked before
the size in its header is known to be the card's.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.data.checks import picture_shape
from pipeline.data.files import Found
from pipeline.data.source import ArraySource, Parts, Source, fits_in_memory
from pipeline.errors import ConfigError, DataError, nearest
from pipeline.spec import DatasetCard

LARGEST_FILE_BYTES = 64 << 20
_FORMATS = ("PNG", "JPEG", "BMP")
_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp"})
_SPLITS = ("train", "val", "test")
_EIGHT_BIT_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "La", "RGBa", "CMYK", "YCbCr"})
_THREADS = 4
_DECODE_AT_ONCE = 1024  # pictures between two looks at the results: keeps the queue short
_UNREADABLE = (  # what Pillow raises for damaged and for hostile files
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    MemoryError,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


@dataclass(frozen=True, kw_only=True, eq=False)
class PictureSource:
    """Pictures on the disk, decoded when they are read."""

    paths: tuple[Path, ...]
    labels: NDArray[np.int64]  # (N,)
    shape: tuple[int, int, int]  # (C, H, W)

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, indices: NDArray[np.int64]) -> NDArray[Any]:
        """Decode the pictures at ``indices``: (n, C, H, W) uint8.  Raises DataError naming the file."""
        pixels = np.empty((len(indices), *self.shape), dtype=np.uint8)

        def decode_into(place: int) -> None:
            pixels[place] = _decode(self.paths[int(indices[place])], self.shape)

        _side_by_side(decode_into, len(indices))
        return pixels

    def check(self) -> None:
        """Raise DataError for the first picture whose header is unreadable or whose size is not the card's."""
        _side_by_side(lambda place: _open(self.paths[place], self.shape).close(), len(self))


def load(card: DatasetCard, found: Found) -> Parts:
    """Return the pictures of the card's folder, decoded if they fit in memory.

    Raises DataError naming the file or the class; ConfigError when the card names no folder or no picture shape.
    """
    shape = picture_shape(card)
    folder = _folder(card, found)
    roots = _split_roots(folder)
    classes = card.classes or tuple(path.name for path in _folders_in(roots["train"], folder))
    sources = {split: _source(root, folder, classes, shape) for split, root in roots.items()}
    return Parts(classes=classes, train=sources["train"], val=sources.get("val"), test=sources.get("test"))


def pictures(card: DatasetCard, found: Found) -> list[Path]:
    """Return every picture of the folder in a fixed order, for the digest.  Raises DataError, ConfigError."""
    folder = _folder(card, found)
    return [
        picture
        for root in _split_roots(folder).values()
        for class_folder in _folders_in(root, folder)
        for picture in _pictures_in(class_folder, folder)
    ]


# ── listing ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _folder(card: DatasetCard, found: Found) -> Path:
    if found.folder is None:
        raise ConfigError("needs 'folder': the folder that holds one folder per class", where=card.name)
    return found.folder


def _split_roots(folder: Path) -> dict[str, Path]:
    """Return split → folder of its classes; only "train" when the folder is not divided."""
    if not (folder / "train").is_dir():
        return {"train": folder}
    return {split: folder / split for split in _SPLITS if (folder / split).is_dir()}


def _source(root: Path, folder: Path, classes: tuple[str, ...], shape: tuple[int, int, int]) -> Source:
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
    source = PictureSource(paths=tuple(paths), labels=np.array(labels, dtype=np.int64), shape=shape)
    if not fits_in_memory(len(source), shape):
        source.check()  # better now than in the middle of the training
        return source
    return ArraySource(samples=source.read(np.arange(len(source))), labels=source.labels)


def _folders_in(root: Path, folder: Path) -> list[Path]:
    found = sorted(path for path in _entries(root) if path.is_dir())
    for path in found:
        _check_name(path)
        _check_inside(path, folder)
    if not found:
        raise DataError(
            "holds no folders", where=str(root), remedy="make one folder per class and put its pictures there"
        )
    return found


def _pictures_in(class_folder: Path, folder: Path) -> list[Path]:
    found = sorted(path for path in _entries(class_folder) if path.suffix.lower() in _SUFFIXES)
    if not found:
        raise DataError(
            f"holds no pictures ({', '.join(sorted(_SUFFIXES))})",
            where=str(class_folder),
            remedy="put pictures of this class there, or take the folder away",
        )
    for path in found:
        _check_inside(path, folder)
        size_bytes = _size_bytes(path)
        if size_bytes > LARGEST_FILE_BYTES:
            raise DataError(f"has {size_bytes:,} bytes, expected at most {LARGEST_FILE_BYTES:,}", where=str(path))
    return found


def _entries(folder: Path) -> Iterable[Path]:
    try:
        return [path for path in folder.iterdir() if not path.name.startswith(".")]
    except OSError as error:
        raise DataError(f"cannot be listed: {error.strerror}", where=str(folder)) from error


def _size_bytes(path: Path) -> int:
    try:
        status = path.stat()
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=str(path)) from error
    if not stat.S_ISREG(status.st_mode):  # a pipe would keep the reader waiting for ever
        raise DataError("is no file but something else with a file's name", where=str(path), remedy="take it away")
    return status.st_size


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


# ── decoding ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _decode(path: Path, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Return one picture as (C, H, W)."""
    try:
        with _open(path, shape) as picture:
            converted = picture.convert("L" if shape[0] == 1 else "RGB")
    except _UNREADABLE as error:
        raise _damaged(path, error) from error
    pixels = np.asarray(converted, dtype=np.uint8)  # (H, W) or (H, W, C)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _open(path: Path, shape: tuple[int, int, int]) -> Image.Image:
    """Read the header only, and refuse what is not a picture of this size with 8 bits per value."""
    try:
        picture = Image.open(path, formats=_FORMATS)
    except _UNREADABLE as error:
        raise _damaged(path, error) from error
    channels, height, width = shape
    if picture.size != (width, height):
        found = f"{picture.width}×{picture.height}"
        picture.close()
        raise DataError(
            f"is {found} pixels (width×height), expected {width}×{height}",
            where=str(path),
            remedy=f"scale the pictures, or set [input] shape = [{channels}, {picture.height}, {picture.width}]",
        )
    if picture.mode not in _EIGHT_BIT_MODES:
        picture.close()
        raise DataError(f"has pixels of mode {picture.mode}, expected 8 bits per value", where=str(path))
    return picture


def _damaged(path: Path, error: BaseException) -> DataError:
    return DataError(
        f"is no readable {', '.join(_FORMATS)} picture: {error}",
        where=str(path),
        remedy="replace the file or remove it",
    )


def _side_by_side(work: Callable[[int], object], count: int) -> None:
    """Do ``work`` for 0 … count-1 in a few threads; the first error in that order is raised."""
    with ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, count, _DECODE_AT_ONCE):
            for _ in pool.map(work, range(start, min(start + _DECODE_AT_ONCE, count))):
                pass
