"""judge: for one target, which file ships and which limits are met.  Opens no file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from pipeline.artifacts.evidence import Answered, CannotRun, Compared, Measurement, Observed, Predicted
from pipeline.artifacts.files import RUNTIME_OF_FORMAT, Exported, ExportSet, Variant, Way
from pipeline.artifacts.outcome import Judged
from pipeline.declare.recipe import RecipeLimits
from pipeline.declare.target import TargetProfile
from pipeline.declare.words import Precision, RuntimeName
from pipeline.judging.case import Candidate, Case, estimated_memory, in_order_of_weight, standing_for
from pipeline.judging.speed import TimeRatio, Times
from pipeline.judging.verdict import decide, failures
from pipeline.runs.run import Work, stage


@dataclass(frozen=True, kw_only=True)
class _Bench:
    """The target's files and all that was found out about them, in the order in which it counts."""

    target: TargetProfile
    programs: tuple[RuntimeName, ...]  # that may run them there, of one format; the first where it is usable
    files: dict[Variant, Exported]
    observed: tuple[Observed, ...]
    standing: tuple[Measurement, ...]

    @property
    def times(self) -> Times:
        """All that tells how long they take."""
        return Times(target=self.target, observed=self.observed, standing=self.standing)

    @property
    def answers(self) -> dict[Way, Answered]:
        """Each way once, but for those that the target does not run."""
        found: dict[Way, Answered] = {}
        failed = {each.way for each in self.failed}
        for each in (answered for one in self.observed for answered in one.answers):
            if each.way.variant in self.files and each.way not in failed:
                found.setdefault(each.way, each)
        return found

    @property
    def failed(self) -> tuple[CannotRun, ...]:
        """Return what the target, or what stands for it, does not run in the competing runtimes, each way once."""
        found: dict[Way, CannotRun] = {}
        there = (one for one in self.observed if one.place.profile == self.target.name)
        for each in (each for one in there if one.place.how != "estimated" for each in one.cannot_run):
            if each.way.program in self.programs and each.way.variant in self.files:
                found.setdefault(each.way, each)
        return tuple(found.values())


@stage(version=1)
def judge(
    work: Work,  # noqa: ARG001  every stage gets one
    *,
    target: TargetProfile,
    limits: RecipeLimits,
    exports: tuple[ExportSet, ...],
    predicted: tuple[Predicted, ...],
    observed: tuple[Observed, ...],
) -> Judged:
    """Choose the file for one target among those of its weight bits, from numbers that stand for it and no others.

    Raises ValueError where nothing was predicted.
    """
    if not predicted:
        raise ValueError(f"{target.name}: nothing was predicted")
    benches = [_bench(target, programs, exports, observed) for programs in _competing(target)]
    contest = [(bench, _judged(bench, limits, predicted)) for bench in _fastest_first(benches)]
    fit = [each for each in contest if each[1].verdict.ship]
    preferred = [each for each in fit if _ships(each[1], target.precision)]
    bench, chosen = (*preferred, *fit, *contest)[0]
    if not preferred:
        return chosen
    why = "; ".join((chosen.verdict.why, *_beside_others(bench, contest)))
    return replace(chosen, verdict=replace(chosen.verdict, why=why))


def _competing(target: TargetProfile) -> tuple[tuple[RuntimeName, ...], ...]:
    """Return the runtimes of each format that may ship, its own or the newest first, as far as they exist there."""
    there = [tuple(each for each in some if each in target.runtimes) for some in RUNTIME_OF_FORMAT.values()]
    if target.runtime == "auto":
        return tuple(programs for programs in there if programs)
    programs = next(each for each in there if target.runtime in each)
    return (tuple(sorted(programs, key=lambda program: program != target.runtime)),)


def _ships(judged: Judged, precision: Precision) -> bool:
    return judged.verdict.ship is not None and judged.verdict.ship.variant.precision == precision


def _fastest_first(benches: Sequence[_Bench]) -> list[_Bench]:
    """Sort by the time of the files that are preferred."""
    order = list(benches)
    for bench in benches[1:]:
        if _lead(bench, order[0]) is not None:
            order.remove(bench)
            order.insert(0, bench)
    return order


def _lead(bench: _Bench, other: _Bench) -> TimeRatio | None:
    """Say by how much the file of one runtime is faster than that of another."""
    own, than = _preferred(bench), _preferred(other)
    if own is None or than is None or own.precision != than.precision:
        return None
    found = bench.times.ratio(own.way, than.way)
    return found if found and found.leads else None


def _preferred(bench: _Bench) -> Candidate | None:
    wanted: tuple[Precision, ...] = ("int8", "fp32") if bench.target.precision == "int8" else ("fp32", "int8")
    return next(filter(None, (_candidate(bench, precision) for precision in wanted)), None)


def _beside_others(chosen: _Bench, contest: Sequence[tuple[_Bench, Judged]]) -> Iterator[str]:
    """Say why this runtime and not another."""
    for bench, judged in contest:
        if (lead := _lead(chosen, bench)) is not None:
            yield f"{lead.way.program} takes {_time(lead)} as {lead.than.program} ({lead.place.text})"
        elif (lead := _lead(bench, chosen)) is not None:
            yield f"not {lead.way.key}, which takes {_time(lead)} as that ({lead.place.text}): {judged.verdict.why}"
        elif _candidate(bench, bench.target.precision) is None:
            yield from (f"not {each}" for each in failures(bench.failed, bench.target.precision))


