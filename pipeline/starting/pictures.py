"""A folder of pictures: its classes, how large they are, and the size that a small network should see them in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from pipeline.data.files import Found
from pipeline.data.kinds import image_folder
from pipeline.declare.card import DatasetCard
from pipeline.errors import ConfigError, DataError
from pipeline.onboard.faults import FileRefused
from pipeline.onboard.pictures import size_and_mode
from pipeline.starting.seen import Seen

_SUFFIXES = (".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp", ".heic")
_TRAIN = ("train", "training")
_SPLITS = dict.fromkeys(_TRAIN, "train") | dict.fromkeys(("val", "valid", "validation", "dev"), "val")
_SPLITS |= dict.fromkeys(("test", "testing"), "test")
_SIDES_PX = (32, 48, 64, 96)  # of a picture as a network on a small computer sees it
_MANY = {96: 5_000, 64: 20_000}  # more pictures than that take hours at this size on a CPU
_PHOTO_PX = 200
_GREY_MODES = frozenset({"1", "L", "LA", "I;16", "I", "F"})
_LOOKED_AT = 500  # headers read, spread over all pictures


def are_in(folder: Path) -> bool:
    """Tell whether a folder holds folders of pictures, perhaps below ``train``."""
    folders = _folders(folder)
    return any(_holds_pictures(each) for each in folders) or any(
        _holds_pictures(below) for each in folders if each.name.lower() in _TRAIN for below in _folders(each)
    )


def lie_flat(folder: Path) -> int:
    """Return how many pictures lie in the folder itself."""
    return sum(_is_picture(each) for each in folder.iterdir())


def is_working_folder(folder: Path) -> bool:
    """Tell whether this is the folder that karui is called in."""
    return folder.resolve() == Path.cwd().resolve()


def refuse_working_folder(folder: Path) -> None:
    """Raise ConfigError where the folders of the classes lie beside what karui will write."""
    if are_in(folder):
        raise ConfigError(
            "the folders of the classes lie in the working folder itself, where karui puts its results too",
            where="init",
            remedy=f"go one folder up: cd .. && karui init '{folder.resolve().name}'",
        )


def look(folder: Path) -> Seen:
    """Return what the pictures of a folder are.  Raises ConfigError, and DataError for what karui would not read."""
    _refuse_masks(folder)
    card = DatasetCard.model_validate(
        {"name": "new", "title": "new", "kind": "image-folder", "folder": str(folder.resolve())}
    )
    own = image_folder.Spec(folder=str(folder.resolve()))
    paths = image_folder.pictures(card, own, Found(beside=Path.cwd()))
    placed = [_split_and_class(parts) for parts in _below_what_all_share(paths, folder.resolve())]
    splits = {split for split, _ in placed}
    counts = Counter(name for split, name in placed if split == "train")
    sizes = _sizes(paths)
    side = _side(sizes, len(paths))
    shape = (1 if sizes.grey else 3, *((side, side) if sizes.differ or side < max(sizes.first) else sizes.first[::-1]))
    return Seen(
        kind="image-folder",
        task="classification",
        place=folder,
        samples=len(paths),
        summary=f"{len(paths):,} pictures in {len(counts)} classes, {sizes.said}, {'grey' if sizes.grey else 'colour'}",
        per_class=tuple(counts.values()),
        own_splits=tuple(split for split in ("val", "test") if split in splits),
        shape=shape,
        divide=255,
        resized=sizes.differ or shape[1:] != sizes.first[::-1],
        photos=not sizes.grey and min(sizes.first) >= _PHOTO_PX,
    )


@dataclass(frozen=True, kw_only=True)
class _Sizes:
    """Of the pictures that were looked at: (width, height) in pixels, upright."""

    all: tuple[tuple[int, int], ...]
    grey: bool

    @property
    def first(self) -> tuple[int, int]:
        return self.all[0]

    @property
    def differ(self) -> bool:
        return len(set(self.all)) > 1

    @property
    def said(self) -> str:
        small, large = (each(self.all, key=lambda size: size[0] * size[1]) for each in (min, max))
        smallest = f"{small[0]}×{small[1]}"
        return f"{smallest} to {large[0]}×{large[1]} pixels" if self.differ else f"{smallest} pixels"


def _sizes(paths: Sequence[Path]) -> _Sizes:
    step = max(1, len(paths) // _LOOKED_AT)
    headers = [_header(path) for path in paths[::step]]
    return _Sizes(all=tuple(size for size, _ in headers), grey=all(mode in _GREY_MODES for _, mode in headers))


def _header(path: Path) -> tuple[tuple[int, int], str]:
    try:
        return size_and_mode(path)
    except FileRefused as fault:
        raise DataError(fault.what, where=fault.where, remedy=fault.remedy) from fault


def _side(sizes: _Sizes, count: int) -> int:
    """Return the side that suits: no larger than most pictures are, nor than so many pictures can be trained in."""
    typical = median(min(size) for size in sizes.all)
    fitting = [side for side in _SIDES_PX if side <= typical and count <= _MANY.get(side, count)]
    return max(fitting, default=int(typical) if not sizes.differ else _SIDES_PX[0])


def _below_what_all_share(paths: Sequence[Path], folder: Path) -> list[tuple[str, ...]]:
    """Return the parts of the paths, without a folder in which all the others lie."""
    parts = [path.relative_to(folder).parts for path in paths]
    while len({each[0] for each in parts}) == 1 and min(map(len, parts)) > 2:
        parts = [each[1:] for each in parts]
    return parts


def _split_and_class(parts: tuple[str, ...]) -> tuple[str, str]:
    split = _SPLITS.get(parts[0].lower()) if len(parts) > 2 else None
    return (split, parts[1]) if split else ("train", parts[0])


def _refuse_masks(folder: Path) -> None:
    names = {each.name for each in _folders(folder)} | {each.name for each in _folders(folder / "train")}
    if {"images", "masks"} <= names:
        raise ConfigError(
            f"'{folder}' holds pictures with masks, for which there is no ready recipe",
            where="init",
            remedy='write a card with kind = "image-folder" and task = "segmentation"; models/segment.toml is a recipe',
        )


def _holds_pictures(folder: Path) -> bool:
    try:
        return any(_is_picture(each) for each in folder.iterdir())
    except OSError:
        return False  # the one who reads it says why


def _is_picture(file: Path) -> bool:
    return file.suffix.lower() in _SUFFIXES and not file.name.startswith(".")


def _folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return [each for each in sorted(folder.iterdir()) if each.is_dir() and not each.name.startswith((".", "__"))]
