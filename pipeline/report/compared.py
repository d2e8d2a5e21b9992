"""Runs side by side, as ``karui compare`` prints them and, with ``--json``, writes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from pipeline import tasks
from pipeline.artifacts.evidence import Answered, Comparison
from pipeline.artifacts.outcome import Judged, Outcome, State
from pipeline.data.load import load
from pipeline.data.source import Source
from pipeline.errors import KaruiError
from pipeline.instruments.answers import load_answers
from pipeline.report import words
from pipeline.report.rows import answers_of, export_set, run_rows
from pipeline.runs.store import Store


@dataclass(frozen=True, kw_only=True)
class Difference:
    """What ships of one run against what ships of the first one, on the same test inputs."""

    target: str
    first: str  # run and file
    second: str
    comparison: Comparison


@dataclass(frozen=True, kw_only=True)
class SideBySide:
    """Runs, how they differ where that can be said, and what to keep in mind."""

    outcomes: tuple[Outcome, ...]
    differences: tuple[Difference, ...]
    warnings: tuple[str, ...]


def side_by_side(outcomes: Sequence[Outcome], stores: Sequence[Store]) -> SideBySide:
    """Return the runs and, where they were tested on the same data, a paired test of each against the first.

    ``stores``: where the answers of each run lie.
    """
    first, *others = outcomes
    warnings = [
        f"{each.run} and {first.run} were not tested on the same data: their numbers cannot be compared"
        for each in others
        if each.data.digest != first.data.digest or each.task != first.task
    ]
    alike = [
        (each, store)
        for each, store in zip(others, stores[1:], strict=True)
        if each.data.digest == first.data.digest and each.task == first.task
    ]
    differences: list[Difference] = []
    if alike:
        try:
            test = load(first.data).test
            for each, store in alike:
                differences += _differences(first, stores[0], each, store, test)
        except KaruiError as error:  # the data or the answers are gone: what is recorded can still be shown
            warnings.append(f"no paired test: {error.where or 'data'}: {error.what}")
    return SideBySide(outcomes=tuple(outcomes), differences=tuple(differences), warnings=tuple(warnings))


def _differences(first: Outcome, first_store: Store, second: Outcome, store: Store, test: Source) -> list[Difference]:
    found = []
    targets = {target.target: target for target in first.targets}
    for target in second.targets:
        if target.target not in targets:
            continue
        one, other = _what_ships(first, targets[target.target]), _what_ships(second, target)
        if one is None or other is None:
            continue
        answers = (load_answers(one, first_store), load_answers(other, store))
        found.append(
            Difference(
                target=target.target,
                first=f"{first.run} {words.way_title(one.way)}",
                second=f"{second.run} {words.way_title(other.way)}",
                comparison=tasks.named(first.task).compare(*answers, test),
            )
        )
    return found


def _what_ships(outcome: Outcome, target: Judged) -> Answered | None:
    """Return the answers of the file that ships, else of the first candidate; None where none was tested."""
    wanted = [target.verdict.ship, *target.candidates]
    answers = {each.way: each for each in answers_of(outcome, target)}
    return next((answers[way] for way in wanted if way in answers), None)


# ── --json ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="null")


class WayPart(_Part):
    """One way of running a network of a target; ``latency_how``: measured, emulated or estimated."""

    way: str
    value: float
    low: float
    high: float
    size_bytes: int | None
    latency_p50_ms: float | None
    latency_how: str | None


class TargetPart(_Part):
    """One target of a run."""

    name: str
    state: State
    ship: str | None
    parameters: int
    macs: int
    ways: tuple[WayPart, ...]


class RunPart(_Part):
    """One run."""

    run: str
    recipe: str
    task: str
    metric: str
    data: str  # the digest of the data set: the same digest is the same data and the same test split
    targets: tuple[TargetPart, ...]


class DifferencePart(_Part):
    """``second`` minus ``first``, in the metric's unit, with its 95 % interval."""

    target: str
    first: str
    second: str
    samples: int
    difference: float
    low: float
    high: float
    p: float
    method: str


class ComparedDocument(_Part):
    """What ``karui compare --json`` prints."""

    runs: tuple[RunPart, ...]
    differences: tuple[DifferencePart, ...]
    warnings: tuple[str, ...]

    def to_json(self) -> str:
        """Return the document as indented JSON, without a newline at the end."""
        return self.model_dump_json(indent=2)


def compared_document(compared: SideBySide) -> ComparedDocument:
    """Return runs side by side for programs."""
    return ComparedDocument(
        runs=tuple(_run_part(outcome) for outcome in compared.outcomes),
        differences=tuple(
            DifferencePart(
                target=each.target,
                first=each.first,
                second=each.second,
                samples=each.comparison.samples,
                difference=each.comparison.difference,
                low=each.comparison.low,
                high=each.comparison.high,
                p=each.comparison.p,
                method=each.comparison.method,
            )
            for each in compared.differences
        ),
        warnings=compared.warnings,
    )


def _run_part(outcome: Outcome) -> RunPart:
    return RunPart(
        run=outcome.run,
        recipe=outcome.recipe,
        task=outcome.task,
        metric=outcome.metric.name,
        data=outcome.data.digest,
        targets=tuple(_target_part(outcome, target) for target in outcome.targets),
    )


def _target_part(outcome: Outcome, target: Judged) -> TargetPart:
    layers = export_set(outcome, target.weight_bits).layers
    ship = target.verdict.ship
    return TargetPart(
        name=target.target,
        state=target.verdict.state,
        ship=words.way_title(ship) if ship else None,
        parameters=sum(layer.parameters for layer in layers),
        macs=sum(layer.macs for layer in layers),
        ways=tuple(
            WayPart(
                way=words.way_title(row.way),
                value=row.value,
                low=row.low,
                high=row.high,
                size_bytes=row.size_bytes,
                latency_p50_ms=row.p50.value if row.p50 else None,
                latency_how=row.p50.place.how if row.p50 else None,
            )
            for row in run_rows(outcome, target)
        ),
    )
