"""Artifacts as JSON, sealed against alteration, and the record of a finished step."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

from pydantic import JsonValue, TypeAdapter

from pipeline.artifacts.networks import Digest
from pipeline.runs.keys import Ingredients, canonical, dataclasses_in

T = TypeVar("T")

_DIGEST = re.compile(r"[0-9a-f]{64}")
_KIND = re.compile(r"([a-z_]+)\.([A-Za-z]+)")
_ARTIFACTS = "pipeline.artifacts"
_adapters: dict[Any, TypeAdapter[Any]] = {}  # making one takes longer than using it
SEAL = "digest"  # key of the sha256 over all other keys of a sealed JSON object


class AlteredError(ValueError):
    """What was read is not what was written."""


class Artifact(Protocol):
    """What a stage returns: a dataclass of ``pipeline.artifacts``."""

    @property
    def summary(self) -> str:
        """Return the one number or two that people want to see; empty for kinds that have none."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """A finished step: what it was made of and what came out."""

    step: str
    key: Digest
    finished: str  # ISO 8601, UTC
    duration_s: float
    summary: str
    artifact_type: str  # module and class in pipeline.artifacts: "training.Checkpoint"
    artifact: JsonValue
    files: tuple[Digest, ...]  # what the artifact needs from the store
    made_of: Ingredients


def to_json(value: object, *, indent: int | None = None) -> bytes:
    """Return a dataclass (with whatever pydantic models, paths and tuples are in it) as JSON.

    Infinite and undefined numbers are kept (``Infinity``, ``NaN``).  Raises ValueError when a field holds something
    else than its type says, which would not come back as it went.
    """
    plain = _adapter(type(value)).dump_python(value, mode="json", warnings="error")
    return json.dumps(plain, ensure_ascii=False, indent=indent).encode()


def from_json(kind: type[T], data: bytes) -> T:
    """Return the dataclass ``kind`` that ``to_json`` wrote.  Raises pydantic.ValidationError (a ValueError)."""
    value: T = _adapter(kind).validate_json(data)
    return value


def _adapter(kind: Any) -> TypeAdapter[Any]:
    if kind not in _adapters:
        _adapters[kind] = TypeAdapter(kind)
    return _adapters[kind]


def to_sealed_json(value: object, *, indent: int | None = None) -> bytes:
    """Return a dataclass as JSON that carries a digest of itself, under ``SEAL``.  Raises ValueError as ``to_json``."""
    plain = json.loads(to_json(value))
    if SEAL in plain:
        raise TypeError(f"a {type(value).__name__} has a field of its own called '{SEAL}'")
    return json.dumps({**plain, SEAL: _seal(plain)}, ensure_ascii=False, indent=indent).encode()


def from_sealed_json(kind: type[T], data: bytes) -> T:
    """Return the dataclass ``kind`` that ``to_sealed_json`` wrote.

    Raises AlteredError when its numbers or words are not those that were written, ValueError when it cannot be read.
    """
    value = from_json(kind, data)
    plain = json.loads(data)
    if plain.pop(SEAL, None) != _seal(plain):
        raise AlteredError("it was altered after karui wrote it")
    return value


def _seal(plain: JsonValue) -> Digest:
    return hashlib.sha256(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def kind_of(artifact: object) -> str:
    """Return how a record names the type of an artifact."""
    return f"{type(artifact).__module__.removeprefix(f'{_ARTIFACTS}.')}.{type(artifact).__name__}"


def artifact_from(record: Record) -> Artifact:
    """Return the artifact of a record.  Raises ValueError when it is none that ``pipeline.artifacts`` knows."""
    named = _KIND.fullmatch(record.artifact_type)
    try:
        kind = named and getattr(importlib.import_module(f"{_ARTIFACTS}.{named[1]}"), named[2], None)
    except ModuleNotFoundError:
        kind = None
    if not isinstance(kind, type) or not dataclasses.is_dataclass(kind) or not hasattr(kind, "summary"):
        raise ValueError(f"{_ARTIFACTS} has no {record.artifact_type}")
    return cast("Artifact", from_json(kind, json.dumps(record.artifact).encode()))


def digests_in(value: JsonValue) -> tuple[Digest, ...]:
    """Return every sha256 in a JSON value, each once."""
    return tuple(dict.fromkeys(_digests(value)))


def _digests(value: JsonValue) -> Iterator[Digest]:
    match value:
        case str() if _DIGEST.fullmatch(value):
            yield value
        case list():
            for item in value:
                yield from _digests(item)
        case dict():
            for item in value.values():
                yield from _digests(item)


# ── files that moved ────────────────────────────────────────────────────────────────────────────────────────────────


def refreshed(artifact: T, inputs: Mapping[str, object]) -> T:
    """Return the artifact with the parts it took over from its inputs lying where they lie now.

    A record remembers where a network or data file lay when it was written.  Where a file lies is not in the key, so
    the step is recalled after the project has moved; then the input's own path must win over the remembered one.
    """
    now = {_identity(part): places for part in dataclasses_in(inputs) if (places := _places(part))}
    return _replaced(artifact, now) if now else artifact


def _places(part: object) -> dict[str, Path]:
    """Return the paths of a dataclass that are not in its key."""
    if not dataclasses.is_dataclass(part):
        return {}
    outside = (field.name for field in dataclasses.fields(part) if not field.metadata.get("in_key", True))
    return {name: place for name in outside if isinstance(place := getattr(part, name), Path)}


def _identity(part: object) -> str:
    return f"{type(part).__name__} {json.dumps(canonical(part), sort_keys=True)}"


def _replaced(value: T, now: Mapping[str, Mapping[str, Path]]) -> T:
    result: object = value
    if isinstance(value, tuple):
        result = tuple(_replaced(item, now) for item in value)
    elif isinstance(value, dict):
        result = {key: _replaced(item, now) for key, item in value.items()}
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        changed = {name: _replaced(item, now) for name, item in fields.items()}
        if _places(value):
            changed |= now.get(_identity(value), {})
        result = value if changed == fields else dataclasses.replace(value, **changed)
    return result  # type: ignore[return-value]  # the same type with the same shape
