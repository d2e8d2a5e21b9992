"""Counts what one inference of several files executes on a target's own processor and runtimes, emulated."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline import catalog
from pipeline.artifacts.measured import Counted, CountsBeside
from pipeline.benching.contenders import Contender, contenders
from pipeline.errors import ConfigError, EmulationError
from pipeline.instruments import here
from pipeline.progress import Progress
from pipeline.runtimes import open_session
from pipeline.runtimes.emulation.counting import Counting, Counts
from pipeline.runtimes.emulation.system import system_for


def count(names: Sequence[str], target_name: str, runtime: str, progress: Progress) -> CountsBeside:
    """Count one inference of every file (of a run: all) on one thread.

    Raises ConfigError, EmulationError and ModelError in words.
    """
    files = contenders(names, runtime)
    target = catalog.load_target(target_name)
    system = system_for(target)
    for each in files:
        if each.runtime not in system.homes:
            why = system.not_usable.get(each.runtime, "it is not there")
            raise EmulationError(f"{each.runtime} cannot be used on {target.name}: {why}", where=each.file)
    progress.start("counting instructions", len(files))
    found: list[tuple[Contender, Counts]] = []
    with Counting(system) as counting:
        for each in files:
            session = open_session(each.path, each.runtime)
            sample = here.drawn(session.signature)
            session.close()
            found.append((each, counting.count(each.path, each.runtime, sample)))
            progress.advance()
    first = found[0][1]["total"]
    if first <= 0:
        raise ConfigError("executes nothing", where=found[0][0].file)
    counted = (
        Counted(
            file=each.file, sha256=each.sha256, runtime=each.runtime, counts=dict(counts), ratio=counts["total"] / first
        )
        for each, counts in found
    )
    return CountsBeside(target=target.name, processor=system.processor.name, files=tuple(counted))
