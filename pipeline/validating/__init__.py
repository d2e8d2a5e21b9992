"""``karui validate``: what a model file answers as it is, what of it runs on integers, and how long it takes.

Shapes: N samples; S sessions and R timed inferences in each.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from pipeline import catalog
from pipeline.artifacts.evidence import Answers, Interval
from pipeline.artifacts.files import Variant
from pipeline.artifacts.validation import FileFacts, OnTarget, There
from pipeline.declare.target import TargetProfile
from pipeline.errors import EmulationError, ModelError
from pipeline.host import is_this_machine, machine_name
from pipeline.instruments.passing import how_it_failed
from pipeline.judging.case import memory_elsewhere
from pipeline.judging.latency import ROUNDS, quantile
from pipeline.judging.limits import Costs, exactly, failure, file_checks
from pipeline.onboard.arrays import Signature
from pipeline.onboard.session import Timer
from pipeline.onboard.stepping import first_step
from pipeline.onboard.timing import measure
from pipeline.runtimes import executed, open_session, peak_memory_bytes
from pipeline.validating.asked import Asked, ask, check_ends
from pipeline.validating.brought import on_target
from pipeline.validating.by_model import by_model
from pipeline.validating.opened import Opened, Question, open_file
from pipeline.validating.there import there

__all__ = ["Question", "validate"]

_SESSIONS, _BUDGET_S = 12, 2.0  # of each file


def validate(question: Question) -> FileFacts:
    """Judge a file on samples.  Raises ConfigError, DataError, ModelError as its parts do."""
    target = catalog.load_target(question.target) if question.target else None
    opened = open_file(question.model, question, target)
    beside = open_file(question.beside, question) if question.beside else None
    asked = ask(question, opened, beside)
    for each in (opened, beside):
        if each is not None:
            check_ends(each, asked)
    measured = on_target(question, opened, target)
    answers = asked.task.answer(opened.predict(asked.carried), asked.source, asked.prepared)
    comparison = None
    if beside is not None:
        floats = asked.task.answer(beside.predict(asked.carried), asked.source, asked.prepared)
        comparison = asked.task.compare(floats, answers, asked.source)
    files = [opened, *([beside] if beside else [])]
    times = _times(files, asked)
    nodes = executed(opened.path, opened.runtime)
    size = opened.path.stat().st_size
    peak = peak_memory_bytes(opened.path, opened.runtime, threads=1)
    p50, p95 = (quantile(times[0], share) for share in (0.5, 0.95))
    metric, integers = asked.task.METRIC, sum(each.integer for each in nodes)
    variant = Variant(
        format="onnx" if opened.path.suffix.lower() == ".onnx" else "tflite", precision="int8" if integers else "fp32"
    )
    here = target is not None and is_this_machine(target)
    elsewhere, hints, fails = None, tuple[str, ...](), False
    if target is not None and not here and question.emulate:
        elsewhere, hints, fails = _there(question, opened, asked, answers, target)
    fails = fails or bool(elsewhere and elsewhere.does_not_fit)
    modelled = None
    if target is not None and not here and not (elsewhere and elsewhere.latency_ms):
        modelled = by_model(opened, variant, target)
    estimated = (elsewhere and elsewhere.latency_ms) or (modelled and modelled.latency_ms)
    costs = Costs(
        size_bytes=size,
        latency_p95_ms=p95 if here else estimated or None,
        peak_memory_bytes=_memory(peak, elsewhere, here=here),
    )
    if measured is not None:
        costs = _as_measured(costs, measured)
    return FileFacts(
        file=str(question.model),
        runtime=f"{opened.runtime} {opened.session.version}",
        machine=machine_name(),
        samples=len(asked.source),
        metric=metric,
        value=asked.task.interval(answers, asked.source),
        others=dict(answers.others),
        size_bytes=size,
        latency_p50_ms=p50.value,
        latency_p95_ms=p95,
        integer_nodes=integers,
        nodes=len(nodes),
        float_nodes={each.name: each.op for each in nodes if not each.integer},
        comparison=comparison,
        times_as_long=p50.value / quantile(times[1], 0.5).value if beside else None,
        peak_memory_bytes=peak,
        checks=(
            *([failure(variant)] if fails else []),
            *(() if target is None else file_checks(target, variant, metric, comparison, costs)),
        ),
        there=elsewhere,
        by_model=modelled,
        on_target=measured,
        hints=hints,
    )


def _as_measured(costs: Costs, found: OnTarget) -> Costs:
    """Let what was measured on the target stand instead of what was estimated."""
    peak = costs.peak_memory_bytes if found.peak_memory_bytes is None else exactly(found.peak_memory_bytes)
    return replace(costs, latency_p95_ms=found.latency_p95_ms, peak_memory_bytes=peak)


def _memory(peak: int | None, elsewhere: There | None, *, here: bool) -> Interval | None:
    """Return the peak memory on the target: as its machine, emulated, found it, or else from what it is here."""
    if elsewhere is not None and elsewhere.peak_memory_bytes is not None:
        return exactly(elsewhere.peak_memory_bytes)
    return None if peak is None else exactly(peak) if here else memory_elsewhere(peak)


def _there(
    question: Question, opened: Opened, asked: Asked, answers: Answers, target: TargetProfile
) -> tuple[There | None, tuple[str, ...], bool]:
    """Ask the target's own processor; say why not where it cannot be had, and whether the file fails there."""
    try:
        return there(opened, asked, answers, target, budget_s=60 * question.budget_minutes), (), False
    except EmulationError as error:
        return None, (f"{target.name} was not emulated: {' '.join(str(error).split())}",), False
    except ModelError as error:
        return (
            None,
            (f"{target.name}, emulated, does not run the file: {how_it_failed(opened.runtime, error.what)}",),
            True,
        )


def _times(files: list[Opened], asked: Asked) -> list[np.ndarray[tuple[int, ...], np.dtype[np.float64]]]:
    """Time all files together on one sample: (S, R) ms of each."""
    carried = Signature((), (), dict(asked.carried))
    sample = first_step(asked.prepared(asked.source.read(np.arange(1)).inputs), carried)

    def opener(each: Opened) -> Callable[[], Timer]:
        def opened() -> Timer:
            session = open_session(each.path, each.runtime)
            run = session.timer(each.fed(sample))

            def timer(count: int) -> list[float]:
                return run(count)

            weakref.finalize(timer, session.close)
            return timer

        return opened

    openers = {str(number): opener(each) for number, each in enumerate(files)}
    found = measure(openers, sessions=_SESSIONS, rounds=ROUNDS, budget_s=_BUDGET_S * len(files), seed=0)
    return [found[key] for key in openers]
