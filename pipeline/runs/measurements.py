"""What was measured on a device, in a file: written, and read as what a stranger may have written."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from pipeline.artifacts.evidence import Interval
from pipeline.artifacts.measured import Benched, Measurements
from pipeline.errors import ConfigError
from pipeline.paths import expanded
from pipeline.runs.records import from_json, to_json
from pipeline.runs.store import write_atomic

_LARGEST_BYTES = 16 * 2**20
_MOST_FILES, _MOST_THREADS = 1000, 1024
_DIGEST = re.compile(r"[0-9a-f]{64}")
_TARGET = re.compile(r"[a-z0-9][a-z0-9_.-]{0,99}")
_REMEDY = "name a file that `karui bench --out FILE` wrote"


def write_measurements(path: Path, found: Measurements) -> None:
    """Write measurements, whole or not at all.  Raises StorageError."""
    write_atomic(path, to_json(found, indent=2))


def read_measurements(path: Path) -> Measurements:
    """Return what ``karui bench`` wrote, every number checked.  Raises ConfigError in words."""
    file = expanded(path, where="measurements")
    try:
        if not file.is_file():
            raise ConfigError("there is no such file", where=str(path), remedy=_REMEDY)
        with file.open("rb") as opened:
            data = opened.read(_LARGEST_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", where=str(path), remedy=_REMEDY) from error
    if len(data) > _LARGEST_BYTES:
        raise ConfigError(f"is larger than {_LARGEST_BYTES >> 20} MiB", where=str(path), remedy=_REMEDY)
    try:
        found = from_json(Measurements, data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "it"
        what = f"holds no measurements of karui: {place}: {first['msg']}"
        raise ConfigError(what, where=str(path), remedy=_REMEDY) from error
    except (ValueError, RecursionError) as error:
        raise ConfigError("holds no measurements of karui", where=str(path), remedy=_REMEDY) from error
    wrong = next(_impossible(found), None)
    if wrong:
        raise ConfigError(f"holds what no measurement can be: {wrong}", where=str(path), remedy=_REMEDY)
    return found


def _impossible(found: Measurements) -> Iterator[str]:
    """Say what cannot be true."""
    yield from (f"{place} is {value}" for place, value in _numbers(found, "") if not math.isfinite(value))
    if found.place.how != "measured":
        yield f"numbers that were {found.place.how}"
    if found.place.profile is not None and not _TARGET.fullmatch(found.place.profile):
        yield f"{found.place.profile!a} for the name of a target"
    if not 0 < len(found.files) <= _MOST_FILES:
        yield f"{len(found.files)} files"
    for each in found.files:
        yield from (f"{each.file!a}: {what}" for what in _wrong_with(each))


def _wrong_with(each: Benched) -> Iterator[str]:
    if not _DIGEST.fullmatch(each.sha256):
        yield "sha256 is no sha256"
    if not 1 <= each.threads <= _MOST_THREADS:
        yield f"{each.threads} threads"
    latency, kept_up = each.latency, each.kept_up
    quantiles = (latency.p50, latency.p90, latency.p95, latency.p99)
    for interval in (*quantiles, each.cold.start_ms, kept_up.drift, each.ratio):
        if interval is not None and not _ordered(interval):
            yield f"{interval.value} between {interval.low} and {interval.high}"
    if [one.value for one in quantiles] != sorted(one.value for one in quantiles):
        yield "quantiles that fall"
    positive = {
        "size": each.size_bytes,
        "inferences": min(latency.inferences, kept_up.inferences),
        "a session's median": min(latency.session_medians_ms, default=0),
        "the library's time": each.cold.library_ms,
        "processes": each.cold.processes,
        "peak memory": 1 if each.peak_memory_bytes is None else each.peak_memory_bytes,
        "energy": 1 if kept_up.joules_each is None else kept_up.joules_each,
        "seconds": kept_up.seconds,
        "inferences per second": kept_up.per_second,
        "a time in the series": min((min(one.ms, one.seconds, one.inferences) for one in kept_up.points), default=0),
    }
    yield from (f"{name} is {value}" for name, value in positive.items() if value <= 0)


def _ordered(interval: Interval) -> bool:
    return 0 < interval.low <= interval.value <= interval.high


def _numbers(value: object, place: str) -> Iterator[tuple[str, float]]:
    """Yield every float in nested dataclasses and tuples with its place."""
    match value:
        case float():
            yield place, value
        case tuple():
            for item in value:
                yield from _numbers(item, place)
        case _ if dataclasses.is_dataclass(value):
            for field in dataclasses.fields(value):
                yield from _numbers(getattr(value, field.name), f"{place}.{field.name}".lstrip("."))
