"""The limits of a recipe and of a target, each as a check of one file: what is asked and what was found."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pipeline.artifacts.evidence import Comparison, Interval, Measurement, Metric
from pipeline.artifacts.files import Variant
from pipeline.artifacts.outcome import Bound, Check
from pipeline.declare.recipe import MetricLimits
from pipeline.declare.target import TargetProfile
from pipeline.declare.words import Precision
from pipeline.judging.case import Candidate, Case

# A file must do what was trained.  Runtimes may round a last bit the other way, which turns an input whose two best
# answers are a step apart; more than one in 200 such inputs would be another network.
SAME_DECISION_MIN = 0.995
SAME_DECISION = "same decision as trained"
SAME_AS_FLOAT = "same decision as float"
OVERFLOW = "layers that can overflow 16 bits"
FAILS = "failures there"


def checks_of(candidate: Candidate, case: Case) -> tuple[Check, ...]:
    """Check all limits for one file; for an int8 file also those of the float file's metrics and of what it lost."""
    return (
        *_metric_checks(candidate, case),
        *_baseline_checks(candidate, case),
        *(_int8_checks(candidate, case) if candidate.precision == "int8" else ()),
        *_cost_checks(candidate, case),
    )


def failures_of(case: Case, precision: Precision) -> tuple[Check, ...]:
    """Miss a limit for the files of a precision that the target does not run, in any of its runtimes."""
    failed = {each.way.variant: each for each in case.failed if each.way.variant.precision == precision}
    runs = case.int8 if precision == "int8" else case.fp32
    return () if runs else tuple(failure(variant) for variant in failed)


def failure(variant: Variant) -> Check:
    """Miss a limit, as a file does that the target does not run."""
    return _check(variant, FAILS, exactly(1), limit=0, unit="")


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What a file takes on a target; None: nobody measured it there."""

    size_bytes: int
    latency_p95_ms: Interval | None
    peak_memory_bytes: Interval | None


def file_checks(
    target: TargetProfile, variant: Variant, metric: Metric, comparison: Comparison | None, costs: Costs
) -> tuple[Check, ...]:
    """Check a target's limits for a file of any origin; ``comparison`` is with its float file."""
    limits = target.limits
    worse = _worse(comparison, higher_is_better=metric.higher_is_better) if comparison else None
    unit, factor = "pp", 100.0
    if metric.unit != "share":
        unit, factor = "%", 100 / max(abs(comparison.value_float), 1e-12) if comparison else 1.0
    found: tuple[tuple[str, float | None, Interval | None, str], ...] = (
        ("file size", limits.size_bytes, _exactly(costs.size_bytes), "bytes"),
        (
            drop_name(metric.name, higher_is_better=metric.higher_is_better),
            limits.accuracy_drop_pp,
            _scaled(worse, factor),
            unit,
        ),
        ("latency p95", limits.latency_p95_ms, costs.latency_p95_ms, "ms"),
        ("peak memory", limits.peak_memory_bytes, costs.peak_memory_bytes, "bytes"),
    )
    return tuple(
        _check(variant, name, interval, limit=limit, unit=of)
        for name, limit, interval, of in found
        if limit is not None
    )


def drop_name(metric: str, *, higher_is_better: bool) -> str:
    """``PSNR drop``, ``RMSE rise``: what a loss in a metric is called."""
    return f"{metric} {'drop' if higher_is_better else 'rise'}"


def _metric_checks(candidate: Candidate, case: Case) -> Iterator[Check]:
    is_int8 = candidate.precision == "int8"
    for name in dict.fromkeys((*case.limits.named, case.metric.name)):
        asked = case.limits.of(name)
        for each in (case.fp32, candidate) if is_int8 else (candidate,):
            if each:
                yield from _bounds(each, name, asked, case)
        if is_int8 and name == case.metric.name:
            yield from _drops(candidate, asked, case)
        elif is_int8:
            yield from _further_drops(candidate, name, asked, case)


def _bounds(candidate: Candidate, name: str, asked: MetricLimits, case: Case) -> Iterator[Check]:
    """Check the least and the most; a metric beside the task's own one has no interval."""
    answered = candidate.answered
    if name == case.metric.name:
        found: Interval | None = Interval(value=answered.value, low=answered.low, high=answered.high)
    else:
        found = _exactly(answered.others.get(name))
    bounds: tuple[tuple[Bound, float | None], ...] = (("at least", asked.min), ("at most", asked.max))
    for bound, limit in bounds:
        if limit is not None:
            yield _check(
                candidate.way.variant,
                name,
                found,
                bound=bound,
                limit=limit,
                unit=case.metric_of(name).unit,
                samples=_samples(case),
            )


def _baseline_checks(candidate: Candidate, case: Case) -> Iterator[Check]:
    """Check that the network beats those that do not look at the inputs, and surely so."""
    better_first = sorted(case.baselines.items(), key=lambda each: each[1], reverse=case.metric.higher_is_better)
    for name, value in better_first[:1]:
        higher, answered = case.metric.higher_is_better, candidate.answered
        yield _check(
            candidate.way.variant,
            f"{case.metric.name} {'above' if higher else 'below'} {name}",
            Interval(value=answered.value, low=answered.low, high=answered.high),
            bound="at least" if higher else "at most",
            limit=value,
            unit=case.metric.unit,
            samples=_samples(case),
            surely=True,
        )


# ── int8 against float ──────────────────────────────────────────────────────────────────────────────────────────────


