"""The document that ``karui run --json`` prints, and the fuller ``report.json``.

Numbers that are not finite become ``null``: the documents are strict JSON.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from pipeline import tasks
from pipeline.artifacts.evidence import Answered, Comparison, Figure, How, Measurement, Quantity
from pipeline.artifacts.files import RUNTIME_OF_FORMAT, Exported, Way
from pipeline.artifacts.outcome import Bound, Check, Judged, Outcome, State
from pipeline.report.advice import advice
from pipeline.report.rows import (
    LATENCIES,
    LayerRow,
    RunRow,
    answers_of,
    baselines_of,
    comparison_of,
    is_of,
    layer_rows,
    observed_for,
    run_rows,
    same_as_trained,
    with_threads,
)

_WHAT: dict[Quantity, tuple[str, str]] = {
    "latency_p50_ms": ("latency_p50", "ms"),
    "latency_p95_ms": ("latency_p95", "ms"),
    "peak_memory_bytes": ("peak_memory", "bytes"),
    "cold_start_ms": ("cold_start", "ms"),
    "instructions": ("instructions", ""),
}


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="null")


class Ship(_Part):
    """Which file to ship (None: none is fit) and why."""

    artifact: str | None
    why: str


class CheckPart(_Part):
    """One limit; ``passed`` says what was found and is null where nothing was, ``state`` how sure that is."""

    name: str
    limit: float
    got: float | None
    unit: str
    passed: bool | None
    bound: Bound
    state: State


class MeasurementPart(_Part):
    """One number, how it came about and where; ``low`` and ``high``: 95 % interval."""

    what: str
    artifact: str
    runtime: str
    value: float | None
    unit: str
    how: How | Literal["not measured"]
    where: str
    low: float | None
    high: float | None


class TargetPart(_Part):
    """What was found out for one target."""

    name: str
    passed: bool
    state: State
    to_try: tuple[str, ...]
    ship: Ship
    checks: tuple[CheckPart, ...]
    measurements: tuple[MeasurementPart, ...]


class FilePart(_Part):
    """One model file; ``path`` as a user would type it."""

    path: str
    sha256: str
    size_bytes: int


class MetricPart(_Part):
    """What the task is judged by."""

    name: str
    unit: str
    higher_is_better: bool


class PlacePart(_Part):
    """Where numbers come from; ``profile``: the target that it is or stands for, null for another machine."""

    how: How
    name: str
    profile: str | None


class ComparisonPart(_Part):
    """Float against int8 on the same test inputs, in the metric's unit; a task may add names of its own."""

    model_config = ConfigDict(extra="allow")

    value_float: float
    value_int8: float
    difference: float
    low: float
    high: float
    p: float
    detectable: float
    agreement: float
    method: str


class Document(_Part):
    """A run in short: what ``--json`` prints."""

    run: str
    recipe: str
    task: str
    metric: MetricPart
    places: tuple[PlacePart, ...]
    targets: tuple[TargetPart, ...]
    artifacts: dict[str, FilePart]
    baselines: dict[str, float]  # the metric that is reached without looking at the inputs, by name
    comparison: ComparisonPart | None  # of the first target that has one; None without int8
    hints: tuple[str, ...]  # worth a look; no limit depends on them

    def to_json(self) -> str:
        """Return the document as indented JSON, without a newline at the end."""
        return self.model_dump_json(indent=2)


class TargetTables(_Part):
    """The computed tables of one target."""

    target: str
    comparison: ComparisonPart | None
    runs: tuple[RunRow, ...]
    layers: tuple[LayerRow, ...]


class _Report(_Part):
    document: Document
    tables: tuple[TargetTables, ...]
    figures: tuple[Figure, ...]
    outcome: Outcome


def document(outcome: Outcome, folder: Path) -> Document:
    """Put a run into the words of ``--json``; ``folder``: the run folder as the user would type it."""
    metric = outcome.metric
    compared = [found.comparison for target in outcome.targets if (found := comparison_of(outcome, target))]
    return Document(
        run=outcome.run,
        recipe=outcome.recipe,
        task=outcome.task,
        metric=MetricPart(name=metric.name, unit=metric.unit, higher_is_better=metric.higher_is_better),
        places=_places(outcome),
        targets=tuple(_target(outcome, target) for target in outcome.targets),
        artifacts={exported.variant.key: _file(exported, folder) for exported in outcome.files},
        baselines=baselines_of(outcome),
        comparison=_comparison(outcome, compared[0]) if compared else None,
        hints=outcome.hints,
    )


def report_json(outcome: Outcome, folder: Path, figures: tuple[Figure, ...] = ()) -> str:
    """Return everything in ``outcome``, the document, the computed tables and the task's figures as indented JSON."""
    tables = tuple(
        TargetTables(
            target=target.target,
            comparison=_comparison(outcome, found.comparison) if (found := comparison_of(outcome, target)) else None,
            runs=run_rows(outcome, target),
            layers=layer_rows(outcome, target.weight_bits, target),
        )
        for target in outcome.targets
    )
    report = _Report(document=document(outcome, folder), tables=tables, figures=figures, outcome=outcome)
    return report.model_dump_json(indent=2)


