"""Which file to ship to a target, whether the limits are met, and why, in words for the user."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.artifacts import Check, Comparison, Verdict
from pipeline.spec import Precision, RecipeLimits, TargetProfile
from pipeline.stats import Interval

# A file must do what was trained.  Runtimes may round a last bit the other way, which turns an input whose two best
# classes are a step apart; more than one in 200 such inputs would be another network.
SAME_CLASS_MIN = 0.995


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A file that could be shipped, as the target's runtime runs it."""

    key: str  # "onnx-int8" …
    precision: Precision
    runtime: str
    accuracy: float  # 0 … 1, test split
    size_bytes: int
    peak_memory_bytes: int | None  # None: could not be measured
    latency_p95_ms: float | None  # on the target itself; None: not measured there


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All that the verdict looks at."""

    target: TargetProfile
    limits: RecipeLimits
    machine: str  # where it was measured
    machine_is_target: bool
    fp32: Candidate | None
    int8: Candidate | None  # None: no such file, or nothing here that runs it
    comparison: Comparison | None
    same_class: (
        float | None
    )  # share of test inputs on which the int8 file gives the class of the fake-quantized network
    saturating_layers: int  # that could overflow where the target saturates
    int8_time: Interval | None  # time of int8 / time of fp32 in the target's runtime, on ``machine``
    cannot_run: str = ""  # why no file of the target's format could be run at all


@dataclass(frozen=True, kw_only=True)
class _Tried:
    candidate: Candidate
    checks: tuple[Check, ...]

    @property
    def missed(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if check.passed is False)


def decide(evidence: Evidence) -> Verdict:
    """Give the target's precision if it meets every limit (and is not slower on the target itself), else the other.

    The checks are those of the preferred file and, where it does not ship, of the other one as well: a limit that the
    preferred file misses is a missed limit, even where the other file is a way out.
    """
    tried = [_try(candidate, evidence) for candidate in (evidence.int8, evidence.fp32) if candidate]
    tried.sort(key=lambda each: each.candidate.precision != evidence.target.precision)
    fit = [each for each in tried if not each.missed]
    if not fit:
        return _verdict(evidence, None, tried, _why_none(tried, evidence))
    chosen = fit[0]
    if len(fit) == 2 and chosen.candidate.precision == "int8" and _is_slower_there(evidence):
        chosen = fit[1]
    looked_at = tried if chosen is not tried[0] else tried[:1]
    return _verdict(evidence, chosen.candidate.key, looked_at, _why(chosen, tried, evidence))


def _verdict(evidence: Evidence, ship: str | None, looked_at: list[_Tried], why: str) -> Verdict:
    # by name: the float accuracy is a check of both files
    unique = {check.name: check for each in looked_at for check in each.checks}
    return Verdict(target=evidence.target.name, checks=tuple(unique.values()), ship=ship, why=why)


# ── limits ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _try(candidate: Candidate, evidence: Evidence) -> _Tried:
    limits = evidence.target.limits
    name = candidate.precision
    rows = [
        *_accuracy_checks(candidate, evidence),
        _at_most(f"file size ({name})", limits.size_bytes, candidate.size_bytes, "bytes"),
        _at_most(f"latency p95 ({name})", limits.latency_p95_ms, candidate.latency_p95_ms, "ms"),
        _at_most(f"peak memory ({name})", limits.peak_memory_bytes, candidate.peak_memory_bytes, "bytes"),
    ]
    return _Tried(candidate=candidate, checks=tuple(row for row in rows if row is not None))


def _accuracy_checks(candidate: Candidate, evidence: Evidence) -> list[Check | None]:
    lowest = evidence.limits.accuracy_min
    rows = [
        _at_least(f"accuracy ({each.precision})", lowest, each.accuracy)
        for each in (evidence.fp32, candidate if candidate.precision == "int8" else None)
        if each is not None
    ]
    if candidate.precision == "fp32":
        return [*rows]
    drops = (evidence.limits.accuracy_drop_pp, evidence.target.limits.accuracy_drop_pp)
    allowed = min((drop for drop in drops if drop is not None), default=None)
    drop = -evidence.comparison.difference_pp if evidence.comparison else None
    saturates = evidence.target.saturates_int16 and evidence.target.runtime == "onnxruntime"  # LiteRT adds in 32 bits
    return [
        *rows,
        _at_most("accuracy drop (int8)", allowed, drop, "pp"),
        _at_least("same class as trained (int8)", SAME_CLASS_MIN, evidence.same_class),
        _at_most("layers that can overflow 16 bits (int8)", 0 if saturates else None, evidence.saturating_layers, ""),
    ]


def _at_most(name: str, limit: float | None, got: float | None, unit: str) -> Check | None:
    if limit is None:
        return None
    return Check(name=name, limit=limit, got=got, unit=unit, passed=None if got is None else _not_above(got, limit))


def _at_least(name: str, limit: float | None, got: float | None) -> Check | None:
    """Shares, as per cent."""
    if limit is None:
        return None
    passed = None if got is None else _not_above(limit, got)
    return Check(name=name, limit=100 * limit, got=None if got is None else 100 * got, unit="%", passed=passed)


def _not_above(low: float, high: float) -> bool:
    return low <= high + 1e-9  # 0.97 - 0.96 is not 0.01 in binary


def _is_slower_there(evidence: Evidence) -> bool:
    return evidence.machine_is_target and evidence.int8_time is not None and evidence.int8_time.low > 1


# ── words ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _why(chosen: _Tried, tried: list[_Tried], evidence: Evidence) -> str:
    name = chosen.candidate.precision
    everything = "every limit that could be measured" if _unmeasured(chosen) else "every limit"
    reason = _why_not_preferred(chosen, tried, evidence)
    text = f"{reason}{name} in {chosen.candidate.runtime} meets {everything}: {_accuracy(chosen.candidate, evidence)}"
    return f"{text}; {_speed(evidence)}" if name == "int8" else text


def _why_not_preferred(chosen: _Tried, tried: list[_Tried], evidence: Evidence) -> str:
    if chosen is not tried[0]:
        preferred = tried[0].candidate.precision
        if tried[0].missed:
            return f"not {preferred}, which misses {_listed(tried[0])}; "
        return f"not {preferred}, which is slower here ({_times(evidence.int8_time)}); "
    if chosen.candidate.precision != evidence.target.precision:
        return f"there is no {evidence.target.precision} file; "
    return ""


def _why_none(tried: list[_Tried], evidence: Evidence) -> str:
    if not tried:
        return f"not fit: {evidence.cannot_run or 'there is no file for this target'}"
    return "not fit: " + "; ".join(f"{each.candidate.precision} misses {_listed(each)}" for each in tried)


def _listed(tried: _Tried) -> str:
    words = []
    for check in tried.missed:
        name, _, whose = check.name.removesuffix(")").rpartition(" (")
        if whose != tried.candidate.precision:  # the float accuracy is asked of both files
            name = f"{name} of {whose}"
        limit = _amount(check.limit, check.unit)
        bound = f"at least {limit} wanted" if check.unit == "%" else f"at most {limit} allowed"
        words.append(f"{name} ({_amount(check.got, check.unit)}, {bound})")
    return " and ".join(words)


def _unmeasured(tried: _Tried) -> bool:
    return any(check.passed is None for check in tried.checks)


def _accuracy(candidate: Candidate, evidence: Evidence) -> str:
    text = f"{100 * candidate.accuracy:.2f} % accuracy"
    comparison = evidence.comparison
    if candidate.precision == "fp32" or comparison is None:
        return text
    interval = f"{comparison.low_pp:+.2f} … {comparison.high_pp:+.2f}"
    text += f", {comparison.difference_pp:+.2f} pp against float (95 % interval {interval})"
    if evidence.fp32:
        text += f", {100 * candidate.size_bytes / evidence.fp32.size_bytes:.0f} % of its bytes"
    return text


def _speed(evidence: Evidence) -> str:
    if evidence.machine_is_target:
        return _times(evidence.int8_time) if evidence.int8_time else "its latency was not measured"
    text = f"its latency on {evidence.target.title} was not measured"
    return f"{text} (a hint: on {evidence.machine} {_times(evidence.int8_time)})" if evidence.int8_time else text


def _times(ratio: Interval | None) -> str:
    if ratio is None:
        return "no latency was measured"
    return f"int8 takes {ratio.value:.2f} times as long as float, {ratio.low:.2f} … {ratio.high:.2f}"


def _amount(value: float | None, unit: str) -> str:
    if value is None:
        return "not measured"
    if unit == "bytes":
        return f"{value / 2**20:.1f} MiB" if value >= 2**20 else f"{value / 2**10:.1f} KiB"
    digits = {"": 0, "%": 2, "pp": 2}.get(unit, 3)
    return f"{value:.{digits}f} {unit}".rstrip()
