"""A recipe's settings in effect, as dotted keys and values, without the folders of whoever ran it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping

from pipeline.declare.recipe import Recipe

_PREFIXED = re.compile(r"(recipe|run|weights):")


def settings_of(recipe: Recipe) -> dict[str, str]:
    """Return dotted key → value as a recipe would write it, defaults included; of a path the last part alone."""
    plain = recipe.model_dump(mode="json", exclude={"name", "summary"}, exclude_none=True)
    return dict(_flat(plain, ""))


def _flat(table: Mapping[str, object], above: str) -> Iterator[tuple[str, str]]:
    for key, value in table.items():
        name = f"{above}{key}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}.")
        else:
            yield name, json.dumps(_placeless(value), ensure_ascii=False)


def _placeless(value: object) -> object:
    """Return a value without folders: ``weights:/home/me/net.pt`` → ``weights:net.pt``."""
    if not isinstance(value, str):
        return value
    begun = _PREFIXED.match(value)
    start = begun.end() if begun else 0
    return value[:start] + re.split(r"[/\\]", value[start:].rstrip("/\\"))[-1]
