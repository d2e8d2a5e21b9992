"""``python -m pipeline.onboard.memory FILE RUNTIME THREADS``: print the memory that loading and running a file takes.

A process of its own, because memory that a process once had tells nothing about the model that it loads next.
"""

from __future__ import annotations

import contextlib
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.onboard.arrays import TensorSpec
from pipeline.onboard.faults import OnboardFault
from pipeline.onboard.session import module_of, open_session

STATUS = Path("/proc/self/status")
_RUNS = 3  # the second run may still allocate what the first one only planned


def peak_bytes(path: Path, runtime: str, *, threads: int) -> int:
    """Return the peak resident memory while loading and running a file, less what the process held before.

    Raises OSError where there is no /proc, FileRefused and InputRefused when the file does not run.
    """
    module_of(runtime).version(runtime)  # imports the library: its memory is not the model's
    _forget_peak()
    before = _status_bytes("VmRSS")
    session = open_session(path, runtime, threads=threads)
    sample = {spec.name: _zeros(spec) for spec in session.signature.inputs}
    for _ in range(_RUNS):
        session.run(sample)
    return _status_bytes("VmHWM") - before


def _zeros(spec: TensorSpec) -> NDArray[Any]:
    return np.zeros((1, *(max(1, size) for size in spec.shape)), spec.dtype)


def _forget_peak() -> None:
    """Restart the high-water mark: imports may have stood higher than the model will (proc(5), clear_refs)."""
    with contextlib.suppress(OSError):  # not allowed in some containers: the mark since the start is then the answer
        Path("/proc/self/clear_refs").write_text("5")


def _status_bytes(key: str) -> int:
    found = re.search(rf"^{key}:\s+(\d+) kB", STATUS.read_text(), re.MULTILINE)
    if not found:
        raise OSError(f"{STATUS} has no {key}")
    return int(found[1]) * 1024


if __name__ == "__main__":
    file, name, count = sys.argv[1:]
    try:
        print(peak_bytes(Path(file), name, threads=int(count)))  # noqa: T201  # its answer
    except OnboardFault as fault:
        sys.exit(str(fault))
