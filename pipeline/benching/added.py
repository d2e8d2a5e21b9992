"""``karui estimate --add``: times that were measured on a board become rows of the table that estimates rest on."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from pipeline import catalog
from pipeline.artifacts.measured import Benched
from pipeline.artifacts.networks import Digest
from pipeline.benching.contenders import runtimes_of
from pipeline.declare.target import TargetProfile
from pipeline.declare.words import RuntimeName
from pipeline.errors import ConfigError, EmulationError
from pipeline.estimating.table import Row, add
from pipeline.instruments import here
from pipeline.progress import Progress
from pipeline.runs.measurements import read_measurements
from pipeline.runs.store import sha256_of_file, storing
from pipeline.runtimes import executed, open_session
from pipeline.runtimes.emulation.counting import Counting, Counts
from pipeline.runtimes.emulation.system import system_for

_WHERE = "--add"
_PRECISIONS = (".int8", ".fp32")  # in names of karui's files: a network is left out in both


def added(paths: Sequence[Path], files: Sequence[Path], progress: Progress) -> tuple[Row, ...]:
    """Count every file that was measured on one thread, on the emulated processor of its board, and keep the rows.

    ``files``: where they are, if not beside the measurements.  Raises ConfigError and EmulationError in words; nothing
    is kept then.
    """
    rows = tuple(row for path in paths for row in _rows(path, files, progress))
    add(rows)
    return rows


def _rows(path: Path, files: Sequence[Path], progress: Progress) -> Iterator[Row]:
    found = read_measurements(path)
    if found.place.profile is None:
        what = f"was measured on {found.place.name}, which is no target that is known"
        raise ConfigError(what, where=str(path), remedy="say which one it is where you measure: karui bench --target T")
    target = catalog.load_target(found.place.profile)
    alone = [each for each in found.files if each.threads == 1]
    if not alone:
        raise ConfigError("holds no times on one thread", where=str(path), remedy="measure them: --threads 1")
    there = _by_digest([*files, *(each for each in sorted(path.parent.iterdir()) if each.is_file())])
    for each in alone:
        if each.sha256 not in there:
            what = f"{each.file} ({each.sha256[:12]}), which was measured, is not beside it"
            raise ConfigError(what, where=str(path), remedy="say where it is: --file FILE")
    system = system_for(target)
    progress.start("counting instructions", len(alone))
    with Counting(system) as counting:
        for each in alone:
            if each.runtime not in system.homes:
                why = system.not_usable.get(each.runtime, "it is not there")
                raise EmulationError(f"{each.runtime} cannot be used on {target.name}: {why}", where=each.file)
            counts = _counts(there[each.sha256], each.runtime, counting)
            yield _row(each, there[each.sha256], counts, target=target, cpu=system.processor.name)
            progress.advance()


def _counts(file: Path, runtime: RuntimeName, counting: Counting) -> Counts:
    session = open_session(file, runtime)
    sample = here.drawn(session.signature)
    session.close()
    return counting.count(file, runtime, sample)


def _row(each: Benched, file: Path, counts: Counts, *, target: TargetProfile, cpu: str) -> Row:
    integers = any(node.integer for node in executed(file, each.runtime))
    return Row(
        cpu=cpu,
        clock_mhz=_clock_mhz(each) or target.cpu.clock_mhz,
        board=target.title,
        runtime=each.runtime,
        model=_network(each.file),
        precision="int8" if integers else "fp32",
        published_ms=each.latency.p50.value,
        counts=counts,
    )


def _clock_mhz(each: Benched) -> int | None:
    """Return the clock that the board ran at; None where it did not tell."""
    told = [point.clock_mhz for point in each.kept_up.points if point.clock_mhz is not None and point.clock_mhz >= 1]
    return round(statistics.median(told)) if told else None


def _network(file: str) -> str:
    name = Path(file).stem
    for precision in _PRECISIONS:
        name = name.removesuffix(precision)
    return name


def _by_digest(files: Iterable[Path]) -> dict[Digest, Path]:
    """Return sha256 → file of all model files.  Raises ConfigError for one that is named and not there."""
    found: dict[Digest, Path] = {}
    for file in files:
        if not runtimes_of(file):
            continue
        if not file.is_file():
            raise ConfigError("there is no such file", where=str(file))
        with storing(file):
            found.setdefault(sha256_of_file(file), file)
    return found
