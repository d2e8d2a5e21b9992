"""Where files lie on this machine, taken out of what one passes on: folders say who the user is."""

from __future__ import annotations

import json
import re

from pipeline.artifacts.outcome import Outcome
from pipeline.runs.records import from_json, to_json

# an absolute path, of a home folder or of Windows too, by itself or after the "=" or ":" of a setting; no address
_PLACE = re.compile(
    r"(^|[=:])(?:~[^/\\=:]*[/\\](?:.*[/\\])?|(?:[A-Za-z]:)?[/\\](?!/).*[/\\])([^/\\]+)[/\\]?$", re.DOTALL
)
_NAMES = frozenset({"classes", "labels", "categories", "title", "source", "licence"})  # words of the data's own


def without_folders(word: str) -> str:
    """Return a path or setting with the name alone where it is an absolute path: "…/recipe.toml"."""
    return _PLACE.sub(r"\1…/\2", word)


def passed_on(outcome: Outcome) -> Outcome:
    """Return the same run without the folders that its files lie in."""
    return from_json(Outcome, json.dumps(_without_folders(json.loads(to_json(outcome)))).encode())


def _without_folders(value: object) -> object:
    if isinstance(value, str):
        return without_folders(value)
    if isinstance(value, list):
        return [_without_folders(each) for each in value]
    if isinstance(value, dict):
        return {key: each if key in _NAMES else _without_folders(each) for key, each in value.items()}
    return value
