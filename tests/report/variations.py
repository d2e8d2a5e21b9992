"""The recorded run, a little different: with other targets, without int8, without times, stopped early."""

from __future__ import annotations

import dataclasses

from pipeline.artifacts.evidence import Answered, Executed, Measurement, Observed, Place, Timing
from pipeline.artifacts.outcome import Check, Judged, Outcome
from pipeline.catalog import load_target
from pipeline.declare.recipe import RecipeLimits
from pipeline.declare.target import TargetProfile
from pipeline.stages.judge import judge
from tests.report.recorded import Recorded
from tests.stages.test_judge import NO_WORK

HOSTILE = "<script>alert(1)</script>"
PI, LAPTOP, HOST = "raspberry-pi-4b", "x86-laptop-avx2", "host"
LIMITS = RecipeLimits(accuracy_min=0.97, accuracy_drop_pp=1.0)


def target_of(outcome: Outcome, name: str) -> Judged:
    """Return the verdict for one target."""
    return next(each for each in outcome.targets if each.target == name)


def with_targets(run: Recorded, *names: str) -> Recorded:
    """Leave only these targets."""
    return run.but(targets=tuple(target_of(run.outcome, name) for name in names))


def with_target(run: Recorded, target: Judged) -> Recorded:
    """Leave this one target alone."""
    return run.but(targets=(target,))


def with_checks(run: Recorded, *checks: Check) -> Recorded:
    """Leave the first target, with these checks."""
    target = run.outcome.targets[0]
    return with_target(run, dataclasses.replace(target, verdict=dataclasses.replace(target.verdict, checks=checks)))


def judged_anew(run: Recorded, *observed: Observed, profile: TargetProfile | None = None) -> Recorded:
    """Judge the first target from other observations."""
    outcome = run.outcome
    target = judge(
        NO_WORK,
        target=profile or load_target(PI),
        limits=LIMITS,
        exports=outcome.exports,
        predicted=outcome.predicted,
        observed=observed,
    )
    return run.but(observed=observed, targets=(target,))


def float_only(run: Recorded) -> Recorded:
    """Return a run whose recipe said ``quantize.method = "none"``."""
    outcome, seen = run.outcome, run.outcome.observed[0]

    def is_float(each: Answered | Measurement | Timing | Executed) -> bool:
        return each.way.variant.precision == "fp32"

    floats = dataclasses.replace(
        seen,
        answers=tuple(filter(is_float, seen.answers)),
        measurements=tuple(filter(is_float, seen.measurements)),
        timings=tuple(filter(is_float, seen.timings)),
        executed=tuple(filter(is_float, seen.executed)),
    )
    off = dataclasses.replace(outcome.quantized[8], method="none", layers=(), float_layers=())
    bare = run.but(
        exports=outcome.exports[:1],
        predicted=outcome.predicted[:1],
        quantized={8: dataclasses.replace(off, checkpoint=dataclasses.replace(off.checkpoint, history=()))},
    )
    return judged_anew(bare, floats)


def untimed(run: Recorded) -> Recorded:
    """Return a run of which nobody measured time and memory."""
    return judged_anew(run, dataclasses.replace(run.outcome.observed[0], measurements=(), timings=()))


def seen_on(run: Recorded, place: Place, *measurements: Measurement) -> Recorded:
    """Add numbers from another place to those of the recorded machine, and judge the first target anew."""
    there = Observed(
        place=place,
        metric=run.outcome.metric,
        measurements=measurements,
        not_usable={},
    )
    return judged_anew(run, *run.outcome.observed, there)


def stopped_early(run: Recorded) -> Recorded:
    """Return a run that was asked to stop after training."""
    return run.but(targets=(), exports=(), predicted=(), observed=(), quantized={}, pruned=None)


def with_unpruned(run: Recorded) -> Recorded:
    """Return a run that also measured the network before pruning: larger, slower and one point better."""
    outcome, seen = run.outcome, run.outcome.observed[0]
    way = next(each.way for each in seen.answers if each.way.variant.key == "onnx-fp32")
    before = dataclasses.replace(way, variant=dataclasses.replace(way.variant, unpruned=True))
    answered = next(each for each in seen.answers if each.way == way)
    better = dataclasses.replace(answered, way=before, value=answered.value + 0.01, high=answered.high + 0.01)
    slower = tuple(
        dataclasses.replace(each, way=before, value=1.5 * each.value, low=1.5 * each.low, high=1.5 * each.high)
        for each in seen.measurements
        if each.way == way
    )
    since = tuple(
        dataclasses.replace(each, first=before)
        for each in seen.comparisons
        if each.second.program == way.program and each.first.program == "torch"
    )
    exports = outcome.exports[0]
    files = tuple(
        dataclasses.replace(file, variant=dataclasses.replace(file.variant, unpruned=True), size_bytes=9 * 1024)
        for file in exports.files
    )
    observed = dataclasses.replace(
        seen,
        answers=(better, *seen.answers),
        measurements=(*slower, *seen.measurements),
        comparisons=(*seen.comparisons, *since),
    )
    return judged_anew(run.but(unpruned=dataclasses.replace(exports, files=files)), observed)
