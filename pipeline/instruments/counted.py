"""The instrument that counts a target's own instructions and knows from published times how long they take."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pipeline.artifacts.evidence import CannotRun, Measurement, Place, Quantity
from pipeline.declare.target import TargetProfile
from pipeline.errors import EmulationError
from pipeline.estimating.predicted import fit_of, predicted
from pipeline.instruments.here import FileWay
from pipeline.instruments.passing import noted
from pipeline.onboard.arrays import Arrays
from pipeline.onboard.stepping import first_step
from pipeline.progress import Progress
from pipeline.runtimes.emulation.counting import Counting
from pipeline.runtimes.emulation.system import System, stand_in

_LATENCIES: tuple[Quantity, ...] = ("latency_p50_ms", "latency_p95_ms")  # of an idle board: nothing tells them apart


def place(target: TargetProfile) -> Place:
    """Say that times follow from counts.  Raises EmulationError where nobody published times of such a processor."""
    processor, _ = stand_in(target)
    if fit_of(processor.name) is None:
        raise EmulationError(f"nobody published times of a {processor.name} that an estimate could rest on")
    name = f"the basis of the instructions of a {processor.name} at {target.cpu.clock_mhz} MHz"
    return Place(how="estimated", name=name, profile=target.name)


def estimated(
    ways: Sequence[FileWay],
    sample: Arrays,
    system: System,
    target: TargetProfile,
    *,
    progress: Progress,
    cannot_run: list[CannotRun],
) -> Iterator[Measurement]:
    """Count one inference of every way on one raw sample (1, …), and estimate its time.

    ``cannot_run``: takes down which ways fail.  Raises EmulationError where the emulator counts nothing.
    """
    own = place(target)
    progress.start("counting instructions", len(ways))
    with Counting(system) as counting:
        for each in ways:
            inputs = first_step(each.prepared(sample), each.file.signature)
            counts = None
            with noted(each, cannot_run):
                counts = counting.count(each.path, each.runtime, inputs, signature=each.file.signature)
            progress.advance()
            if counts is None:
                continue
            total = counts["total"]
            yield Measurement(
                quantity="instructions", way=each.way, threads=1, place=own, value=total, low=total, high=total
            )
            found = predicted(counts, cpu=system.processor.name, clock_mhz=target.cpu.clock_mhz, runtime=each.runtime)
            assert found is not None  # noqa: S101  (there is a place)
            ms, basis = found
            for quantity in _LATENCIES:
                yield Measurement(
                    quantity=quantity, way=each.way, threads=1, place=own,
                    value=ms.value, low=ms.low, high=ms.high, basis=basis,
                )  # fmt: skip
