"""emulate: what a target's own processor, system and runtimes answer, run by an emulator on this machine.

Shapes: N test samples.
"""

from __future__ import annotations

from pipeline.artifacts.evidence import CannotRun, Observed, Place, Predicted
from pipeline.artifacts.files import Exported
from pipeline.artifacts.networks import DataFacts, DataRef
from pipeline.data.load import load
from pipeline.declare.target import TargetProfile
from pipeline.instruments import emulated
from pipeline.instruments.answers import held
from pipeline.instruments.passing import Bench, agreements, over_the_test_split
from pipeline.runs.run import Work, stage
from pipeline.runtimes.child import reusing_children
from pipeline.runtimes.emulation.system import system_for
from pipeline.tasks import named


@stage(version=1)
def emulate(
    work: Work,
    *,
    data: DataRef,
    facts: DataFacts,
    files: tuple[Exported, ...],
    references: tuple[Predicted, ...],
    here: Observed,
    target: TargetProfile,
    place: Place,
    budget_s: float,
    seed: int,
    runtimes: dict[str, str],
) -> Observed:
    """Run every file in every runtime of the target's system, over the test split or as much of it as there is time.

    ``here``: what the same files gave on this machine; ``target``: without what only verdicts need; ``place``: the
    emulated target; ``runtimes``: name → version.
    Raises EmulationError where the system cannot be set up, and what loading the data and the files raises.
    """
    del facts, runtimes
    work.progress.start("setting up the target's system", 1)
    system = system_for(target)
    work.progress.advance()
    ways, not_usable = emulated.ways_there(files, system, work.store)
    bench = Bench(work=work, task=named(data.card.task), test=held(load(data).test), references=references, place=place)
    with reusing_children():
        cannot_run = list[CannotRun]()
        chosen, ways = emulated.drawn(bench, ways, budget_s=budget_s, seed=seed, cannot_run=cannot_run)
        bench = bench.over(chosen)
        answered, comparisons = over_the_test_split(bench, ways, cannot_run=cannot_run)
        return Observed(
            place=place,
            metric=bench.task.METRIC,
            answers=answered,
            comparisons=comparisons,
            agreements=tuple(agreements(bench, answered)),
            not_usable=not_usable,
            beside=tuple(emulated.beside(bench, ways, answered, here)),
            cannot_run=tuple(cannot_run),
        )
