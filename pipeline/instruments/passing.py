"""Every way of running the files passes over the test split once: what it answers, and against what that is held.

Shapes: N test samples, n of them chosen.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.evidence import Agreement, Answered, Answers, CannotRun, Compared, Place, Predicted
from pipeline.artifacts.files import Way
from pipeline.data.source import Source, Subset
from pipeline.declare.words import RuntimeName
from pipeline.errors import ModelError
from pipeline.instruments.answers import agreement, keep, load_answers
from pipeline.instruments.here import FileWay
from pipeline.onboard.stepping import stepping
from pipeline.runs.run import Work
from pipeline.runtimes import version
from pipeline.tasks import Task

Chosen = NDArray[np.int64] | None  # (n,) of the test split; None: all


@dataclass(frozen=True, kw_only=True, eq=False)
class Bench:
    """What all ways have in common."""

    work: Work
    task: Task
    test: Source  # n
    references: tuple[Predicted, ...]
    place: Place
    chosen: Chosen = None  # which of the references' N samples these are

    def over(self, chosen: Chosen) -> Bench:
        """Return the same over some of the samples."""
        return self if chosen is None else replace(self, test=Subset(whole=self.test, indices=chosen), chosen=chosen)

    def reference(self, answered: Answered) -> Answers:
        """Return what was kept of all samples, for these."""
        return part_of(load_answers(answered, self.work.store), self.chosen)


def part_of(answers: Answers, chosen: Chosen) -> Answers:
    """Return what was answered to some samples; the metric is still that over all."""
    if chosen is None:
        return answers
    return replace(
        answers,
        outputs={name: array[chosen] for name, array in answers.outputs.items()},
        decisions=answers.decisions[chosen],
        score=answers.score[chosen],
    )


def how_it_failed(runtime: RuntimeName, said: str) -> str:
    """Say it with the runtime's version, which a process that dies at once does not tell: it is the one of here."""
    label = f"{runtime} {version(runtime)}"
    return said if label in said else f"{label} {said.removeprefix(runtime).strip()}"


@contextlib.contextmanager
def noted(way: FileWay, cannot_run: list[CannotRun] | None) -> Iterator[None]:
    """Take down that a way fails, by which signal and in which version, and go on; raise ModelError without a list."""
    try:
        yield
    except ModelError as error:
        if cannot_run is None:
            raise
        cannot_run.append(CannotRun(way=way.way, said=how_it_failed(way.runtime, error.what)))


def over_the_test_split(
    bench: Bench, ways: Sequence[FileWay], *, cannot_run: list[CannotRun] | None = None
) -> tuple[tuple[Answered, ...], tuple[Compared, ...]]:
    """Let every way answer, keep what it gave, and compare it with the float reference.

    Where there is a network before pruning, what came of it is compared with that too, in the same runtime.
    ``cannot_run``: takes down which ways fail.  Raises ModelError at the first one where there is no such list.
    """
    floats = {
        each.answered.way.variant.unpruned: each
        for each in bench.references
        if each.answered.way.variant.precision == "fp32"
    }
    reference = floats[False]
    expected = bench.reference(reference.answered)
    bench.work.progress.start("test split", len(ways))
    answered, comparisons = [], []
    for each in ways:
        with noted(each, cannot_run), contextlib.closing(each.open(threads=1, exact=True)) as session:
            chosen = floats[each.way.variant.unpruned].chosen
            predict = stepping(session.run, each.file.signature)
            answers = bench.task.answer(predict, bench.test, each.prepared, chosen=chosen)
            kept = keep(
                answers,
                way=each.way,
                version=session.version,
                place=bench.place,
                interval=bench.task.interval(answers, bench.test),
                steps=dict(session.steps),
                store=bench.work.store,
            )
            answered.append(kept)
            if not each.way.variant.unpruned:
                comparisons.append(_compared(bench, reference.answered.way, expected, each.way, answers))
        bench.work.progress.advance()
    return tuple(answered), (*comparisons, *_against_unpruned(bench, answered))


def _against_unpruned(bench: Bench, answered: Sequence[Answered]) -> Iterator[Compared]:
    """Compare with what a runtime gave before pruning what it gives after."""
    for before in (each for each in answered if each.way.variant.unpruned):
        expected = load_answers(before, bench.work.store)
        for each in answered:
            if each.way.program == before.way.program and not each.way.variant.unpruned:
                yield _compared(bench, before.way, expected, each.way, load_answers(each, bench.work.store))


def _compared(bench: Bench, first: Way, expected: Answers, second: Way, answers: Answers) -> Compared:
    comparison = bench.task.compare(expected, answers, bench.test)
    return Compared(metric=bench.task.METRIC.name, first=first, second=second, comparison=comparison)


def agreements(bench: Bench, answered: Sequence[Answered]) -> Iterator[Agreement]:
    """Compare the network that was trained with each int8 file of its width, and the first of these with the others."""
    store = bench.work.store
    int8 = [
        (each.way, load_answers(each, store), each.steps) for each in answered if each.way.variant.precision == "int8"
    ]
    trained = {each.answered.way.variant.weight_bits: each.answered for each in bench.references}
    for bits in dict.fromkeys(way.variant.weight_bits for way, _, _ in int8):
        same_width = [each for each in int8 if each[0].variant.weight_bits == bits]
        if bits in trained:
            reference = (trained[bits].way, bench.reference(trained[bits]), trained[bits].steps)
            yield from (agreement(reference, each) for each in same_width)
        yield from (agreement(same_width[0], each) for each in same_width[1:])
