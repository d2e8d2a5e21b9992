"""The instrument that is the target itself, whose times somebody brought in a file: ``measurements.json``.

Shapes: S sessions of each file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from pipeline.artifacts.evidence import Interval, Measurement, Metric, Observed, Place, Quantity, Timing
from pipeline.artifacts.files import Exported, Way
from pipeline.artifacts.measured import Benched, Measurements
from pipeline.declare.target import TargetProfile
from pipeline.errors import ConfigError
from pipeline.runs.store import Store

_WHERE = "--measurements"


def place(found: Measurements, target: TargetProfile) -> Place:
    """Say that numbers were measured on the target."""
    return Place(how="measured", name=found.place.name, profile=target.name)


def check_of(found: Measurements, targets: Sequence[TargetProfile]) -> None:
    """Refuse what was measured on another machine than a target.  Raises ConfigError."""
    names = [target.name for target in targets]
    if found.place.profile not in names:
        other = found.place.profile or "none that is known"
        raise ConfigError(
            f"{found.place.name} is the target {other}, and not {' or '.join(names) or 'one that is asked for'}",
            where=_WHERE,
            remedy="bring what was measured on the target, or name that machine's: --target NAME",
        )


def of_files(found: Measurements, files: Sequence[Exported]) -> tuple[tuple[tuple[Benched, Exported], ...], str]:
    """Return what was measured of these files, and in words what was measured of others.

    Raises ConfigError where all of it is of others.
    """
    known = {each.file: each for each in files}
    own = tuple((each, known[each.sha256]) for each in found.files if each.sha256 in known)
    others = dict.fromkeys(f"{each.file} ({each.sha256[:12]})" for each in found.files if each.sha256 not in known)
    said = f"measured on {found.place.name}, and no file of this run: {', '.join(others)}" if others else ""
    if not own:
        raise ConfigError(said, where=_WHERE, remedy="measure the files of this run, as they are now")
    return own, said


def observed(
    found: Measurements, files: Sequence[Exported], metric: Metric, target: TargetProfile, store: Store
) -> Observed:
    """Return what was measured of these files as numbers of the target.  Raises ConfigError."""
    own, _ = of_files(found, files)
    where = place(found, target)
    return Observed(
        place=where,
        metric=metric,
        measurements=tuple(number for each, file in own for number in _numbers(each, _way(each, file), where, found)),
        timings=tuple(_timing(each, _way(each, file), store) for each, file in own),
        not_usable={},
    )


def basis_of(each: Benched, found: Measurements) -> str:
    """Say what a time rests on, and what spoils it."""
    after = found.conditions.after
    heat = "" if after.temperature_c is None else f", {after.temperature_c:.0f} °C"
    return "; ".join((f"{len(each.latency.session_medians_ms)} sessions in {each.version}{heat}", *found.troubles))


def _way(each: Benched, file: Exported) -> Way:
    return Way(variant=file.variant, program=each.runtime)


def _numbers(each: Benched, way: Way, where: Place, found: Measurements) -> Iterator[Measurement]:
    memory = each.peak_memory_bytes
    numbers: dict[Quantity, Interval | None] = {
        "latency_p50_ms": each.latency.p50,
        "latency_p95_ms": each.latency.p95,
        "cold_start_ms": each.cold.start_ms,
        "peak_memory_bytes": None if memory is None else Interval(value=memory, low=memory, high=memory),
    }
    for quantity, number in numbers.items():
        if number is not None:
            yield Measurement(
                quantity=quantity,
                way=way,
                threads=each.threads,
                place=where,
                value=number.value,
                low=number.low,
                high=number.high,
                basis=basis_of(each, found) if quantity != "peak_memory_bytes" else "",
            )


def _timing(each: Benched, way: Way, store: Store) -> Timing:
    """Keep the medians of sessions as all that is known of their inferences, (S, 1)."""
    medians = np.array(each.latency.session_medians_ms, np.float64)
    return Timing(
        way=way,
        version=each.version,
        threads=each.threads,
        session_medians_ms=each.latency.session_medians_ms,
        samples_ms=store.put_array(medians[:, None]),
    )
