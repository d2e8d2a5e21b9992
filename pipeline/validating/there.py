"""What a file answers on the target's own processor, emulated, and how long it is estimated to take there.

Shapes: N samples, n of them drawn.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace

import numpy as np

from pipeline.artifacts.evidence import Answers
from pipeline.artifacts.validation import There
from pipeline.data.source import Subset
from pipeline.declare.target import TargetProfile
from pipeline.errors import EmulationError
from pipeline.estimating.predicted import fit_of, predicted
from pipeline.instruments import emulated, weighed
from pipeline.instruments.answers import apart
from pipeline.instruments.passing import how_it_failed, part_of
from pipeline.onboard.arrays import Signature
from pipeline.onboard.stepping import first_step
from pipeline.runtimes import open_session
from pipeline.runtimes.emulation.counting import Counting
from pipeline.runtimes.emulation.machine import Load, boot
from pipeline.runtimes.emulation.system import System, system_for
from pipeline.tasks import OUTPUT
from pipeline.validating.asked import Asked
from pipeline.validating.opened import Opened


def there(opened: Opened, asked: Asked, here: Answers, target: TargetProfile, *, budget_s: float) -> There:
    """Let the target's own processor answer, and compare that with what was answered here.

    Raises EmulationError where it cannot be had, and ModelError where it cannot run the file.
    """
    system = system_for(target)
    if opened.runtime not in system.homes:
        why = system.not_usable.get(opened.runtime, "it is not there")
        raise EmulationError(f"{opened.runtime} cannot be used on {target.name}: {why}")
    session = open_session(opened.path, opened.runtime, home=system.homes[opened.runtime])
    with contextlib.closing(session):
        own = replace(opened, session=session)
        each_s = emulated.seconds_each(own.predict(asked.carried), asked.prepared(emulated.tried(asked.source)))
        drawn = emulated.affordable(len(asked.source), each_s=each_s, left_s=budget_s, seed=0)
        source = asked.source if drawn is None else Subset(whole=asked.source, indices=drawn)
        answers = asked.task.answer(own.predict(asked.carried), source, asked.prepared)
    far = apart(answers, part_of(here, drawn), _steps(opened))
    found = There(
        place=emulated.place(target),
        samples=len(source),
        of=len(asked.source),
        value=asked.task.interval(answers, source),
        same=far.same,
        identical=far.identical,
        max_steps=far.max_steps,
    )
    try:
        found = _with_latency(found, opened, asked, system, target)
    except EmulationError as error:  # the answers stand without it
        found = replace(found, basis=" ".join(str(error).split()))
    try:
        return _with_memory(found, opened, system, target, budget_s=budget_s)
    except EmulationError as error:
        return replace(found, machine=" ".join(str(error).split()))


def _steps(opened: Opened) -> dict[str, float]:
    """Return output, as the task calls it → one step of it."""
    steps = opened.session.steps
    if len(opened.outputs) == 1:
        name = opened.outputs[0].name
        return {OUTPUT: steps[name]} if name in steps else {}
    return dict(steps)


def _with_memory(found: There, opened: Opened, system: System, target: TargetProfile, *, budget_s: float) -> There:
    """Add what one inference takes in a machine with the target's memory, or that the file does not fit."""
    machine = weighed.place(target).name
    load = Load(path=opened.path, runtime=opened.runtime)
    weights = boot([load], system, target, threads=target.judged_threads, budget_s=budget_s)
    with contextlib.closing(weights):
        weight = next(weights)
    said = how_it_failed(opened.runtime, weight.said) if weight.said else ""
    return replace(found, peak_memory_bytes=weight.peak_bytes, machine=machine, does_not_fit=said)


def _with_latency(found: There, opened: Opened, asked: Asked, system: System, target: TargetProfile) -> There:
    """Add the latency where times of such a processor were published."""
    if fit_of(system.processor.name) is None:
        return found
    carried = Signature((), (), dict(asked.carried))
    sample = first_step(asked.prepared(asked.source.read(np.arange(1)).inputs), carried)
    with Counting(system) as counting:
        counts = counting.count(opened.path, opened.runtime, opened.fed(sample))
    known = predicted(counts, cpu=system.processor.name, clock_mhz=target.cpu.clock_mhz, runtime=opened.runtime)
    assert known is not None  # noqa: S101  (there is a fit)
    return replace(found, instructions=counts["total"], latency_ms=known[0], basis=known[1])
