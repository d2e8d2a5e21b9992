"""Which file to ship to a target, whether the limits are met, and why, in words for the user."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from pipeline.artifacts.evidence import CannotRun, Metric
from pipeline.artifacts.files import Way
from pipeline.artifacts.outcome import Check, State, Verdict
from pipeline.declare.words import Precision
from pipeline.judging.case import Candidate, Case
from pipeline.judging.limits import checks_of, failures_of
from pipeline.judging.speed import TimeRatio


@dataclass(frozen=True, kw_only=True)
class _Tried:
    candidate: Candidate
    checks: tuple[Check, ...]

    @property
    def missed(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if check.holds is False)

    def of_state(self, state: State) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if check.state == state)


def decide(case: Case) -> Verdict:
    """Give the target's precision if it meets every limit (and is not slower on the target itself), else the other.

    What was found decides, not its interval: a limit inside the interval is met or missed, and told to be uncertain.
    The checks are those of the preferred file and, where it does not ship, of the other one as well: a limit that the
    preferred file misses is a missed limit, even where the other file is a way out.
    """
    tried = [_Tried(candidate=each, checks=checks_of(each, case)) for each in (case.int8, case.fp32) if each]
    tried.sort(key=lambda each: each.candidate.precision != case.target.precision)
    fit = [each for each in tried if not each.missed]
    if not fit:
        return _verdict(case, None, tried, _why_none(tried, case))
    chosen = fit[0]
    if len(fit) == 2 and chosen.candidate.precision == "int8" and case.slower_there:
        chosen = fit[1]
    looked_at = tried if chosen is not tried[0] else tried[:1]
    return _verdict(case, chosen.candidate.way, looked_at, _why(chosen, tried, case))


def _verdict(case: Case, ship: Way | None, looked_at: list[_Tried], why: str) -> Verdict:
    checks = [*failures_of(case, case.target.precision), *(check for each in looked_at for check in each.checks)]
    # the float file's metric is a check of both files
    unique = {(check.quantity, check.variant, check.unit): check for check in checks}
    return Verdict(target=case.target.name, checks=tuple(unique.values()), ship=ship, why=why)


# ── words ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _why(chosen: _Tried, tried: list[_Tried], case: Case) -> str:
    name = chosen.candidate.precision
    reason = _why_not_preferred(chosen, tried, case)
    if name == "int8" and _only_smaller(case):
        reason = f"{reason}smaller, but not faster and no better in {case.metric.name}: "
    text = f"{reason}{name} in {chosen.candidate.label} {_meets(chosen)}: {_value(chosen.candidate, case)}"
    text = f"{text}; {_speed(case)}" if name == "int8" else text
    return text + _beside(chosen.candidate, case)


def _only_smaller(case: Case) -> bool:
    """Tell whether int8 is surely slower, wherever it was timed, and not surely better in the task's metric."""
    found, time = case.comparison, case.int8_time
    if found is None or time is None or time.time.low <= 1:
        return False
    return not (found.one_sided_low > 0 if case.metric.higher_is_better else found.one_sided_high < 0)


def _beside(candidate: Candidate, case: Case) -> str:
    """Name a faster way that does not ship, and why."""
    faster = case.faster
    if faster is None or faster.than != candidate.way:
        return ""
    return (
        f"; {faster.way.key} takes {faster.time.value:.2f} times as long as that ({faster.place.text}), but "
        f"{case.target.name} has {case.target.runtime} as its runtime"
    )


def _meets(chosen: _Tried) -> str:
    text = "meets every limit that could be measured" if chosen.of_state("open") else "meets every limit"
    unsure = dict.fromkeys(check.quantity for check in chosen.of_state("uncertain"))
    return text + (f", {' and '.join(unsure)} not for sure" if unsure else "")


def _why_not_preferred(chosen: _Tried, tried: list[_Tried], case: Case) -> str:
    if chosen is not tried[0]:
        preferred = tried[0].candidate.precision
        if tried[0].missed:
            return f"not {preferred}, which misses {_listed(tried[0])}; "
        place = f", {case.int8_time.place.text}" if case.int8_time else ""
        return f"not {preferred}, which is slower there ({_times(case.int8_time)}{place}); "
    if chosen.candidate.precision != case.target.precision:
        failed = "; ".join(failures(case.failed, case.target.precision))
        return f"not {failed}; " if failed else f"there is no {case.target.precision} file; "
    return ""


