"""The time of one inference in a runtime on a target, with the error bar that the reference table gives it."""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Mapping

from pipeline.artifacts.evidence import Interval
from pipeline.estimating.corrected import Correction, correction
from pipeline.estimating.fit import Fit, estimate, fitted
from pipeline.estimating.table import Row, own_version, reference

_FEWEST = 10  # networks of one runtime that make a fit


def predicted(counts: Mapping[str, float], *, cpu: str, clock_mhz: int, runtime: str) -> tuple[Interval, str] | None:
    """Return the ms and what they rest on, in words; None for a processor of which nobody published times."""
    fit = fit_of(cpu)
    if fit is None:
        return None
    learnt = corrections(fit)
    bar, why = error_bar(fit, runtime)
    found = estimate(fit, counts, clock_mhz=clock_mhz, error_bar=bar)
    factor = learnt[runtime].factor if runtime in learnt else 1.0
    return Interval(value=factor * found.value, low=factor * found.low, high=factor * found.high), why


def fit_of(cpu: str) -> Fit | None:
    """Return the fit on one processor's rows of the runtime that has enough; None where none has."""
    return _fit_of(cpu, own_version())


@functools.cache
def _fit_of(cpu: str, _version: str) -> Fit | None:
    rows = fitted_rows(cpu)
    return fitted(rows) if len(rows) >= _FEWEST else None


def fitted_rows(cpu: str) -> list[Row]:
    """Return a processor's rows of the runtime, at the clock, of which there are most."""
    rows = [row for row in reference() if row.cpu == cpu]
    most = Counter((row.runtime, row.clock_mhz) for row in rows).most_common(1)
    return [row for row in rows if (row.runtime, row.clock_mhz) == most[0][0]] if most else []


def fits() -> tuple[Fit, ...]:
    """Return the fits of all processors that can be fitted."""
    found = (fit_of(cpu) for cpu in dict.fromkeys(row.cpu for row in reference()))
    return tuple(fit for fit in found if fit is not None)


def held_out(fit: Fit) -> tuple[tuple[Row, float], ...]:
    """Return the rows of other runtimes on the same processor, and estimated / published - 1 of each."""
    used = fitted_rows(fit.cpu)
    rest = [row for row in reference() if row.cpu == fit.cpu and row.runtime != used[0].runtime]
    return tuple(
        (row, estimate(fit, row.counts, clock_mhz=row.clock_mhz, error_bar=1.0).value / row.published_ms - 1)
        for row in rest
    )


def corrections(fit: Fit) -> dict[str, Correction]:
    """Return what is learnt of other runtimes from their times on the same processor."""
    ratios: dict[str, list[tuple[str, float]]] = {}
    for row, error in held_out(fit):
        if error <= -1:  # of what was counted nothing takes time
            continue
        ratios.setdefault(row.runtime, []).append((row.model, 1 / (1 + error)))
    return {runtime: correction(some) for runtime, some in ratios.items()}


def error_bar(fit: Fit, runtime: str) -> tuple[float, str]:
    """Return the factor to both sides: of networks left out and, for another runtime, of what is known of that."""
    learnt = corrections(fit)
    if runtime in learnt:
        own = learnt[runtime]
        bar = fit.error_bar * math.exp(own.furthest)
        known = "known" if own_version() else "published"
        said = f"{runtime} within a factor of {bar:.2f}, as its {known} times lay"
        by = f" × {own.factor:.2f}, which {own.networks} networks gave" if own.factor != 1 else ""
        return bar, said + by
    bar = fit.error_bar * math.exp(max((each.furthest for each in learnt.values()), default=math.log(2)))
    return bar, f"{runtime} within a factor of {bar:.2f}, as other runtimes lay: no time of it was published"