def _time(lead: TimeRatio) -> str:
    return f"{lead.time.value:.2f} times as long"


def _judged(bench: _Bench, limits: RecipeLimits, predicted: Sequence[Predicted]) -> Judged:
    target = bench.target
    fp32, int8 = _candidate(bench, "fp32"), _candidate(bench, "int8")
    compared = _compared(bench, int8)
    verdict = decide(
        Case(
            target=target,
            limits=limits,
            metric=predicted[0].metric,
            others=predicted[0].others,
            baselines=predicted[0].baselines,
            faster=_faster(bench, int8 or fp32),
            fp32=fp32,
            int8=int8,
            compared=compared,
            same=_same(bench, predicted, int8),
            saturating_layers=_saturating(bench, int8),
            int8_time=bench.times.ratio(int8.way, fp32.way) if int8 and fp32 else None,
            cannot_run=_cannot_run(bench),
            failed=bench.failed,
        )
    )
    return Judged(
        target=target.name,
        title=target.title,
        weight_bits=target.weight_bits,
        threads=target.judged_threads,
        candidates=tuple(each.way for each in (fp32, int8) if each),
        compared=(compared[0].first, compared[0].second) if compared else None,
        measurements=bench.standing,
        verdict=verdict,
    )


def _bench(
    target: TargetProfile,
    programs: tuple[RuntimeName, ...],
    exports: Iterable[ExportSet],
    observed: Sequence[Observed],
) -> _Bench:
    mine = [each for each in exports if each.precision == "fp32" or each.weight_bits == target.weight_bits]
    files = {file.variant: file for each in mine for file in each.files}
    in_order = in_order_of_weight(observed, target.name)
    found = [
        each
        for one in in_order
        for each in one.measurements
        if each.way.variant in files or each.way.variant.unpruned  # the latter is shown, and never a candidate
    ]
    standing = standing_for(target, found)
    return _Bench(
        target=target,
        programs=programs,
        files=files,
        observed=in_order,
        standing=(*standing, *_memory(target, found)),
    )


def _memory(target: TargetProfile, found: Sequence[Measurement]) -> tuple[Measurement, ...]:
    """Estimate the peak memory of those ways that nobody ran on the target."""
    of_memory = [each for each in found if each.quantity == "peak_memory_bytes"]
    known = {each.way for each in of_memory if each.place.profile == target.name}
    elsewhere: dict[Way, Measurement] = {}
    for each in sorted(of_memory, key=lambda each: abs(each.threads - target.judged_threads)):
        if each.way not in known and each.place.how == "measured":
            elsewhere.setdefault(each.way, each)
    return tuple(estimated_memory(target, each) for each in elsewhere.values())


def _candidate(bench: _Bench, precision: Precision) -> Candidate | None:
    """Return the file for the target's runtime; where that was not usable, in the other runtime of its format."""
    fitting = {each.way.program: each for each in bench.answers.values() if each.way.variant.precision == precision}
    found = next((fitting[program] for program in bench.programs if program in fitting), None)
    if found is None:
        return None
    numbers = {each.quantity: each for each in bench.standing if each.way == found.way}
    return Candidate(
        way=found.way,
        file=bench.files[found.way.variant],
        answered=found,
        latency_p95_ms=numbers.get("latency_p95_ms"),
        peak_memory_bytes=numbers.get("peak_memory_bytes"),
    )


def _compared(bench: _Bench, int8: Candidate | None) -> tuple[Compared, ...]:
    if int8 is None:
        return ()
    found: dict[str, Compared] = {}
    for each in (compared for one in bench.observed for compared in one.comparisons):
        if each.second == int8.way:
            found.setdefault(each.metric, each)
    return tuple(found.values())


def _same(bench: _Bench, predicted: Sequence[Predicted], int8: Candidate | None) -> float | None:
    """Find how often the int8 file decides as the fake-quantized network with its weights."""
    if int8 is None:
        return None
    width = int8.way.variant.weight_bits
    trained = [each.answered.way for each in predicted if each.answered.way.variant.precision == "int8"]
    sides = [{way, int8.way} for way in trained if way.variant.weight_bits == width]
    pairs = (pair for one in bench.observed for pair in one.agreements)
    return next((pair.same for pair in pairs if {pair.first, pair.second} in sides), None)


def _saturating(bench: _Bench, int8: Candidate | None) -> int | None:
    if int8 is None:
        return None
    found = (each for one in bench.observed for each in one.saturation if each.variant == int8.way.variant)
    return next((sum(row.can_saturate for row in each.rows) for each in found), None)


def _faster(bench: _Bench, candidate: Candidate | None) -> TimeRatio | None:
    """Find the fastest way that is surely faster than a candidate and may not ship, since the target has a runtime."""
    if candidate is None or bench.target.runtime == "auto":
        return None
    others = [way for way in bench.answers if way.variant.precision == candidate.precision and way != candidate.way]
    ratios = (bench.times.ratio(way, candidate.way) for way in others)
    surely = [each for each in ratios if each and each.surely_faster]
    return min(surely, key=lambda each: each.time.value, default=None)


def _cannot_run(bench: _Bench) -> str:
    reasons = {name: why for one in bench.observed for name, why in one.not_usable.items() if name in bench.programs}
    return "; ".join(f"{runtime} cannot be used here ({why})" for runtime, why in reasons.items())
