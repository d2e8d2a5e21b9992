"""The only program of an emulated machine: how much memory each file takes there, in a process of its own.

The kernel starts it from a disk that holds the target's system, in the target's own Python (3.9 or later), with nothing
of this package beside.  A second disk holds ``job.json``, the files and ``pipeline/onboard``; a third one takes a line
of JSON for each file.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, BinaryIO

_MOUNTS = (  # what, where, its kind
    ("dev", "/dev", "devtmpfs"),
    ("proc", "/proc", "proc"),
    ("sys", "/sys", "sysfs"),
    ("tmp", "/tmp", "tmpfs"),  # noqa: S108  # of this machine alone
    ("/dev/nvme0n2", "/job", "ext4"),
)
# a file whose pages push those out that run it would otherwise creep for minutes before the kernel ends it
_ENDED_EARLY = {"/sys/kernel/mm/lru_gen/enabled": "y", "/sys/kernel/mm/lru_gen/min_ttl_ms": "1000"}
_ANSWERS = "/dev/nvme0n3"
_READ_ONLY = 1
_POWER_OFF = 0x4321FEDC


def weighed(asked: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Run one file in a process of its own: the bytes that it takes, or the signal that ended it and its last words.

    ``asked``: "file" and "runtime", "site" with the runtime's packages, "threads".
    """
    before = out_of_memory()
    command = [sys.executable, "-m", "pipeline.onboard.memory"]
    done = subprocess.run(  # noqa: S603  # this very Python
        [*command, str(folder / asked["file"]), asked["runtime"], str(asked["threads"])],
        env={"PYTHONPATH": os.pathsep.join([str(folder), asked["site"]]), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        check=False,
    )
    if done.returncode == 0:
        return {"bytes": int(done.stdout)}
    lines = done.stderr.decode(errors="replace").splitlines()
    said = [line for line in lines if line.strip() and not line[0].isspace()]  # not how a fault is mended
    return {
        "signal": max(0, -done.returncode),
        "said": said[-1] if said else "",
        "out_of_memory": out_of_memory() > before,
    }


def out_of_memory() -> int:
    """Return how many processes this kernel has ended for want of memory."""
    lines = Path("/proc/vmstat").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))


def answer(answers: BinaryIO, folder: Path) -> None:
    """Weigh what ``job.json`` asks for; every answer is on the disk before the next file is run."""
    for asked in json.loads((folder / "job.json").read_text()):
        answers.write(json.dumps(weighed(asked, folder)).encode() + b"\n")
        answers.flush()
        os.fsync(answers.fileno())


def main() -> None:
    """Mount what there is, answer, and turn the machine off."""
    library = ctypes.CDLL(None, use_errno=True)
    for what, where, kind in _MOUNTS:
        flags = _READ_ONLY if kind == "ext4" else 0
        if library.mount(what.encode(), where.encode(), kind.encode(), ctypes.c_ulong(flags), None):
            raise OSError(ctypes.get_errno(), f"{where} cannot be mounted")
    for setting, value in _ENDED_EARLY.items():
        with contextlib.suppress(OSError):  # a kernel before 6.1
            Path(setting).write_text(value)
    with open(_ANSWERS, "r+b") as answers:  # noqa: PTH123  # no file, and so nothing to be opened anew
        answer(answers, Path("/job"))
    library.reboot(_POWER_OFF)


if __name__ == "__main__":
    main()
