"""A refusal by pydantic, in words: table, key, what was found, what was expected, the nearest valid key.

``[limits] has no 'latency_p95'; did you mean 'latency_p95_ms'?``
``[train] optimizer = "sdg": expected 'adamw' or 'sgd'; did you mean 'sgd'?``
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from pipeline.errors import nearest

Place = tuple[str | int, ...]  # where in a TOML file: ("train", "epochs")

_EXPECTED = {  # first word of pydantic's error type → what a user calls it
    "int": "a whole number",
    "float": "a number",
    "string": "a string",
    "bool": "true or false",
    "tuple": "a list",
    "list": "a list",
    "dict": "a table",
    "model": "a table",
}
_WORDS = (  # pydantic's words → shorter ones
    ("Input should be ", ""),
    ("String should match pattern '^[a-z0-9][a-z0-9_.-]*$'", "small letters, digits, '-', '_' and '.' alone"),
    ("String should match pattern '^(recipe|run|weights):.+'", "'recipe:NAME', 'run:FOLDER' or 'weights:FILE'"),
    ("String should match pattern '^[0-9a-f]{64}$'", "a sha256: 64 digits 0-9 and a-f"),
    ("String should match pattern", "text that matches"),
    ("greater than or equal to", "at least"),
    ("less than or equal to", "at most"),
    ("greater than", "more than"),
)
_LONGEST_VALUE = 60
_LONGEST_KEY = 80
_LONGEST_NUMBER_BITS = 10_000
_MOST_TOLD = 10


def refusals(model: type[BaseModel], table: Mapping[str, object], error: ValidationError) -> list[tuple[Place, str]]:
    """Return each wrong place of ``table`` once, and one line of text about it; of very many the first, and how many.

    ``error`` is what ``model`` raised for ``table``.  Unknown keys come before what is missing: a misspelt key is
    usually both, and its own line names the cure.
    """
    by_place: dict[Place, list[ErrorDetails]] = {}
    for details in error.errors(include_url=False):
        by_place.setdefault(_place(table, details), []).append(details)
    ordered = sorted(by_place.items(), key=lambda item: item[1][0]["type"] != "extra_forbidden")
    told = [(place, _refusal(model, place, group)) for place, group in ordered[:_MOST_TOLD]]
    more = len(ordered) - len(told)
    return [*told, (ordered[_MOST_TOLD][0], f"and {more:,} mistakes more")] if more else told


def named(tables: Place) -> str:
    """Return how a table is written: ``[train.augment]``, or the top level of the file."""
    return f"[{_cut('.'.join(map(str, tables)), _LONGEST_KEY)}]" if tables else "the top level"


def _place(table: object, details: ErrorDetails) -> Place:
    """Return the error's place in the file: without the tags that pydantic adds for the members of a union."""
    if details["type"] in ("missing", "extra_forbidden"):
        return details["loc"]
    place: list[str | int] = []
    for part in details["loc"]:
        inside = (isinstance(table, dict) and part in table) or (isinstance(table, list) and isinstance(part, int))
        if not inside:
            break
        table = table[part]  # type: ignore[index]  # a dict or a list, as just found
        place.append(part)
    return tuple(place)


def _refusal(model: type[BaseModel], place: Place, group: Sequence[ErrorDetails]) -> str:
    details = group[0]
    if details["type"] == "extra_forbidden":
        return f"{named(place[:-1])} has no '{_cut(str(place[-1]), _LONGEST_KEY)}'{_nearest_key(model, place)}"
    if details["type"] == "missing":
        return f"{named(place[:-1])} needs '{place[-1]}'"
    found = details["input"]
    if details["type"] == "value_error":  # a sentence of spec.py itself
        subject = named(place) if isinstance(found, dict) else f"{_subject(place)} = {_toml(found)}"
        return f"{subject}: {details['ctx']['error']}"
    *most, last = dict.fromkeys(_expected(one) for one in group)
    expected = f"{', '.join(most)} or {last}" if most else last
    guess = ""
    if details["type"] == "literal_error":
        guess = _close(str(found), re.findall(r"'([^']+)'", details["ctx"]["expected"]))
    return f"{_subject(place)} = {_toml(found)}: expected {expected}{guess}"


def _subject(place: Place) -> str:
    """Return how a value's place is written: ``[train] epochs``, ``[finetune] compare_labels_per_class[0]``."""
    if not place:
        return "the file"
    *tables, key = place
    if isinstance(key, int):  # an element of a list
        key = f"{tables.pop()}[{key}]"
    return f"{named(tuple(tables))} {key}" if tables else str(key)


def _expected(details: ErrorDetails) -> str:
    kind = details["type"].split("_")[0]
    if details["type"] == "too_short":
        return f"a list of at least {details['ctx']['min_length']}"
    if details["type"] == "too_long":
        return f"a list of at most {details['ctx']['max_length']}"
    if details["type"].endswith(("_type", "_parsing", "_from_float")) and kind in _EXPECTED:
        return _EXPECTED[kind]
    message = details["msg"]
    for long, short in _WORDS:
        message = message.replace(long, short)
    return message


def _toml(value: object) -> str:
    """Return a value as TOML writes it, cut to one readable line."""
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > _LONGEST_NUMBER_BITS:
        return "a number of thousands of digits"  # which Python refuses to write
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, bool | str) else str(value)
    return _cut(text, _LONGEST_VALUE)


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _close(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else ""


def _nearest_key(model: type[BaseModel], place: Place) -> str:
    """Suggest a key of the same table, or the same key in another table, or list the table's keys.

    At the top level the other table comes first: there a key's table is forgotten more often than its name.
    """
    key, level = str(place[-1]), _fields(model, place[:-1])
    alike = _close(key, level)
    elsewhere = [dotted for dotted in _dotted(model) if dotted.rpartition(".")[2] == key]
    if elsewhere and (len(place) == 1 or not alike):
        return f"; did you mean '{elsewhere[0]}'{'' if '.' in elsewhere[0] else ' at the top of the file'}?"
    return alike or nearest(key, level)


def _fields(model: object, tables: Place) -> dict[str, object]:
    """Return key → annotation of the table at this place, empty where any key may stand."""
    annotation = model
    for part in tables:
        inner = _model_in(annotation)
        if inner is not None:
            field = inner.model_fields.get(str(part))
            annotation = field.annotation if field else None
        else:
            annotation = get_args(annotation)[-1] if get_origin(annotation) is dict else None
    inner = _model_in(annotation)
    return {key: field.annotation for key, field in inner.model_fields.items()} if inner else {}


def _model_in(annotation: object) -> type[BaseModel] | None:
    """Return the model that an annotation is, or is optionally."""
    if get_origin(annotation) in (dict, tuple):
        return None
    for option in (annotation, *get_args(annotation)):
        if isinstance(option, type) and issubclass(option, BaseModel):
            return option
    return None


def _dotted(model: object, above: str = "") -> list[str]:
    keys: list[str] = []
    inner = _model_in(model)
    for key, field in inner.model_fields.items() if inner else ():
        keys += [above + key, *_dotted(field.annotation, f"{above}{key}.")]
    return keys