def _drops(candidate: Candidate, asked: MetricLimits, case: Case) -> Iterator[Check]:
    """Check what int8 lost in the task's metric: in its unit (shares: percentage points), and in per cent of float's.

    The target's ``accuracy_drop_pp`` means points of a share and per cent of all other metrics; the stricter counts.
    """
    metric, comparison = case.metric, case.comparison
    is_share, from_target = metric.unit == "share", case.target.limits.accuracy_drop_pp
    points = asked.worse_by if asked.worse_by is None or not is_share else 100 * asked.worse_by
    name = drop_name(metric.name, higher_is_better=metric.higher_is_better)
    worse = _worse(comparison, higher_is_better=metric.higher_is_better) if comparison else None
    strictest = _least((points, from_target if is_share else None))
    if strictest is not None:
        found = _scaled(worse, 100) if is_share else worse
        yield _check(
            candidate.way.variant,
            name,
            found,
            limit=strictest,
            unit="pp" if is_share else metric.unit,
            samples=_samples(case),
        )
    strictest = _least((asked.worse_by_percent, None if is_share else from_target))
    if strictest is not None:
        found = _scaled(worse, 100 / max(abs(comparison.value_float), 1e-12)) if comparison else None
        yield _check(candidate.way.variant, name, found, limit=strictest, unit="%", samples=_samples(case))


def _further_drops(candidate: Candidate, name: str, asked: MetricLimits, case: Case) -> Iterator[Check]:
    """Check what int8 lost in a metric beside the task's own one; it has no interval."""
    metric = case.metric_of(name)
    before = case.fp32.answered.others.get(name) if case.fp32 else None
    after = candidate.answered.others.get(name)
    worse = None if before is None or after is None else _exactly(metric.worse_by(after, before))
    title, is_share = drop_name(name, higher_is_better=metric.higher_is_better), metric.unit == "share"
    if asked.worse_by is not None:
        limit, found = (100 * asked.worse_by, _scaled(worse, 100)) if is_share else (asked.worse_by, worse)
        yield _check(candidate.way.variant, title, found, limit=limit, unit="pp" if is_share else metric.unit)
    if asked.worse_by_percent is not None:
        relative = None if before is None else _scaled(worse, 100 / max(abs(before), 1e-12))
        yield _check(candidate.way.variant, title, relative, limit=asked.worse_by_percent, unit="%")


def _int8_checks(candidate: Candidate, case: Case) -> Iterator[Check]:
    variant, same = candidate.way.variant, _exactly(case.same)
    yield _check(variant, SAME_DECISION, same, bound="at least", limit=SAME_DECISION_MIN, unit="share")
    comparison = case.comparison
    asked = case.limits.agreement_min
    if asked is None and comparison:
        asked = comparison.agreement_min
    if asked is not None:
        found = _exactly(comparison.agreement) if comparison else None
        yield _check(variant, SAME_AS_FLOAT, found, bound="at least", limit=asked, unit="share")
    # LiteRT adds in 32 bits everywhere
    if case.target.saturates_int16 and candidate.way.program == "onnxruntime":
        yield _check(variant, OVERFLOW, _exactly(case.saturating_layers), limit=0, unit="")


# ── what it costs ───────────────────────────────────────────────────────────────────────────────────────────────────


def _cost_checks(candidate: Candidate, case: Case) -> Iterator[Check]:
    limits = case.target.limits
    if limits.size_bytes is not None:
        found = _exactly(candidate.file.size_bytes)
        yield _check(candidate.way.variant, "file size", found, limit=limits.size_bytes, unit="bytes")
    if limits.latency_p95_ms is not None:
        found = _as_interval(candidate.latency_p95_ms)
        yield _check(candidate.way.variant, "latency p95", found, limit=limits.latency_p95_ms, unit="ms")
    if limits.peak_memory_bytes is not None:
        found = _as_interval(candidate.peak_memory_bytes)
        yield _check(candidate.way.variant, "peak memory", found, limit=limits.peak_memory_bytes, unit="bytes")


# ── helpers ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _check(
    variant: Variant,
    quantity: str,
    found: Interval | None,
    *,
    bound: Bound = "at most",
    limit: float,
    unit: str,
    samples: int | None = None,
    surely: bool = False,
) -> Check:
    return Check(
        quantity=quantity,
        variant=variant,
        bound=bound,
        limit=limit,
        unit=unit,
        got=found.value if found else None,
        low=found.low if found else None,
        high=found.high if found else None,
        samples=samples if found and found.low != found.high else None,
        surely=surely,
    )


def _samples(case: Case) -> int | None:
    return case.comparison.samples if case.comparison else None


def _worse(found: Comparison, *, higher_is_better: bool) -> Interval:
    """By how much int8 is worse, with its one-sided 95 % bounds."""
    if not higher_is_better:
        return Interval(value=found.difference, low=found.one_sided_low, high=found.one_sided_high)
    # 0.0 - x, not -x: no loss must not be printed as a negative zero
    return Interval(value=0.0 - found.difference, low=0.0 - found.one_sided_high, high=0.0 - found.one_sided_low)


def exactly(value: float) -> Interval:
    """Return what is known without doubt."""
    return Interval(value=value, low=value, high=value)


def _exactly(value: float | None) -> Interval | None:
    return None if value is None else exactly(value)


def _as_interval(found: Measurement | None) -> Interval | None:
    return Interval(value=found.value, low=found.low, high=found.high) if found else None


def _scaled(found: Interval | None, factor: float) -> Interval | None:
    return found and Interval(value=factor * found.value, low=factor * found.low, high=factor * found.high)


def _least(values: Iterable[float | None]) -> float | None:
    return min((value for value in values if value is not None), default=None)
