"""How long a process takes to its first answer: the runtime's library is loaded, the file is, one inference is run.

For a process that has done nothing else: what is loaded once is not loaded again.  The file itself is in the system's
memory already where somebody has read it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from pipeline.onboard.arrays import Arrays
from pipeline.onboard.session import module_of, open_session


@dataclass(frozen=True)
class ColdStart:
    """One first answer, in ms."""

    library_ms: float
    load_ms: float
    first_ms: float


def cold_start(path: Path, runtime: str, *, threads: int, sample: Arrays) -> ColdStart:
    """Load library and file and run one sample (1, …).  Raises FileRefused, InputRefused and RuntimeMissing."""
    clock = time.perf_counter
    start = clock()
    module_of(runtime).load(runtime)
    library = clock()
    session = open_session(path, runtime, threads=threads)
    loaded = clock()
    session.run(sample)
    ended = clock()
    return ColdStart(
        library_ms=1000 * (library - start), load_ms=1000 * (loaded - library), first_ms=1000 * (ended - loaded)
    )
