"""What is passed on names nobody's folders: of a path that begins at a root only the last part is left."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TypeVar

from pipeline.artifacts.outcome import Outcome
from pipeline.declare.card import DatasetCard

T = TypeVar("T")
_PREFIXES = ("weights:", "run:", "recipe:")


def without_places(outcome: Outcome) -> Outcome:
    """Return the same outcome, in which files and folders have their names and no places."""
    return _replaced(outcome)


def _replaced(value: T) -> T:
    found: object = value
    if isinstance(value, Path):
        found = Path(value.name)
    elif isinstance(value, DatasetCard):
        parts = {key: _plain(part) for key, part in value.model_dump(include={"files", "calibration", "own"}).items()}
        found = DatasetCard.model_validate({**value.model_dump(), **parts})
    elif isinstance(value, tuple):
        found = tuple(_replaced(item) for item in value)
    elif isinstance(value, dict):
        found = {key: _replaced(item) for key, item in value.items()}
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        found = dataclasses.replace(
            value, **{field.name: _replaced(getattr(value, field.name)) for field in dataclasses.fields(value)}
        )
    return found  # type: ignore[return-value]  # the same type


def _plain(value: object) -> object:
    """Return what a card says with the names of its files and folders alone."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_plain(item) for item in value)
    return word_without_place(value) if isinstance(value, str) else value


def command_without_places(command: Sequence[str]) -> tuple[str, ...]:
    """Return a typed command whose paths are those of its folder: ``--out /home/me/runs/a`` → ``--out a``."""
    return tuple(word_without_place(word) for word in command)


def word_without_place(word: str) -> str:
    """Return one word: a path from a root by its last part, ``--out=/home/me/a`` as ``--out=a``, any other as it is."""
    begin, equals, rest = word.partition("=")
    if equals and not rest.startswith("=") and not _from_root(word):
        return f"{begin}={word_without_place(rest)}"
    prefix = next((each for each in _PREFIXES if word.startswith(each)), "")
    path = word.removeprefix(prefix).strip("\"'")
    if not _from_root(path):
        return word
    return prefix + (PureWindowsPath(path).name or path)


def _from_root(text: str) -> bool:
    if "://" in text or "\n" in text:
        return False
    return text.startswith("~") or PurePosixPath(text).is_absolute() or PureWindowsPath(text).is_absolute()
