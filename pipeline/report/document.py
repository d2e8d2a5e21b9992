"""The document that ``karui run --json`` prints, and the fuller ``report.json``.

Numbers that are not finite become ``null``: the documents are strict JSON.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from pipeline.artifacts import Comparison, Exported, How, Outcome, Validated
from pipeline.report.rows import LayerRow, RunRow, layer_rows, run_rows


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="null")


class Ship(_Part):
    """Which file to ship (None: none is fit) and why."""

    artifact: str | None
    why: str


class CheckPart(_Part):
    """One limit; ``passed`` is null where nothing could be measured."""

    name: str
    limit: float
    got: float | None
    unit: str
    passed: bool | None


class MeasurementPart(_Part):
    """One number, how it came about and where; ``low`` and ``high``: 95 % interval."""

    what: str
    artifact: str
    runtime: str
    value: float | None
    unit: str
    how: How
    where: str
    low: float | None
    high: float | None


class TargetPart(_Part):
    """What was found out for one target."""

    name: str
    passed: bool
    ship: Ship
    checks: tuple[CheckPart, ...]
    measurements: tuple[MeasurementPart, ...]


class FilePart(_Part):
    """One model file; ``path`` as a user would type it."""

    path: str
    sha256: str
    size_bytes: int


class ComparisonPart(_Part):
    """Float against int8 on the same test inputs."""

    accuracy_float: float
    accuracy_int8: float
    difference_pp: float
    low_pp: float
    high_pp: float
    mcnemar_p: float
    detectable_pp: float
    agreement: float


class Document(_Part):
    """A run in short: what ``--json`` prints."""

    run: str
    recipe: str
    targets: tuple[TargetPart, ...]
    artifacts: dict[str, FilePart]
    comparison: ComparisonPart | None  # of the first target that has one; None without int8

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
    outcome: Outcome


def document(outcome: Outcome, folder: Path) -> Document:
    """Put a run into the words of ``--json``; ``folder``: the run folder as the user would type it.

    With targets of two weight widths the int8 keys of the second set end in ``-w7``, in all places.
    """
    compared = [target.comparison for target in outcome.targets if target.comparison]
    return Document(
        run=outcome.run,
        recipe=outcome.recipe,
        targets=tuple(_target(outcome, target) for target in outcome.targets),
        artifacts={
            artifact_key(outcome, bits, exported.key): _file(exported, folder)
            for bits in _widths(outcome)
            for exported in outcome.exports[bits].files
        },
        comparison=_comparison(compared[0]) if compared else None,
    )


def report_json(outcome: Outcome, folder: Path) -> str:
    """Return everything in ``outcome``, the document and the computed tables as indented JSON."""
    tables = tuple(
        TargetTables(
            target=target.target,
            comparison=_comparison(target.comparison) if target.comparison else None,
            runs=run_rows(outcome, target),
            layers=layer_rows(outcome, outcome.target_bits[target.target], target),
        )
        for target in outcome.targets
    )
    return _Report(document=document(outcome, folder), tables=tables, outcome=outcome).model_dump_json(indent=2)


def artifact_key(outcome: Outcome, bits: int, key: str) -> str:
    """Name a file of the set with ``bits`` weight bits within the whole run: ``onnx-int8`` or ``onnx-int8-w7``."""
    first = next(iter(_widths(outcome)), bits)
    return key if bits == first or not key.endswith(("int8", "fake-quant")) else f"{key}-w{bits}"


def _widths(outcome: Outcome) -> tuple[int, ...]:
    return tuple(sorted(outcome.exports, reverse=True))


def _target(outcome: Outcome, target: Validated) -> TargetPart:
    def key(artifact: str) -> str:
        return artifact_key(outcome, outcome.target_bits[target.target], artifact)

    ship = target.verdict.ship
    return TargetPart(
        name=target.target,
        passed=target.verdict.passed,
        ship=Ship(artifact=key(ship) if ship else None, why=target.verdict.why),
        checks=tuple(
            CheckPart(name=each.name, limit=each.limit, got=each.got, unit=each.unit, passed=each.passed)
            for each in target.verdict.checks
        ),
        measurements=tuple(
            MeasurementPart(
                what=each.what,
                artifact=key(each.artifact),
                runtime=each.runtime,
                value=each.value,
                unit=each.unit,
                how=each.how,
                where=each.where,
                low=each.low,
                high=each.high,
            )
            for each in target.measurements
        ),
    )


def _file(exported: Exported, folder: Path) -> FilePart:
    path = (folder / exported.filename).as_posix()
    return FilePart(path=path, sha256=exported.file, size_bytes=exported.size_bytes)


def _comparison(found: Comparison) -> ComparisonPart:
    return ComparisonPart(
        accuracy_float=found.accuracy_float,
        accuracy_int8=found.accuracy_int8,
        difference_pp=found.difference_pp,
        low_pp=found.low_pp,
        high_pp=found.high_pp,
        mcnemar_p=found.mcnemar_p,
        detectable_pp=found.detectable_pp,
        agreement=found.agreement,
    )
