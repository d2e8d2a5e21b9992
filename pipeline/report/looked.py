"""What a task wants to show: its figures of the float reference and of the int8 file that is looked at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline import tasks
from pipeline.artifacts.evidence import Answered, Figure, Place
from pipeline.artifacts.files import Way
from pipeline.artifacts.outcome import Judged, Outcome
from pipeline.data.source import Source
from pipeline.instruments.answers import load_answers
from pipeline.report import words
from pipeline.report.rows import answers_of, observed_for
from pipeline.runs.store import Store


@dataclass(frozen=True, kw_only=True)
class Looked:
    """The figures of one pair of float reference and int8 file."""

    targets: tuple[str, ...]  # that this pair is for
    titles: tuple[str, ...]  # of the float reference and, where there is one, of the int8 file
    samples: int
    figures: tuple[Figure, ...]


def look(outcome: Outcome, test: Source, classes: tuple[str, ...], store: Store) -> tuple[Looked, ...]:
    """Ask the task for its figures, once for all targets with the same pair of files; arrays go into the store.

    Raises StorageError when an array of answers is gone.
    """
    pairs: dict[tuple[tuple[Way, Place], ...], tuple[Answered, ...]] = {}
    targets: dict[tuple[tuple[Way, Place], ...], list[str]] = {}
    for target in outcome.targets:
        pair = looked_at(outcome, target)
        same = tuple((each.way, each.place) for each in pair)
        if pair:
            pairs[same] = pair
            targets.setdefault(same, []).append(target.target)
    task, found = tasks.named(outcome.task), []
    for same, pair in pairs.items():
        titles = tuple(words.artifact_title(each.way.variant) for each in pair)
        answers = {title: load_answers(each, store) for title, each in zip(titles, pair, strict=True)}
        figures = task.figures(answers, test, classes, store.put_array)
        looked = Looked(targets=tuple(targets[same]), titles=titles, samples=pair[0].samples, figures=figures)
        found.append(looked)
    return tuple(found)


def looked_at(outcome: Outcome, target: Judged) -> tuple[Answered, ...]:
    """Return the float reference and the int8 file to look into, where they answered the whole test split.

    The int8 file is the one that ships, or else could ship, or else the first one; without any, the network that was
    trained.  Without int8 the reference stands alone.
    """
    answers = {each.way: each for each in _whole_answers(outcome, target)}
    floats = [each for way, each in answers.items() if way.variant.precision == "fp32" and not way.variant.unpruned]
    int8 = [way for way in answers if way.variant.precision == "int8"]
    wanted = (target.verdict.ship, *target.candidates, *(way for way in int8 if way.program != "torch"), *int8)
    chosen = next((answers[way] for way in wanted if way in int8), None)
    return (*floats[:1], *([chosen] if chosen else []))


def _whole_answers(outcome: Outcome, target: Judged) -> Iterator[Answered]:
    """Return one answer of each way: the target's own, or another place's where it was asked of some samples alone."""
    found = answers_of(outcome, target)
    most = max((each.samples for each in found), default=0)
    everywhere = [each for one in observed_for(outcome, target) for each in one.answers if each.samples == most]
    for each in found:
        if each.samples == most:
            yield each
        else:
            yield from [other for other in everywhere if other.way == each.way][:1]