def failures(failed: Iterable[CannotRun], precision: Precision | None = None) -> Iterator[str]:
    """Say what the target does not run, and how it shows: ``onnx-int8: onnxruntime 1.32.0 was ended by SIGILL``."""
    for each in failed:
        if precision in (None, each.way.variant.precision):
            yield f"{each.way.variant.key}: {each.said}"


def _why_none(tried: list[_Tried], case: Case) -> str:
    if not tried:
        reasons = ("; ".join(failures(case.failed)), case.cannot_run, "there is no file for this target")
        return f"not fit: {next(filter(None, reasons))}"
    missed: dict[tuple[str, str, float], dict[str, Check]] = {}
    for check in (check for each in tried for check in each.missed):
        missed.setdefault((check.quantity, check.bound, check.limit), {})[check.variant.precision] = check
    return "not fit: " + "; ".join(_missed_by(found) for found in missed.values())


def _missed_by(found: Mapping[str, Check]) -> str:
    """``mIoU is 66.67 % (float) and 66.11 % (int8), at least 75.00 % wanted``."""
    check = next(iter(found.values()))
    got = [
        f"{_amount(each.got, each.unit)} ({'float' if precision == 'fp32' else precision})"
        for precision, each in sorted(found.items())
    ]
    sure = ", not for sure" if all(each.state == "uncertain" for each in found.values()) else ""
    limit = _amount(check.limit, check.unit)
    return f"{check.quantity} is {' and '.join(got)}, {check.bound} {limit} {_asked(check)}{sure}"


def _listed(tried: _Tried) -> str:
    words = []
    for check in tried.missed:
        is_own = check.variant == tried.candidate.way.variant  # the float file's metric is asked of both files
        name = check.quantity if is_own else f"{check.quantity} of {check.variant.precision}"
        sure = ", not for sure" if check.state == "uncertain" else ""
        got, limit = _amount(check.got, check.unit), _amount(check.limit, check.unit)
        words.append(f"{name} ({got}, {check.bound} {limit} {_asked(check)}{sure})")
    return " and ".join(words)


def _asked(check: Check) -> str:
    return "wanted" if check.bound == "at least" else "allowed"


def _value(candidate: Candidate, case: Case) -> str:
    text = _said(case.metric, candidate.answered.value)
    comparison = case.comparison
    if candidate.precision == "fp32" or comparison is None:
        return text
    interval = f"95 % interval {_change(case.metric, comparison.low)} … {_change(case.metric, comparison.high)}"
    unit = "pp" if case.metric.unit == "share" else case.metric.unit
    text += f", {_change(case.metric, comparison.difference)} {unit}".rstrip() + f" against float ({interval})"
    if case.fp32:
        text += f", {100 * candidate.file.size_bytes / case.fp32.file.size_bytes:.0f} % of its bytes"
    return text


def _said(metric: Metric, value: float) -> str:
    """``97.50 % mIoU``, ``RMSE 0.4312``."""
    return f"{metric.text(value, 2)} {metric.name}" if metric.unit == "share" else f"{metric.name} {metric.text(value)}"


def _change(metric: Metric, value: float) -> str:
    value += 0.0  # no negative zero
    return f"{100 * value:+.2f}" if metric.unit == "share" else f"{value:+.3g}"


def _speed(case: Case) -> str:
    there = case.int8.latency_p95_ms if case.int8 else None
    found = case.int8_time
    said = []
    if there and there.place.how == "estimated":
        said.append(f"latency p95 {there.value:.3g} ms ({there.low:.3g} … {there.high:.3g}), {there.place.text}")
    elif there and not case.timed_there:
        said.append(f"latency p95 {there.value:.3g} ms, {there.place.text}")
    if found and case.timed_there:
        said.append(_times(found))
    if said:
        return "; ".join(said)
    text = f"its latency on {case.target.title} was not measured"
    return f"{text} (a hint: on {found.place.name} {_times(found)})" if found else text


def _times(found: TimeRatio | None) -> str:
    return f"int8 takes {found.text.replace('long,', 'long as float,')}" if found else "no latency was measured"


def _amount(value: float | None, unit: str) -> str:
    if value is None:
        return "not measured"
    if unit == "bytes":
        return f"{value / 2**20:.1f} MiB" if value >= 2**20 else f"{value / 2**10:.1f} KiB"
    if unit == "share":
        return f"{100 * value:.2f} %"
    if unit in ("%", "pp"):
        return f"{value:.2f} {unit}"
    return f"{value:.4g} {unit}".rstrip()
