"""Name → file → what it declares: recipes, targets, data-set cards and network files.

Content is found by file name: first in the working folder (``models/NAME.toml``, ``targets/NAME.toml``,
``calibration_data/NAME.toml``, ``models/networks/NAME.py``), then among the shipped copies.  What contains a path
separator or ends in ``.toml``, ``.py`` or ``.onnx`` is a path; relative paths inside a recipe start at the recipe's
folder, then at the working folder.  Whatever is wrong becomes a ConfigError with file, table, key and the nearest
valid key.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import ValidationError

from pipeline.artifacts.networks import NetworkRef
from pipeline.declare.card import DatasetCard
from pipeline.declare.recipe import NetworkSpec, Recipe
from pipeline.declare.target import TargetProfile
from pipeline.declare.words import Spec
from pipeline.elsewhere import is_elsewhere, reference
from pipeline.errors import ConfigError, nearest
from pipeline.host import host_profile
from pipeline.onboard.arrays import Signature
from pipeline.paths import expanded, resolved
from pipeline.refusal import Place, named, refusals
from pipeline.runs.sources import code_digest, file_digest, local_imports
from pipeline.shipped import shipped_folder

Kind = Literal["recipe", "target", "data", "network"]
HOST = "host"  # the target that is this machine, filled by detection

_NO_WEIGHTS = frozenset({".onnx", ".py", ".toml", ".md", ".html", ".json"})
_LONGEST_FILE_BYTES = 4 << 20
_LONGEST_LINE = 200  # characters of a wrong line that are shown
_DEEPEST_KEY = 32
# the standard library's parser takes memory by the square of a key's parts
_PART_OF_KEY = r"""(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+"""
_DEEP_KEY = re.compile(rf"(?<![\w.-])(?:{_PART_OF_KEY}){{{_DEEPEST_KEY}}}", re.ASCII)
_TOO_DEEP = "tables lie in tables too deeply to be meant"
_TOO_LONG = "a number has too many digits to be meant"

_Declared = TypeVar("_Declared", bound=Spec)


@dataclass(frozen=True, kw_only=True)
class _Shelf:
    folder: str
    suffix: str
    noun: str


_SHELVES: Mapping[Kind, _Shelf] = {
    "recipe": _Shelf(folder="models", suffix=".toml", noun="recipe"),
    "target": _Shelf(folder="targets", suffix=".toml", noun="target"),
    "data": _Shelf(folder="calibration_data", suffix=".toml", noun="data-set card"),
    "network": _Shelf(folder="models/networks", suffix=".py", noun="network"),
}


# ── finding files ───────────────────────────────────────────────────────────────────────────────────────────────────


def names(kind: Kind) -> tuple[str, ...]:
    """Return the names that the working folder and the shipped copies hold, sorted; targets include ``host``."""
    pattern = f"[!_.]*{_SHELVES[kind].suffix}"  # __init__.py and hidden files are no content
    found = {path.stem for folder in _folders(kind) for path in folder.glob(pattern)}
    return tuple(sorted(found | {HOST} if kind == "target" else found))


def find(kind: Kind, name: str, *, beside: Path | None = None) -> Path:
    """Return the absolute path of the file behind a name (a target's alias counts as its name) or a path.

    ``beside`` is the folder where a relative path is looked for first: the folder of the recipe that says it.
    Raises ConfigError with the nearest known name, or with the places where the path was looked for.
    """
    if _is_path(name):
        return find_file(name, beside=beside)
    shelf = _SHELVES[kind]
    candidates = (folder / (name + shelf.suffix) for folder in _folders(kind))
    aliases = _aliases() if kind == "target" else {}
    path = next((path for path in candidates if path.is_file()), None) or aliases.get(name)
    if path is None:
        here = ((beside or Path.cwd()) / (name + shelf.suffix)).is_file() if name else False
        guess = f"; did you mean the file '{name}{shelf.suffix}'?" if here else nearest(name, {*names(kind), *aliases})
        raise ConfigError(
            f"no {shelf.noun} is called '{name}'{guess}",
            remedy=f"add {shelf.folder}/{name}{shelf.suffix} to the working folder, or give the path of a file",
        )
    return resolved(path)


def find_file(path: str, *, beside: Path | None = None) -> Path:
    """Return the absolute path of an existing file: absolute, relative to ``beside``, or to the working folder.

    For the files that a recipe names itself, such as the weights of ``weights:FILE``.  Raises ConfigError.
    """
    given = expanded(path)
    tried = list(dict.fromkeys(resolved(folder / given) for folder in (beside, Path.cwd()) if folder is not None))
    for candidate in tried:
        if candidate.is_file():
            return candidate
    raise ConfigError(f"no file '{path}'", remedy="looked for " + " and ".join(map(str, tried)))


@contextlib.contextmanager
def said_in(recipe: Path, key: str, value: str, overrides: Sequence[str] = ()) -> Iterator[None]:
    """Add to a ConfigError about a name that is found nowhere who says it: the recipe's file and key, or ``--set``."""
    try:
        yield
    except ConfigError as error:
        if error.where:  # it was found, and something is wrong inside
            raise
        *tables, last = key.split(".")
        place = f"{named(tuple(tables))} {last}" if tables else last
        changes = [change for change in map(_parse_override, overrides) if change.keys == tuple(key.split("."))]
        where = f"--set {changes[-1].text}" if changes else f"{shown(recipe)}: {place} = {json.dumps(value)}"
        raise ConfigError(error.what, where=where, remedy=error.remedy) from error


def _is_path(name: str) -> bool:
    return name.endswith((".toml", ".py", ".onnx")) or "/" in name or os.sep in name


def _folders(kind: Kind) -> tuple[Path, ...]:
    """Return the folders of a kind that exist, the user's first."""
    folders = dict.fromkeys(
        ((Path.cwd() / _SHELVES[kind].folder).resolve(), shipped_folder(_SHELVES[kind].folder).resolve())
    )
    return tuple(folder for folder in folders if folder.is_dir())


def _aliases() -> dict[str, Path]:
    """Return alias → target file; a file that cannot be read has none (naming it directly tells why)."""
    found: dict[str, Path] = {}
    for folder in _folders("target"):
        for path in sorted(folder.glob("*.toml")):
            try:
                aliases = tomllib.loads(path.read_text(encoding="utf-8")).get("aliases", [])
            except (OSError, ValueError):
                continue
            for alias in aliases if isinstance(aliases, list) else ():
                found.setdefault(str(alias), path)
    return found


# ── reading what they declare ───────────────────────────────────────────────────────────────────────────────────────


def load_recipe(name: str, overrides: Sequence[str] = (), *, beside: Path | None = None) -> tuple[Recipe, Path]:
    """Return the recipe behind a name or path, and the folder where its relative paths start.

    ``overrides`` are ``"train.epochs=5"``: dotted keys, values as in TOML (a bare word is a string).  ``beside`` is the
    folder of the recipe that names this one.  Raises ConfigError: the file and place, or ``--set`` and the key.
    """
    path = find("recipe", name, beside=beside)
    table = _read_toml(path)
    changes = [_parse_override(text) for text in overrides]
    if not changes:
        return _validate(Recipe, table, _in_file(path)), path.parent
    changed = functools.reduce(_with, changes, table)
    try:
        return _validate(Recipe, changed, lambda place: f"--set {_nearest_change(changes, place).text}"), path.parent
    except ConfigError:
        _validate(Recipe, table, _in_file(path))  # a mistake of the file itself is not blamed on --set
        raise


def load_target(name: str) -> TargetProfile:
    """Return the target profile behind a name, alias or path; ``host`` is this machine.  Raises ConfigError."""
    if name == HOST:
        return host_profile()
    path = find("target", name)
    return _validate(TargetProfile, _read_toml(path), _in_file(path))


def load_card(name: str, beside: Path | None = None) -> tuple[DatasetCard, Path]:
    """Return the data-set card behind a name or path, and the folder where its relative paths start.

    ``beside`` is the folder of the recipe that names the card.  Raises ConfigError.
    """
    path = find("data", name, beside=beside)
    card = _validate(DatasetCard, _read_toml(path), _in_file(path))
    return card, path.parent


def network_ref(spec: NetworkSpec, *, beside: Path | None = None, signature: Signature) -> NetworkRef:
    """Return the reference to a network file: its place, what is in it, and what it is built with.

    Its digests are those of the code, comments and docstrings left out: of the file, and of all that it imports from
    its own folder; of an ONNX file those of its bytes, and of the files beside it in which its weights lie.
    ``signature``: what the data's task asks of it.  Raises ConfigError when there is no such file, and for a name from
    elsewhere (``timm:NAME``, ``MODULE:FUNCTION``) when that is not installed.
    """
    if is_elsewhere(spec.file):
        return reference(spec, beside=beside, signature=signature)
    path = find("network", spec.file, beside=beside)
    if path.suffix == ".onnx":
        return NetworkRef(
            sha256=_digest_of(path),
            imports={file.name: _digest_of(file) for file in _data_beside(path)},
            options=dict(spec.options),
            signature=signature,
            path=path,
        )
    imports = {name: code_digest(_read_bytes(file)) for name, file in local_imports(path).items()}
    return NetworkRef(
        sha256=code_digest(_read_bytes(path)),
        imports=imports,
        options=dict(spec.options),
        signature=signature,
        path=path,
    )


def _digest_of(path: Path) -> str:
    try:
        return file_digest(path)
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", where=shown(path)) from error


def _data_beside(model: Path) -> list[Path]:
    """Return the files in an ONNX file's folder that its bytes name: its weights may lie in them."""
    content = _read_bytes(model)
    others = (file for file in sorted(model.parent.iterdir()) if file.suffix not in _NO_WEIGHTS and file.is_file())
    return [file for file in others if file.name.encode() in content] if b"location" in content else []


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", where=shown(path)) from error


def _read_toml(path: Path) -> dict[str, object]:
    place_of_file = shown(path)
    data = _read_bytes(path)
    if len(data) > _LONGEST_FILE_BYTES:
        what = f"has {len(data):,} bytes, expected at most {_LONGEST_FILE_BYTES:,}"
        raise ConfigError(what, where=place_of_file, remedy="is it really the file that you mean?")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError("not UTF-8 text", where=f"{place_of_file}:{line}", remedy="save the file as UTF-8") from error
    if deep := _DEEP_KEY.search(text):
        line = text[: deep.start()].count("\n") + 1
        raise ConfigError(_TOO_DEEP, where=f"{place_of_file}:{line}", remedy="keys have two or three parts")
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise ConfigError(_TOO_DEEP, where=place_of_file, remedy="tables have two or three levels") from error
    except ValueError as error:  # TOMLDecodeError, or of int() for a number of thousands of digits
        place = re.search(r" \(at line (\d+), column \d+\)| \(at end of document\)", str(error))
        number = int(place[1]) if place and place[1] else max(len(text.splitlines()), 1)
        message = str(error)[: place.start()] if place else str(error)
        if not isinstance(error, tomllib.TOMLDecodeError):
            raise ConfigError(f"not valid TOML: {_TOO_LONG}", where=place_of_file) from error
        line_text = (text.splitlines() or [""])[number - 1].strip()[:_LONGEST_LINE]
        raise ConfigError(f"not valid TOML: {message}", where=f"{place_of_file}:{number}", remedy=line_text) from error


def shown(path: Path) -> str:
    """Return the path as the user would write it: relative to the working folder where it lies inside."""
    folder = Path.cwd()
    return str(path.relative_to(folder) if path.is_relative_to(folder) else path)


# ── overrides ───────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, kw_only=True)
class _Override:
    text: str
    keys: tuple[str, ...]
    value: object


def _parse_override(text: str) -> _Override:
    key, equals, value = text.partition("=")
    keys = tuple(part.strip() for part in key.split("."))
    if len(keys) > _DEEPEST_KEY:
        raise ConfigError(_TOO_DEEP, where="--set", remedy="keys have two or three parts: --set train.epochs=5")
    if not equals or not all(keys):
        raise ConfigError(f"'{text}' is no setting", where="--set", remedy="write for example --set train.epochs=5")
    return _Override(text=text, keys=keys, value=_toml_value(value.strip()))


def _toml_value(text: str) -> object:
    if _DEEP_KEY.search(text):
        return text
    try:
        table = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text  # the shell has eaten the quotes of a string
    except RecursionError as error:
        raise ConfigError(_TOO_DEEP, where="--set") from error
    except ValueError as error:
        raise ConfigError(_TOO_LONG, where="--set") from error
    return table["value"] if len(table) == 1 else text


def _with(table: Mapping[str, object], change: _Override, done: int = 0) -> dict[str, object]:
    """Return a copy of the table with one key set; missing tables on the way are made."""
    key, rest = change.keys[done], change.keys[done + 1 :]
    if not rest:
        return {**table, key: change.value}
    below = table.get(key, {})
    if not isinstance(below, dict):
        raise ConfigError(f"{named(change.keys[:done])} '{key}' is a value, not a table", where=f"--set {change.text}")
    return {**table, key: _with(below, change, done + 1)}


def _nearest_change(changes: Sequence[_Override], place: Place) -> _Override:
    """Return the override that shares the longest beginning with this place; of equals the last, it won."""

    def shared(change: _Override) -> int:
        return sum(
            1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(change.keys, place, strict=False))
        )

    return max(reversed(changes), key=shared)


def _validate(model: type[_Declared], table: Mapping[str, object], where: Callable[[Place], str]) -> _Declared:
    """Return the declared thing; ``where`` names the file (or the setting) to which a place belongs."""
    try:
        return model.model_validate(table)
    except RecursionError as error:
        raise ConfigError(_TOO_DEEP, where=where(()), remedy="tables have two or three levels") from error
    except ValidationError as error:
        (first_place, first), *others = refusals(model, table, error)
        more = [f"\n{where(place)}: {text}" for place, text in others]
        raise ConfigError("".join([first, *more]), where=where(first_place)) from error


def _in_file(path: Path) -> Callable[[Place], str]:
    return lambda _: shown(path)
