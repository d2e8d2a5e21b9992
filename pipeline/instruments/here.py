"""The instrument that is this machine: files in every usable runtime of their format, their time and their memory.

Shapes: S sessions of each file; R timed inferences in one session.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.evidence import Interval, Place
from pipeline.artifacts.files import RUNTIME_OF_FORMAT, Exported, Way
from pipeline.artifacts.training import Paid
from pipeline.declare.words import RuntimeName
from pipeline.host import machine_name, usable_cores
from pipeline.instruments.protocol import Contender
from pipeline.judging.latency import ROUNDS
from pipeline.judging.latency import compare as compare_sessions
from pipeline.onboard.arrays import Arrays, Signature
from pipeline.onboard.frontend import prepare
from pipeline.onboard.session import Session, Timer
from pipeline.onboard.stepping import first_step
from pipeline.onboard.timing import Opener, measure
from pipeline.runs.store import Store
from pipeline.runtimes import open_session, peak_memory_bytes, unavailable
from pipeline.runtimes.child import Home, reusing_children

SESSIONS = 12  # of each file: enough for a 95 % interval that one odd session does not decide
_BUDGET_S = 2.0  # for each file; small networks need less


@dataclass(frozen=True, kw_only=True, eq=False)
class FileWay:
    """A file and one of its runtimes."""

    file: Exported
    runtime: RuntimeName
    path: Path
    home: Home | None = None  # where the runtime lives, if not on this machine

    @property
    def way(self) -> Way:
        """Name the pair."""
        return Way(variant=self.file.variant, program=self.runtime)

    def prepared(self, inputs: Arrays) -> Arrays:
        """Return raw inputs as the file takes them; as they are where it does not say how."""
        about = self.file.about
        return prepare(inputs, {} if about is None else {each.name: each.steps for each in about.inputs})

    def open(self, *, threads: int, exact: bool = False) -> Session:
        """Open a fresh session, for times, or an ``exact`` one, for outputs: they must be those of the target.

        Raises ModelError when the runtime refuses the file.
        """
        return open_session(
            self.path,
            self.runtime,
            threads=threads,
            signature=self.file.signature,
            steps=self.file.steps,
            exact=exact,
            home=self.home,
        )


def place(profile: str | None = None) -> Place:
    """Say that numbers were measured on this machine; ``profile``: the target profile that it is."""
    return Place(how="measured", name=machine_name(), profile=profile)


def ways_of(files: Sequence[Exported], store: Store) -> tuple[tuple[FileWay, ...], dict[str, str]]:
    """Return every file, once, with every usable runtime of its format; and runtime → why not, for the others.

    Raises StorageError when a file is gone.
    """
    distinct = {file.variant: file for file in files}.values()
    found: list[FileWay] = []
    not_usable: dict[str, str] = {}
    for file in distinct:
        own = [runtimes for kind, runtimes in RUNTIME_OF_FORMAT.items() if kind == file.variant.format]
        for runtime in itertools.chain(*own):
            reason = unavailable(runtime)
            if reason:
                not_usable[runtime] = reason
            else:
                found.append(FileWay(file=file, runtime=runtime, path=store.path(file.file)))
    return tuple(found), not_usable


# ── time and memory ─────────────────────────────────────────────────────────────────────────────────────────────────


def time_ways(ways: Sequence[FileWay], sample: Arrays, *, threads: int, seed: int) -> dict[Way, NDArray[np.float64]]:
    """Time all ways together on one raw sample (1, …): (S, R) ms of each, with so many threads; {} for no ways."""
    if not ways:
        return {}
    openers = {each.way.key: _opener(each, sample, threads) for each in ways}
    with reusing_children():
        times = measure(openers, sessions=SESSIONS, rounds=ROUNDS, budget_s=_BUDGET_S * len(ways), seed=seed)
    return {each.way: times[each.way.key] for each in ways}


def memory_of(ways: Sequence[FileWay], *, threads: int) -> dict[Way, int]:
    """Return the peak memory of each way in bytes, in a process of its own; {} where the system does not tell."""

    def peak(each: FileWay) -> int | None:
        return peak_memory_bytes(each.path, each.runtime, threads=threads)

    with ThreadPoolExecutor(usable_cores()) as pool:  # memory, unlike time, does not mind company
        found = list(pool.map(peak, ways))
    return {each.way: bytes_ for each, bytes_ in zip(ways, found, strict=True) if bytes_ is not None}


def compare(candidate: Contender, reference: Contender, *, threads: int, budget_s: float, seed: int) -> Paid:
    """Compare two files by the time of one inference in ONNX Runtime."""
    return compare_speed(candidate.path, reference.path, threads=threads, budget_s=budget_s, seed=seed)


def compare_speed(
    candidate: Path,
    reference: Path,
    *,
    runtime: RuntimeName = "onnxruntime",
    threads: int = 1,
    budget_s: float = 5.0,
    seed: int = 0,
) -> Paid:
    """Tell how much longer one inference of a file takes than of another one, here; a file equals itself.

    Sessions of both are opened until the difference is clear or the budget is spent (``judging.latency.compare``).
    Raises ModelError when the runtime refuses a file.
    """
    first, second = (opener_of(path, runtime, threads) for path in (candidate, reference))
    speed = compare_sessions(first, second, budget_s=budget_s, seed=seed)
    return Paid(ratio=speed.ratio.value, low=speed.ratio.low, high=speed.ratio.high, of="latency", place=place())


def compare_threads(
    each: FileWay, sample: Arrays, *, more: int, fewer: int, budget_s: float, seed: int = 0
) -> Interval:
    """Return the time of one inference with more threads / that with fewer, on one raw sample (1, …).

    Sessions of both are opened until the difference is clear or the budget is spent (``judging.latency.compare``).
    """
    with reusing_children():
        first, second = (_opener(each, sample, threads) for threads in (more, fewer))
        return compare_sessions(first, second, budget_s=budget_s, seed=seed).ratio


def _opener(each: FileWay, sample: Arrays, threads: int) -> Opener:
    prepared = first_step(each.prepared(sample), each.file.signature)
    return lambda: _timer(each.open(threads=threads), prepared)


def opener_of(path: Path, runtime: RuntimeName, threads: int) -> Opener:
    """Return what opens a fresh session of a file, which is timed on a sample that is drawn."""

    def opened() -> Timer:
        session = open_session(path, runtime, threads=threads)
        return _timer(session, drawn(session.signature))

    return opened


def _timer(session: Session, sample: Arrays) -> Timer:
    """Return the session's timer; the session is closed as soon as nobody holds that any more."""
    run = session.timer(sample)

    def timer(count: int) -> list[float]:
        return run(count)

    weakref.finalize(timer, session.close)
    return timer


def drawn(signature: Signature) -> Arrays:
    """Draw one sample for each input: numbers as a normalised picture has them, zeros where integers are wanted."""
    rng = np.random.default_rng(0)
    drawn = {}
    for spec in signature.inputs:
        shape = (1, *(max(size, 1) for size in spec.shape))  # a size that the file leaves open: one
        values = rng.standard_normal(shape) if spec.dtype.startswith("float") else np.zeros(shape)
        drawn[spec.name] = values.astype(spec.dtype)
    return drawn
