"""Exported files in their runtimes, and what one inference of each takes on this machine.

R rounds of I single inferences each (see ``pipeline.latency.measure``).
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts import RUNTIME_OF_FORMAT, Exported
from pipeline.host import usable_cores
from pipeline.latency.measure import Times, measure_interleaved, ratio
from pipeline.latency.memory import peak_memory_bytes
from pipeline.runtimes import Session, open_session, unavailable
from pipeline.spec import Precision, RuntimeName
from pipeline.stats import Interval, quantile_interval
from pipeline.store import Store


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadedFile:
    """A file in one of its runtimes."""

    file: Exported
    runtime: RuntimeName
    path: Path
    threads: int
    session: Session

    @property
    def id(self) -> str:
        """Name the pair: the file's key and the runtime."""
        return f"{self.file.key} in {self.runtime}"


@dataclass(frozen=True, kw_only=True, eq=False)
class FileCost:
    """Time and memory of one loaded file on this machine."""

    times_ms: Times  # (R, I)
    p50_ms: Interval
    p95_ms: Interval
    peak_memory_bytes: int | None  # beyond what Python and the runtime's library take; None: cannot be read here


def load_files(
    files: Sequence[Exported], store: Store, *, threads: int
) -> tuple[tuple[LoadedFile, ...], tuple[tuple[str, str], ...]]:
    """Open every file in every runtime of its format; return them, and (runtime, why not) of those that are not usable.

    Raises ModelError when a usable runtime refuses a file, StorageError when a file is gone.
    """
    loaded: list[LoadedFile] = []
    skipped: dict[str, str] = {}
    for file in files:
        for runtime in RUNTIME_OF_FORMAT[file.format]:
            reason = unavailable(runtime)
            if reason:
                skipped[runtime] = reason
                continue
            path = store.path(file.file)
            session = open_session(path, runtime, threads=threads)
            loaded.append(LoadedFile(file=file, runtime=runtime, path=path, threads=threads, session=session))
    return tuple(loaded), tuple(skipped.items())


def choose(loaded: Sequence[LoadedFile], runtime: RuntimeName, precision: Precision) -> LoadedFile | None:
    """Return the file for a target's runtime; where that is not usable here, in the other runtime of its format."""
    file_format = "onnx" if runtime in RUNTIME_OF_FORMAT["onnx"] else "tflite"
    fitting = [each for each in loaded if each.file.format == file_format and each.file.precision == precision]
    return min(fitting, key=lambda each: each.runtime != runtime, default=None)


def measure_costs(
    loaded: Sequence[LoadedFile], sample: NDArray[np.float32], *, rounds: int, budget_s: float
) -> dict[str, FileCost]:
    """Time all files interleaved on one sample (1, *sample), then each one's memory in a process of its own; by id."""
    if not loaded:
        return {}
    invokers = {each.id: each.session.invoker(sample) for each in loaded}
    times = measure_interleaved(invokers, rounds=rounds, budget_s=budget_s)
    with ThreadPoolExecutor(usable_cores()) as pool:  # memory, unlike time, does not mind company
        memory = pool.map(lambda each: peak_memory_bytes(each.path, each.runtime, threads=each.threads), loaded)
    return {
        each.id: FileCost(
            times_ms=times[each.id],
            p50_ms=quantile_interval(times[each.id].ravel(), 0.50),
            p95_ms=quantile_interval(times[each.id].ravel(), 0.95),
            peak_memory_bytes=peak,
        )
        for each, peak in zip(loaded, memory, strict=True)
    }


def time_ratio(first: LoadedFile | None, second: LoadedFile | None, costs: dict[str, FileCost]) -> Interval | None:
    """Time of the first file over time of the second, measured in the same rounds; None when one is missing."""
    if first is None or second is None:
        return None
    return ratio(costs[first.id].times_ms, costs[second.id].times_ms)