# ── parts ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _places(outcome: Outcome) -> tuple[PlacePart, ...]:
    """List every place once, under the name of the target where it is one."""
    numbers = (each for target in outcome.targets for each in target.measurements)
    found = {(each.how, each.name): each for each in (*outcome.places, *(number.place for number in numbers))}
    return tuple(PlacePart(how=each.how, name=each.name, profile=each.profile) for each in found.values())


def _target(outcome: Outcome, target: Judged) -> TargetPart:
    ship = target.verdict.ship
    return TargetPart(
        name=target.target,
        passed=target.verdict.passed,
        state=target.verdict.state,
        to_try=advice(outcome, target),
        ship=Ship(artifact=ship.variant.key if ship else None, why=target.verdict.why),
        checks=tuple(_check(each) for each in target.verdict.checks),
        measurements=measurements_of(outcome, target),
    )


def _check(check: Check) -> CheckPart:
    factor, unit = (100, "%") if check.unit == "share" else (1, check.unit)
    return CheckPart(
        name=check.name,
        limit=factor * check.limit,
        got=None if check.got is None else factor * check.got,
        unit=unit,
        passed=check.holds,
        bound=check.bound,
        state=check.state,
    )


def _file(exported: Exported, folder: Path) -> FilePart:
    path = (folder / exported.filename).as_posix()
    return FilePart(path=path, sha256=exported.file, size_bytes=exported.size_bytes)


def _comparison(outcome: Outcome, found: Comparison) -> ComparisonPart:
    return ComparisonPart(
        value_float=found.value_float,
        value_int8=found.value_int8,
        difference=found.difference,
        low=found.low,
        high=found.high,
        p=found.p,
        detectable=found.detectable,
        agreement=found.agreement,
        method=found.method,
        **tasks.named(outcome.task).legacy_names(found),
    )


# ── measurements of a target ────────────────────────────────────────────────────────────────────────────────────────


def measurements_of(outcome: Outcome, target: Judged) -> tuple[MeasurementPart, ...]:
    """Return what was measured of the target's files, anywhere, what stands for the target, and what is missing."""
    return tuple(_measurements(outcome, target))


def _measurements(outcome: Outcome, target: Judged) -> Iterator[MeasurementPart]:
    answers = answers_of(outcome, target)
    labels = {each.way: f"{each.way.program} {each.version}".rstrip() for each in answers}
    found = [
        each
        for one in observed_for(outcome, target)
        for quantity in _WHAT
        for each in with_threads(one, target, quantity)
    ]
    # on the target itself the same number stands in both, in one of them with the target's name on its place
    distinct = {
        (each.quantity, each.way, each.place.how, each.place.name): each for each in (*found, *target.measurements)
    }
    for each in distinct.values():
        yield _measured(each, labels.get(each.way, each.way.program))
    for answered in answers:
        yield from _answered(outcome, answered, labels[answered.way])
    yield from _sizes(outcome, target, labels)
    known = {(each.quantity, each.way) for each in target.measurements}
    for way in target.candidates:
        for quantity in LATENCIES:
            if (quantity, way) not in known:
                what, unit = _WHAT[quantity]
                missing = _Origin(way=way, label=way.program, how="not measured", where=target.target)
                yield missing.part(what, None, unit)


def _measured(each: Measurement, label: str) -> MeasurementPart:
    what, unit = _WHAT[each.quantity]
    origin = _Origin(way=each.way, label=label, how=each.place.how, where=each.place.name)
    return origin.part(what, each.value, unit, low=each.low, high=each.high)


def _answered(outcome: Outcome, each: Answered, label: str) -> Iterator[MeasurementPart]:
    origin = _Origin(way=each.way, label=label, how=each.place.how, where=each.place.name)
    yield origin.part(outcome.metric.name, each.value, outcome.metric.unit, low=each.low, high=each.high)
    units = {metric.name: metric.unit for metric in tasks.named(outcome.task).OTHERS}
    for name, value in each.others.items():
        yield origin.part(name, value, units.get(name, ""))
    same = same_as_trained(outcome, each.way)
    if same is not None:
        yield origin.part("same_class", same, "share")


def _sizes(outcome: Outcome, target: Judged, labels: dict[Way, str]) -> Iterator[MeasurementPart]:
    """One size for a file in two runtimes."""
    where = outcome.places[0].name if outcome.places else ""
    for file in outcome.compared_files:
        if not is_of(file.variant, target):
            continue
        program = next(each[0] for name, each in RUNTIME_OF_FORMAT.items() if name == file.variant.format)
        way = Way(variant=file.variant, program=program)
        origin = _Origin(way=way, label=labels.get(way, program), how="measured", where=where)
        yield origin.part("file_size", file.size_bytes, "bytes")


@dataclass(frozen=True, kw_only=True)
class _Origin:
    """What a number is about and where it comes from."""

    way: Way
    label: str
    how: How | Literal["not measured"]
    where: str

    def part(
        self, what: str, value: float | None, unit: str, *, low: float | None = None, high: float | None = None
    ) -> MeasurementPart:
        return MeasurementPart(
            what=what,
            artifact=self.way.variant.key,
            runtime=self.label,
            value=value,
            unit=unit,
            how=self.how,
            where=self.where,
            low=low,
            high=high,
        )
