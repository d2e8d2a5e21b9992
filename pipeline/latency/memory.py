"""Peak memory of a model file in a runtime, measured in a fresh process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from pipeline.errors import ModelError
from pipeline.spec import RuntimeName

_TIMEOUT_S = 120


def peak_memory_bytes(path: Path, runtime: RuntimeName, *, threads: int) -> int | None:
    """Bytes that loading the file and running one sample adds to a process that has imported the runtime.

    None on systems without /proc, where nothing trustworthy can be read.  Raises ModelError when the file does not run.
    """
    if not Path("/proc/self/status").exists():
        return None
    command = [sys.executable, "-m", "pipeline.runtimes.probe", str(path), runtime, str(threads)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)  # noqa: S603  # own module, own path
    except subprocess.TimeoutExpired as error:
        raise ModelError(f"{runtime} did not finish a single inference in {_TIMEOUT_S} s", where=str(path)) from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        raise ModelError(f"{runtime} cannot run this file: {last}", where=str(path))
    return int(done.stdout)
