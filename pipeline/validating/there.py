"""What a file answers on the target's own processor, emulated, and how long it is estimated to take there.

Shapes: N samples, n of them drawn.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace

import numpy as np

from pipeline.artifacts.evidence import Answers
from pipeline.artifacts.validation import There
from pipeline.data.source import Subset
from pipeline.declare.target import TargetProfile
from pipeline.errors import EmulationError
from pipeline.estimating.predicted import predicted
from pipeline.instruments import emulated
from pipeline.instruments.answers import same_decisions, steps_apart
from pipeline.instruments.passing import Chosen, part_of
from pipeline.onboard.arrays import Signature
from pipeline.onboard.stepping import first_step
from pipeline.runtimes import open_session
from pipeline.runtimes.emulation.counting import Counting
from pipeline.runtimes.emulation.system import System, system_for
from pipeline.tasks import OUTPUT
from pipeline.validating.asked import Asked
from pipeline.validating.opened import Opened

_TRIED = 4  # samples by which the time of all others is told
_FEWEST = 32  # that are run, however long they take


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
        drawn = _drawn(own, asked, budget_s)
        source = asked.source if drawn is None else Subset(whole=asked.source, indices=drawn)
        answers = asked.task.answer(own.predict(asked.carried), source, asked.prepared)
    known = part_of(here, drawn)
    apart = steps_apart(answers, known, _steps(opened))
    same = np.asarray(same_decisions(answers, known, apart))
    equal = np.concatenate([(answers.outputs[name] == known.outputs[name]).ravel() for name in known.outputs])
    found = There(
        place=emulated.place(target),
        samples=len(source),
        of=len(asked.source),
        value=asked.task.interval(answers, source),
        same=float(same.reshape(len(same), -1).all(axis=1).mean()),
        identical=float(equal.mean()),
        max_steps=max(float(each.max()) for each in apart),
    )
    return _with_latency(found, opened, asked, system, target)


def _drawn(own: Opened, asked: Asked, budget_s: float) -> Chosen:
    """Return which samples can be run in about so much time, (n,) in order; None: all of them."""
    count = len(asked.source)
    predict, some = own.predict(asked.carried), asked.prepared(asked.source.read(np.arange(min(_TRIED, count))).inputs)
    predict(some)  # the first time, code is translated
    begun = time.monotonic()
    predict(some)
    each_s = (time.monotonic() - begun) / min(_TRIED, count)
    affordable = max(_FEWEST, int(budget_s / max(each_s, 1e-6)))
    return None if affordable >= count else np.sort(np.random.default_rng(0).permutation(count)[:affordable])


def _steps(opened: Opened) -> dict[str, float]:
    """Return output, as the task calls it → one step of it."""
    steps = opened.session.steps
    if len(opened.outputs) == 1:
        name = opened.outputs[0].name
        return {OUTPUT: steps[name]} if name in steps else {}
    return dict(steps)


def _with_latency(found: There, opened: Opened, asked: Asked, system: System, target: TargetProfile) -> There:
    """Add the latency where times of such a processor were published."""
    carried = Signature((), (), dict(asked.carried))
    sample = first_step(asked.prepared(asked.source.read(np.arange(1)).inputs), carried)
    with Counting(system) as counting:
        counts = counting.count(opened.path, opened.runtime, opened.fed(sample))
    known = predicted(counts, cpu=system.processor.name, clock_mhz=target.cpu.clock_mhz, runtime=opened.runtime)
    if known is None:
        return found
    return replace(found, instructions=counts["total"], latency_ms=known[0], basis=known[1])
