"""What lies in a folder of pictures: its splits, its classes, its pictures at any depth, and what is left out and why.

What begins with a dot, or is left behind by a system, is left out; so is what Pillow does not read.  Folders are
read or refused, never left out while there are pictures in them.  Nothing outside of the folder is followed.
"""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.artifacts.networks import left_out_words
from pipeline.errors import DataError
from pipeline.onboard.arrays import PICTURE_SUFFIXES as SUFFIXES

LARGEST_FILE_BYTES = 64 << 20
_SPLIT_WORDS: Mapping[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
_OF_SYSTEMS = frozenset({"__macosx", "thumbs.db", "desktop.ini", "@eadir", "$recycle.bin", "system volume information"})
_HIDDEN = "hidden or of the system"
_BESIDE = "beside the folders of the classes"
_PLAIN_SUFFIX = re.compile(r"\.[a-z0-9]{1,8}")
_NUMBER = re.compile(r"[+-]?[0-9]{1,300}(\.[0-9]{1,300})?")


@dataclass(frozen=True, kw_only=True)
class PictureFolder:
    """A folder, and what was left out of it so far."""

    folder: Path
    left_out: dict[Path, str] = field(default_factory=dict)  # file or folder → why

    def splits(self) -> dict[str, Path]:
        """Return split → folder of its classes; only "train" where the folder is not divided.

        Raises DataError for a split that comes twice or cannot be told from a class, and for a folder beside the
        splits that is none.
        """
        root, folders = self._unwrapped()
        named: dict[str, list[Path]] = {}
        for path in folders:
            named.setdefault(_split_called(path.name), []).append(path)
        others = named.pop("", [])
        if not self._is_divided(named, others):
            self._check_no_split_among_classes(named)
            return {"train": root}
        for split, paths in named.items():
            if len(paths) > 1:
                raise DataError(
                    f"'{paths[0].name}' and '{paths[1].name}' both say {split}",
                    where=str(root),
                    remedy="put their pictures into one of them",
                )
        self.check_nothing_lost(root, others, f"is none of {', '.join(path[0].name for path in named.values())}")
        return {split: named[split][0] for split in _SPLIT_WORDS if split in named}

    def classes_in(self, root: Path) -> list[Path]:
        """Return the folders of the classes, in the order of their numbers where they have some."""
        found = {path.name: path for path in self._folders_in(root)}
        if not found:
            raise DataError(
                "holds no folders", where=str(root), remedy="make one folder per class and put its pictures there"
            )
        return [found[name] for name in in_number_order(found)]

    def pictures_in(self, folder: Path) -> list[Path]:
        """Return the pictures of a folder and of all folders in it, by name; asked at every start, so with few calls.

        Raises DataError when there are none.
        """
        found = self._pictures_below(folder)
        if not found:
            raise DataError(
                f"holds no pictures ({', '.join(SUFFIXES)}){self._instead(folder)}",
                where=str(folder),
                remedy="put pictures of this class there, or take the folder away",
            )
        return found

    def check_nothing_lost(self, root: Path, folders: Sequence[Path], says: str) -> None:
        """Leave folders without a picture out; raise DataError for one that holds some."""
        for path in folders:
            if self._pictures_below(path):
                raise DataError(
                    f"'{path.name}' holds pictures and {says}",
                    where=str(root),
                    remedy="move its pictures to where they belong, or take the folder away",
                )

    def leave_out(self, path: Path, why: str) -> None:
        """Note that something is not read."""
        self.left_out[path] = why

    def _unwrapped(self) -> tuple[Path, list[Path]]:
        """Return the folder and what folders it holds; of a folder in a folder, as archives unpack, the inner one."""
        root, folders = self.folder, self._folders_in(self.folder)
        while len(folders) == 1 and not _split_called(folders[0].name) and not self._holds_pictures(root):
            inner = self._folders_in(folders[0])
            if not inner or self._holds_pictures(folders[0]):
                break
            root, folders = folders[0], inner
        return root, folders

    def _is_divided(self, named: Mapping[str, Sequence[Path]], others: Sequence[Path]) -> bool:
        """Tell splits from classes: "train" may be one, among "bus" and "car"."""
        return "train" in named and (not others or any(self._folders_in(path) for path in named["train"]))

    def _check_no_split_among_classes(self, named: Mapping[str, Sequence[Path]]) -> None:
        for path in (path for paths in named.values() for path in paths):
            if not self._holds_pictures(path) and self._folders_in(path):
                raise DataError(
                    f"holds a folder '{path.name}' with folders in it, but none called 'train'",
                    where=str(path.parent),
                    remedy="put the training pictures into a folder 'train' beside it, one folder per class; if it is "
                    "a class, put its pictures right into it",
                )

    def _pictures_below(self, folder: Path) -> list[Path]:
        found: list[tuple[str, ...]] = []  # parts of names below the folder, which sort as folders are read
        waiting: list[tuple[str, ...]] = [()]  # not by recursion: folders may be very deep
        while waiting:
            parts = waiting.pop()
            for entry in self._entries(folder.joinpath(*parts)):
                if entry.name.lower().endswith(SUFFIXES):
                    if entry.is_symlink():
                        self._check_inside(Path(entry.path))
                    _check_file(entry)
                    found.append((*parts, entry.name))
                elif not entry.is_dir():
                    self.leave_out(Path(entry.path), _called(entry.name))
                elif entry.is_symlink():
                    raise DataError("is a link to a folder", where=entry.path, remedy="copy the pictures there")
                else:
                    waiting.append((*parts, entry.name))
        return [folder.joinpath(*parts) for parts in sorted(found)]

    def _instead(self, folder: Path) -> str:
        told = left_out_words(Counter(why for path, why in self.left_out.items() if path.is_relative_to(folder)))
        return f", found {told}" if told else ""

    def _holds_pictures(self, folder: Path) -> bool:
        return any(entry.name.lower().endswith(SUFFIXES) and not entry.is_dir() for entry in self._entries(folder))

    def _folders_in(self, root: Path) -> list[Path]:
        found = []
        for entry in self._entries(root):
            if entry.is_dir():
                found.append(root / entry.name)
            elif entry.name.lower().endswith(SUFFIXES):
                self.leave_out(Path(entry.path), _BESIDE)
            else:
                self.leave_out(Path(entry.path), _called(entry.name))
        for path in sorted(found):
            _check_name(path)
            self._check_inside(path)
        return sorted(found)

    def _entries(self, folder: Path) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(folder) as entries:
                found = list(entries)
        except OSError as error:
            raise DataError(f"cannot be listed: {error.strerror}", where=str(folder)) from error
        for entry in found:
            if _is_hidden(entry.name):
                self.leave_out(Path(entry.path), _HIDDEN)
        return [entry for entry in found if not _is_hidden(entry.name)]

    def _check_inside(self, path: Path) -> None:
        if path.is_symlink() and not path.resolve().is_relative_to(self.folder.resolve()):
            raise DataError(
                f"is a link to {path.resolve()}, which lies outside of {self.folder}",
                where=str(path),
                remedy="copy the file into the folder",
            )


def in_number_order(names: Sequence[str] | Mapping[str, object] | set[str]) -> list[str]:
    """Return names sorted, numbers in them by value: "2" before "10", "-10" before "-2", "run9" before "run10"."""
    if all(_NUMBER.fullmatch(name) for name in names):
        return sorted(names, key=lambda name: (float(name), name))
    return sorted(names, key=lambda name: (_parts(name), name))


def _parts(name: str) -> list[tuple[int, str]]:
    """Return the name cut into text and numbers; a number is known by its length and digits, however long it is."""
    pieces = re.split(r"([0-9]+)", name)
    return [
        (len(piece.lstrip("0")), piece.lstrip("0")) if place % 2 else (0, piece) for place, piece in enumerate(pieces)
    ]


def _split_called(name: str) -> str:
    return next((split for split, words in _SPLIT_WORDS.items() if name.lower() in words), "")


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in _OF_SYSTEMS


def _called(name: str) -> str:
    suffix = Path(name).suffix.lower()
    return f"of type {suffix}" if _PLAIN_SUFFIX.fullmatch(suffix) else "of no known type"


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
