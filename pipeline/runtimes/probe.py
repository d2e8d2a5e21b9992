"""``python -m pipeline.runtimes.probe FILE RUNTIME THREADS``: print the memory that loading and running a file takes.

A process of its own, because memory that a process once had tells nothing about the model that it loads next.
"""

from __future__ import annotations

import contextlib
import re
import sys
from pathlib import Path
from typing import cast

import numpy as np

from pipeline.errors import ModelError
from pipeline.runtimes import open_session, tflite
from pipeline.spec import RuntimeName

_RUNS = 3  # the second run may still allocate what the first one only planned


def peak_bytes(path: Path, runtime: RuntimeName, *, threads: int) -> int:
    """Peak resident memory while loading and running the file, less what the process held before; needs /proc."""
    if runtime != "onnxruntime":
        tflite.load_library(runtime)
    _forget_peak()
    before = _status_bytes("VmRSS")
    session = open_session(path, runtime, threads=threads)
    call = session.invoker(np.zeros((1, *session.sample_shape), np.float32))
    for _ in range(_RUNS):
        call()
    return _status_bytes("VmHWM") - before


def _forget_peak() -> None:
    """Restart the high-water mark: imports may have stood higher than the model will (proc(5), clear_refs)."""
    with contextlib.suppress(OSError):  # not allowed in some containers: the mark since the start is then the answer
        Path("/proc/self/clear_refs").write_text("5")


def _status_bytes(key: str) -> int:
    found = re.search(rf"^{key}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    if not found:
        raise OSError(f"/proc/self/status has no {key}")
    return int(found[1]) * 1024


if __name__ == "__main__":
    file, name, count = sys.argv[1:]
    try:
        print(peak_bytes(Path(file), cast("RuntimeName", name), threads=int(count)))  # noqa: T201  # its answer
    except ModelError as error:
        sys.exit(error.what)
