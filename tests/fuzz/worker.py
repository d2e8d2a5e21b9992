"""``python -m tests.fuzz.worker FOLDER``: tries changed files, one after another, as they are asked for.

A line of input asks (kind, seed, number), a line of JSON answers; as a process of its own it can be watched, and
may die.
"""

from __future__ import annotations

import json
import os
import random
import resource
import sys
import time
import traceback
import warnings
from pathlib import Path

from pipeline.ending import ending_of
from pipeline.errors import ConfigError, DataError, KaruiError
from pipeline.onboard.faults import OnboardFault
from tests.fuzz import seeds
from tests.fuzz.kinds import KINDS, Kind, Use

ACCEPTED, REFUSED, RAISED, WARNED, GREW, SLOW = "accepted", "refused", "raised", "warned", "grew", "slow"
MOST_SECONDS = 10.0  # of the processor: others work beside it
DIES_AT = "KARUI_FUZZ_DIES_AT"  # kind and number: for the test of who watches
MOST_GROWTH_BYTES = 1 << 30
_MOST_ADDRESSES_BYTES = 6 << 30  # beyond what the process has: the machine is not to suffer
_WORDS = (ConfigError.exit_code, DataError.exit_code)


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:")) << 10


def _children_bytes() -> int:
    """Return the most that any finished child has had."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss << 10


def _tried(use: Use, file: Path) -> tuple[str, str]:
    """Return how a use of the file ends, and where and why if not as it should."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts anew (proc(5))
    before, children = _status("VmRSS"), _children_bytes()
    with warnings.catch_warnings(record=True) as warned:  # those that a user would see
        began = time.process_time()
        outcome, why = _ended(use, file)
        took = time.process_time() - began
    if took > MOST_SECONDS:
        return SLOW, f"{took:.1f} s; {why}"
    grown = max(_status("VmHWM") - before, _children_bytes() if _children_bytes() > children else 0)
    if outcome in (ACCEPTED, REFUSED) and grown > MOST_GROWTH_BYTES:
        return GREW, f"{grown >> 20} MiB more memory; {why}"
    if outcome in (ACCEPTED, REFUSED) and warned:
        return WARNED, f"{warned[0].category.__name__}: {warned[0].message} ({warned[0].filename}:{warned[0].lineno})"
    return outcome, why


def _ended(use: Use, file: Path) -> tuple[str, str]:
    try:
        use(file)
    except BaseException as error:  # noqa: BLE001  (whatever comes is what is looked for)
        said = str(error)
        refused = isinstance(error, KaruiError | OnboardFault) or ending_of(error).exit_status in _WORDS
        if not refused or "bug in karui" in said:
            return RAISED, "".join(traceback.format_exception(error))[-3000:]
        return REFUSED, said[:300]
    return ACCEPTED, ""


def made(kind: Kind, name: str, seed: int, number: int) -> bytes:
    """Return the changed file of this number."""
    return kind.mutate(random.Random(f"{name} {seed} {number}"), kind.seeds())  # noqa: S311  no secret


def main() -> None:
    """Answer until standard input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # libraries print
    os.dup2(1, 2)
    folder = Path(sys.argv[1])
    os.chdir(folder)
    os.environ["KARUI_CACHE"] = str(folder / "cache")
    seeds.write_beside(folder)
    before = ""
    resource.setrlimit(resource.RLIMIT_AS, (_status("VmSize") + _MOST_ADDRESSES_BYTES,) * 2)
    for line in sys.stdin:
        name, seed, number = line.split()
        if name != before:
            seeds.write_beside(folder)  # another kind has changed one of them
            before = name
        kind = KINDS[name]
        if os.environ.get(DIES_AT) == f"{name} {number}":
            os.abort()
        file = folder / kind.file
        file.write_bytes(made(kind, name, int(seed), int(number)))
        began = time.process_time()
        found = [_tried(use, file) for use in kind.uses]
        answers.write(json.dumps({"found": found, "took_s": time.process_time() - began}) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
