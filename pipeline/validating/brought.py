"""What was measured of a file on the target itself, and brought in a file."""

from __future__ import annotations

from pipeline.artifacts.measured import Measurements
from pipeline.artifacts.validation import OnTarget
from pipeline.declare.target import TargetProfile
from pipeline.errors import ConfigError
from pipeline.instruments import brought
from pipeline.runs.measurements import read_measurements
from pipeline.runs.store import sha256_of_file, storing
from pipeline.validating.opened import Opened, Question

_WHERE = "--measurements"


def on_target(question: Question, opened: Opened, target: TargetProfile | None) -> OnTarget | None:
    """Return what was measured of this very file in its runtime, with the target's number of threads or fewer.

    None where nothing is brought.  Raises ConfigError for measurements of another machine or file.
    """
    if not question.measurements:
        return None
    if target is None:
        raise ConfigError("stands for a target", where=_WHERE, remedy="name it: --target NAME")
    found = [read_measurements(each) for each in question.measurements]
    for each in found:
        brought.check_of(each, [target])
    return _best(found, opened, target)


def _best(found: list[Measurements], opened: Opened, target: TargetProfile) -> OnTarget:
    with storing(opened.path):
        sha256 = sha256_of_file(opened.path)
    same_file = [(one, each) for one in found for each in one.files if each.sha256 == sha256]
    if not same_file:
        measured = ", ".join(dict.fromkeys(f"{each.file} ({each.sha256[:12]})" for one in found for each in one.files))
        what = f"holds no times of {opened.path.name} ({sha256[:12]}), but of {measured}"
        raise ConfigError(what, where=_WHERE, remedy="measure this very file: karui bench FILE --out FILE.json")
    fit = [
        (one, each)
        for one, each in same_file
        if each.runtime == opened.runtime and each.threads <= target.judged_threads
    ]
    if not fit:
        ways = ", ".join(dict.fromkeys(f"{each.runtime} with {each.threads} threads" for _, each in same_file))
        what = f"{opened.path.name} was measured in {ways}"
        wanted = f"{opened.runtime} with {target.judged_threads}"
        raise ConfigError(what, where=_WHERE, remedy=f"{target.name}'s limits are about {wanted}; or name --runtime")
    one, each = max(fit, key=lambda pair: pair[1].threads)
    return OnTarget(
        place=brought.place(one, target),
        threads=each.threads,
        latency_p50_ms=each.latency.p50,
        latency_p95_ms=each.latency.p95,
        peak_memory_bytes=each.peak_memory_bytes,
        basis=brought.basis_of(each, one),
    )
