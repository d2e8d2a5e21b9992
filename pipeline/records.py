"""Artifacts as JSON, the record of a finished step, and one line about an artifact for people."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from pydantic import JsonValue, TypeAdapter

from pipeline import artifacts
from pipeline.artifacts import (
    Checkpoint,
    Digest,
    ExportSet,
    Finetuned,
    NetworkCheck,
    Pruned,
    Quantized,
    Start,
    Validated,
)
from pipeline.keys import Ingredients, canonical

T = TypeVar("T")

_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """A finished step: what it was made of and what came out."""

    step: str
    key: Digest
    finished: str  # ISO 8601, UTC
    duration_s: float
    device: str
    summary: str
    artifact_type: str  # name of a class in pipeline.artifacts
    artifact: JsonValue
    files: tuple[Digest, ...]  # what the artifact needs from the store
    made_of: Ingredients


def to_json(value: object, *, indent: int | None = None) -> bytes:
    """Return a dataclass (with whatever pydantic models, paths and tuples are in it) as JSON.

    Infinite and undefined numbers are kept (``Infinity``, ``NaN``).  Raises ValueError when a field holds something
    else than its type says, which would not come back as it went.
    """
    plain = TypeAdapter(type(value)).dump_python(value, mode="json", warnings="error")
    return json.dumps(plain, ensure_ascii=False, indent=indent).encode()


def from_json(kind: type[T], data: bytes) -> T:
    """Return the dataclass ``kind`` that ``to_json`` wrote.  Raises pydantic.ValidationError (a ValueError)."""
    return TypeAdapter(kind).validate_json(data)


def record_bytes(record: Record) -> bytes:
    """Return a record as readable JSON."""
    return to_json(record, indent=1)


def read_record(data: bytes) -> Record:
    """Return the record in ``data``.  Raises ValueError."""
    return from_json(Record, data)


def artifact_from(record: Record) -> object:
    """Return the artifact of a record.  Raises ValueError when it is none that ``pipeline.artifacts`` knows."""
    kind = getattr(artifacts, record.artifact_type, None)
    if not isinstance(kind, type) or not dataclasses.is_dataclass(kind):
        raise ValueError(f"pipeline.artifacts has no {record.artifact_type}")
    return from_json(kind, json.dumps(record.artifact).encode())


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
    now = {_identity(part): places for part in _parts(dict(inputs)) if (places := _places(part))}
    return _replaced(artifact, now) if now else artifact


def _places(part: object) -> dict[str, Path]:
    """Return the paths of a dataclass that are not in its key."""
    if not dataclasses.is_dataclass(part):
        return {}
    outside = (field.name for field in dataclasses.fields(part) if not field.metadata.get("in_key", True))
    return {name: place for name in outside if isinstance(place := getattr(part, name), Path)}


def _identity(part: object) -> str:
    return f"{type(part).__name__} {json.dumps(canonical(part), sort_keys=True)}"


def _parts(value: object) -> Iterator[object]:
    """Every dataclass in ``value``, itself included."""
    match value:
        case tuple() | list():
            for item in value:
                yield from _parts(item)
        case dict():
            for item in value.values():
                yield from _parts(item)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield value
        for field in dataclasses.fields(value):
            yield from _parts(getattr(value, field.name))


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


# ── for people ──────────────────────────────────────────────────────────────────────────────────────────────────────


def summary_of(artifact: object) -> str:
    """Return the one number or two that people want to see of an artifact; empty for kinds that have none."""
    summary = ""
    match artifact:
        case NetworkCheck():
            summary = f"{artifact.layers} layers, {artifact.parameters:,} parameters: can be trained and exported"
        case Checkpoint():
            summary = _accuracy(artifact)
        case Finetuned():
            head = f", new {', '.join(artifact.replaced_head)}" if artifact.replaced_head else ""
            summary = f"{_accuracy(artifact.checkpoint)}, from {artifact.start}{head}"
        case Start():
            summary = artifact.label
        case Pruned():
            summary = _pruned(artifact)
        case Quantized():
            summary = _quantized(artifact)
        case ExportSet():
            summary = ", ".join(f"{file.key} {file.size_bytes / 1024:.1f} KiB" for file in artifact.files)
        case Validated():
            summary = f"ship {artifact.verdict.ship}" if artifact.verdict.ship else artifact.verdict.why
    return summary


def _accuracy(checkpoint: Checkpoint) -> str:
    return f"{100 * checkpoint.val_accuracy:.1f} % validation accuracy"


def _pruned(pruned: Pruned) -> str:
    if not pruned.steps:
        return "nothing to prune"
    kept = [step for step in pruned.steps if step.kept]
    macs = kept[-1].macs_after / pruned.steps[0].macs_before if kept else 1.0
    left = f"{len(kept)} of {len(pruned.steps)} steps kept, {100 * macs:.0f} % of the MACs left"
    return f"{left}, {_accuracy(pruned.checkpoint)}"


def _quantized(quantized: Quantized) -> str:
    if quantized.method == "none":
        return "int8 is off"
    back = f", {len(quantized.float_layers)} layers stay float" if quantized.float_layers else ""
    return f"{quantized.method}, {quantized.weight_bits}-bit weights, {_accuracy(quantized.checkpoint)}{back}"
